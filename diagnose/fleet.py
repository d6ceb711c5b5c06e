"""`diagnose audit --fleet FOLDER`: many recorded nodes side by side, each a cassette or an audit's JSON.

Nodes are grouped by hardware. Within a group a reading far from the median (in units of the median
absolute deviation) is an outlier; a setting that most share and some do not is mixed. Nodes that were
expected and are not there, or that could not be read, are named: results of the rest count.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from pydantic import ConfigDict, Field

from . import __version__
from .audit import FORMATS, MOMENT, SEVERITY, STABLE, Options, audit, expected, opened
from .catalogue import catalogue
from .checks import load
from .errors import EXIT_ERROR, EXIT_FINDING, EXIT_INCONCLUSIVE, EXIT_OK, DiagnoseError, InputError, UsageError
from .models import Model, Severity, Tool, Value

LEAST = 4  # nodes of one kind from which a distribution says anything
FAR = 5.0  # deviations from the median, in units of a normal distribution's standard deviation
APART = 0.05  # and this share of the median: a counter that is all but constant has no deviation
NORMAL = 1.4826  # of a normal distribution, over its median absolute deviation
NORMAL_MEAN = 1.2533  # … over its mean absolute deviation
USUAL = 0.6  # share of nodes that makes a value the usual one
# What follows the work of the moment is compared among GPUs that work, or among those that rest.
WORKING = ("gpu.temperature", "gpu.temperature.headroom", "gpu.power", "gpu.clock.sm", "gpu.clock.mem")
NOT_COMPARED = (
    "gpu.util", "gpu.memory.used", "gpu.pcie.gen", "host.load", "host.memory.available", "host.gpu_nodes",
    "host.kernel.cmdline", "rdma.counter",
)  # fmt: skip
_OWN = re.compile(r"RANK|SLURM|MASTER|NODE|HOST|_ID\b|KUBERNETES|VISIBLE|PID|ADDR|PORT|DIR|PATH|FILE", re.IGNORECASE)


class NodeResult(Model):
    """One node."""

    name: str
    hardware: str
    worst: Severity | None = None
    findings: dict[str, Severity] = Field(default_factory=dict)
    outliers: int = 0


class CheckResult(Model):
    """A check and the nodes on which it is a finding."""

    check: str
    severity: Severity
    title: dict[str, str]
    fix: dict[str, str]
    nodes: list[str]


class Outlier(Model):
    """A reading far from its group's median; `deviations`: robust standard ones, None where the others agree."""

    node: str
    hardware: str
    signal: str
    subject: str
    value: float
    unit: str | None
    median: float
    deviations: float | None


class Mixed(Model):
    """A setting that most nodes share, and the nodes that have another value."""

    hardware: str | None
    signal: str
    subject: str
    usual: Value
    nodes: int
    others: dict[str, list[str]]


class Failed(Model):
    """A node that gave no result."""

    name: str
    reason: str


class Fleet(Model):
    """Contract of `diagnose audit --fleet … --format json`."""

    schema_: str = Field(default="diagnose.fleet/v1", alias="schema")
    tool: Tool
    nodes: list[NodeResult] = Field(default_factory=list)
    checks: list[CheckResult] = Field(default_factory=list)
    outliers: list[Outlier] = Field(default_factory=list)
    mixed: list[Mixed] = Field(default_factory=list)
    missing: list[str] = Field(default_factory=list)
    failed: list[Failed] = Field(default_factory=list)

    model_config = ConfigDict(extra="ignore", populate_by_name=True, serialize_by_alias=True)


@dataclass
class Node:
    """What is kept of a node's audit."""

    name: str
    findings: dict[str, Severity] = field(default_factory=dict)
    readings: dict[tuple[str, str], tuple[Value, str | None]] = field(default_factory=dict)

    @property
    def hardware(self) -> str:
        """Models and numbers of its GPUs."""
        names = Counter(str(v) for (signal, _), (v, _) in self.readings.items() if signal == "gpu.name")
        return ", ".join(f"{n}x {name}" for name, n in sorted(names.items())) or "no GPU"


# --- reading


def entries(folder: Path) -> list[Path]:
    """Cassettes and audits of a folder, in order of name. Raises InputError."""
    if not folder.is_dir():
        raise InputError(
            f"{folder} is no folder", "give a folder of cassettes (diagnose record) or audits (--save-baseline)"
        )
    found = [p for p in sorted(folder.iterdir()) if p.suffix in (".cassette", ".zip", ".json")]
    if not found:
        raise InputError(f"{folder} holds no cassette and no audit", "diagnose record -o NODE.cassette on each node")
    return found


