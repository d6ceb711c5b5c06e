"""The examiner of `diagnose practice`: the packaged drills, their answer keys, and the score of an attempt.

The console (`diagnose.practice_drill`) never sees what is here. A player's attempt and the planner's are both put
through `judge` and `scoring.Outcome`, as every diagnosis of the evaluation is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from diagnose.catalogue import catalogue, plain_yaml
from diagnose.entries import Data
from diagnose.errors import InputError, UsageError
from diagnose.models import Report
from diagnose.practice_card import Card, Line, Score
from diagnose.practice_drill import Attempt, Herring, Setup
from diagnose.practice_fix import FixScore
from diagnose.practice_fix import score as fix_score
from diagnose.practice_machine import Machine, Piece, seconds
from diagnose.practice_mind import rivals, weigh
from diagnose.practice_own import clues
from diagnose.practice_plan import Plan, plan, whole

from .case import Case, load
from .run import judge
from .scoring import HEALTHY, INCONCLUSIVE, Key, Outcome, brier_of

Track = Literal["serving", "collectives", "network", "cuda", "architect", "training"]
LIMIT = 240.0
HINTS = 3
_PROOF = 4  # lines of the engine's own finding that stand for a missing key


class Misleading(Data):
    """What the interviewer says of it, and why it does not matter."""

    says: str
    because: str


class Told(Data):
    """A drill in one language."""

    title: str
    symptom: str
    hints: tuple[str, ...]
    herring: Misleading


class DrillSpec(Data):
    """One entry of `evals/drills`.

    Attributes:
        cassette: of `evals/cassettes`; or case: ``file/id`` of `evals/cases`, with the probe of each artifact.
        proof: lines that decide it; a case brings its own. herring: probe after which the red herring is raised.
    """

    id: str
    track: Track
    cassette: str = ""
    case: str = ""
    probes: tuple[str, ...] = ()
    same: dict[str, str] = Field(default_factory=dict)
    proof: tuple[str, ...] = ()
    limit: float = LIMIT
    herring: str
    en: Told
    zh: Told

    @model_validator(mode="after")
    def _complete(self) -> DrillSpec:
        if bool(self.cassette) == bool(self.case):
            raise ValueError("either cassette or case")
        if any(len(told.hints) != HINTS for told in (self.en, self.zh)):
            raise ValueError(f"hints: exactly {HINTS}, each telling more")
        return self


def _folder(name: str) -> Path:
    return Path(str(files("diagnose.evals"))) / name


@lru_cache(maxsize=1)
def specs() -> dict[str, DrillSpec]:
    """The packaged drills by id.

    Raises:
        UsageError: two files declare the same drill.
    """
    out: dict[str, DrillSpec] = {}
    for file in sorted(_folder("drills").glob("*.yaml")):
        for raw in plain_yaml(file.read_text("utf-8")) or []:
            spec = DrillSpec.model_validate(raw)
            if spec.id in out:
                raise UsageError(f"{file.name}: drill {spec.id} is declared twice")
            out[spec.id] = spec
    return out


def listed(track: str, lang: str) -> list[tuple[str, str, str, float]]:
    """Id, track, title and seconds of the packaged drills."""
    rows = [(s.id, s.track, _told(s, lang).title, s.limit) for s in specs().values() if track in ("", s.track)]
    return sorted(rows, key=lambda r: (r[1], r[0]))


def _told(spec: DrillSpec, lang: str) -> Told:
    return spec.zh if lang == "zh" else spec.en


def setup(name: str, lang: str) -> Setup:
    """A packaged drill by id, or one from the user's own cassette.

    Raises:
        UsageError: neither a drill nor a path.
    """
    spec = specs().get(name)
    if spec is None:
        if not name or not Path(name).exists():
            from diagnose.catalogue import near

            raise UsageError(f"no drill {name!r}", near(name, specs()) or "diagnose practice drill --list")
        machine = Machine.of_cassette(Path(name))
        hints, herring = clues(machine, LIMIT, lang)
        title = Path(name).name
        return Setup(str(Path(name).resolve()), "", title, machine.symptom or "?", machine, LIMIT, hints, herring)
    told = _told(spec, lang)
    herring = Herring(spec.herring, told.herring.says, told.herring.because)
    return Setup(
        spec.id,
        spec.track,
        told.title,
        told.symptom,
        _machine(spec.id),
        spec.limit,
        told.hints,
        herring,
        dict(spec.same),
    )


@lru_cache(maxsize=8)
def _machine(ident: str) -> Machine:
    """The recording of a packaged drill, the same one each time: what the planner makes of it is kept by machine."""
    spec = specs()[ident]
    if spec.cassette:
        return Machine.of_cassette(_folder("cassettes") / spec.cassette)
    case = _case(spec)
    if len(case.texts) != len(spec.probes):
        raise InputError(f"drill {spec.id}: {len(case.texts)} artifacts and {len(spec.probes)} probes")
    pieces = tuple(Piece(p, name, text) for p, (name, text) in zip(spec.probes, case.texts, strict=True))
    return Machine(case.symptom, pieces)


def _case(spec: DrillSpec) -> Case:
    file, _, ident = spec.case.partition("/")
    found = next((c for c in load(_folder("cases") / f"{file}.yaml") if c.id == ident), None)
    if found is None:
        raise InputError(f"drill {spec.id}: no case {spec.case}")
    return found


# ---------------------------------------------------------------- keys


def key(drill: Setup) -> tuple[Key, bool]:
    """What is right, and whether a key says so: else it is what the engine reads in the whole recording.

    Raises:
        InputError: its case is not among the cases.
    """
    spec = specs().get(drill.id)
    if spec is not None and spec.case:
        return _case(spec).key, True
    recorded = _recorded(spec.cassette) if spec is not None else None
    if recorded is not None and spec is not None:
        return replace(recorded, evidence=spec.proof), True
    got = whole(drill.machine, _symptom(drill))
    made = _read(got)
    return (replace(made, evidence=spec.proof) if spec is not None else made), False


def _symptom(drill: Setup) -> str:
    """The symptom as the planner gets it: one wording, so that both languages score alike."""
    spec = specs().get(drill.id)
    return spec.en.symptom if spec is not None else drill.symptom


def _recorded(cassette: str) -> Key | None:
    """The key of a packaged cassette, from the file beside it."""
    place = _folder("cassettes") / "KEY.yaml"
    if not place.is_file():
        return None
    raw = plain_yaml(place.read_text("utf-8"))
    rows = raw if isinstance(raw, list) else (raw or {}).get("cassettes") or (raw or {}).get("cases") or []
    row = next((r for r in rows if str(r.get("file", "")).rpartition("/")[2] == cassette), None)
    if row is None:
        return None
    root: Any = row.get("root_cause") or row.get("cause")
    label, also = (root, ()) if isinstance(root, str) else (root["label"], tuple(root.get("also_accept") or ()))
    also = (*also, *(row.get("also_accept") or ()))
    verdict = str(row.get("verdict") or ("healthy" if label == HEALTHY else "cause"))
    return Key(str(label), also, verdict)


def _read(got: Report) -> Key:
    """The engine's reading in place of a key."""
    if not got.findings:
        label = HEALTHY if got.verdict == "healthy" else INCONCLUSIVE
        return Key(label, (), got.verdict)
    by_id = {e.id: e for e in got.evidence}
    quotes = [q for i in got.findings[0].reasons if i in by_id and (q := (by_id[i].quote or "").strip())]
    lines = list(dict.fromkeys(q.split("\n")[0] for q in quotes))[:_PROOF]
    return Key(got.findings[0].cause, tuple(link.to for link in got.chain), "cause", tuple(lines))


