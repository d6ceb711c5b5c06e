"""What `diagnose boundary` says: its labels in both languages, and its own words about a machine in Chinese."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files

from .catalogue import plain_yaml

HERE, TOOLS, NOT = "here", "tools", "not_here"
STATUS = {HERE: "can be validated here", TOOLS: "tool level only", NOT: "not here"}
STATUS_ZH = {HERE: "可在本机验证", TOOLS: "仅工具层面", NOT: "本机不可验证"}
SAID = {
    "stack": "GPU stack", "there": "there", "missing": "missing", "counterpart": "counterpart on", "look": "look at",
    "experiment": "experiment", "expect": "expect", "otherwise": "otherwise", "boundary": "Boundary", "part": "part",
    "status": "status", "simulated": "SIMULATED", "and": "; ",
}  # fmt: skip
SAID_ZH = {
    "stack": "GPU 软件栈", "there": "已有", "missing": "缺少", "counterpart": "对应物，平台", "look": "看什么",
    "experiment": "实验", "expect": "预期", "otherwise": "若不符", "boundary": "验证边界", "part": "项目",
    "status": "状态", "simulated": "模拟数据", "and": "；",
}  # fmt: skip
NOTES = {
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
NOTES_ZH = {
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


@lru_cache(maxsize=1)
def _templates() -> list[tuple[re.Pattern[str], str]]:
    """Our phrases with their Chinese, those with fewer gaps first."""
    known: dict[str, str] = plain_yaml((files("diagnose.playbooks") / "boundary" / "zh.yaml").read_text("utf-8"))
    ordered = sorted(known.items(), key=lambda pair: (pair[0].count("{}"), -len(pair[0])))
    return [(re.compile("(.+?)".join(map(re.escape, en.split("{}")))), zh) for en, zh in ordered]


@lru_cache(maxsize=1024)
def chinese(text: str) -> str:
    """Our words about a machine in Chinese; what the machine itself said, and names, stay as they are."""
    for pattern, zh in _templates():
        if hit := pattern.fullmatch(text):
            return zh.format(*hit.groups())
    return text


def said(text: str, lang: str) -> str:
    """One of our phrases in a language."""
    return chinese(text) if lang == "zh" else text


def listed(found: Iterable[str], lang: str) -> str:
    """Several of our phrases in one line."""
    return (SAID_ZH if lang == "zh" else SAID)["and"].join(said(text, lang) for text in found)


def notes(kinds: Iterable[str], zh: bool = False) -> list[str]:
    """What a kind of machine cannot show, whatever is installed."""
    told = NOTES_ZH if zh else NOTES
    return [told[kind] for kind in kinds if kind in told]
