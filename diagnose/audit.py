"""`diagnose audit`: what is wrong or wasteful about a machine, without a symptom.

Read the machine (or evidence, or a cassette), make facts of it with the readers an audit needs, decide
every check, compare with a baseline. Only reading probes run, and nothing is changed or kept.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .audit_models import Audit, AuditCheck, AuditFinding, AuditFix, Drift, NotAvailable, Reading
from .catalogue import catalogue
from .checks import Result, decide, load, select, signals
from .document import Document
from .document_plain import plain
from .emit import FORMATS, SEVERITY, escaped
from .errors import EXIT_ERROR, EXIT_FINDING, EXIT_INCONCLUSIVE, EXIT_OK, InputError, UsageError
from .fanout import side_by_side
from .gather import Gathered, number, owns
from .marks import Scanner
from .mask import mask_report
from .models import Evidence, Fact, InputRef, Stats, Subject, Tool
from .predicates import Context
from .salvage import finite, read

if TYPE_CHECKING:
    from .collect import Collector, NotCaptured
    from .plugin import Reader

# Reading probes that say something about the machine itself, not about a job or a server on it.
PROBES = (
    "host.settings", "env.dump", "python.env", "devices.visible", "nvidia_smi.q", "nvidia_smi.topo", "nvidia_smi.p2p",
    "nvidia_smi.nvlink", "dmesg.xid", "host.cpu", "host.memory", "host.numa", "host.limits", "host.disk", "host.iommu",
    "rdma.link", "container.config", "pci.acs", "clock.sync",
)  # fmt: skip
READERS = (
    "nvidia_smi", "nvidia_smi_q", "nvidia_smi_csv", "topology", "dmesg", "host", "host_load", "host_settings",
    "env_dump", "container", "rdma", "rdma_sysfs", "live_host",
)  # fmt: skip
COLLECTING = ("live_host", "host_settings", "live_rdma")
# Readings that stay as they are while nobody changes the machine: what a baseline is about.
STABLE = (
    "version", "gpu.name", "gpu.count", "gpu.clock.sm.max", "gpu.clock.mem.max", "gpu.clock.app", "gpu.power.limit",
    "gpu.pcie.gen.max", "gpu.pcie.width.max", "gpu.ecc.mode", "gpu.mig", "gpu.compute_mode", "gpu.persistence",
    "gpu.memory.total", "gpu.remap.rows", "gpu.ecc.uncorrected", "gpu.fabric", "nvlink.links", "nvlink.rate",
    "topo.link", "topo.gpu_nic", "topo.p2p", "rdma.port.state", "rdma.port.rate", "rdma.port.mtu", "rdma.device",
    "net.interface.mtu", "net.interface.rate", "host.kernel", "host.kernel.cmdline", "host.cpu.count",
    "host.cpu.model", "host.cpu.governor", "host.cpu.quota", "host.numa.nodes", "host.numa.balancing", "host.thp",
    "host.memory.total", "host.memory.limit", "host.shm.size", "host.limit.memlock", "host.limit.nofile",
    "host.clocksource", "host.modules", "host.gpu_nodes", "host.virtual", "host.container", "driver.module",
    "env.var", "pip.package", "pci.acs",
)  # fmt: skip
# Readings of the moment, kept for comparing nodes of a fleet.
MOMENT = (
    "gpu.temperature", "gpu.temperature.headroom", "gpu.power", "gpu.clock.sm", "gpu.clock.mem", "gpu.pcie.gen",
    "gpu.pcie.width", "gpu.pcie.replays", "gpu.util", "gpu.memory.used", "gpu.ecc.corrected", "nvlink.errors",
    "host.load", "host.memory.available", "host.cpu.throttled", "rdma.counter", "clock.offset",
)  # fmt: skip
_COUNTS = {"gpus": "expect.gpus", "nics": "expect.nics"}


@dataclass
class Seen:
    """The machine as it was read."""

    name: str
    documents: list[Document] = field(default_factory=list)
    rejected: list[InputRef] = field(default_factory=list)
    missing: list[NotAvailable] = field(default_factory=list)
    probes: int = 0


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    profile: str = ""
    expect: str = ""
    baseline: str = ""
    langs: tuple[str, ...] = ("en",)


# --- reading the machine


def look(sysfs_root: str = "", record: str = "") -> Seen:
    """Run the reading probes here; with `record`, keep what they gave as a cassette."""
    from .cassette import Cassette
    from .collect import Capture, NotCaptured, collect, collectors
    from .host import Host

    host = Host({}, Path(sysfs_root or "/"))
    known = collectors() if sysfs_root else _few_collectors()
    cassette = Cassette.create(Path(record), "") if record else Cassette(Path("audit"))
    seen = Seen("this machine")
    chosen = [known[name] for name in PROBES if name in known]
    with closing(side_by_side(chosen, lambda c: collect(c, host), 4)) as ended:
        given = {c.probe: items for c, items in ended}
    for items in (given[c.probe] for c in chosen):
        seen.probes += any(isinstance(i, Capture) for i in items)
        seen.missing += [_missing(i) for i in items if isinstance(i, NotCaptured)]
        captures = cassette.add(items) if record else [cassette.masked(i) for i in items if isinstance(i, Capture)]
        seen.documents += [c.document() for c in captures]
    return seen


def _few_collectors() -> dict[str, Collector]:
    """Collectors of an audit's probes, without importing those of servers and benchmarks."""
    from .collect import declared

    specs = catalogue().probes
    found = {name: declared(specs[name]) for name in PROBES if specs[name].run}
    for module in COLLECTING:
        found.update({c.probe: c for c in import_module(f"diagnose.probes.{module}").COLLECTORS})
    return found