# ---------------------------------------------------------------- scores


def card(drill: Setup, attempt: Attempt) -> Card:
    """Score an attempt, and the planner's beside it."""
    right, keyed = key(drill)
    planned = plan(drill.machine, _symptom(drill), drill.limit)
    proof = list(_proof(drill.machine, right))
    asked = {p.name for p in attempt.shown}
    lines = {(c.piece.name, c.line) for c in attempt.cited}
    read = {p.name for s in planned.steps for p in drill.machine.by_probe[s.probe]}
    mine = _outcome(drill, right, attempt.report(drill.symptom))
    its = _outcome(drill, right, planned.report)
    cited = {t for t, places in proof if any((p.capture, p.line) in lines for p in places)}
    hidden = [places for _, places in proof if not any(p.capture in asked for p in places)]
    seen = [p for t, places in proof if t not in cited for p in places if p.capture in asked]
    first = [min(places, key=lambda p: (seconds(p.probe), p.probe)) for places in hidden[:1]]
    fix = _fix(attempt.fix, right, proof)
    doubt = sum(attempt.minds.values()) / len(attempt.minds) if attempt.minds else float(right.label == HEALTHY)
    return Card(
        right.label if right.verdict != INCONCLUSIVE else INCONCLUSIVE, keyed,
        _score(mine, proof, asked, attempt.spent, planned.seconds, bool(attempt.cited), fix.total, doubt),
        _score(its, proof, read, planned.seconds, planned.seconds, True, *_planners(drill, planned, right, proof)),
        planned.steps, first[0] if first else None, tuple({p.text: p for p in seen}.values())[:3], fix,
    )  # fmt: skip