def node(path: Path, options: Options) -> Node | Failed | None:
    """One entry as a node; what goes wrong is said, never raised. None for JSON that is something else."""
    name = path.name.removesuffix(".zip").removesuffix(".json").removesuffix(".cassette")
    try:
        if path.suffix == ".json":
            made = json.loads(path.read_bytes())
            if not isinstance(made, dict) or made.get("schema") != "diagnose.audit/v1":
                return None
        else:
            made = audit(opened([], str(path)), options).model_dump(mode="json")
        return Node(
            name,
            {str(f["check"]): f["severity"] for f in made["findings"]},
            {(str(r["signal"]), str(r["subject"])): (r["value"], r.get("unit")) for r in made["readings"]},
        )
    except DiagnoseError as err:
        return Failed(name=name, reason=err.message)
    except (OSError, ValueError, KeyError, TypeError) as err:
        return Failed(name=name, reason=f"cannot be read: {err}"[:200])


def _one(work: tuple[Path, Options]) -> Node | Failed | None:
    return node(*work)


def read_all(paths: list[Path], options: Options) -> list[Node | Failed | None]:
    """All entries; cassettes side by side on several cores, as each costs about a second."""
    heavy = [p for p in paths if p.suffix != ".json"]
    cores = min(os.cpu_count() or 1, len(heavy) // 2, 16)
    if cores < 2:
        return [node(p, options) for p in paths]
    with ProcessPoolExecutor(cores) as pool:
        done = dict(zip(heavy, pool.map(_one, [(p, options) for p in heavy], chunksize=4), strict=True))
    return [done[p] if p in done else node(p, options) for p in paths]


def names_of(text: str) -> list[str]:
    """``node[001-003,7]+login`` as names. Raises UsageError."""
    out: list[str] = []
    for part in filter(None, text.split("+")):
        hit = re.fullmatch(r"([^\[]*)\[([\d,-]+)\](.*)", part)
        if hit is None:
            if "[" in part or "]" in part:
                raise UsageError(f"cannot read the list of nodes {text!r}", "node[001-064]+login1")
            out.append(part)
            continue
        for span in hit[2].split(","):
            low, _, high = span.partition("-")
            if not low.isdigit() or (high and not high.isdigit()) or int(high or low) - int(low) > 100_000:
                raise UsageError(f"cannot read the list of nodes {text!r}", "node[001-064]+login1")
            out += [f"{hit[1]}{n:0{len(low)}d}{hit[3]}" for n in range(int(low), int(high or low) + 1)]
    return out


# --- comparing


def compare(nodes: Iterable[Node], failed: list[Failed], wanted: list[str]) -> Fleet:
    """Merge and rank."""
    kept = sorted(nodes, key=lambda n: n.name)
    groups: dict[str, list[Node]] = {}
    for one in kept:
        groups.setdefault(one.hardware, []).append(one)
    far = [o for name, members in sorted(groups.items()) for o in outliers(name, members)]
    mixtures = mixed(None, kept)
    for name, members in sorted(groups.items()):
        mixtures += mixed(name, members)
    count = Counter(o.node for o in far)
    results = [
        NodeResult(
            name=n.name, hardware=n.hardware, findings=n.findings, outliers=count[n.name],
            worst=max(n.findings.values(), key=SEVERITY.__getitem__, default=None),
        )
        for n in kept
    ]  # fmt: skip
    results.sort(key=lambda r: (*(-x for x in _weight(r)), r.name))
    there = {n.name for n in kept} | {f.name for f in failed}
    return Fleet(
        tool=Tool(version=__version__, catalogue=catalogue().version), nodes=results, checks=by_check(kept),
        outliers=far, mixed=mixtures, missing=[w for w in wanted if w not in there], failed=failed,
    )  # fmt: skip


def _weight(result: NodeResult) -> tuple[int, int, int, int]:
    found = Counter(result.findings.values())
    return found["high"], found["medium"], result.outliers, found["low"]


def by_check(nodes: Iterable[Node]) -> list[CheckResult]:
    """Findings by check, the most severe and the most frequent first."""
    where: dict[tuple[str, Severity], list[str]] = {}
    for one in nodes:
        for check, severity in one.findings.items():
            where.setdefault((check, severity), []).append(one.name)
    _, known = load()
    out = []
    for (check, severity), names in where.items():
        item = known.get(check)
        title, fix = (item.title, item.fix) if item else ((check, check), ("", ""))
        out.append(
            CheckResult(check=check, severity=severity, nodes=names, title=dict(zip(("en", "zh"), title, strict=True)),
                        fix=dict(zip(("en", "zh"), fix, strict=True)))
        )  # fmt: skip
    return sorted(out, key=lambda c: (-SEVERITY[c.severity], -len(c.nodes), c.check))


def outliers(hardware: str, nodes: list[Node]) -> list[Outlier]:
    """Readings far from the median of all like them: the same signal, and the same label where it is no GPU's."""
    if len(nodes) < LEAST:
        return []
    samples: dict[tuple[str, str], list[tuple[float, Node, str, str | None]]] = {}
    for one in nodes:
        busy = {
            s: v >= 0.5 for (n, s), (v, _) in one.readings.items() if n == "gpu.util" and isinstance(v, (int, float))
        }
        for (signal, subject), (value, unit) in one.readings.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or signal in NOT_COMPARED:
                continue
            kind = re.sub(r"\b(?:gpu|peer|nic|rank|host) \S+ ?", "", subject)
            if signal in WORKING:
                gpu = re.match(r"gpu \d+", subject)
                kind += " at work" if busy.get(gpu[0] if gpu else "", False) else " at rest"
            samples.setdefault((signal, kind), []).append((float(value), one, subject, unit))
    out = []
    for (signal, _), rows in sorted(samples.items()):
        middle = median(v for v, *_ in rows)
        spread = NORMAL * median(abs(v - middle) for v, *_ in rows)
        if not spread and signal in MOMENT:  # more than half agree by chance; a setting that all but one share stays 0
            spread = NORMAL_MEAN * sum(abs(v - middle) for v, *_ in rows) / len(rows)
        if len({n.name for _, n, *_ in rows}) < LEAST:
            continue
        for value, one, subject, unit in rows:
            apart = abs(value - middle)
            if apart > max(FAR * spread, APART * abs(middle)) and apart > 0:
                out.append(
                    Outlier(node=one.name, hardware=hardware, signal=signal, subject=subject, value=value, unit=unit,
                            median=middle, deviations=round(apart / spread, 1) if spread else None)
                )  # fmt: skip
    return sorted(out, key=lambda o: (-(o.deviations or float("inf")), o.signal, o.node, o.subject))


def mixed(hardware: str | None, nodes: list[Node]) -> list[Mixed]:
    """Settings that most nodes share; those of GPUs within one kind of hardware, all others over the fleet."""
    if len(nodes) < 2:
        return []
    values: dict[tuple[str, str], dict[str, list[str]]] = {}
    for one in nodes:
        for (signal, subject), (value, _) in one.readings.items():
            of_gpu = subject.startswith("gpu ") or signal.startswith(("gpu.", "topo.", "nvlink."))
            numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
            if signal not in STABLE or signal in NOT_COMPARED or of_gpu == (hardware is None):
                continue
            if numeric or (signal == "env.var" and _OWN.search(subject)):
                continue
            values.setdefault((signal, subject), {}).setdefault(str(value), []).append(one.name)
    out = []
    for (signal, subject), seen in sorted(values.items()):
        known = sum(map(len, seen.values()))
        if signal == "env.var" and known < len(nodes):
            have = {n for names in seen.values() for n in names}
            seen["(not set)"] = [n.name for n in nodes if n.name not in have]
            known = len(nodes)
        usual, most = max(seen.items(), key=lambda kv: (len(kv[1]), kv[0]))
        if len(seen) > 1 and (len(most) >= USUAL * known or signal == "version"):
            others = {v: names for v, names in sorted(seen.items()) if v != usual}
            out.append(
                Mixed(hardware=hardware, signal=signal, subject=subject, usual=usual, nodes=len(most), others=others)
            )
    return out


# --- the command


def run(folder: str, options: Options, *, fail_on: str, format_: str, save: str = "") -> int:
    """Compare the nodes of a folder and print; returns the exit status."""
    if format_ not in FORMATS:
        raise UsageError(f"--format takes {', '.join(FORMATS)}, not {format_!r}")
    if fail_on not in SEVERITY:
        raise UsageError(f"--fail-on takes {', '.join(SEVERITY)}, not {fail_on!r}")
    if re.match(r"(?:ray|slurm|hosts)\b", folder) and not Path(folder).is_dir():
        raise UsageError(
            f"--fleet {folder} is no folder; nodes are not reached over the network",
            "run `diagnose audit --save-baseline $(hostname).json` on each node and give the folder of results",
        )
    wanted: list[str] = []
    if hit := re.search(r"(?:^|,)nodes=((?:[^,\[]|\[[^\]]*\])*)", options.expect):
        wanted = names_of(hit[1])
        rest = (options.expect[: hit.start()] + options.expect[hit.end() :]).strip(",")
        options = Options(options.only, options.skip, options.profile, rest, "", options.langs)
    expected(options.expect)
    results = read_all(entries(Path(folder)), options)
    made = compare((r for r in results if isinstance(r, Node)), [r for r in results if isinstance(r, Failed)], wanted)
    text = made.model_dump_json(by_alias=True, indent=1) + "\n"
    if save:
        Path(save).write_text(text, "utf-8")
    if format_ == "json":
        from .triage import escaped

        sys.stdout.write(escaped(text))
    else:
        from .fleet_screen import page

        sys.stdout.write(page(made, options.langs[0], format_ == "md"))
    if not made.nodes:
        return EXIT_ERROR
    if made.missing or any(SEVERITY[c.severity] >= SEVERITY[fail_on] for c in made.checks):
        return EXIT_FINDING
    return EXIT_INCONCLUSIVE if made.failed else EXIT_OK


assert set(WORKING) <= {*MOMENT, *STABLE}
