"""All microbenchmarks, and the process that runs them: ``python -m diagnose.probes.microbench GPU NAME…``.

They run in a process of their own, so that a kernel that crashes or hangs takes only itself along. It prints
one JSON object a line: `gpu`, then for each benchmark `begin`, its `row` objects, `failed` or `skipped`, and `end`.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from diagnose.errors import ProbeError

from . import microkernels, microkernels_compute, microkernels_torch, microkernels_transfer
from .bench_rows import Ceilings, Entry
from .cuda_device import CudaError, Device, NotHere

ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for module in (microkernels_torch, microkernels, microkernels_compute, microkernels_transfer)
    for entry in module.ENTRIES
}
IMPOSSIBLE = 1.05  # of a limit: clocks and rounding explain this much
LOST = 70  # exit status: the device's context is lost, start again with what is left


def _say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def _versions() -> dict[str, str | None]:
    out: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "torch"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = None
    return out


def describe(device: Device, ceilings: Ceilings) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "index": device.index, "name": ceilings.name, "visible": device.count,
        "compute_capability": f"{device.cc[0]}.{device.cc[1]}", "multiprocessors": device.sms, "l2_bytes": device.l2,
        "free_bytes": device.free, "unknown": ceilings.unknown, **ceilings.nvml.facts(), "versions": _versions(),
    }  # fmt: skip


def main(argv: list[str]) -> int:
    """Run the named benchmarks on one GPU."""
    try:
        device = Device(int(argv[0]))
        ceilings = Ceilings(device)
        _say(event="gpu", gpu=describe(device, ceilings))
    except ProbeError as err:
        _say(event="unavailable", reason=err.message, hint=err.hint)
        return 3
    for name in argv[1:]:
        _say(event="begin", name=name)
        start = time.monotonic()
        try:
            for row in ENTRIES[name].run(device, ceilings):
                if row.limit is not None and not row.lower_is_better and row.value > IMPOSSIBLE * row.limit:
                    # faster than the hardware: work was optimised away, so this is no measurement
                    why = f"{row.name} came out at {row.value:.4g} of {row.limit:.4g} {row.unit}: not trusted"
                    _say(event="failed", name=name, reason=why)
                else:
                    _say(event="row", row=row.to_json())
        except NotHere as err:
            _say(event="skipped", name=name, reason=err.message)
        except ProbeError as err:
            _say(event="failed", name=name, reason=err.message)
        except RuntimeError as err:  # PyTorch's own errors
            _say(event="failed", name=name, reason=f"{type(err).__name__}: {str(err).strip().splitlines()[0]}")
        try:
            device.sync()
        except CudaError as err:
            _say(event="failed", name=name, reason=f"the context is lost: {err.message}")
            return LOST
        _say(event="end", name=name, seconds=round(time.monotonic() - start, 2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
