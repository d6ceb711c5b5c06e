"""How many workers and ranks a job starts, and what a Python prompt answered about its GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import possible, told
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import fact

_WORKERS = regex(
    r"\b(?:dataloader_)?num_?workers[\"']?\s*[:= ]\s*(?P<a>\d{1,3})\b"
    r"|\b(?P<b>\d{1,3}) (?:data(?:[- ]?loader)? )?workers "
    r"(?:per|each|a) (?:rank|gpu|process)|workers[_-]per[_-](?:gpu|rank)[\"']?\s*[:=]\s*(?P<c>\d{1,3})\b"
    r"|每(?:个|张)?(?:rank|卡|进程)\s*(?P<d>\d{1,3})\s*个?\s*worker", re.I,
)  # fmt: skip
_RANKS = regex(r"--(nproc[-_]per[-_]node|num[-_]processes|np|n)[= ]\s*(\d{1,3})\b")


class LaunchReader:
    """Loader workers and ranks in commands, configs and code."""

    name = "launch"
    needles: tuple[bytes, ...] = (b"workers", b"nproc", b"num_processes", b"num-processes", b"worker")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`host.workers` of data loaders and `slurm.option` for counts of processes, each value once."""
        seen: set[tuple[str, str]] = set()
        for line in possible(doc.novel(), _WORKERS, words=("nproc", "processes")):
            text = line.text
            if len(text) > 800:
                continue
            for hit in _WORKERS.finditer(text):
                value = next(g for g in hit.groups() if g)
                if ("w", value) not in seen and not re.search(r"suggested|warn", text, re.I):
                    seen.add(("w", value))
                    yield fact(doc, line, "host.workers", float(value), "count", label="loader", around=hit.group())
            if "nproc" in text or "processes" in text:
                for name, value in _RANKS.findall(text):
                    if (name, value) not in seen:
                        seen.add((name, value))
                        yield fact(doc, line, "slurm.option", value, label=name.replace("_", "-"), around=name)


_ASKED = regex(r"is_available\(\)|device_count\(\)|torch\.version\.cuda|list_physical_devices|jax\.devices\(\)")


_COUNTED = regex(
    r"(device_count\(\)|nvidia-smi (?:-L|--list-gpus) ?\| ?(?:wc -l|grep -c \S+))[\"')\]]{0,4}"
    r"(?:\s{2,}|\s*(?:->|=>|[:=])\s*)(\d{1,2})\s*$"
)


class AnswerReader:
    """The line after a question put to Python: ``>>> torch.cuda.is_available()`` / ``False``."""

    name = "python_answers"
    needles: tuple[bytes, ...] = (
        b"is_available", b"device_count", b"nvidia-smi -L", b"--list-gpus", b"version.cuda",
        b"list_physical_devices", b"jax.devices",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`gpu.visible`, and the marks of a CPU-only build and of a GPU that is not seen."""
        asked: Line | None = None
        for line in doc.lines():
            text = line.text.strip()
            if (both := _COUNTED.search(text)) is not None:  # question and answer in one line of a list
                signal = "gpu.visible" if "device_count" in both[1] else "gpu.count"
                yield fact(doc, line, signal, float(both[2]), "count")
                continue
            if asked is not None and text:
                yield from self._answer(doc, asked, line, text)
                asked = None
            if _ASKED.search(text) and not re.search(r"[)\]]\W{0,4}(?:True|False|\d+)\s*$", text):
                asked = line

    def _answer(self, doc: Document, asked: Line, line: Line, text: str) -> Iterator[Fact]:
        spans = (doc.span(asked), doc.span(line))

        def said(signal: str, value: str) -> Fact:
            return Fact(signal, value, spans=spans, status=doc.status)

        question = asked.text
        if len(text) > 80:
            return
        if "+cpu" in text or ("version.cuda" in question and re.search(r"\bNone\b", text)):
            yield said("env.mark.cpu_build", text)
        if (
            ("is_available" in question and re.search(r"\bFalse\b", text))
            or ("device_count" in question and re.search(r"(?:^|[\s,])0\)?$", text))
            or ("list_physical_devices" in question and text == "[]")
            or ("jax.devices" in question and re.search(r"CpuDevice|TFRT_CPU", text))
        ):
            yield said("env.mark.no_gpu", text)
        elif "device_count" in question and (hit := re.search(r"^\(?(\d{1,2})\)?$", text)):
            yield fact(doc, line, "gpu.visible", float(hit.group(1)), "count")


_V = r"(\d{3}\.\d+(?:\.\d+)?)"
_MODULE = regex(rf"(?:Kernel Module(?: for \S+)?\s+|kernel module version:?\s*|module version\W+){_V}", re.I)
_MODINFO = regex(rf"^version:\s+{_V}\s*$")
_LIBRARY = regex(
    rf"NVML library version:\s*{_V}|lib(?:cuda|nvidia-ml|nvidia-ptxjitcompiler)\.so\.{_V}"
    r"|(?:nvidia-utils-\d+|libnvidia-compute-\d+|nvidia-driver-libs|libnvidia-ml\S*)\b"
    rf".{{0,60}}?[ (,]{_V}(?:-\S+)?\)?\s*(?:$|\[|amd64)"
    rf"|(?:user[- ]?space|client) (?:library |driver )?(?:version|libraries|library)?\W{{0,4}}{_V}", re.I,
)  # fmt: skip
_KERNEL = r"(\d\.\d+\.\d+-[\w.-]+)"
_UNAME = regex(rf"^(?:Linux \S+ ){_KERNEL}|^{_KERNEL[:-1]}(?:generic|aws|gcp|azure|x86_64))\s*$|uname -r\W+{_KERNEL}")
_DKMS = regex(
    rf"^nvidia(?:-srv)?[/, ]+{_V}[,:]\s*(?:{_KERNEL}[,:]?\s*(?:\w+[,:]\s*)?)?:?\s*(?:installed|built|added)", re.I
)


class DriverHalves:
    """Versions of the driver's kernel module and of its libraries, and the kernel that a module was built for."""

    name = "driver_halves"
    needles: tuple[bytes, ...] = (
        b"Kernel Module", b"NVML library", b"libcuda.so.", b"libnvidia", b"nvidia-utils", b"dkms", b"nvidia/",
        b"version:", b"uname", b"module version",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`version` of driver-module, driver-on-disk and driver-library; `driver.built_for` and `host.kernel`."""
        in_modinfo = False
        patterns = (_MODULE, _MODINFO, _LIBRARY, _DKMS)
        for line, may in told(doc.lines(), *patterns, words=("modinfo nvidia",), also=_UNAME.pattern):
            text = line.text
            if not may and (not in_modinfo or text.strip()):
                continue
            in_modinfo = "modinfo nvidia" in text or (in_modinfo and bool(text.strip()))
            if (hit := _MODULE.search(text)) is not None:
                yield fact(doc, line, "version", hit.group(1), label="driver-module")
            elif in_modinfo and (hit := _MODINFO.match(text)) is not None:
                yield fact(doc, line, "version", hit.group(1), label="driver-on-disk")
            if (hit := _LIBRARY.search(text)) is not None:
                yield fact(doc, line, "version", next(g for g in hit.groups() if g), label="driver-library")
            if (hit := _DKMS.match(text.strip())) is not None:
                yield fact(doc, line, "driver.built_for", hit.group(2) or "no kernel", label=hit.group(1))
            elif (hit := _UNAME.search(text)) is not None:
                yield fact(doc, line, "host.kernel", next(g for g in hit.groups() if g))


READERS: list[Reader] = [LaunchReader(), AnswerReader(), DriverHalves()]
