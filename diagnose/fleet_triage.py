"""`diagnose "all-reduce is slow" --fleet …`: every node judged, the odd one named, one report from all.

Each node is triaged by itself, and all are compared. What that says is a capture of its own, ``fleet.txt``;
the report is made from it and from the captures of the node that it names, whose name stands in front of
each of them. Captures of several machines are never thrown together: the GPU 0 of one is not the other's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .assess import assess
from .audit import Options
from .catalogue import catalogue
from .document import Document
from .emit import SEVERITY, emit
from .engine import Triage
from .errors import EXIT_ERROR, EXIT_FINDING, EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, EXIT_OK, InputError
from .fleet import entries, fleet_folder, node, workers
from .fleet_collect import Collected, collect, is_folder, launcher, tell
from .fleet_models import Failed, Fleet, Node
from .fleet_rank import compare
from .models import Fact, InputRef, Report
from .predicates import Context

SUMMARY = "fleet.txt"
HEAD = "# diagnose fleet, one line each: what its nodes came to, and what stands apart"
MOST_NAMES, MOST_LINES = 16, 40


@dataclass(frozen=True)
class Judged:
    """What one node came to by itself."""

    name: str
    path: Path
    verdict: str  # a cause, healthy or inconclusive
    confidence: float
    node: Node


@dataclass
class Overview:
    """All nodes."""

    judged: list[Judged] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    fleet: Fleet | None = None

    @property
    def verdicts(self) -> list[tuple[str, list[Judged]]]:
        """Nodes by verdict: the surest cause first, then the rarer one; healthy and undecided last."""
        by: dict[str, list[Judged]] = {}
        for one in self.judged:
            by.setdefault(one.verdict, []).append(one)
        for some in by.values():
            some.sort(key=lambda j: (-j.confidence, j.name))
        return sorted(
            by.items(), key=lambda kv: (kv[0] in ("healthy", "inconclusive"), kv[0] == "healthy",
                                        -round(kv[1][0].confidence, 1), len(kv[1]), kv[0])
        )  # fmt: skip

    @property
    def subject(self) -> Judged:
        """The node that the report is about: of the leading cause, else the slow one, else one still undecided."""
        first, nodes = self.verdicts[0]
        if first in ("healthy", "inconclusive") and self.fleet is not None:
            order = [*self.fleet.slow, *(o.node for o in self.fleet.outliers)]
            found = {j.name: j for j in self.judged}
            odd = [found[n] for n in order if n in found]
            if odd:
                return odd[0]
        return nodes[0]


def judge(path: Path, symptom: str) -> Judged | Failed | None:
    """One node by itself; what goes wrong is said, never raised."""
    from .engine import triage
    from .inputs import open_inputs

    read = node(path, Options())
    if not isinstance(read, Node):
        return read
    if path.suffix == ".json":
        return Failed(name=read.name, reason="an audit holds no captures; give the node's cassette")
    try:
        documents, _ = open_inputs([path], None)
    except InputError as err:
        return Failed(name=read.name, reason=err.message)
    got = seeing(triage(symptom, documents)).assessment
    named = got.accepted[0].cause.id if got.verdict == "cause" else got.verdict
    return Judged(read.name, path, named, got.confidence, read)


def seeing(got: Triage) -> Triage:
    """The triage, undecided where a node without a GPU was asked about GPUs: its own load explains nothing."""
    known = catalogue()
    book = known.playbooks.get(got.playbook)
    none = any(e.signal == "host.gpu_nodes" and e.value == "none" for e in got.evidence)
    if book is None or book.without_gpu or not none:
        return got
    ctx = got.context
    bare = assess(known, Context([], ctx.playbook, ctx.symptom, [], {}, ctx.asked))
    undecided = replace(bare, verdict="inconclusive", confidence=1.0, accepted=[], links=[])
    return replace(got, assessment=undecided)


def _judge(work: tuple[Path, str]) -> Judged | Failed | None:
    return judge(*work)


def overview(paths: Sequence[Path], failed: Iterable[Failed], symptom: str, alone: bool = False) -> Overview:
    """Judge all nodes, side by side on several cores unless `alone`, and compare them."""
    cores = min(os.cpu_count() or 1, len(paths) // 2, 16)
    work = [(p, symptom) for p in paths]
    if cores < 2 or alone:
        found = [_judge(w) for w in work]
    else:
        with workers(cores) as pool:
            found = list(pool.map(_judge, work, chunksize=2))
    made = Overview(
        [j for j in found if isinstance(j, Judged)], [*failed, *(f for f in found if isinstance(f, Failed))]
    )
    made.judged.sort(key=lambda j: j.name)
    made.fleet = compare([j.node for j in made.judged], made.failed, [])
    return made


def names(listed: Sequence[str]) -> str:
    """Names for a line."""
    more = len(listed) - MOST_NAMES
    return ", ".join(listed[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def summary(made: Overview) -> str:
    """The fleet as a capture; `probes/fleet_table.py` reads it back."""
    total = len(made.judged)
    out = [HEAD]
    if made.judged:
        about = made.subject
        out.append(f"subject {about.name}: {about.verdict} {about.confidence:.2f}")
    for verdict, nodes in made.verdicts:
        out.append(f"verdict {verdict}: {len(nodes)} of {total} nodes: {names([j.name for j in nodes])}")
    fleet = made.fleet
    if fleet is not None:
        for o in fleet.outliers[:MOST_LINES]:
            far = f"; {o.formula} = {o.deviations:g}, counts from {o.needed:g}" if o.deviations is not None else ""
            head = f"{'slow' if o.slow else 'apart'} {o.node} {o.signal} {o.subject}".rstrip()
            times = f", {o.median / o.value:.2f} times less" if o.slow and o.value > 0 else ""
            unit = f" {o.unit}" if o.unit else ""
            out.append(f"{head}: {o.value:g}{unit}, median {o.median:g}{unit} of {o.compared} readings{times}{far}")
        for m in fleet.mixed[:MOST_LINES]:
            for value, who in list(m.others.items())[:4]:
                usual = f"{str(m.usual)[:60]} on {m.nodes}"
                what = f"{m.signal} {m.subject.removeprefix('label ')}".rstrip()
                out.append(f"mixed {what}: {value[:60]} on {names(who)}; usually {usual}")
    out += [f"failed {f.name}: {' '.join(f.reason.split())}" for f in made.failed[:MOST_LINES]]
    return "\n".join(out) + "\n"


def opened(judged: Judged) -> tuple[list[Document], list[InputRef]]:
    """A node's captures, its name in front of each, as if the whole folder had been given."""
    from .inputs import open_inputs

    documents, rejected = open_inputs([judged.path], None)
    if judged.path.is_dir():
        for document in documents:
            document.name = f"{judged.path.name}/{document.name}"
    return documents, rejected


