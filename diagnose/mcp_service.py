"""What an agent may ask of the tool: the same steps as the commands, with paths and sizes held in bounds.

Nothing here knows the protocol (`mcp_server` does). Every answer is plain JSON data below `MOST` characters;
every mistake is a `DiagnoseError` with one clear line.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .catalogue import catalogue, near
from .document import Document
from .emit import LANGS
from .errors import InputError, UsageError
from .models import Evidence, Report
from .report_excerpts import MASK_AROUND, masked, visible

MOST = 60_000  # characters of an answer
MOST_FULL = 400_000  # of a whole report, when it is asked for
MOST_CAPTURE = 100_000  # of a capture that is read
MOST_LINES = 2_000
KEPT = 64  # captures that can be read, the latest ones
FOOTPRINTS = ("", "read", "light", "load")
# what an answer can do without, least important first
_DROPPED = ("stages", "limits", "red_herrings", "inputs", "ruled_out", "chain", "hypotheses", "next_probes")

T = TypeVar("T")


def size(value: object) -> int:
    """Characters of a value as JSON."""
    return len(json.dumps(value, ensure_ascii=False))


def uri(sha256: str) -> str:
    """Address of a capture."""
    return f"diagnose://capture/{sha256[:16]}"


class Service:
    """The tools. One call at a time: the engine's caches are not made for two.

    Args:
        roots: folders that evidence may lie in. allow: heaviest footprint of probes; "" and "read" only read.
        kept: told of every capture that can now be read.
    """

    def __init__(self, roots: Sequence[Path], allow: str = "") -> None:
        if allow not in FOOTPRINTS:
            raise UsageError(f"--allow takes {', '.join(FOOTPRINTS[1:])}, not {allow!r}")
        for root in roots:
            if not root.is_dir():
                raise UsageError(f"--root {root} is no folder")
        self.roots = [root.resolve() for root in roots]
        self.allow = allow
        self.captures: OrderedDict[str, Document] = OrderedDict()
        self.on_capture: Callable[[str, Document], None] = lambda address, document: None
        self._one = threading.Lock()

    def alone(self, work: Callable[[], T]) -> T:
        """Run `work` while nothing else runs; what it prints goes to standard error, never into the protocol."""
        with self._one, contextlib.redirect_stdout(sys.stderr):
            return work()

    # --- bounds

    def path(self, text: str) -> str:
        """A path of the caller, resolved, inside one of the roots. Raises InputError."""
        if not text or "\0" in text:
            raise InputError(f"{text!r} is no path")
        for root in self.roots:  # a relative path is looked for in each root
            place = Path(os.path.realpath(root / text))
            if any(place.is_relative_to(r) for r in self.roots) and place.exists():
                return str(place)
        inside = any(Path(os.path.realpath(r / text)).is_relative_to(b) for r in self.roots for b in self.roots)
        if inside:
            raise InputError(f"{text}: no such file or folder")
        raise InputError(f"{text} lies outside the folders that this server may read", "start it with --root FOLDER")

    def keep(self, documents: Iterable[Document]) -> None:
        """Make captures readable as resources."""
        for document in documents:
            address = uri(document.sha256)
            self.captures.pop(address, None)
            self.captures[address] = document
            self.on_capture(address, document)
        while len(self.captures) > KEPT:
            self.captures.popitem(last=False)

    def capture(self, address: str, first: int = 1, last: int = 0) -> str:
        """Lines of a capture, masked; all that fit without `last`. Raises InputError."""
        document = self.captures.get(address)
        if document is None:
            raise InputError(
                f"{address} is not known", "captures can be read after diagnose, audit or run_probe used them"
            )
        if document.is_binary:
            raise InputError(f"{document.name} is no text")
        first = max(first, 1)
        stop = min(last or first + MOST_LINES - 1, first + MOST_LINES - 1)
        lines: dict[int, str] = {}  # with some before and after, so that a secret of many lines is seen whole
        used = 0
        for line in document.lines():
            if line.number < first - MASK_AROUND:
                continue
            if line.number > stop + MASK_AROUND or used > MOST_CAPTURE + (MASK_AROUND << 13):
                break
            used += len(line.text)
            lines[line.number] = lines.get(line.number, "") + line.prefix + line.text
        out: list[str] = []
        used = 0
        for number, text in masked(lines).items():
            if number < first:
                continue
            if number > stop or used > MOST_CAPTURE:
                out.append(f"[cut before line {number}; read {address}/lines/{number}/{number + 500}]")
                break
            out.append(text[:4000])
            used += len(out[-1]) + 1
        return visible("\n".join(out))

    # --- tools

    def list_playbooks(self) -> list[dict[str, str]]:
        """Every playbook with its question."""
        return [
            {"id": b.id, "title": b.title, "question": b.question}
            for b in sorted(catalogue().playbooks.values(), key=lambda b: b.id)
        ]

    def explain_cause(self, cause: str, lang: str = "en") -> dict[str, Any]:
        """One cause in full, or one check of the audit.

        Raises:
            UsageError: neither a cause nor a check has that id, or the language is none of ours.
        """
        from .predicates import in_words

        _language(lang)
        causes = catalogue().causes
        if cause not in causes:
            if check := _check(cause):
                return check
            raise UsageError(
                f"no cause {cause!r}", near(cause, causes) or "list_playbooks, diagnose and audit name ids"
            )
        spec = causes[cause]
        out = spec.model_dump(mode="json", exclude_none=True, exclude={"zh", "indicators", "cues"})
        if lang != "en" and spec.zh is not None:
            out["zh"] = spec.zh.model_dump(mode="json", exclude_none=True)
        out["signs"] = [
            {"says": in_words(i.when), "strength": i.strength, "against": i.against} for i in spec.indicators
        ]
        return _fit(out, ("signs", "references", "follow_ups"))

    def diagnose(
        self, symptom: str, evidence: Sequence[str] = (), cassette: str = "", lang: str = "en", live: bool = False,
        full: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Triage of evidence; of this machine only with `live`, and only where the server allows probes.

        Raises:
            UsageError: nothing is named to look at, or probes are not allowed.
            InputError: nothing that is named can be read, or it lies outside the roots.
        """
        langs = _language(lang)
        paths = [self.path(p) for p in evidence]
        if cassette:
            from .cassette import read

            paths.append(self.path(cassette))
            symptom = symptom or str(read(Path(paths[-1])).get("symptom", ""))
        if live and not self.allow:
            raise UsageError("this server reads evidence only", "start it with --allow read to look at this machine")
        if not paths and not live:
            raise UsageError("nothing to look at", "name evidence files, or a cassette")
        report, documents = self._probed(symptom, paths, langs) if live else self._read(symptom, paths, langs)
        self.keep(documents)
        return whole(report) if full else brief(report)

    def _read(self, symptom: str, paths: list[str], langs: tuple[str, ...]) -> tuple[Report, list[Document]]:
        from .engine import report
        from .inputs import open_inputs

        documents, refused = open_inputs(paths)
        if not documents:
            raise InputError("; ".join(f"{i.name}: {i.reason}" for i in refused[:3]) or "no file to read")
        return report(symptom, documents, refused, langs), documents

    def _probed(self, symptom: str, paths: list[str], langs: tuple[str, ...]) -> tuple[Report, list[Document]]:
        from .inputs import open_inputs
        from .live_run import finish, prepare
        from .triage import Reach, investigate

        live = prepare(symptom, Reach(allow=self.allow), asks=False)
        report, complete = investigate(symptom, paths, None, langs, None, live)
        finish(live, complete)
        return report, [*open_inputs(paths)[0], *(c.document() for c, _ in live.cassette.captures.values())]

    def run_probe(self, name: str) -> dict[str, Any]:
        """Run one probe here; what it printed, masked.

        Raises:
            UsageError: there is no such probe, it needs the job itself, or it is not allowed.
        """
        from .cassette import SUFFIX, Cassette
        from .collect import collectors
        from .host import Host
        from .live import Live, allowed

        known, specs = collectors(), catalogue().probes
        if name not in known:
            if name in specs:
                raise UsageError(f"{name} needs the job itself", f"run it by hand: {specs[name].command}")
            raise UsageError(f"no probe {name!r}", near(name, specs))
        footprint = known[name].spec.footprint
        if footprint not in allowed(self.allow or "read"):
            raise UsageError(
                f"{name} is a {footprint} probe and this server only reads", f"start it with --allow {footprint}"
            )
        with tempfile.TemporaryDirectory(prefix="diagnose-") as spare:
            cassette = Cassette.create(Path(spare) / f"run{SUFFIX}", "")
            Live(Host(), cassette, allowed(self.allow or "read")).run([known[name]])
            captures = [c for c, _ in sorted(cassette.captures.values(), key=lambda pair: pair[1])]
        documents = [c.document() for c in captures]
        self.keep(documents)
        room = MOST // max(1, len(captures)) - 500
        shown = []
        for item, document in zip(captures, documents, strict=True):
            text = visible(item.data.decode("utf-8", "replace"))
            cut = {"cut": f"{len(text) - room} characters more in {uri(document.sha256)}"} if len(text) > room else {}
            shown.append({"part": item.part, "text": text[:room], "capture": uri(document.sha256), **cut})
        missing = [{"part": m.part, "reason": m.reason, "enable": m.enable} for m in cassette.missing.values()]
        return {"probe": name, "footprint": footprint, "captures": shown, "not_captured": missing}

    def audit(
        self, evidence: Sequence[str] = (), cassette: str = "", only: Sequence[str] = (), profile: str = "",
        expect: str = "", lang: str = "en",
    ) -> dict[str, Any]:  # fmt: skip
        """Checks of this machine (reading only), or of evidence or a cassette in its place.

        Raises:
            UsageError: evidence and a cassette are both named, or an option has no such value.
            InputError: what is named cannot be read, or lies outside the roots.
        """
        from . import audit

        options = audit.Options(only=tuple(only), profile=profile, expect=expect, langs=_language(lang))
        paths = [self.path(p) for p in evidence]
        if paths and cassette:
            raise UsageError("evidence and cassette exclude each other")
        elsewhere = bool(paths or cassette)
        seen = audit.opened(paths, self.path(cassette) if cassette else "") if elsewhere else audit.look()
        self.keep(seen.documents)
        made = audit.audit(seen, options)
        by_id = {e.id: e for e in made.evidence}
        out = {
            "machine": "evidence" if elsewhere else made.machine, "counts": made.counts,
            "findings": [
                f.model_dump(mode="json", exclude={"evidence"}) | {"evidence": _shown(f.evidence, by_id)}
                for f in made.findings
            ],
            "unknown": [{"check": c.id, "reason": c.reason} for c in made.checks if c.status == "unknown"],
            "unavailable": [u.model_dump(mode="json") for u in made.unavailable],
        }  # fmt: skip
        return _fit(out, ("unavailable", "unknown"))

    def fleet(self, folder: str, symptom: str = "", expect: str = "", lang: str = "en") -> dict[str, Any]:
        """Recorded nodes compared; with a symptom each is judged and the odd one named. No node is reached.

        Raises:
            UsageError: an option has no such value.
            InputError: no node can be read, or one lies outside the roots.
        """
        from . import fleet, fleet_triage
        from .audit import Options
        from .hostlist import expand

        langs, paths = _language(lang), fleet.entries(Path(self.path(folder)))
        for path in paths:
            self.path(str(path))  # a link out of the roots is none of theirs
        if symptom:
            made = fleet_triage.overview(paths, [], symptom, alone=True)
            if not made.judged:
                raise InputError("; ".join(f"{f.name}: {f.reason}" for f in made.failed[:3]) or "no node to read")
            documents: list[Document] = []
            with tempfile.TemporaryDirectory(prefix="diagnose-") as spare:
                report = fleet_triage.report(made, symptom, langs, Path(spare), seen=documents)
            self.keep(documents)
            return brief(report) | {"fleet": fleet_triage.summary(made).splitlines()[1:80]}
        read = fleet.read_all(paths, Options(langs=langs), alone=True)
        merged = fleet.merged(read, expand(expect) if expect else [])
        out = merged.model_dump(mode="json", by_alias=True)
        for check in out["checks"]:  # the lines of the first nodes say what the others' do
            check["where"] = dict(list(check["where"].items())[:4])
        return _fit(out, ("mixed", "outliers", "nodes"))


