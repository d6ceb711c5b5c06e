"""UCX on this machine: what it was built with, what it chooses, and two processes over loopback.

The tools are those on PATH, else those of the libucx wheel. The wheel's are started through the dynamic loader with the
wheel's own library folder, so that neither the environment nor a file mode has to be changed.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shlex
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.document import Document
from diagnose.errors import ProbeError
from diagnose.host import GPU_NODES, Host
from diagnose.lazy import regex
from diagnose.mask import mask
from diagnose.models import Fact, Subject
from diagnose.runner import Ran

from .facts import divided, fact
from .ucx import ALIKE, COMMON, distance

_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
_MISSING = "neither ucx_info on PATH nor the libucx wheel is installed here"
_EXPLAIN = {"UCX_LOG_LEVEL": "info", "UCX_PROTO_INFO": "y", "UCX_PROTO_ENABLE": "y"}  # the last one for 1.13 to 1.15
_SIZES = (1 << 16, 1 << 20, 1 << 24)
_VOLUME = 1 << 29  # bytes that one bandwidth run moves: a quarter of a second over TCP
_LATENCY_SECONDS = 0.15  # if nothing disturbs it: on a busy machine the same messages take up to fifty times as long
_TRIES = 20  # for the client, until the server listens
_HEAD = "# UCX variables of this environment"
_ENTRY = regex(r"^(UCX_[A-Z0-9_]+)=\S*\s+# unknown to this UCX; near: (UCX_[A-Z0-9_]+)$")
_MEMCPY = regex(r"^# memcpy of (\d+) MiB on one core: (\d+(?:\.\d+)?) GB/s$")
_PAIR_SIZE, _PAIR_TIMES = 1 << 26, 50  # between GPUs: 64 MiB fill NVLink, and take 100 ms at PCIe's rate
_STAGED = {"UCX_TLS": "^cuda_ipc"}
_BETWEEN = regex(r"^# GPU to GPU, (\d+) B, (as UCX chooses|without cuda_ipc): (\d+(?:\.\d+)?) GB/s$")
_RATE = re.compile(rb"^Final:\s+\d+\s+[\d.]+\s+[\d.]+\s+[\d.]+\s+(\d+(?:\.\d+)?)", re.MULTILINE)
_MEDIAN = re.compile(rb"^Final:\s+\d+\s+(\d+(?:\.\d+)?)", re.MULTILINE)


def tool(host: Host, name: str) -> list[str] | None:
    """How to start a UCX tool here, or None."""
    if host.find(name):
        return [name]
    spec = importlib.util.find_spec("libucx")
    place = next(iter(spec.submodule_search_locations or ()), None) if spec else None
    loader = next((path for path in _LOADERS if Path(path).exists()), None)
    if place is None or loader is None or not (Path(place) / "bin" / name).exists():
        return None
    return [loader, "--library-path", f"{place}/lib", f"{place}/bin/{name}"]


def _has_info(host: Host) -> str | None:
    return None if tool(host, "ucx_info") else _MISSING


def _has_perftest(host: Host) -> str | None:
    return None if tool(host, "ucx_perftest") else _MISSING.replace("ucx_info", "ucx_perftest")


def _info(host: Host) -> Iterator[Collected]:
    start = tool(host, "ucx_info") or ["ucx_info"]
    names: list[str] = []
    flags = ("-v", "-d", "-c")
    with ThreadPoolExecutor(len(flags)) as pool:  # each waits for its clock to be measured: half a second, side by side
        found = pool.map(lambda flag: host.run([*start, flag], timeout=10), flags)
    for flag, ran in zip(flags, found, strict=True):
        if flag == "-c":
            names = re.findall(r"^(UCX_[A-Z0-9_]+)=", ran.output.decode("utf-8", "replace"), re.MULTILINE)
        if ran.output.strip():
            yield Capture.of("ucx.info", ran, f"ucx_info {flag}")
        else:
            yield NotCaptured("ucx.info", f"ucx_info {flag} printed nothing (exit {ran.status})", f"ucx_info {flag}")
    ours = {name: value for name, value in sorted(host.environ.items()) if name.startswith("UCX_")}
    if ours and names:
        lines = [f"{_HEAD} beside the {len(names)} names that ucx_info -c lists"]
        lines += [_said(name, mask(f"{name}={value}").partition("=")[2], names) for name, value in ours.items()]
        yield Capture(
            "ucx.info", ("\n".join(lines) + "\n").encode("utf-8", "replace"), "variables", started=time.time()
        )


def _said(name: str, value: str, names: list[str]) -> str:
    meant = slip(name, names)
    return f"{name}={value}  # unknown to this UCX; near: {meant}" if meant else f"{name}={value}"


def slip(name: str, names: list[str]) -> str | None:
    """The listed name that `name` is a slip of the pen for, or None.

    A build without verbs lists no variable of the RDMA transports, so what is not listed may still be right elsewhere:
    only a near match makes a slip, and a name that UCX is known to have never is one.
    """
    family = re.sub(r"^UCX_(?:RC|DC|UD|GGA|SRD)_(?:MLX5_|VERBS_)?", "UCX_IB_", name)
    if name in names or {name, family} & {*COMMON, *ALIKE}:
        return None
    most = 1 if len(name) < 12 else 2
    near = sorted((distance(name, known), known) for known in {*names, *COMMON})
    return near[0][1] if near and near[0][0] <= most else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pair(
    host: Host, test: str, size: int, count: int, env: dict[str, str] | None = None, memory: str = "host"
) -> tuple[Ran, Ran]:
    """One run of two processes over loopback: what the server and the client printed.

    In GPU memory the tool gives each process a GPU of its own, where there are two.
    """
    start = tool(host, "ucx_perftest") or ["ucx_perftest"]
    port = str(_free_port())
    shape = ["-t", test, "-s", str(size), "-n", str(count), "-w", str(max(1, min(100, count // 10)))]
    shape += [] if memory == "host" else ["-m", memory]
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(host.run, [*start, "-p", port], timeout=30, env=env)
        for _ in range(_TRIES):
            time.sleep(0.1)
            client = host.run([*start, "127.0.0.1", "-p", port, *shape], timeout=25, env=env)
            if b"Connection refused" not in client.output or serving.done():
                break
        return serving.result(), client


def _shown_pair(test: str, size: int) -> str:
    return f"ucx_perftest -p PORT & ucx_perftest 127.0.0.1 -p PORT -t {test} -s {size}"


def joined(test: str, size: int, server: Ran, client: Ran) -> bytes:
    """The account of a `pair`: the server prints what was run, the client what came of it."""
    return b"$ %s\n%s%s\n" % (_shown_pair(test, size).encode(), server.output, client.output)


def _proto(host: Host) -> Iterator[Collected]:
    for test in ("tag_bw", "ucp_get"):  # reading from the peer may take another way than sending to it
        server, client = pair(host, test, 1 << 20, 50, _EXPLAIN)
        if client.output.strip():
            yield replace(Capture.of("ucx.proto", client, test), data=joined(test, 1 << 20, server, client))
        else:
            yield NotCaptured("ucx.proto", f"ucx_perftest printed nothing (exit {client.status})", test)


def memcpy_rate(size: int = 1 << 26) -> float:
    """GB/s of one core that copies memory: what two processes can reach at best, with one copy between them."""
    source, target = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        ctypes.memmove(target, source, size)
        best = min(best, time.perf_counter() - begin)
    return size / best / 1e9


def _perftest(host: Host) -> Iterator[Collected]:
    out = bytearray(f"# memcpy of 64 MiB on one core: {memcpy_rate():.2f} GB/s\n".encode())
    begin = time.time()
    last: Ran | None = None
    _, first = pair(host, "tag_lat", 8, 2000)
    hit = _MEDIAN.search(first.output)
    count = 2000 if hit is None else max(2000, min(1_000_000, int(_LATENCY_SECONDS / max(float(hit[1]), 0.05) * 1e6)))
    plan = [("tag_lat", 8, count), *(("tag_bw", size, max(20, min(5000, _VOLUME // size))) for size in _SIZES)]
    for test, size, times in plan:
        try:
            server, client = pair(host, test, size, times)
        except ProbeError as err:
            yield NotCaptured("ucx.perftest", err.message, f"{test} {size}")
            return
        out += joined(test, size, server, client)
        last = client
        if client.status:
            break  # what fails at one size fails at all
    if last is not None:
        spent = round(time.time() - begin, 3)
        yield replace(Capture.of("ucx.perftest", last, "loopback"), data=bytes(out), started=begin, seconds=spent)
    if _gpu_ready(host):
        yield from _between_gpus(host)


def _gpu_ready(host: Host) -> bool:
    return any(host.glob(pattern) for pattern in GPU_NODES[:2])


def _between_gpus(host: Host) -> Iterator[Collected]:
    """GPU memory to GPU memory as UCX chooses, and staged: without the transport that uses NVLink and peer access."""
    ways: dict[str, dict[str, str]] = {"as UCX chooses": {}} | (
        {} if "UCX_TLS" in host.environ else {"without cuda_ipc": _STAGED}
    )
    out = bytearray()
    last: Ran | None = None
    for way, env in ways.items():
        server, client = pair(host, "tag_bw", _PAIR_SIZE, _PAIR_TIMES, env, "cuda")
        said = b" ".join(f"{k}={v}".encode() for k, v in env.items())
        out += said + b" " * bool(said) + joined("tag_bw -m cuda", _PAIR_SIZE, server, client)
        rates, last = _RATE.findall(client.output), client
        if rates:
            out += f"# GPU to GPU, {_PAIR_SIZE} B, {way}: {float(rates[-1]) * 1.048576e-3:.2f} GB/s\n".encode()
    if last is not None and b"# GPU to GPU" in out:
        yield replace(Capture.of("ucx.perftest", last, "between GPUs"), data=bytes(out))
    else:
        words = out.decode("utf-8", "replace").strip().splitlines()
        why = next((w for w in words if "ERROR" in w or "not supported" in w), "ucx_perftest -m cuda gave no result")
        yield NotCaptured("ucx.perftest", why.strip()[:200], "between GPUs")


class NamesReader:
    """UCX variables beside the names that the installed UCX lists, the rate of a plain copy, GPU memory with and
    without cuda_ipc.
    """

    name = "ucx_names"
    needles: tuple[bytes, ...] = (_HEAD.encode(), b"# memcpy of ", b"# GPU to GPU, ")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`ucx.env.typo` for an unknown name with a near one; `host.memcpy`, and the best loopback rate over it."""
        pairs: dict[str, Fact] = {}
        for line in doc.lines():
            if (hit := _ENTRY.match(line.text)) is not None:
                yield fact(doc, line, "ucx.env.typo", hit[1], label=hit[2])
            elif (hit := _MEMCPY.match(line.text)) is not None:
                label = Subject(label=f"{hit[1]} MiB")
                yield Fact("host.memcpy", float(hit[2]), "GB/s", label, (doc.span(line),), status=doc.status)
            elif (hit := _BETWEEN.match(line.text)) is not None:
                label = Subject(label=f"{hit[2]}, {hit[1]} B")
                pairs[hit[2]] = Fact("ucx.gpu_rate", float(hit[3]), "GB/s", label, (doc.span(line),), status=doc.status)
                yield pairs[hit[2]]
        chosen, staged = pairs.get("as UCX chooses"), pairs.get("without cuda_ipc")
        if chosen is not None and staged is not None and staged.value:
            yield divided("ucx.ipc_gain", (chosen, staged))


READERS = (NamesReader(),)


def _shown_info(host: Host) -> list[str]:
    start = shlex.join(tool(host, "ucx_info") or ["ucx_info"])
    return [f"{start} {flag}" for flag in ("-v", "-d", "-c")]


def _shown_proto(host: Host) -> list[str]:
    knobs = " ".join(f"{k}={v}" for k, v in _EXPLAIN.items())
    return [f"{knobs} {_shown_pair(test, 1 << 20)}" for test in ("tag_bw", "ucp_get")]


COLLECTORS = (
    Collector("ucx.info", _has_info, _info, commands=_shown_info),
    Collector("ucx.proto", _has_perftest, _proto, seconds=lambda host: 3.0, commands=_shown_proto),
    Collector("ucx.perftest", _has_perftest, _perftest, seconds=lambda host: 12.0 if _gpu_ready(host) else 8.0,
              commands=lambda host: [_shown_pair("tag_lat", 8), *(_shown_pair("tag_bw", s) for s in _SIZES)]),
)  # fmt: skip
