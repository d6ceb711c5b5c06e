"""The NCCL sweep beside a job: it takes only what is free, and its own lack of memory is no finding."""

from __future__ import annotations

import pytest
from diagnose.probes import live_nccl

from diagnose import nvml
from diagnose.collect import Capture, NotCaptured
from diagnose.host import Host
from diagnose.runner import Ran

GIB = 1 << 30


@pytest.mark.parametrize(
    ("free", "size"),
    [(79 * GIB, GIB), (int(5.6 * GIB), GIB), (int(2.9 * GIB), 256 << 20), (2 * GIB, 128 << 20), (0, 1)],
)
def test_the_largest_size_fits_beside_what_runs(monkeypatch: pytest.MonkeyPatch, free: int, size: int) -> None:
    monkeypatch.setattr(nvml, "least_free", lambda: free)
    assert live_nccl.largest() == size


def test_full_gpus_are_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "least_free", lambda: GIB)
    monkeypatch.setattr(nvml, "count", lambda: 2)
    (ready,) = {c.ready(Host()) for c in live_nccl.COLLECTORS}
    assert ready is not None and "1792 MiB must be free" in ready


@pytest.mark.parametrize(
    ("said", "kind"), [(b"torch.OutOfMemoryError: CUDA out of memory", NotCaptured), (b"# ok", Capture)]
)
def test_running_out_of_memory_is_not_evidence(monkeypatch: pytest.MonkeyPatch, said: bytes, kind: type) -> None:
    """The message would read as if the job under test had failed."""
    monkeypatch.setattr(nvml, "least_free", lambda: 79 * GIB)
    host = Host()
    ran = Ran(("x",), 0.0, 0.1, 1, said)
    monkeypatch.setattr(Host, "run", lambda self, *a, **k: ran)
    (got,) = live_nccl._run(host, "nccl.tests", ["x"], {}, 1.0)
    assert isinstance(got, kind)
