"""What this machine is and has, as named checks: each true, false or not known, with what says so and what is missing.

Quick and harmless: files, versions of installed packages, `ucx_info -v` and NVML. Nothing is measured.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from diagnose.document import Document
from diagnose.errors import ProbeError
from diagnose.host import Host
from diagnose.models import Fact

from .live_rdma import surroundings, sysfs
from .live_ucx import tool
from .rdma_sysfs import SysfsReader


@dataclass(frozen=True)
class Check:
    """One thing that an experiment needs.

    Attributes:
        has: None where it cannot be known. evidence: what says so.
        kind: what is missing when it is not there: hardware, driver, package, permission, machine.
        get: how to come by it. limit: what it can do at most, where something says so.
    """

    has: bool | None
    evidence: str
    kind: str = "hardware"
    get: str = ""
    limit: str = ""


_VM = re.compile(
    r"QEMU|KVM|VMware|VirtualBox|Xen|Microsoft Corporation|Amazon EC2|Google|OpenStack|Parallels|Bochs", re.I
)
_UNKNOWN_TOOLS = "programs of a recorded machine are not known"
_NCCL = ("nvidia-nccl-cu12", "nvidia-nccl-cu13", "torch")
_GET_NIXL = "pip install --no-deps nixl-cu12==1.5.1 nixl==1.5.1; pip install numpy"
_CONTAINER = re.compile(r"docker|kubepods|containerd|libpod|lxc|garden")
# PCI ids of adapters that a GPU can drive: ConnectX-6 Dx, ConnectX-7, ConnectX-8, BlueField-2 and -3
_DRIVEN = {"0x101d": "ConnectX-6 Dx", "0x1021": "ConnectX-7", "0x1023": "ConnectX-8", "0xa2d6": "BlueField-2",
           "0xa2dc": "BlueField-3"}  # fmt: skip


def _text(host: Host, pattern: str) -> str:
    return host.files([pattern]).decode("utf-8", "replace").strip()


def kind_of_host(host: Host) -> list[str]:
    """What kind of machine it is, in words: ``WSL2``, ``Windows``, ``container``, ``virtual machine`` …"""
    if host.recorded:
        return ["recorded tree"]
    if sys.platform == "win32":
        return ["Windows"]
    if sys.platform == "darwin":
        return ["macOS"]
    out = []
    if "microsoft" in _text(host, "/proc/version").lower():
        out.append("WSL2")
    cgroup, inside = _text(host, "/proc/1/cgroup"), host.glob("/.dockerenv") + host.glob("/run/.containerenv")
    if inside or _CONTAINER.search(cgroup) or "KUBERNETES_SERVICE_HOST" in host.environ:
        out.append("container")
    maker = _text(host, "/sys/class/dmi/id/sys_vendor") + " " + _text(host, "/sys/class/dmi/id/product_name")
    flags = _text(host, "/proc/cpuinfo")[:8000]
    if "WSL2" not in out and (_VM.search(maker) or re.search(r"^flags\s*:.*\bhypervisor\b", flags, re.MULTILINE)):
        out.append("virtual machine")
    if host.glob("/etc/nv_tegra_release"):
        out.append("Jetson")
    return out or ["bare metal"]


def stack(host: Host) -> str:
    """Which GPU world this host belongs to: cuda, rocm, metal, vulkan, webgpu or none."""
    if _nvidia(host)[0]:
        return "cuda"
    if host.glob("/dev/kfd") or _vendor(host, "0x1002") or host.find("rocm-smi"):
        return "rocm"
    if sys.platform == "darwin" and not host.recorded:
        return "metal"
    if host.find("vulkaninfo") and host.glob("/dev/dri/renderD*"):
        return "vulkan"
    if not host.recorded and _package("wgpu"):
        return "webgpu"
    return "none"


def _vendor(host: Host, vendor: str) -> int:
    found = 0
    for path in host.glob("/sys/bus/pci/devices/*"):
        try:
            said = (path / "vendor").read_text().strip(), (path / "class").read_text().strip()
        except OSError:
            continue
        found += said[0] == vendor and said[1].startswith(("0x0300", "0x0302", "0x0380", "0x1200"))
    return found


def _nvidia(host: Host) -> tuple[int, str]:
    """Count of NVIDIA GPUs, and what says so."""
    if not host.recorded:
        from diagnose import nvml

        try:
            with nvml.opened() as api:
                count = int(api.nvmlDeviceGetCount())
                names = {api.nvmlDeviceGetName(api.nvmlDeviceGetHandleByIndex(i)) for i in range(count)}
                driver = api.nvmlSystemGetDriverVersion()
            return count, f"NVML shows {count} x {', '.join(sorted(map(str, names)))}, driver {driver}"
        except nvml.NvmlGap as gap:
            seen = _vendor(host, "0x10de")
            return 0, f"NVML: {gap}; {seen or 'no'} NVIDIA device(s) on the PCI bus"
    seen = _vendor(host, "0x10de")
    return seen, f"{seen or 'no'} NVIDIA device(s) on the PCI bus"


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _installed(host: Host, *names: str) -> tuple[bool | None, str]:
    if host.recorded:
        return None, "packages of a recorded machine are not known"
    found = [f"{n} {v}" for n in names if (v := _package(n))]
    return bool(found), ", ".join(found) or f"{' / '.join(names)} not in this Python"


def _tools(host: Host, *names: str) -> tuple[bool | None, str]:
    if host.recorded:
        return None, _UNKNOWN_TOOLS
    found = [n for n in names if host.find(n)]
    return bool(found), ", ".join(found) + " on PATH" if found else f"{' / '.join(names)} not on PATH"


def _ucx(host: Host) -> Iterator[tuple[str, Check]]:
    start = tool(host, "ucx_info")
    if start is None:
        why = (
            "programs of a recorded machine are not known" if host.recorded else "no ucx_info on PATH, no libucx wheel"
        )
        has = None if host.recorded else False
        yield "ucx", Check(has, why, "package", "ucx-utils of the distribution, or pip install libucx-cu12")
        yield "ucx_verbs", Check(None, why, "package", "a UCX configured --with-verbs")
        yield "ucx_cuda", Check(None, why, "package", "a UCX configured --with-cuda")
        return
    try:
        said = host.run([*start, "-v"], timeout=4).output.decode("utf-8", "replace")
    except ProbeError as err:
        said = err.message
    number = re.search(r"Library version:\s*(\S+)|# UCT version=(\S+)", said)
    shown = next(filter(None, number.groups()), "") if number else "unknown version"
    yield "ucx", Check(True, f"UCX {shown}", "package")
    for name, flag in (("ucx_verbs", "verbs"), ("ucx_cuda", "cuda")):
        hit = re.search(rf"--with(out)?-{flag}\S*", said)
        has = None if hit is None else hit[1] is None
        evidence = hit[0] if hit else f"UCX {shown} does not say how it was configured for {flag}"
        yield name, Check(has, evidence, "package", f"a UCX configured --with-{flag}: no setting adds it to this one")


def _rdma(host: Host) -> Iterator[tuple[str, Check]]:
    facts: list[Fact] = []
    devices = bool(host.glob("/sys/class/infiniband/*"))
    for data in (sysfs(host) if devices else b"", surroundings(host)):
        facts += SysfsReader().parse(Document.of("sysfs", data))

    def first(signal: str) -> Fact | None:
        return next((f for f in facts if f.signal == signal), None)

    up = [f for f in facts if f.signal == "rdma.port.state" and f.value == "ACTIVE"]
    layers = {(f.subject.nic, f.subject.label): str(f.value) for f in facts if f.signal == "rdma.port.layer"}
    names = ", ".join(sorted({f"{f.subject.nic} ({layers.get((f.subject.nic, f.subject.label), '?')})" for f in up}))
    none = "/sys/class/infiniband is empty or missing"
    active = {f.subject.nic for f in up}
    rates = {f.value for f in facts if f.signal == "rdma.port.rate" and f.subject.nic in active}
    limit = " / ".join(f"{rate:g} Gb/s" for rate in sorted(r for r in rates if isinstance(r, int | float)))
    yield "rdma", Check(bool(up), f"active: {names}" if up else "RDMA ports, none of them active" if devices else none,
                        "hardware", "an InfiniBand or RoCE adapter with a link, its driver loaded", limit)  # fmt: skip
    for name, layer in (("infiniband", "InfiniBand"), ("roce", "Ethernet")):
        mine = [f.subject.nic or "" for f in up if layers.get((f.subject.nic, f.subject.label)) == layer]
        said = f"active over {layer}: {', '.join(mine)}" if mine else f"no active port over {layer}"
        yield name, Check(bool(mine), said, "hardware", f"an adapter with a link over {layer}")
    nodes = first("rdma.device_nodes")
    there = nodes is not None and "uverbs" in str(nodes.value)
    listed = [p.name for p in host.glob("/dev/infiniband/*")]
    yield "verbs_nodes", Check(there or bool(listed), f"/dev/infiniband: {' '.join(listed) or 'none'}", "permission",
                               "--device /dev/infiniband for a container, the ib_uverbs module on a host")  # fmt: skip
    direct = first("rdma.gpudirect")
    yield "gpudirect", Check(
        direct.value != "none" if direct else False if not devices else None,
        f"NIC to GPU memory by: {direct.value}" if direct else "no NVIDIA driver in the files" if devices else none,
        "driver", "modprobe nvidia_peermem, or the open kernel module on Linux 5.12 and later (dma-buf)",
    )  # fmt: skip
    near = [f for f in facts if f.signal == "rdma.near"]
    good = [f for f in near if re.search(r"PIX|PXB", str(f.value))]
    said = "; ".join(f"GPU {f.subject.gpu}: {f.value}" for f in near)
    yield "near_nic", Check(bool(good), said or "no GPU beside an RDMA adapter",
                            "hardware", "a GPU and an adapter below one PCIe switch")  # fmt: skip
    driven = []
    for path in host.glob("/sys/class/infiniband/*/device/device"):
        try:
            driven.append(_DRIVEN.get(path.read_text().strip(), ""))
        except OSError:
            continue
    found = sorted(set(filter(None, driven)))
    yield "driven_nic", Check(bool(found), ", ".join(found) or "no ConnectX-6 Dx or later, no BlueField", "hardware",
                              "ConnectX-6 Dx or later, or BlueField")  # fmt: skip
    memlock = re.search(r"Max locked memory\s+(\S+)", _text(host, "/proc/self/limits"))
    if memlock is None:
        yield "memlock", Check(None, "no /proc/self/limits", "permission")
    else:
        free = any(f.value is True for f in facts if f.signal == "host.cap.ipc_lock")
        enough = free or not memlock[1].isdecimal() or int(memlock[1]) >= 1 << 26
        said = f"max locked memory {memlock[1]}{', not held to it (CAP_IPC_LOCK)' if free else ''}"
        yield "memlock", Check(enough, said, "permission",
                               "ulimit -l unlimited (container: --ulimit memlock=-1 --cap-add IPC_LOCK)")  # fmt: skip


def _ethernet(host: Host) -> Check:
    """The fastest interface with a link; a virtual one names no rate."""
    speeds = []
    for path in host.glob("/sys/class/net/*/speed"):
        try:
            speeds.append((int(path.read_text()), path.parent.name))
        except (OSError, ValueError):
            continue  # a link that is down, or one that has no speed
    fast, name = max(speeds, default=(0, ""))
    if fast <= 0:
        return Check(None, "no interface says its speed")
    return Check(True, f"{name}: {fast} Mb/s", limit=f"{fast / 1000:g} Gb/s")


def _gpus(host: Host) -> Iterator[tuple[str, Check]]:
    count, said = _nvidia(host)
    yield (
        "gpu",
        Check(count > 0, said, "hardware" if "no NVIDIA device" in said else "driver", "an NVIDIA GPU and its driver"),
    )
    yield "two_gpus", Check(count > 1, said, "hardware", "two GPUs in one host")
    params = _text(host, "/proc/driver/nvidia/params")
    only_admin = re.search(r"RmProfilingAdminOnly:\s*(\d)", params)
    root = not host.recorded and hasattr(os, "geteuid") and os.geteuid() == 0
    has = None if only_admin is None else only_admin[1] == "0" or root
    what = "no NVIDIA driver parameters to read"
    if only_admin is not None:
        what = f"RmProfilingAdminOnly {only_admin[1]}, {'root' if root else 'not root'}"
    get = "NVreg_RestrictProfilingToAdminUsers=0, or root (ERR_NVGPUCTRPERM otherwise)"
    yield "counters", Check(has, what, "permission", get)


def checks(host: Host) -> dict[str, Check]:
    """All checks by name."""
    out: dict[str, Check] = dict(_gpus(host))
    out.update(_rdma(host))
    out["ethernet"] = _ethernet(host)
    out.update(_ucx(host))
    rows: tuple[tuple[str, Callable[[], tuple[bool | None, str]], str, str], ...] = (
        ("cuda_python", lambda: _installed(host, "cuda-core", "torch"), "package", "pip install 'gpu-diagnose[gpu]'"),
        ("nsys", lambda: _tools(host, "nsys"), "package", "Nsight Systems"),
        ("ncu", lambda: _tools(host, "ncu"), "package", "Nsight Compute"),
        ("nccl", lambda: _installed(host, *_NCCL), "package", "PyTorch, or nccl-tests"),
        ("mpirun", lambda: _tools(host, "mpirun", "srun", "torchrun"), "package", "Open MPI, Slurm or torchrun"),
        ("perftest", lambda: _tools(host, "ib_write_bw"), "package", "perftest"),
        ("nixl", lambda: _installed(host, "nixl"), "package", _GET_NIXL),
        ("vllm", lambda: _installed(host, "vllm", "sglang", "tensorrt-llm"), "package", "pip install vllm"),
        ("dynamo", lambda: _installed(host, "ai-dynamo", "lmcache"), "package", "pip install ai-dynamo"),
    )  # fmt: skip
    for name, look, kind, get in rows:
        has, evidence = look()
        out[name] = Check(has, evidence, kind, get)
    doca = host.glob("/opt/mellanox/doca") + host.glob("/usr/include/doca_gpunetio.h")
    out["doca"] = Check(
        bool(doca), host.shown(doca[0]) if doca else "no /opt/mellanox/doca", "package", "DOCA with doca-gpunetio"
    )
    gdrdrv = bool(host.glob("/dev/gdrdrv")) or bool(re.search(r"^gdrdrv ", _text(host, "/proc/modules"), re.MULTILINE))
    out["gdrdrv"] = Check(
        gdrdrv, "gdrdrv is loaded" if gdrdrv else "gdrdrv is not loaded", "driver", "GDRCopy's gdrdrv module"
    )
    peer = host.params.get("peer", "")
    out["peer"] = Check(bool(peer), f"peer {peer}" if peer else "no second machine was named", "machine",
                        "a second machine with the same GPUs and network: --peer HOST")  # fmt: skip
    return out
