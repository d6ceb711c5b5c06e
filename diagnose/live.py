"""A live run: which probes may run on this machine, which runs next, and what came of each.

`Live` is the runtime half of the graph's live nodes. It holds no evidence and no text: captures go
into the run's cassette, documents into the session, references into the state.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from .assess import SURE, Assessment, assess
from .cassette import SUFFIX, Cassette
from .catalogue import catalogue
from .collect import Capture, Collector, NotCaptured, collect, collectors
from .document import Document
from .fanout import side_by_side
from .host import GPU_NODES, Host
from .planner import DISTURBANCE, Option, options
from .predicates import Context

FOOTPRINTS = ("read", "light", "load")
QUICK = 5.0  # seconds: a read probe that takes longer runs only when the planner asks for it
# Seconds a run may take by what it is allowed to do, unless --budget says otherwise.
BUDGET = {"read": 5.0, "light": 120.0, "load": 600.0}
BASE = (
    "nvidia_smi.q",
    "nvidia_smi.topo",
    "env.dump",
    "python.env",
    "devices.visible",
    "nvidia_smi.processes",
)  # limits and context
# A server that was named is always looked at, however long that takes; elsewhere this machine says nothing about it.
SERVER = ("vllm.metrics", "serving.args", "server.use", "vllm.log", "kv.capacity")
# probes that also work for a server on another machine
NOT_HERE = frozenset([*SERVER, "client.direct", "client.repeat"])
_AT_ONCE = 8


def allowed(level: str) -> frozenset[str]:
    """Footprints up to `level`."""
    return frozenset(FOOTPRINTS[: FOOTPRINTS.index(level) + 1])


@dataclass
class Live:
    """One live run.

    Attributes:
        host, cassette: the machine, and where captures go.
        allow: footprints that need no question.
        budget: seconds that probes may take together.
        ask: puts the question of consent to the user; None without a terminal.
        progress: hears what runs now.
    """

    host: Host
    cassette: Cassette
    allow: frozenset[str] = frozenset(["read"])
    budget: float = BUDGET["read"]
    asks: bool = False
    progress: Callable[[str], None] = lambda text: None
    refused: set[str] = field(default_factory=set)
    used: float = 0.0
    ran: dict[str, float] = field(default_factory=dict)
    known: Mapping[str, Collector] = field(default_factory=collectors)  # a cassette's, in an interactive replay

    def first(self, playbooks: Iterable[str], symptom: str) -> list[Collector]:
        """Read probes worth running before anything is known: quick ones that tell something about the question."""
        cat = catalogue()
        names = list(playbooks)
        ctx = Context([], names[0], symptom, [], {}, frozenset(names))
        known = self.known
        wanted = [o.spec.name for o in options(cat, assess(cat, ctx), ctx)]
        named = SERVER if self.server else ()
        order = dict.fromkeys(
            [*named, *BASE, *(() if named else wanted)]
        )  # the rest only where a server leaves it open
        picked = [known[n] for n in order if n in known and self._here(n) and self._new(n)]
        return [c for c in picked if c.spec.footprint == "read" and (c.probe in named or c.cost(self.host) <= QUICK)]

    @property
    def server(self) -> bool:
        """Was a server named?"""
        return bool({"endpoint", "prometheus"} & set(self.host.params))

    def _here(self, probe: str) -> bool:
        """Can this machine answer it: is it the server's, or does the probe only ask the server?"""
        if not self.server or probe in NOT_HERE:
            return True
        from .endpoint import Endpoint

        return "endpoint" in self.host.params and Endpoint.of(self.host.params).local

    def silent(self) -> bool:
        """Was a server named that gave nothing by which it is known?"""
        heard = {k[0] for k in self.cassette.captures} & set(SERVER)
        if any(k[0] == SERVER[0] and k[2] == "engine" for k in self.cassette.missing):
            heard.discard(SERVER[0])
        return self.server and not heard

    def idle(self) -> bool:
        """Was a server named that gave nothing to judge: not there, or without a request in the window?"""
        quiet = any(k[0] == SERVER[0] and k[2].endswith("traffic") for k in self.cassette.missing)
        return self.server and (quiet or self.silent())

    def noted(self) -> dict[str, str]:
        """What is to be said of the named server, beside what was captured: it is dead, restarted, has no traffic."""
        name = SERVER[0]
        told = any(k[0] == name for k in self.cassette.missing)
        return {name: self.why_not(name)} if self.server and told else {}

    def _new(self, probe: str) -> bool:
        return probe not in self.ran and probe not in self.refused and not self.cassette.has(probe)

    def run(self, chosen: Iterable[Collector]) -> list[Document]:
        """Run collectors that do not disturb each other side by side; returns the documents they gave."""
        started = time.monotonic()
        out: list[Document] = []
        todo = list(chosen)
        with closing(side_by_side(todo, self._timed, _AT_ONCE)) as ended:
            for item, (items, seconds) in ended:
                self.ran[item.probe] = seconds
                left = [c.probe for c in todo if c.probe not in self.ran]
                self.progress(f"{len(todo) - len(left)} of {len(todo)} done, under way: {', '.join(left[:3])}")
                out.extend(c.document() for c in self.cassette.add(items))
        self.used += time.monotonic() - started
        return sorted(out, key=lambda d: d.name)

    def blind(self, playbook: str) -> bool:
        """Is there nothing here to see: a question about a GPU or a server, on a machine that shows neither?"""
        if catalogue().playbooks[playbook].without_gpu or self.host.root != Path("/"):
            return False
        if self.server:
            return self.silent()
        if self.host.find("nvidia-smi"):
            return False
        return not any(self.host.glob(pattern) for pattern in GPU_NODES)

    def collector(self, probe: str) -> Collector:
        """The collecting half of a probe."""
        return self.known[probe]

    def run_named(self, probe: str) -> list[Document]:
        """Run one probe by name."""
        return self.run([self.known[probe]])

    def _timed(self, collector: Collector) -> tuple[list[Capture | NotCaptured], float]:
        begin = time.monotonic()
        return collect(collector, self.host), time.monotonic() - begin

    def next(self, got: Assessment, ctx: Context) -> Option | None:
        """The probe that tells most per cost among those that can run here and fit the budget, or None."""
        if got.verdict == "healthy" or (got.verdict == "cause" and got.confidence >= SURE) or self.idle():
            return None
        known = self.known

        def worth(option: Option) -> float:
            item = known.get(option.spec.name)
            seconds = item.cost(self.host) if item else option.spec.seconds
            return -option.gain / ((1.0 + seconds) * DISTURBANCE[option.spec.footprint])

        for option in sorted(options(catalogue(), got, ctx), key=lambda o: (worth(o), o.spec.name)):
            item = known.get(option.spec.name)
            if item is None or not self._new(item.probe) or not self._here(item.probe):
                continue
            if option.spec.footprint not in self.allow and not self.asks:
                continue
            if self.used + item.cost(self.host) > self.budget and option.spec.footprint in self.allow:
                continue
            if item.ready(self.host) is None:
                return option
        return None

    def why_not(self, probe: str) -> str:
        """Why a probe of the catalogue gave nothing in this run."""
        reasons = [m.reason for k, m in sorted(self.cassette.missing.items()) if k[0] == probe]
        if reasons:
            return "; ".join(dict.fromkeys(reasons))
        item = self.known.get(probe)
        if probe in self.ran or any(k[0] == probe for k in self.cassette.captures):
            return "it ran, and its output does not answer this"
        if item is None:
            return "this needs the job itself, or a second machine: run it by hand and give the output with --evidence"
        missing = item.ready(self.host)
        if missing is not None:
            return missing
        footprint = item.spec.footprint
        if probe in self.refused:
            return "you said no"
        if footprint not in self.allow:
            return f"needs --allow {footprint}"
        if self.used + item.cost(self.host) > self.budget:
            return f"takes {item.cost(self.host):g} s, more than is left of the budget of {self.budget:g} s (--budget)"
        return "not needed for this verdict"


