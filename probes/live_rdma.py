"""RDMA of this machine, or of a recorded tree, from files; the usual tools beside them on the machine itself."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.errors import ProbeError
from diagnose.host import Host

from .rdma_sysfs import NODES, PLACES, READING

_IB = "/sys/class/infiniband"
_PORTS = tuple(f"{_IB}/*/ports/*/{leaf}" for leaf in ("state", "phys_state", "rate", "link_layer"))
_USE = tuple(f"{_IB}/*/ports/*/counters/{leaf}" for leaf in ("port_rcv_data", "port_xmit_data", "link_downed"))
_ECN = ("/sys/class/net/*/ecn/roce_[nr]p/enable/*", f"{_IB}/*/tc/*/traffic_class",
        "/sys/kernel/config/rdma_cm/*/ports/*/default_roce_tos")  # fmt: skip
_PFC = (["mlnx_qos", "-i"], ["dcb", "pfc", "show", "dev"])  # priority flow control is in no file: it needs a tool
_TOOLS = (["ibstat"], ["ibv_devinfo", "-v"], ["rdma", "link"], ["show_gids"])
_GPU_VENDORS = ("0x10de", "0x1002")
_MODULES = re.compile(r"(?:nvidia\w*|nv_peer_mem|gdrdrv|ib_\w+|mlx\w+|rdma_\w+|efa|bnxt_re|irdma|knem|xpmem|siw) \d+ ")
_MOST_GIDS = 64  # of a port; the table has 256 entries, nearly all empty
_WINDOW = 2.0


def _devices(host: Host) -> list[Path]:
    return host.glob(f"{_IB}/*")


def _window(host: Host) -> float:
    """Seconds between two readings of the counters."""
    said = re.fullmatch(r"(\d+(?:\.\d+)?)s?", host.params.get("window", ""))
    return min(float(said[1]), 60.0) if said else _WINDOW


def _link_ready(host: Host) -> str | None:
    if _devices(host) or any(host.find(tool[0]) for tool in _TOOLS):
        return None
    return f"no RDMA device: {_IB} is empty or missing, and no RDMA tool is installed"


def _counters_ready(host: Host) -> str | None:
    if host.glob(f"{_IB}/*/ports/*/counters/*") or host.glob(f"{_IB}/*/ports/*/hw_counters/*"):
        return None
    return f"no counters: {_IB} is empty or missing"


def _read(path: Path) -> str:
    try:
        return path.read_bytes()[:4096].decode("utf-8", "replace").strip("\n\0 ")
    except OSError:  # entries that are not filled answer with an error
        return ""


def _gids(host: Host) -> Iterator[str]:
    for port in host.glob(f"{_IB}/*/ports/*"):
        kept = 0
        for path in sorted((port / "gids").glob("*"), key=lambda p: (len(p.name), p.name)):
            value = _read(path)
            if not value.replace("0", "").replace(":", "") or kept >= _MOST_GIDS:
                continue
            kept += 1
            yield f"{host.shown(path)}:{value}"
            for folder in ("types", "ndevs"):
                entry = port / "gid_attrs" / folder / path.name
                if said := _read(entry):
                    yield f"{host.shown(entry)}:{said}"


def _gpus(host: Host) -> Iterator[str]:
    index = 0
    for path in host.glob("/sys/bus/pci/devices/*"):
        kind = _read(path / "class")
        if _read(path / "vendor") in _GPU_VENDORS and kind.startswith(("0x0300", "0x0302", "0x0380", "0x1200")):
            yield f"{host.shown(path)} -> {host.real(path)}  # GPU {index}"
            if node := _read(path / "numa_node"):
                yield f"{host.shown(path)}/numa_node:{node}"
            index += 1


def _places(host: Host) -> Iterator[str]:
    for device in _devices(host):
        for link in host.glob(f"{host.shown(device)}/device"):
            yield f"{host.shown(link)} -> {host.real(link)}"
            if node := _read(link / "numa_node"):
                yield f"{host.shown(link)}/numa_node:{node}"
    yield from _gpus(host)


def surrounding_lines(host: Host) -> Iterator[str]:
    """What RDMA depends on outside its own tree: device nodes, drivers, modules, locked memory and capabilities."""
    if host.glob("/dev"):
        nodes = " ".join(sorted(p.name for p in host.glob("/dev/infiniband/*")))
        yield f"{NODES} {nodes or 'none'}"
    for name in ("/proc/version", "/proc/driver/nvidia/version"):
        for path in host.glob(name):
            yield f"{name}:{_read(path).splitlines()[0]}" if _read(path) else ""
    for path in host.glob("/proc/modules"):
        yield "==> /proc/modules <=="
        yield from (line for line in path.read_text("utf-8", "replace").splitlines() if _MODULES.match(line))
        yield ""
    for path in host.glob("/proc/self/limits"):
        yield "==> /proc/self/limits <=="
        yield from (line for line in _read(path).splitlines() if line.startswith(("Limit", "Max locked")))
        yield ""
    for path in host.glob("/proc/self/status"):
        yield from (f"/proc/self/status:{x}" for x in _read(path).splitlines() if x.startswith("CapEff:"))


def sysfs(host: Host) -> bytes:
    """Everything about RDMA that stands in sysfs."""
    out = host.files((*_PORTS, *_USE, *_ECN, "/sys/class/net/*/mtu", "/sys/class/net/*/operstate")).decode(
        "utf-8", "replace"
    )
    lines = [PLACES, out.rstrip("\n"), *_gids(host), *_places(host)]
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def surroundings(host: Host) -> bytes:
    """Device nodes, driver, modules and limits: what lets a process use the ports."""
    return ("\n".join(surrounding_lines(host)) + "\n").encode("utf-8", "replace")


_INTERFACE = re.compile(r"[A-Za-z0-9][\w.-]{0,14}", re.ASCII)


def _flow_control(host: Host) -> Iterator[list[str]]:
    """The command that shows PFC of each interface of an RDMA device, with the first tool that is there."""
    tool = next((t for t in _PFC if host.find(t[0])), None)
    for path in host.glob(f"{_IB}/*/device/net/*") if tool else ():
        if _INTERFACE.fullmatch(path.name):  # the kernel allows `--all` and `;` in a name
            yield [*(tool or []), path.name]


def _link(host: Host) -> Iterator[Collected]:
    started = time.time()
    if _devices(host):
        yield Capture("rdma.link", sysfs(host), "sysfs", started=started, seconds=round(time.time() - started, 3))
        yield Capture("rdma.link", surroundings(host), "surroundings", started=started)
    else:
        yield NotCaptured("rdma.link", f"{_IB} is empty or missing here", "sysfs")
    for argv in (*_TOOLS, *_flow_control(host)):
        if not host.find(argv[0]):
            continue
        try:
            ran = host.run(argv, timeout=10)
        except ProbeError as err:
            yield NotCaptured("rdma.link", err.message, argv[0])
            continue
        if ran.output.strip():
            yield Capture.of("rdma.link", ran, " ".join(argv))
        else:
            yield NotCaptured("rdma.link", f"{argv[0]} printed nothing (exit {ran.status})", " ".join(argv))


def _reading(host: Host) -> str:
    patterns = (f"{_IB}/*/ports/*/counters/*", f"{_IB}/*/ports/*/hw_counters/*")
    return host.files(patterns).decode("utf-8", "replace")


def _uptime(host: Host) -> float:
    said = [_read(path).split() for path in host.glob("/proc/uptime")]
    return float(said[0][0]) if said and said[0] and re.fullmatch(r"\d+(?:\.\d+)?", said[0][0]) else 0.0


def _counters(host: Host) -> Iterator[Collected]:
    started = time.time()
    if host.earlier is not None:
        before = Host(host.params, host.earlier)
        apart = _uptime(host) - _uptime(before)
        first, last = _reading(before), _reading(host)
    elif host.recorded:
        first, last, apart = _reading(host), "", 0.0
    else:
        first = _reading(host)
        apart = _window(host)
        time.sleep(apart)
        last = _reading(host)
    text = f"{READING}1\n{first}"
    if last:
        text += f"{READING}2{f' after {apart:g} s' if apart > 0 else ''}\n{last}"
    yield Capture("rdma.counters", text.encode("utf-8", "replace"), started=started,
                  seconds=round(time.time() - started, 3))  # fmt: skip


COLLECTORS = (
    Collector("rdma.link", _link_ready, _link, files=True,
              commands=lambda host: [f"grep -H . {' '.join(_PORTS)}", *(" ".join(t) for t in _TOOLS)]),
    Collector("rdma.counters", _counters_ready, _counters, files=True,
              seconds=lambda host: 0.1 if host.recorded else _window(host),
              commands=lambda host: [f"grep -H . {_IB}/*/ports/*/*counters/*   # twice, {_WINDOW:g} s apart"]),
)  # fmt: skip
