"""How a job was started: docker/podman lines, compose and Kubernetes manifests, docker inspect, Slurm options."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import told
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import computed, fact, gib, number, size
from .host import cpu_list

_RUN = regex(r"\b(?:docker|podman|nerdctl)\s+(?:container\s+)?(?:run|create)\b")
_FLAG = regex(
    r"(?<!\S)--(gpus|shm-size|ulimit|device|ipc|network|net|cpus|cpuset-cpus|memory|runtime|cap-add|security-opt|"
    r"privileged|pid)"
    r"(?:[= ]\s*(\"[^\"]*\"|'[^']*'|[^\s-]\S*|-1\b))?"
)
_YAML = regex(
    r"^\s*-?\s*[\"']?(shm_size|ipc|ipc_mode|network_mode|runtime|mem_limit|cpus|cpuset|privileged|hostNetwork|"
    r"hostIPC)[\"']?\s*:\s*[\"']?([^\"'#]+?)[\"']?\s*,?\s*$"
)
_INSPECT = regex(
    r"^\s*\"(ShmSize|IpcMode|NetworkMode|NanoCpus|CpuQuota|Devices|DeviceRequests|Runtime|CpusetCpus|Memory|"
    r"Privileged)\"\s*:\s*(.+?),?\s*$"
)
_LIMITS = regex(r"^(\s*)[\"']?(limits|requests)[\"']?\s*:", re.I)
_RESOURCE = regex(
    r"[\"']?(cpu|memory|nvidia\.com/[\w.-]+|amd\.com/gpu|rdma/[\w-]+|hugepages-\w+|ephemeral-storage|"
    r"vpc\.amazonaws\.com/efa)[\"']?\s*:\s*[\"']?(\d+(?:\.\d+)?\s?[a-zA-Z]*)[\"']?"
)
_MEDIUM = regex(r"[mM]edium[\"']?\s*:\s*[\"']?Memory")
_SIZE_LIMIT = regex(r"[sS]izeLimit[\"']?\s*:\s*[\"']?(\d+(?:\.\d+)?\s*\w+)")
_SLURM = regex(r"(?:#SBATCH|srun|sbatch|salloc)\b.*")
_SLURM_FLAG = regex(
    r"--(gres|gpus(?:-per-\w+)?|cpus-per-task|cpus-per-gpu|ntasks(?:-per-node)?|nodes|mem(?:-per-\w+)?|exclusive|"
    r"cpu-bind|gpu-bind|mem-bind|network|mpi)(?:[= ]([^\s]+))?|(?<!\S)-(c|n|N) ?(\d+)"
)
_SCONTROL = regex(r"\b(NumCPUs|NumTasks|CPUs/Task|TresPerNode|Gres|MinMemoryNode)=(\S+)")
_SHARING = regex(
    r"^\s*(?:renameByDefault|timeSlicing|sharing)\s*:|nvidia\.com/gpu\.shared\b|"
    r"nvidia\.com/gpu\.sharing-strategy[\"=: ]+(\S+)"
)
_REPLICAS = regex(r"^\s*replicas\s*:\s*(\d+)")


_PATTERNS = (_RUN, _SLURM, _SCONTROL, _YAML, _INSPECT, _LIMITS, _MEDIUM, _SHARING)


class ContainerReader:
    """Options of containers and batch jobs that decide what a process may see and use."""

    name = "container"
    needles: tuple[bytes, ...] = (
        b"docker", b"podman", b"nerdctl", b"--gpus", b"--shm-size", b"--ulimit", b"--ipc", b"shm_size", b"ShmSize",
        b"limits:", b"Limits:", b"SizeLimit:",
        b"\"limits\"", b"medium", b"sizeLimit", b"#SBATCH", b"srun", b"sbatch", b"NumCPUs", b"\"Devices\"",
        b"DeviceRequests", b"IpcMode",
        b"ipc:", b"runtime:", b"network_mode", b"hostNetwork", b"hostIPC", b"--cpus", b"timeSlicing", b"gpu.shared",
        b"NanoCpus", b"cpuset",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`container.*` and `slurm.option` as written, and the limits that they set as `host.*`."""
        in_run = in_slurm = False
        block: tuple[int, str] | None = None
        memory_volume = 0
        slicing = 0
        for line, may in told(doc.lines(), *_PATTERNS, words=("--gpus", "--shm-size", "--ulimit", "--ipc")):
            text = line.text
            if not (may or in_run or in_slurm or block or memory_volume > 0 or slicing > 0):
                continue
            started = _RUN.search(text) is not None
            in_run = in_run or started
            if in_run or re.search(r"--(?:gpus|shm-size|ulimit|ipc)\b", text):
                yield from self._docker(doc, line, started)
            in_run = in_run and text.rstrip().endswith("\\")
            in_slurm = in_slurm or _SLURM.search(text) is not None
            if in_slurm:
                yield from self._slurm(doc, line)
            in_slurm = in_slurm and text.rstrip().endswith("\\")
            for name, value in _SCONTROL.findall(text):
                yield fact(doc, line, "slurm.option", value, label=name)
            if (hit := _YAML.match(text)) is not None:
                yield from self._option(doc, line, hit.group(1), hit.group(2).strip())
            if (hit := _INSPECT.match(text)) is not None:
                yield from self._inspect(doc, line, hit.group(1), hit.group(2))
            if (hit := _LIMITS.match(text)) is not None:
                block = (len(hit.group(1)), hit.group(2).lower())
            elif (
                block
                and text.strip()
                and len(text) - len(text.lstrip()) <= block[0]
                and not text.lstrip().startswith("}")
            ):
                block = None
            if block and block[1] == "limits":
                for name, value in _RESOURCE.findall(text):
                    yield from self._resource(doc, line, name, value)
            memory_volume = 4 if _MEDIUM.search(text) else memory_volume - 1
            if (
                memory_volume > 0
                and (hit := _SIZE_LIMIT.search(text)) is not None
                and (amount := size(hit.group(1))) is not None
            ):
                yield fact(doc, line, "container.shm_size", amount, "GiB", label="emptyDir")
            if (hit := _SHARING.search(text)) is not None:
                slicing = 8
                if hit.group(1) or "gpu.shared" in text:
                    yield fact(doc, line, "container.flag", hit.group(1) or "shared", label="gpu-sharing")
            elif slicing > 0:
                slicing -= 1
                if (hit := _REPLICAS.match(text)) is not None and int(hit.group(1)) > 1:
                    yield fact(doc, line, "container.flag", f"{hit.group(1)} replicas", label="gpu-sharing")

    def _docker(self, doc: Document, line: Line, started: bool) -> Iterator[Fact]:
        if started:
            yield fact(doc, line, "container.flag", "run", label="command", around="run")
        for name, value in _FLAG.findall(line.text):
            yield from self._option(doc, line, name, value.strip("\"'") or "true")

    def _option(self, doc: Document, line: Line, name: str, value: str) -> Iterator[Fact]:
        around = name
        if name in ("shm-size", "shm_size"):
            if (amount := size(value)) is not None:
                yield fact(doc, line, "container.shm_size", amount, "GiB", label="shm-size", around=around)
        elif name == "gpus":
            yield fact(doc, line, "container.gpus", value, label="gpus", around=around)
        elif name == "cpus" and (cpus := number(value)) is not None:
            yield fact(doc, line, "host.cpu.quota", cpus, "count", label="container", around=around)
        elif name in ("cpuset-cpus", "cpuset"):
            yield fact(doc, line, "host.cpu.allowed", value, around=around)
            count = float(cpu_list(value))
            yield computed(doc, line, "host.cpu.allowed_count", count, "count", "container", label="cpuset")
        elif name in ("memory", "mem_limit"):
            if (amount := size(value)) is not None:
                yield fact(doc, line, "host.memory.limit", amount, "GiB", label="container", around=around)
        elif name == "ulimit" and value.startswith("memlock"):
            yield fact(doc, line, "host.limit.memlock", value.partition("=")[2], label="container", around=around)
        else:
            label = {"ipc_mode": "ipc", "network_mode": "network", "net": "network"}.get(name, name)
            yield fact(doc, line, "container.flag", value, label=label, around=around)

    def _inspect(self, doc: Document, line: Line, name: str, value: str) -> Iterator[Fact]:
        plain = value.strip('"')
        if name == "ShmSize" and plain.isdecimal() and int(plain):
            yield fact(doc, line, "container.shm_size", int(plain) / 2**30, "GiB", label="inspect")
        elif name == "NanoCpus" and plain.isdecimal() and int(plain):
            yield fact(doc, line, "host.cpu.quota", int(plain) / 1e9, "count", label="container")
        elif name == "Memory" and plain.isdecimal() and int(plain):
            yield fact(doc, line, "host.memory.limit", int(plain) / 2**30, "GiB", label="container")
        elif name not in ("Memory", "NanoCpus", "CpuQuota"):
            yield fact(doc, line, "container.flag", plain[:80], label=name.lower())

    def _resource(self, doc: Document, line: Line, name: str, value: str) -> Iterator[Fact]:
        if name == "cpu":
            amount = number(value)
            if amount:
                yield fact(
                    doc,
                    line,
                    "host.cpu.quota",
                    amount / 1000 if value.strip().endswith("m") else amount,
                    "count",
                    label="pod",
                )
        elif name == "memory":
            hit = re.match(r"(\d+(?:\.\d+)?)\s*(\w*)", value)
            if hit and (limit := gib(hit.group(1), hit.group(2) or "b")) is not None:
                yield fact(doc, line, "host.memory.limit", limit, "GiB", label="pod")
        elif "/gpu" in name or name.startswith("nvidia.com/mig"):
            yield fact(doc, line, "container.gpus", value.strip(), label=name)
        else:
            yield fact(doc, line, "container.flag", value.strip(), label=name)

    def _slurm(self, doc: Document, line: Line) -> Iterator[Fact]:
        for name, value, short, count in _SLURM_FLAG.findall(line.text):
            label = name or {"c": "cpus-per-task", "n": "ntasks", "N": "nodes"}[short]
            yield fact(doc, line, "slurm.option", value or count or "true", label=label)


READERS: list[Reader] = [ContainerReader()]
