"""`diagnose boundary`: what can be validated on this machine, what at the level of tools only, and what not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from . import __version__
from .catalogue import plain_yaml
from .errors import EXIT_OK, UsageError
from .host import Host

SCHEMA = "diagnose.boundary/v1"
HERE, TOOLS, NOT = "here", "tools", "not_here"
WORDS = {HERE: "can be validated here", TOOLS: "tool level only", NOT: "not here"}
WORDS_ZH = {HERE: "可在本机验证", TOOLS: "仅工具层面", NOT: "本机不可验证"}


@dataclass(frozen=True)
class Part:
    """One row of the matrix on one machine."""

    row: dict[str, Any]
    status: str
    evidence: tuple[str, ...]
    missing: tuple[dict[str, str], ...]


@lru_cache(maxsize=1)
def matrix() -> list[dict[str, Any]]:
    """The rows as data."""
    text = (files("diagnose.playbooks") / "boundary" / "matrix.yaml").read_text("utf-8")
    return list(plain_yaml(text))


def judged(row: dict[str, Any], checks: dict[str, Any]) -> Part:
    """Status of a row: all needs there, or at least its tools."""
    needs = [(name, checks[name]) for name in row["needs"]]
    lacking = [(name, check) for name, check in needs if check.has is not True]
    tools = [checks[name] for name in row["tools"]]
    if not lacking:
        status = HERE
    elif any(check.has for check in tools):
        status = TOOLS
    else:
        status = NOT
    evidence = [check.evidence for _, check in needs if check.has] + [c.evidence for c in tools if c.has]
    missing = tuple(
        {"check": name, "kind": check.kind if check.has is False else "not known", "evidence": check.evidence,
         "get": check.get}
        for name, check in lacking
    )  # fmt: skip
    return Part(row, status, tuple(dict.fromkeys(evidence)), missing)


def examine(host: Host) -> dict[str, Any]:
    """The whole matrix of a machine as `diagnose.boundary/v1`."""
    machine = import_module("diagnose.probes.machine")  # the engine never imports its own probes by name
    checks, kinds, stack = machine.checks(host), machine.kind_of_host(host), machine.stack(host)
    parts = [judged(row, checks) for row in matrix()]
    return {
        "schema": SCHEMA,
        "tool": {"version": __version__},
        "host": {
            "kind": kinds,
            "stack": stack,
            "notes": notes(kinds),
            "notes_zh": notes(kinds, zh=True),
            "taint": list(host.taint),
        },
        "parts": [_part(p, stack, "Windows" in kinds) for p in parts],
        "checks": {
            n: {"has": c.has, "evidence": c.evidence, "kind": c.kind, "get": c.get, "limit": c.limit}
            for n, c in checks.items()
        },
    }


def _part(part: Part, stack: str, windows: bool) -> dict[str, Any]:
    row = part.row
    experiment = dict(row["experiment"])
    experiment_zh = experiment | row["experiment_zh"]
    if windows:
        for made in (experiment, experiment_zh):
            made["command"] = powershell(made["command"])
    out = {
        "id": row["id"], "title": row["title"], "title_zh": row["zh"], "status": part.status,
        "evidence": list(part.evidence), "missing": list(part.missing), "experiment": experiment,
        "experiment_zh": experiment_zh,
    }  # fmt: skip
    if stack in row["counterparts"]:
        out["counterpart"], out["counterpart_zh"] = row["counterparts"][stack], row["counterparts_zh"][stack]
    return out


def powershell(command: str) -> str:
    """A command line as PowerShell takes it: variables before a program, and no `&` to put one into the background."""
    words, shown = command.split(" "), []
    while words and "=" in words[0] and words[0].split("=")[0].isupper():
        name, _, value = words.pop(0).partition("=")
        shown.append(f"$env:{name}='{value}';")
    return " ".join([*shown, *words]).replace(" & ", "; ")


_NOTES = {
    "WSL2": "WSL2 shows no PCI topology, no RDMA device and no kernel log of the GPU driver; NVLink, peer access "
    "between GPUs, GPUDirect and fabric need a Linux host. Counters for ncu are granted on the Windows side.",
    "Windows": "NCCL, UCX, NIXL, verbs and vLLM need Linux; what exists here is nvidia-smi, nsys, ncu and CUDA.",
    "container": "A container shows the host's sysfs and only the devices, limits and modules it was given: "
    "/dev/infiniband, memlock, /dev/shm and profiling rights are granted by whoever starts it.",
    "virtual machine": "A virtual machine shows the topology that was drawn for it: ACS, switches and NUMA nodes "
    "may differ from the hardware.",
    "macOS": "No CUDA and no verbs; the counterparts are Metal, MPS and Instruments.",
    "Jetson": "One memory for CPU and GPU: copies, NVLink, NCCL between GPUs and GPUDirect RDMA say little here.",
    "recorded tree": "A recorded tree shows files only: packages and programs of that machine are not known.",
}
_NOTES_ZH = {
    "WSL2": "WSL2 里看不到 PCI 拓扑、RDMA 设备和 GPU 驱动的内核日志；NVLink、GPU 间 peer access、GPUDirect 和网络"
    "都要在 Linux 主机上验证。ncu 的计数器权限在 Windows 一侧放开。",
    "Windows": "NCCL、UCX、NIXL、verbs 和 vLLM 都需要 Linux；这里只有 nvidia-smi、nsys、ncu 和 CUDA。",
    "container": "容器看到的是宿主机的 sysfs，设备、限额和模块则只有分给它的那些：/dev/infiniband、memlock、/dev/shm"
    " 和 profiling 权限都由启动容器的人决定。",
    "virtual machine": "虚拟机看到的拓扑是画给它的：ACS、PCIe switch 和 NUMA 节点可能与真实硬件不同。",
    "macOS": "没有 CUDA，也没有 verbs；对应的是 Metal、MPS 和 Instruments。",
    "Jetson": "CPU 与 GPU 共用一块内存：拷贝、NVLink、GPU 间 NCCL 和 GPUDirect RDMA 在这里说明不了什么。",
    "recorded tree": "录下来的目录树只有文件：那台机器装了哪些包和程序不得而知。",
}


def notes(kinds: Iterable[str], zh: bool = False) -> list[str]:
    """What a kind of machine cannot show, whatever is installed."""
    said = _NOTES_ZH if zh else _NOTES
    return [said[kind] for kind in kinds if kind in said]


_SAID = {
    "stack": "GPU stack", "there": "there", "missing": "missing", "counterpart": "counterpart on", "look": "look at",
    "experiment": "experiment", "expect": "expect", "otherwise": "otherwise", "boundary": "Boundary", "part": "part",
    "status": "status",
}  # fmt: skip
_SAID_ZH = {
    "stack": "GPU 软件栈", "there": "已有", "missing": "缺少", "counterpart": "对应物，平台", "look": "看什么",
    "experiment": "实验", "expect": "预期", "otherwise": "若不符", "boundary": "验证边界", "part": "项目",
    "status": "状态",
}  # fmt: skip

_KINDS_ZH = {"hardware": "硬件", "driver": "驱动", "package": "软件包", "permission": "权限", "not known": "未知"}


def _told(part: dict[str, Any], zh: bool) -> tuple[str, dict[str, str], str]:
    """Title, experiment and counterpart of a part in one language."""
    tail = "_zh" if zh else ""
    return part[f"title{tail}"], part[f"experiment{tail}"], part.get(f"counterpart{tail}", "")


def _lines(data: dict[str, Any], zh: bool) -> Iterable[str]:
    words, w, host = WORDS_ZH if zh else WORDS, _SAID_ZH if zh else _SAID, data["host"]
    simulated = "; SIMULATED" if "simulated" in host["taint"] else ""
    yield f"{', '.join(host['kind'])}; {w['stack']}: {host['stack']}{simulated}"
    yield from (f"  {note}" for note in host["notes_zh" if zh else "notes"])
    for part in data["parts"]:
        title, e, counterpart = _told(part, zh)
        yield ""
        yield f"{title}: {words[part['status']]}"
        if part["evidence"]:
            yield f"  {w['there']}: {'; '.join(part['evidence'])}"
        for item in part["missing"]:
            get = f" -> {item['get']}" if item["get"] else ""
            kind = _KINDS_ZH.get(item["kind"], item["kind"]) if zh else item["kind"]
            yield f"  {w['missing']} ({kind}): {item['evidence']}{get}"
        if counterpart:
            yield f"  {w['counterpart']} {host['stack']}: {counterpart}"
        if part["status"] != HERE:
            yield f"  {w['experiment']}: {e['hypothesis']}"
            yield f"    $ {e['command']}"
            yield (f"    {w['look']}: {e['metric']}; {w['expect']}: {e['expect']}; {w['otherwise']}: {e['failure']}")


def _markdown(data: dict[str, Any], zh: bool) -> Iterable[str]:
    words, w, host = WORDS_ZH if zh else WORDS, _SAID_ZH if zh else _SAID, data["host"]
    yield f"# {w['boundary']}: {', '.join(host['kind'])}, {host['stack']}"
    yield ""
    yield from (f"- {note}" for note in host["notes_zh" if zh else "notes"])
    yield ""
    yield f"| {w['part']} | {w['status']} | {w['there']} | {w['missing']} |"
    yield "|---|---|---|---|"
    for part in data["parts"]:
        missing = "; ".join(f"{m['evidence']} ({m['kind']})" for m in part["missing"])
        cells = [_told(part, zh)[0], words[part["status"]], "; ".join(part["evidence"]), missing]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    for part in data["parts"]:
        if part["status"] == HERE:
            continue
        title, e, _ = _told(part, zh)
        yield ""
        yield f"## {title}"
        yield f"{e['hypothesis']}"
        yield ""
        yield f"```\n{e['command']}\n```"
        if zh:
            yield f"{w['look']}：{e['metric']}。{w['expect']}：{e['expect']}。{w['otherwise']}：{e['failure']}。"
        else:
            yield f"Look at {e['metric']}. Expect {e['expect']}. Otherwise: {e['failure']}."


def run(
    format_: str, picture: str, sysfs_root: str, lang: str, peer: str, evidence: str = "", pictures: Path | None = None
) -> int:
    """Print the matrix, or one picture of it, or write all pictures to a folder."""
    if format_ not in ("text", "json", "md", *(("svg",) if picture else ())):
        raise UsageError(f"--format takes text, json, md{', svg' if picture else ''}, not {format_!r}")
    if lang not in ("", "en", "zh"):
        raise UsageError(f"--lang takes en or zh, not {lang!r}")
    root = Path(sysfs_root or "/")
    if not root.is_dir():
        raise UsageError(f"--sysfs-root {root} is no folder", "give the folder that holds the recorded sys/ and proc/")
    host = Host.at({"peer": peer} if peer else {}, root)
    data = examine(host)
    if picture:
        from .boundary_pictures import draw

        sys.stdout.write(draw(picture, data, format_, evidence, lang or "en"))
        return EXIT_OK
    if pictures is not None:
        from .boundary_pictures import write

        print("\n".join(write(pictures, data, evidence, lang or "en")), file=sys.stderr)
        return EXIT_OK
    if format_ == "json":
        sys.stdout.write(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    else:
        lines = _lines(data, lang == "zh") if format_ == "text" else _markdown(data, lang == "zh")
        sys.stdout.write("\n".join(lines) + "\n")
    return EXIT_OK