def _missing(item: NotCaptured) -> NotAvailable:
    part = f" ({item.part})" if item.part else ""
    return NotAvailable(probe=item.probe + part, reason=item.reason, enable=item.enable)


def opened(paths: list[str], replay: str = "") -> Seen:
    """Evidence or a cassette in place of this machine."""
    from .inputs import open_inputs

    documents, rejected = open_inputs([*paths, *([replay] if replay else [])], sys.stdin.buffer)
    seen = Seen(replay or ", ".join(paths), documents, rejected, probes=len(documents))
    if replay:
        from .cassette import read

        for item in read(Path(replay)).get("not_captured") or []:
            part = f" ({item['part']})" if item.get("part") else ""
            if item.get("probe") in PROBES:
                seen.missing.append(
                    NotAvailable(
                        probe=f"{item['probe']}{part}", reason=str(item.get("reason", "")),
                        enable=str(item.get("enable", "")),
                    )
                )  # fmt: skip
    return seen


def facts(documents: Iterable[Document], wanted: set[str]) -> Gathered:
    """What the readers of an audit, and the marks that its checks name, find in the documents."""
    readers: list[Reader] = [r for m in READERS for r in import_module(f"diagnose.probes.{m}").READERS]
    scan = Scanner([m for m in catalogue().marks if m.signal in wanted])
    out = Gathered()
    for doc in documents:
        if doc.is_binary:
            continue
        out.documents[doc.name] = doc
        doc = plain(doc)
        head = doc.data if doc.size <= 8 << 20 else doc.read(0, 8 << 20)
        if doc.encoding != "utf-8":
            head = head.decode(doc.encoding, "replace").encode()
        problems: list[str] = []
        made: Counter[str] = Counter()
        chosen = [r for r in readers if any(n in head for n in r.needles)]
        whole = next((r for r in chosen if owns(r, doc)), None)
        for reader in [whole] if whole else chosen:
            facts, problem = read(reader, doc)
            out.facts.extend(facts)
            if problem:
                problems.append(problem)
            if facts:
                made[reader.name] = len(facts)
                out.recognised[reader.name] = out.recognised.get(reader.name, True) and doc.cut is None
        if whole is None:
            out.facts.extend(f for f in scan.scan(doc) if finite(f))
        name = made.most_common(1)[0][0] if made else None
        out.inputs.append(
            InputRef(name=doc.name, sha256=doc.sha256, recognised_as=name, reason="; ".join(problems) or doc.cut,
                     lines_skipped=doc.lines_skipped)
        )  # fmt: skip
    out.inputs.sort(key=lambda i: i.name)
    return out