def _language(lang: str) -> tuple[str, ...]:
    if lang not in LANGS:
        raise UsageError(f"lang takes {', '.join(LANGS)}, not {lang!r}")
    return LANGS[lang]


def _check(name: str) -> dict[str, Any] | None:
    from . import checks

    found = checks.load()[1].get(name)
    return found.model_dump(mode="json") if found else None


def _fit(value: dict[str, Any], order: Sequence[str], most: int = MOST) -> dict[str, Any]:
    """The answer below `most` characters: what stands in `order` goes first, and that is said. Raises UsageError."""
    left: list[str] = []
    for name in order:
        if size(value) <= most:
            break
        if value.get(name):
            left.append(f"{name} ({len(value[name])})")
            value[name] = []
    if size(value) > most and value.get("findings"):
        left.append(f"findings beyond the first 5 ({len(value['findings']) - 5})")
        value["findings"] = value["findings"][:5]
    if size(value) > most:
        raise UsageError("the answer is too large", "give less evidence, or run the command and read its file")
    return value | {"left_out": left} if left else value


def _shown(ids: Sequence[str], by_id: dict[str, Evidence], most: int = 6) -> list[dict[str, Any]]:
    """Evidence as an agent needs it to check: what it says, where it stands."""
    out: list[dict[str, Any]] = []
    for item in (by_id[i] for i in ids[:most] if i in by_id):
        row: dict[str, Any] = {"id": item.id, "says": visible(item.statement)[:400]}
        if item.capture is not None:
            row["where"] = f"{visible(item.capture.name)}:{item.capture.line}"
            row["capture"] = uri(item.capture.sha256)
        if item.quote:
            row["quote"] = visible(item.quote)[:400]
        if item.formula:
            row["formula"], row["inputs"] = item.formula, item.inputs
        if "simulated" in item.status:
            row["simulated"] = True
        out.append(row)
    return out


