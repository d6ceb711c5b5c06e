"""The prompt after the verdict: ask the report why, why not, what if; hear it at two lengths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from .answer import cite, where
from .assess import assess, believe
from .catalogue import catalogue, near
from .models import Evidence, Limit, Report
from .predicates import Context, in_words
from .route import asked

if TYPE_CHECKING:
    from .live import Live

HELP = "why [CAUSE] · why not CAUSE · show E3 · run PROBE · what if -E3 · say 30|90 · save FILE · quit"


class Prompt:
    """One conversation about one report."""

    def __init__(self, report: Report, console: Console, live: Live | None = None) -> None:
        self.report = report
        self.console = console
        self.live = live  # the machine is at hand: `run PROBE` runs it
        self.evidence = {e.id: e for e in report.evidence}

    def answer(self, text: str) -> bool:
        """Handle one line; False ends the conversation."""
        words = text.split()
        if not words:
            return True
        head, rest = words[0].lower(), words[1:]
        if head in ("quit", "exit", "q"):
            return False
        if head == "why" and rest[:1] == ["not"]:
            self._why(rest[1] if len(rest) > 1 else "", against=True)
        elif head == "why":
            self._why(
                rest[0] if rest else (self.report.findings[0].cause if self.report.findings else ""), against=False
            )
        elif head == "show" and rest:
            self._show(rest[0].upper())
        elif head == "what" and rest[:1] == ["if"] and len(rest) > 1:
            self._without({r.lstrip("-").upper() for r in rest[1:]})
        elif head == "say" and rest:
            self._say(rest[0])
        elif head == "run" and rest:
            self._run(rest[0])
        elif head == "save" and rest:
            Path(rest[0]).write_text(self.report.model_dump_json(by_alias=True, indent=1) + "\n", "utf-8")
            self._print(f"saved {rest[0]}")
        else:
            self._print(HELP)
        return True

    def _print(self, text: str) -> None:
        self.console.print(Text(text))

    def _context(self, without: set[str]) -> Context:
        evidence: list[Evidence] = [
            e for e in self.report.evidence if e.id not in without and not without & set(e.inputs)
        ]
        limits: list[Limit] = [x for x in self.report.limits if not without & set(x.evidence)]
        recognised = {i.recognised_as: True for i in self.report.inputs if i.recognised_as}
        symptom = "" if self.report.symptom_inferred else self.report.symptom
        asks = asked(catalogue(), symptom) if symptom else [self.report.playbook]
        return Context(evidence, self.report.playbook, symptom, limits, recognised, frozenset(asks))

    def _why(self, name: str, against: bool) -> None:
        cat = catalogue()
        if name not in cat.causes:
            self._print(f"no cause {name!r}. {near(name, cat.causes)}" if name else HELP)
            return
        belief = believe(cat.causes[name], self._context(set()), cat.signals)
        terms = [*belief.pro, *belief.contra]
        shown = False
        for term in terms:
            sign = "-" if term.indicator.against else "+"
            facts = "; ".join(cite(e) for e in term.used[:3])
            self._print(
                f"{sign} {term.indicator.strength}: "
                f"{term.indicator.because or in_words(term.indicator.when)}\n    {facts}"
            )
            shown = True
        for ruled in self.report.ruled_out:
            if ruled.cause == name:
                self._print(f"ruled out: {ruled.because} {' '.join(ruled.evidence)}")
                shown = True
        if not shown or (against and not belief.contra):
            missing = [
                i.because or in_words(i.when)
                for i in cat.causes[name].indicators
                if i.strength != "weak" and not i.against
            ][:4]
            self._print("nothing in this evidence is a sign of it; it would take: " + "; or ".join(missing))

    def _show(self, ident: str) -> None:
        item = self.evidence.get(ident)
        if item is None:
            last = max(self.evidence, key=lambda e: int(e[1:]), default="E1")
            self._print(f"no evidence {ident}; there are {len(self.evidence)}, E1 to {last}")
            return
        self._print(f"{item.statement}\n  {item.kind}, {item.signal} = {item.value} {item.unit or ''}\n  {where(item)}")
        for span in item.spans[:5]:
            self._print(f"  {span.capture}:{span.line}  {span.quote}")
        if item.formula:
            self._print(f"  {item.formula} of {', '.join(item.inputs) or 'the capture'}")

    def _without(self, ids: set[str]) -> None:
        got = assess(catalogue(), self._context(ids))
        lead = ", ".join(f"{b.cause.id} {b.p:.2f}" for b in got.accepted[:3]) or "-"
        self._print(f"without {' '.join(sorted(ids))}: {got.verdict} ({got.confidence:.2f}) {lead}")

    def _say(self, seconds: str) -> None:
        for answer in self.report.answer.values():
            self._print(answer.long if seconds == "90" else answer.short)

    def _run(self, name: str) -> None:
        spec = catalogue().probes.get(name)
        if spec is None:
            self._print(f"no probe {name!r}. {near(name, catalogue().probes)}")
            return
        if self.live is None:
            self._print(
                f"{spec.what} ({spec.footprint}, about {spec.seconds:g} s)\n$ {spec.command}\n"
                "Then: diagnose … --evidence its output"
            )
            return
        item = self.live.known.get(name)
        why = "this needs the job itself: run it by hand" if item is None else item.ready(self.live.host)
        if item is None or why is not None:
            self._print(f"{name} cannot run here: {why}\n$ {spec.command}")
            return
        self._print(f"running {name}, about {item.cost(self.live.host):g} s")
        found = self.live.run([item])  # typed by name: that is consent
        for document in found:
            head = document.head.decode("utf-8", "replace").splitlines()
            self._print("\n".join([f"{document.name}, {document.size} bytes", *(f"  {x}" for x in head[:12])]))
        if not found:
            self._print(self.live.why_not(name))
            return
        self._again()

    def _again(self) -> None:
        """Assess once more, with everything that was captured until now."""
        from .engine import conclude, told
        from .gather import gather

        assert self.live is not None
        kept = sorted(self.live.cassette.captures.values(), key=lambda pair: pair[1])
        documents = [c.document() for c, _ in kept if "without" not in c.params]
        symptom = "" if self.report.symptom_inferred else self.report.symptom
        self.report = told(conclude(symptom, gather(documents)), (), tuple(self.report.answer))
        self.evidence = {e.id: e for e in self.report.evidence}
        lead = ", ".join(f"{f.cause} {f.confidence:.2f}" for f in self.report.findings[:3]) or "-"
        self._print(f"now: {self.report.verdict} ({self.report.confidence:.2f}) {lead}")


def prompt(report: Report, live: Live | None = None) -> None:
    """Talk until the user leaves. Only called on a terminal."""
    console = Console(highlight=False)
    talk = Prompt(report, console, live)
    console.print(Text(HELP, style="dim"))
    while True:
        try:
            line = input("diagnose> ")
        except EOFError:
            sys.stdout.write("\n")
            return
        if not talk.answer(line):
            return