def report(
    made: Overview, symptom: str, langs: tuple[str, ...], folder: Path, stated: Sequence[Fact] = (),
    seen: list[Document] | None = None,
) -> Report:  # fmt: skip
    """The report of a fleet. `fleet.txt` is kept in `folder` beside the cassettes; what was read is put into `seen`."""
    from . import said
    from .engine import conclude, told
    from .gather import gather
    from .verify import verify

    text = summary(made)
    (folder / SUMMARY).write_text(text, "utf-8")
    documents: list[Document] = [Document.of(SUMMARY, text.encode())]
    rejected = [InputRef(name=f.name, sha256=None, recognised_as=None, reason=f.reason) for f in made.failed]
    if made.judged:
        some, refused = opened(made.subject)
        documents += some
        rejected += refused
    gathered = gather(documents)
    said.add(gathered, list(stated))
    got = seeing(conclude(symptom, gathered))
    unsure = bool(made.failed) or any(v == "inconclusive" for v, _ in made.verdicts)
    if got.assessment.verdict == "healthy" and unsure:  # one node's health is not that of those that said nothing
        got.assessment = replace(got.assessment, verdict="inconclusive", confidence=1 - got.assessment.confidence)
    if seen is not None:
        seen += documents
    done = told(got, rejected, langs)
    for line in verify(done.model_dump(mode="json", by_alias=True), documents, again=False)[:5]:
        print(f"diagnose: this report does not verify: {line}", file=sys.stderr)
    return done


# --- the command


def reach(target: str, symptom: str, limit: float) -> Collected:
    """Record every node for this symptom."""
    from .mask import mask
    from .progress import Progress
    from .record import script_text
    from .route import asked
    from .rules import registered

    how = launcher(target)
    known = catalogue()
    registered(known)
    book = asked(known, symptom, [])[0] if symptom else ""
    words = ["record", "-o", "{cassette}", "--symptom", mask(symptom)]
    words += ["--playbook", book] if book in known.playbooks else []
    with Progress() as progress:
        return collect(
            how, fleet_folder(""), command=words, plain=script_text(book if book in known.playbooks else ""),
            limit=limit, symptom=symptom, say=progress.say,
        )  # fmt: skip


def show_plan(target: str, limit: float, symptom: str) -> int:
    """--dry-run: what would run here, and the script that each node would get."""
    from .fleet_payload import script
    from .record import script_text
    from .route import asked

    book = asked(catalogue(), symptom, [])[0]
    for line in launcher(target).commands():
        print(f"$ {line}")
    print(script(["record", "-o", "{cassette}", "--symptom", symptom, "--playbook", book], script_text(book), limit))
    return EXIT_OK


def run(
    target: str, symptom: str, *, langs: tuple[str, ...], format_: str, fail_on: str, verbose: bool, limit: float,
    dry_run: bool = False, stated: Sequence[Fact] = (),
) -> int:  # fmt: skip
    """Triage a fleet and print the report; returns the exit status."""
    from .progress import Progress

    got: Collected | None = None
    if is_folder(target):
        paths, failed, folder = entries(Path(target)), list[Failed](), fleet_folder("")
    elif dry_run:
        return show_plan(target, limit, symptom)
    else:
        got = reach(target, symptom, limit)
        tell(got)
        paths, failed, folder = [got.cassettes[n] for n in sorted(got.cassettes)], got.failed, got.folder
    with Progress() as progress:
        progress.say(f"judging {len(paths)} node(s)")
        made = overview(paths, failed, symptom)
        done = report(made, symptom, langs, folder, stated)
    emit(done, format_, verbose)
    if format_ != "json":
        told = summary(made).splitlines()[1:]
        sys.stdout.write("\n".join(["", "## Fleet" if format_ == "md" else "Fleet", ""]) + "\n")
        sys.stdout.writelines(f"{'-' if format_ == 'md' else ' '} {line}\n" for line in told)
    sys.stdout.flush()
    if got is None:
        print(f"{SUMMARY} is in {folder}", file=sys.stderr)
    elif not got.complete:
        return EXIT_INTERRUPTED
    if not made.judged:
        return EXIT_ERROR
    if done.verdict == "inconclusive":
        return EXIT_INCONCLUSIVE
    worst = max((SEVERITY[f.severity] for f in done.findings), default=-1)
    if worst >= SEVERITY[fail_on]:
        return EXIT_FINDING
    return EXIT_INCONCLUSIVE if made.failed else EXIT_OK