def brief(report: Report) -> dict[str, Any]:
    """The report without its arithmetic: verdict, findings with their quotes, what to do next.

    Raises:
        UsageError: even shortened it is too large for an answer.
    """
    by_id = {e.id: e for e in report.evidence}
    out: dict[str, Any] = {
        "verdict": report.verdict,
        "confidence": report.confidence,
        "symptom": report.symptom,
        "playbook": report.playbook,
        "answer": {
            lang: {"verdict": a.verdict, "short": a.short, "long": a.long, "boundary": a.boundary}
            for lang, a in report.answer.items()
        },
        "findings": [
            f.model_dump(mode="json", exclude={"evidence", "intervention"}, by_alias=True)
            | {"evidence": _shown(f.evidence, by_id)}
            for f in report.findings
        ],
        "chain": [c.model_dump(mode="json", by_alias=True) for c in report.chain],
        "hypotheses": [h.model_dump(mode="json") for h in report.hypotheses[:6]],
        "ruled_out": [
            {"cause": r.cause, "because": r.because, "evidence": _shown(r.evidence, by_id, 2)}
            for r in report.ruled_out[:12]
        ],
        "red_herrings": [{"text": r.text, "because": r.because} for r in report.red_herrings[:8]],
        "checked": [{"what": c.what, "evidence": _shown(c.evidence, by_id, 2)} for c in report.checked[:8]],
        "limits": [x.model_dump(mode="json") for x in report.limits[:8]],
        "stages": [s.model_dump(mode="json") for s in report.stages if s.share is not None],
        "next_probes": [p.model_dump(mode="json") for p in report.next_probes[:3]],
        "inputs": [
            {"name": visible(i.name), "read_as": i.recognised_as, "reason": i.reason,
             "capture": uri(i.sha256) if i.sha256 else None}
            for i in report.inputs[:40]
        ],
    }  # fmt: skip
    return _fit(out, _DROPPED)


def whole(report: Report) -> dict[str, Any]:
    """Contract `diagnose.report/v1`; evidence that nothing cites is left out where it would be too large.

    Raises:
        UsageError: it is larger than `MOST_FULL` even so.
    """
    from .report import referred

    data = report.model_dump(mode="json", by_alias=True)
    if size(data) > MOST_FULL:
        ids = referred(report)
        data["evidence"] = [e for e in data["evidence"] if e["id"] in ids]
    if size(data) > MOST_FULL:
        raise UsageError("the whole report is too large here", "ask without `full`, or run diagnose --format json")
    return data