def _fix(text: str, right: Key, proof: list[tuple[str, list[Line]]]) -> FixScore:
    """What a proposed fix is worth; where nothing is wrong, or known to be, the right one is none."""
    causes = right.accepted if right.verdict == "cause" else {HEALTHY}
    return fix_score(text, sorted(causes), [place.text for _, places in proof for place in places])


def _planners(drill: Setup, planned: Plan, right: Key, proof: list[tuple[str, list[Line]]]) -> tuple[float, float]:
    """The planner's own fix and doubt: the text of its finding, and the best of its steps as a reply."""
    said = planned.report.findings[:1]
    if not said:
        return _fix("", right, proof).total, float(right.label == HEALTHY)
    cause = catalogue().causes[said[0].cause]
    text = f"{cause.fix.text} Roll back: {cause.fix.rollback}. Check: {cause.verify}"
    others = rivals(_symptom(drill), cause.id)
    best = max(
        (
            weigh(f"{s.probe} {catalogue().probes[s.probe].what}", cause.id, others, drill.machine).value
            for s in planned.steps
        ),
        default=0.0,
    )
    return _fix(text, right, proof).total, best


def _outcome(drill: Setup, right: Key, said: Report) -> Outcome:
    texts = tuple((p.name, p.text) for p in drill.machine.pieces)
    case = Case(drill.id, drill.symptom, right, texts, status=("recorded",))
    return judge("practice", case, lambda symptom, documents: said)[1]


def _proof(machine: Machine, right: Key) -> Iterator[tuple[str, list[Line]]]:
    """Each deciding line of the key with the places where the recording says it."""
    for wanted in dict.fromkeys(" ".join(r.split()) for e in right.evidence for r in e.splitlines() if r.strip()):
        places = [
            Line(p.probe, p.name, n, row)
            for p in machine.pieces
            for n, row in enumerate(p.lines, 1)
            if wanted in " ".join(row.split())
        ]
        if places:
            yield wanted, places


def _score(
    got: Outcome,
    proof: list[tuple[str, list[Line]]],
    seen: set[str],
    spent: float,
    par: float,
    cites: bool,
    fix: float,
    doubt: float,
) -> Score:
    """The parts of a score; cheap counts only as far as what decides was looked at."""
    cause = 1.0 if got.first else 0.5 if got.third else 0.0
    evidence = got.cited if got.cited is not None else float(cites and got.first)
    if got.quotes:
        evidence *= got.verbatim / got.quotes
    shown = [any(p.capture in seen for p in places) for _, places in proof]
    path = sum(shown) / len(shown) if shown else 1.0
    cost = path * (min(1.0, par / spent) if spent else 1.0)
    brier = brier_of([got.spread])
    return Score(cause, evidence, path, cost, 1.0 - (brier if brier is not None else 1.0), fix, doubt)