def run_folder(playbook: str) -> Path:
    """A new folder for a run's cassette: in the user's state folder, or a temporary one where that is read-only."""
    from platformdirs import user_state_path

    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{playbook}{SUFFIX}"
    try:
        base = user_state_path("diagnose") / "runs"
        base.mkdir(parents=True, exist_ok=True)
        (base / name).mkdir()
    except (OSError, RuntimeError):
        return Path(tempfile.mkdtemp(prefix="diagnose-")) / name
    return base / name


def consent_question(name: str, host: Host) -> dict[str, object]:
    """What the user is asked before a probe that disturbs: command, seconds, what it may disturb, who is on the GPU."""
    item = collectors()[name]
    spec = item.spec
    return {
        "probe": name,
        "what": spec.what,
        "footprint": spec.footprint,
        "seconds": item.cost(host),
        "commands": item.shown(host),
        "disturbs": spec.disturbs or DISTURBS[spec.footprint],
        "busy": busy(),
    }


DISTURBS = {
    "read": "nothing",
    "light": "a GPU or a server for some seconds",
    "load": "whatever else runs on the GPUs, the links or the server while it runs",
}


def busy() -> str:
    """Processes that compute on a GPU now, in words."""
    from . import nvml

    counts = []
    try:
        with nvml.opened() as api:
            for index in range(api.nvmlDeviceGetCount()):
                handle = api.nvmlDeviceGetHandleByIndex(index)
                if found := len(api.nvmlDeviceGetComputeRunningProcesses(handle)):
                    counts.append(f"GPU {index}: {found} process(es)")
    except nvml.NvmlGap as gap:
        return f"not known ({gap})" if gap.driver else f"no NVIDIA driver here ({gap})"
    return "; ".join(counts) or "no process on any GPU"