# --- deciding


def expected(text: str) -> list[Fact]:
    """``gpus=8,nics=8,driver=580,gpu=H100`` as stated facts. Raises UsageError."""
    out: list[Fact] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = (w.strip() for w in part.partition("="))
        if name in _COUNTS and value.isdigit():
            out.append(
                Fact(_COUNTS[name], float(value), "count", statement=f"you expect {value} {name}", kind="stated")
            )
        elif name and value and name not in _COUNTS:
            out.append(
                Fact("expect.value", value, subject=Subject(label=name), statement=f"you expect {name} {value}",
                     kind="stated")
            )  # fmt: skip
        else:
            raise UsageError(
                f"--expect does not understand {part!r}",
                "gpus=8,nics=8,gpu=H100,driver=580,cuda=13,torch=2.11,nccl=2.28",
            )
    return out


def audit(seen: Seen, options: Options) -> Audit:
    """Decide every chosen check on what was read."""
    started = time.monotonic()
    checks = select(list(options.only), list(options.skip), options.profile)
    gathered = facts(seen.documents, set().union(*map(signals, checks)) if checks else set())
    gathered.facts += expected(options.expect)
    evidence = number(gathered)
    ctx = Context(evidence, recognised=gathered.recognised)
    results = [decide(check, ctx) for check in checks]
    used = {e.id: e for r in results if r.status == "finding" for e in r.used}
    made = Audit(
        tool=Tool(version=__version__, catalogue=catalogue().version),
        lang="both" if len(options.langs) > 1 else options.langs[0],
        machine=seen.name,
        profile=options.profile or None,
        findings=[_finding(r, options.langs) for r in _ranked(results)],
        checks=[
            AuditCheck(id=r.check.id, group=r.check.group, severity=r.check.severity, status=r.status,
                       reason=r.reason or None, evidence=[e.id for e in r.used] if r.status == "finding" else [])
            for r in results
        ],
        counts=dict(Counter(r.status for r in results)),
        readings=readings(evidence),
        evidence=[e for e in evidence if e.id in used],
        inputs=[*gathered.inputs, *seen.rejected],
        unavailable=seen.missing,
        stats=Stats(probes_run=seen.probes, seconds=round(time.monotonic() - started, 3)),
    )  # fmt: skip
    made = mask_report(made, gathered.documents.values())
    if options.baseline:
        made.drift = drift(baseline(options.baseline), made)
    return made


def _ranked(results: list[Result]) -> list[Result]:
    return sorted(
        (r for r in results if r.status == "finding"), key=lambda r: (-SEVERITY[r.check.severity], r.check.id)
    )


def _finding(result: Result, langs: tuple[str, ...]) -> AuditFinding:
    check = result.check
    return AuditFinding(
        check=check.id, group=check.group, severity=check.severity, title=in_languages(check.title, langs),
        because=check.because, evidence=[e.id for e in result.used],
        fix=AuditFix(text=in_languages(check.fix, langs), risk=check.risk), source=check.source,
    )  # fmt: skip


def in_languages(text: tuple[str, str], langs: tuple[str, ...]) -> dict[str, str]:
    """The text by language, those asked for."""
    return {lang: said for lang, said in zip(("en", "zh"), text, strict=True) if lang in langs}


