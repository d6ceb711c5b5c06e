"""Hints and a red herring for a drill from the user's own recording, made from the engine's reading of all of it."""

from __future__ import annotations

from .answer import title_text
from .answer_facts import reading, reason_text
from .catalogue import catalogue
from .models import Evidence, Report
from .practice_drill import Herring
from .practice_machine import Machine
from .practice_plan import plan, whole
from .practice_words import say


def clues(machine: Machine, limit: float, lang: str) -> tuple[tuple[str, ...], Herring | None]:
    """Three hints, each telling more, and something that looks alarming and is not."""
    report = whole(machine, machine.symptom or "?")
    by_id = {e.id: e for e in report.evidence}
    lead = report.findings[0] if report.findings else None
    cited = [by_id[i] for i in (lead.reasons if lead else _checked(report)) if i in by_id]
    first = next((e for e in cited if _probe(machine, e)), None)
    probe = _probe(machine, first) if first is not None else next(iter(machine.by_probe))
    steps = [s.probe for s in plan(machine, machine.symptom or "?", limit).steps]
    layer = catalogue().causes[lead.cause].layer if lead else ""
    hints = (
        say(lang, "own_layer", layer=layer) if layer else say(lang, "own_open"),
        say(lang, "own_path", probes=", ".join((*[s for s in steps if s != probe][:1], probe))),
        say(lang, "own_line", probe=probe, fact=reading(first, catalogue(), lang)) if first else say(lang, "own_calm"),
    )
    return hints, _herring(report, machine, {e.id for e in cited}, lang)


def _checked(report: Report) -> list[str]:
    return [i for c in report.checked for i in c.evidence]


def _probe(machine: Machine, item: Evidence | None) -> str:
    """The probe that gave an evidence."""
    name = item.capture.name if item is not None and item.capture is not None else ""
    return next((p.probe for p in machine.pieces if p.name and name.endswith(p.name)), "")


def _herring(report: Report, machine: Machine, cited: set[str], lang: str) -> Herring:
    """What the engine calls harmless; else a cause that a reading speaks against; else one nothing speaks for."""
    cat = catalogue()
    by_id = {e.id: e for e in report.evidence}
    for odd in report.red_herrings:
        item = next((by_id[i] for i in odd.evidence if i in by_id and _probe(machine, by_id[i])), None)
        if item is not None:
            says = say(lang, "own_odd", fact=reading(item, cat, lang))
            return Herring(_probe(machine, item), says, reason_text(cat, odd.because, lang))
    for out in report.ruled_out:
        item = next((by_id[i] for i in out.evidence if i in by_id and _probe(machine, by_id[i])), None)
        if item is not None and item.id not in cited and out.cause in cat.causes:
            title, fact = title_text(cat.causes[out.cause], lang).rstrip("。."), reading(item, cat, lang)
            return Herring(
                _probe(machine, item), say(lang, "own_rival", title=title), say(lang, "own_against", fact=fact)
            )
    found = {f.cause for f in report.findings}
    asked = {p for f in found for p in cat.causes[f].playbooks} or {report.playbook}
    other = min((c.id for c in cat.causes.values() if c.id not in found and asked & {*c.playbooks}), default="")
    title = title_text(cat.causes[other], lang).rstrip("。.") if other else "?"
    return Herring(next(iter(machine.by_probe)), say(lang, "own_rival", title=title), say(lang, "own_nothing"))