def readings(evidence: Iterable[Evidence]) -> list[Reading]:
    """One value a signal and subject; several tools that say the same are one, different ones are joined."""
    kept: dict[tuple[str, str], tuple[dict[str, Evidence], str | None]] = {}
    for item in evidence:
        if item.signal in STABLE or item.signal in MOMENT:
            who = " ".join(f"{k} {v}" for k, v in item.subject.model_dump(exclude_none=True).items())
            values, _ = kept.setdefault((item.signal, who), ({}, item.unit))
            values.setdefault(str(item.value), item)
    out = []
    for (signal, who), (values, unit) in sorted(kept.items()):
        several = sorted(values) if len(values) > 1 and signal in STABLE else []
        last = next(reversed(values.values()))
        out.append(Reading(signal=signal, subject=who, value=" | ".join(several) or last.value, unit=unit))
    return out


# --- baselines


def baseline(path: str) -> Audit:
    """An earlier audit, as --save-baseline or --format json wrote it. Raises InputError."""
    try:
        return Audit.model_validate(json.loads(Path(path).read_text("utf-8")))
    except (OSError, ValueError) as err:
        raise InputError(f"{path} is no audit: {str(err).splitlines()[0]}", "write one with --save-baseline") from err


def drift(before: Audit, now: Audit) -> list[Drift]:
    """What changed between two audits: states of checks, and readings that do not change by themselves."""
    out: list[Drift] = []
    old = {c.id: c.status for c in before.checks}
    for check in now.checks:
        was = old.get(check.id)
        if was is not None and was != check.status and "finding" in (was, check.status):
            out.append(Drift(kind="check", what=check.id, before=was, after=check.status))
    then = {(r.signal, r.subject): r.value for r in before.readings if r.signal in STABLE}
    here = {(r.signal, r.subject): r.value for r in now.readings if r.signal in STABLE}
    read = {s for s, _ in here}  # a signal that could not be read this time did not change
    for signal, who in sorted(then.keys() | here.keys()):
        a, b = then.get((signal, who)), here.get((signal, who))
        if a != b and (signal in read or signal == "env.var"):
            out.append(Drift(kind="reading", what=signal, subject=who, before=a, after=b))
    return out


# --- the command


def run(
    evidence: list[str],
    replay: str,
    options: Options,
    *,
    sysfs_root: str = "",
    record: str = "",
    save: str = "",
    fail_on: str = "high",
    format_: str = "text",
    show: bool = False,
    verbose: bool = False,
) -> int:
    """Audit and print; returns the exit status.

    Raises:
        UsageError: an option has no such value, or evidence and a cassette are both named.
        InputError: the cassette cannot be read.
    """
    from .audit_screen import listing, markdown, screen

    for value, known, name in ((format_, FORMATS, "--format"), (fail_on, tuple(SEVERITY), "--fail-on")):
        if value not in known:
            raise UsageError(f"{name} takes {', '.join(known)}, not {value!r}")
    if show:
        listing(select(list(options.only), list(options.skip), options.profile), options.langs[0], format_)
        return EXIT_OK
    expected(options.expect)  # a mistake in it costs no probing
    if evidence and replay:
        raise UsageError("--evidence and --replay exclude each other")
    seen = opened(evidence, replay) if evidence or replay else look(sysfs_root, record)
    made = audit(seen, options)
    if save:
        Path(save).write_text(made.model_dump_json(by_alias=True, indent=1) + "\n", "utf-8")
    if format_ == "json":
        sys.stdout.write(escaped(made.model_dump_json(by_alias=True, indent=1)) + "\n")
    elif format_ == "md":
        sys.stdout.write(markdown(made, load()[0], options.langs[0]))
    else:
        screen(made, load()[0], options.langs[0], verbose)
    if not seen.documents:
        return EXIT_ERROR
    return status(made, fail_on)


def status(made: Audit, fail_on: str) -> int:
    """Exit status: a finding at or above the level, nothing could be decided, or done."""
    if any(SEVERITY[f.severity] >= SEVERITY[fail_on] for f in made.findings):
        return EXIT_FINDING
    decided = made.counts.get("finding", 0) + made.counts.get("passed", 0)
    return EXIT_OK if decided else EXIT_INCONCLUSIVE
