"""An incident drill: a simulated console and an interviewer around a recorded machine.

`Drill.feed` takes one line and returns what is said; nothing in it depends on a clock or on chance, so that the same
lines give the same score, and a drill that was left goes on by feeding what was typed again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .answer import title_text
from .catalogue import catalogue
from .catalogue import near as closest
from .concepts import tokens
from .document import printable
from .entries import Cause
from .models import Evidence, Finding, Fix, Hypothesis, Report, SpanRef, Tool, Verdict
from .practice_machine import Machine, Piece, asked, seconds
from .practice_mind import APART, rivals, weigh
from .practice_talk import WIDTH
from .practice_words import say

PAGE = 15  # lines of output at a time, so that a page and what is said of it fit into 24 rows
MOST_CITED = 6
LEAST_QUOTE = 6  # characters
HINT_SECONDS = 20.0
SURE = 0.75
HEALTHY = "none.healthy"
_HEALTHY_WORDS = ("healthy", "nothing is wrong", "no problem", "none", "没有问题", "没问题", "健康", "正常")
_VERBS = {
    "help": "help", "帮助": "help", "probes": "probes", "探针": "probes", "more": "more", "更多": "more", "m": "more",
    "grep": "grep", "查找": "grep", "save": "save", "保存": "save", "causes": "causes", "原因": "causes",
    "hypothesis": "hypothesis", "hypo": "hypothesis", "假设": "hypothesis", "because": "because", "因为": "because",
    "evidence": "evidence", "cite": "evidence", "证据": "evidence", "fix": "fix", "修复": "fix", "hint": "hint",
    "提示": "hint", "status": "status", "状态": "status", "answer": "answer", "回答": "answer", "答案": "answer",
    "quit": "quit", "exit": "quit", "q": "quit", "退出": "quit", "give": "give", "放弃": "give",
}  # fmt: skip
_ALONE = ("help", "more", "hint", "status", "quit")
_P = re.compile(r"[\s@=:：,，]+(?P<p>\d{1,3}\s?%|0?\.\d+|[01](?:\.\d+)?)\s*$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LINE = re.compile(r"^[Ee](?P<e>\d{1,3}):(?P<from>\d{1,7})(?:-(?P<to>\d{1,7}))?$")


@dataclass(frozen=True)
class Herring:
    """Something that looks alarming and is not: what the interviewer says of it, and when."""

    probe: str
    says: str
    because: str


@dataclass(frozen=True)
class Setup:
    """A drill as the player meets it.

    Attributes:
        same: probes whose figures stand in the capture of another one.
    """

    id: str
    track: str
    title: str
    symptom: str
    machine: Machine
    limit: float
    hints: tuple[str, ...] = ()
    herring: Herring | None = None
    same: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cite:
    """A line that was cited."""

    shown: int
    line: int
    piece: Piece

    @property
    def text(self) -> str:
        """The line."""
        return self.piece.lines[self.line - 1]

    def span(self) -> SpanRef:
        """Its bytes in the capture."""
        start = sum(len(row.encode("utf-8", "replace")) + 1 for row in self.piece.lines[: self.line - 1])
        size = len(self.text.encode("utf-8", "replace"))
        return SpanRef(capture=self.piece.name, bytes=(start, start + size), line=self.line, quote=self.text)


@dataclass
class Attempt:
    """What a player did."""

    asked: list[str] = field(default_factory=list)
    shown: list[Piece] = field(default_factory=list)
    spent: float = 0.0
    hints: int = 0
    hypotheses: dict[str, float] = field(default_factory=dict)
    cited: list[Cite] = field(default_factory=list)
    answer: tuple[str, float] | None = None
    fix: str = ""
    minds: dict[str, float] = field(default_factory=dict)  # by hypothesis, what the last reply was worth

    def report(self, symptom: str) -> Report:
        """The attempt in the form in which every diagnosis is scored."""
        ids = [f"E{n}" for n in range(1, len(self.cited) + 1)]
        evidence = [
            Evidence(id=i, kind="observed", signal="cited", spans=[c.span()], quote=c.text)
            for i, c in zip(ids, self.cited, strict=True)
        ]
        cause, p = self.answer or ("", 0.0)
        verdict: Verdict = "inconclusive" if not cause else "healthy" if cause == HEALTHY else "cause"
        findings = [Finding(cause=cause, confidence=p, summary="", evidence=ids, fix=Fix(text=self.fix))]
        others = sorted(((c, q) for c, q in self.hypotheses.items() if c != cause), key=lambda h: (-h[1], h[0]))
        return Report(
            tool=Tool(version="", catalogue=""), symptom=symptom, playbook="", verdict=verdict, confidence=p,
            findings=findings if verdict == "cause" else [], evidence=evidence,
            hypotheses=[Hypothesis(cause=c, p=q) for c, q in others if c != HEALTHY],
        )  # fmt: skip


class Drill:
    """One drill being played."""

    def __init__(self, setup: Setup, lang: str = "en") -> None:
        self.setup, self.lang = setup, lang
        self.done = Attempt()
        self.over = False
        self.left = False  # the player went away before the end
        self.lines: list[str] = []  # what has to be typed again to stand here
        self._page: tuple[int, int] | None = None  # capture and line to go on from
        self._waiting: list[int] = []  # captures of the last probe that were not shown yet
        self._wants: list[str] = []  # what the interviewer still asks for before the end
        self._quiet = False  # typed again: nothing is written to disk

    # ------------------------------------------------------------ the conversation

    def opening(self) -> list[str]:
        """What is said first."""
        s = self.setup
        return self._say("start", title=s.title, symptom=s.symptom, limit=s.limit).split("\n")

    def again(self, lines: list[str]) -> list[str]:
        """Stand where an earlier sitting ended."""
        self._quiet = True
        for line in lines:
            if not self.over:
                self.feed(line)
        self._quiet = False
        return [self._say("resumed", n=len(self.lines), left=self.remaining), *self._status("")]

    def feed(self, line: str) -> list[str]:
        """Handle one line."""
        text = " ".join(line.split())
        if not text or self.over:
            return []
        head, _, rest = text.partition(" ")
        verb = _VERBS.get(head.lower().rstrip(":："), "")
        if (verb in _ALONE and rest) or (verb == "give" and rest.lower() not in ("up", "")):
            verb = ""  # "status of the GPU" asks for output
        if self._wants and verb not in ("quit", "evidence", "help", self._wants[0]):
            verb, rest = self._wants[0], "" if text.lower() in ("done", "好了", "完了") else text
        handlers: dict[str, tuple[Callable[[str], list[str]], bool]] = {
            "help": (self._help, False), "probes": (self._probes, False), "more": (self._more, False),
            "grep": (self._grep, False), "save": (self._save, False), "causes": (self._causes, False),
            "status": (self._status, False), "quit": (self._quit, False), "hypothesis": (self._hypothesis, True),
            "because": (self._because, True), "evidence": (self._evidence, True), "fix": (self._fix, True),
            "hint": (self._hint, True), "answer": (self._answer, True), "give": (self._give, True),
        }  # fmt: skip
        handler, counts = handlers.get(verb, (self._probe, True))
        said = handler(text if handler == self._probe else rest.strip())
        if counts:
            self.lines.append(text)
        return said

    def _say(self, what: str, **slots: object) -> str:
        return say(self.lang, what, **slots)

    @property
    def remaining(self) -> float:
        """Seconds of probe time left."""
        return max(0.0, self.setup.limit - self.done.spent)

    @property
    def finished(self) -> bool:
        """Is there something to score? Also when the lines ended where an answer stood and more was asked for."""
        return (self.over or bool(self._wants)) and not self.left

    def _help(self, rest: str) -> list[str]:
        return self._say("help").split("\n")

    def _quit(self, rest: str) -> list[str]:
        self.left = self.over = True
        return [self._say("paused")]

    def _give(self, rest: str) -> list[str]:
        self.over = True
        return []

    def _status(self, rest: str) -> list[str]:
        none, d = self._say("nothing"), self.done
        return [
            self._say(
                "status", spent=d.spent, limit=self.setup.limit, seen=", ".join(d.asked) or none,
                hypotheses=", ".join(f"{c} {p:.2f}" for c, p in d.hypotheses.items()) or none,
                cited=", ".join(f"E{c.shown}:{c.line}" for c in d.cited) or none,
            )
        ]  # fmt: skip

    # ------------------------------------------------------------ the console

    def _probes(self, rest: str) -> list[str]:
        rows = []
        for spec in sorted(catalogue().probes.values(), key=lambda s: s.name):
            if not rest or rest.lower() in f"{spec.name} {spec.what}".lower():
                rows.append(f"{spec.name:22}{spec.seconds:>5g} s  {spec.what}"[:WIDTH])
        return rows

    def _probe(self, text: str) -> list[str]:
        machine = self.setup.machine
        request = asked(text, machine)
        found = list(dict.fromkeys(self.setup.same.get(p, p) for p in request.probes))
        have = [p for p in found if p in machine.by_probe]
        names = found if len(found) == 1 else have
        if not found:
            return [self._say("unknown")]
        if len(names) > 1:
            return [self._say("open", names=", ".join(names))]
        probe = (names or found)[0]
        if probe not in machine.by_probe:
            return [self._say("missing", probe=probe, why=machine.why_not(probe))]
        if probe in self.done.asked:
            return self._once_more(probe, request.part, request.grep)
        return self._run(probe, request.part, request.grep)

    def _run(self, probe: str, part: str | None, grep: str) -> list[str]:
        self.done.spent += seconds(probe)
        if self.done.spent > self.setup.limit:
            return self._time_up()
        self.done.asked.append(probe)
        first = len(self.done.shown) + 1
        pieces = self.setup.machine.by_probe[probe]
        pieces = sorted(pieces, key=lambda p: p.part != part) if part is not None else pieces
        self.done.shown += pieces
        out = [self._say("ran", probe=probe, seconds=seconds(probe), left=self.remaining)]
        self._waiting = list(range(first + 1, first + len(pieces)))
        out += self._found(grep, range(first, first + len(pieces))) if grep else self._show(first, 0)
        herring = self.setup.herring
        if herring is not None and herring.probe == probe:
            out += ["", self._say("herring", text=herring.says)]
        return out

    def _once_more(self, probe: str, part: str | None, grep: str) -> list[str]:
        """What was had already costs nothing."""
        mine = [n for n, p in enumerate(self.done.shown, 1) if p.probe == probe]
        head = self._say("again", probe=probe, ids=", ".join(f"E{n}" for n in mine))
        if grep:
            return [head, *self._found(grep, mine)]
        start = next((n for n in mine if part is not None and self.done.shown[n - 1].part == part), mine[0])
        self._waiting = [n for n in mine if n > start]
        return [head, *self._show(start, 0)]

    def _show(self, n: int, start: int) -> list[str]:
        """A page of capture `n` from line `start` on."""
        piece = self.done.shown[n - 1]
        rows = piece.lines if piece.lines[-1] else piece.lines[:-1]
        page = rows[start : start + PAGE]
        part = f" ({piece.part})" if piece.part else ""
        out = [self._say("shown", n=n, name=piece.probe, part=part, lines=len(rows))] if start == 0 else []
        out += [self._row(i, row) for i, row in enumerate(page, start + 1)]
        rest = len(rows) - start - len(page)
        self._page = (n, start + len(page)) if rest else None
        if rest:
            out.append(self._say("more", n=rest, e=n))
        elif self._waiting:
            names = ", ".join(
                f"E{w} {self.done.shown[w - 1].part or self.done.shown[w - 1].name}" for w in self._waiting
            )
            out.append(self._say("others", names=names))
        return out

    @staticmethod
    def _row(number: int, text: str) -> str:
        plain = visible(text)
        room = WIDTH - 6
        return f"{number:>4}  " + (plain if len(plain) <= room else plain[: room - 1] + "…")

    def _more(self, rest: str) -> list[str]:
        if self._page is not None:
            return self._show(*self._page)
        if self._waiting:
            return self._show(self._waiting.pop(0), 0)
        return [self._say("no_more")]

    def _grep(self, rest: str) -> list[str]:
        word = rest.removeprefix("-i ").strip("\"'“”")
        return self._found(word, range(1, len(self.done.shown) + 1))

    def _found(self, word: str, among: range | list[int]) -> list[str]:
        hits = [
            (n, i, row)
            for n in among
            for i, row in enumerate(self.done.shown[n - 1].lines, 1)
            if word and word.lower() in row.lower()
        ]
        if not hits:
            return [self._say("no_grep", word=word)]
        out = [_around(f"E{n}:{i}  ", visible(row.strip()), word) for n, i, row in hits[:PAGE]]
        return [*out, *([self._say("more_hits", n=len(hits) - PAGE)] if len(hits) > PAGE else [])]

    def _save(self, rest: str) -> list[str]:
        words = rest.split()
        number = words[0].lstrip("Ee") if words else ""
        if not number.isdigit() or not 1 <= int(number) <= len(self.done.shown):
            return [self._say("no_more")]
        piece = self.done.shown[int(number) - 1]
        target = Path(words[1] if len(words) > 1 else piece.name)
        if self._quiet:
            return []
        try:
            with target.open("x", encoding="utf-8", errors="replace", newline="") as stream:
                stream.write(piece.text)
        except OSError as err:
            return [self._say("not_saved", file=target, why=err.strerror)]
        return [self._say("saved", file=target)]

    def _hint(self, rest: str) -> list[str]:
        hints = self.setup.hints
        if self.done.hints >= len(hints):
            return [self._say("no_hint")]
        self.done.spent += HINT_SECONDS
        if self.done.spent > self.setup.limit:
            return self._time_up()
        self.done.hints += 1
        text = hints[self.done.hints - 1]
        return [self._say("hint", n=self.done.hints, of=len(hints), seconds=HINT_SECONDS, text=text)]

    def _time_up(self) -> list[str]:
        """The hard stop: what was believed most stands."""
        self.done.spent = self.setup.limit
        if self.done.answer is None and self.done.hypotheses:
            self.done.answer = max(self.done.hypotheses.items(), key=lambda h: h[1])
        self.over = True
        return [self._say("time_up", limit=self.setup.limit)]

    # ------------------------------------------------------------ the interviewer

    def _causes(self, rest: str) -> list[str]:
        found = [c for c in catalogue().causes.values() if _mentions(c, rest)]
        rows = [f"{c.id:36} {title_text(c, self.lang)}"[:WIDTH] for c in sorted(found, key=lambda c: c.id)]
        return rows[:PAGE] or [self._no_cause(rest)]

    def _no_cause(self, text: str) -> str:
        likely = likeliest(text)
        hint = self._say("near", names=", ".join(likely)) if likely else ""
        if not hint and (one := closest(text, catalogue().causes)):
            hint = f" ({one})"
        return self._say("no_cause", near=hint)

    def _claim(self, rest: str) -> tuple[str, float] | str:
        """The cause and the probability in some words, or what is wrong with them."""
        hit = _P.search(" " + rest)
        name = (" " + rest)[: hit.start()].strip() if hit else rest
        cause = named(name)
        if cause is None:
            return self._no_cause(name)
        if hit is None:
            return self._say("no_p")
        p = hit["p"].replace(" ", "")
        value = float(p[:-1]) / 100 if p.endswith("%") else float(p)
        return (cause, value) if 0 <= value <= 1 else self._say("no_p")

    def _hypothesis(self, rest: str) -> list[str]:
        got = self._claim(rest)
        if isinstance(got, str):
            return [got]
        cause, p = got
        before = dict(self.done.hypotheses)
        self.done.hypotheses.pop(cause, None)
        self.done.hypotheses[cause] = p  # the latest one comes last
        out = [self._say("noted", cause=cause, p=p)]
        lead = max(before, key=lambda c: before[c]) if before else ""
        if p >= SURE and not self.done.cited:
            return [*out, self._say("which_line", p=p)]
        if cause in before and before[cause] != p:
            return [*out, self._say("moved", old=before[cause])]
        if lead and lead != cause and before[lead] >= p:
            return [*out, self._say("dropped", old=lead, p=before[lead])]
        return [*out, self._say("mind")]

    def _because(self, rest: str) -> list[str]:
        """What would change their mind: does what they name tell the hypothesis from a rival?"""
        lead = self._lead()
        out = [self._say("no_lead")]
        if lead and not rest:
            out = [self._say("vague_mind")]
            self.done.minds.setdefault(lead, 0.0)
        elif lead:
            out = self._weighed(rest, lead)
        if self._wants[:1] == ["because"]:
            self._wants.pop(0)
            out += self._next_question()
        return out

    def _weighed(self, reply: str, lead: str) -> list[str]:
        got = weigh(reply, lead, rivals(self.setup.symptom, lead), self.setup.machine)
        self.done.minds[lead] = got.value
        if got.value == APART and got.rival:
            return [self._say("rival_mind", about=got.about, rival=got.rival)]
        if got.value == APART:
            return [self._say("against_mind", about=got.about, cause=lead)]
        if got.value:
            return [self._say("good_mind", about=got.about, cause=lead)]
        if not got.about:
            return [self._say("vague_mind")]
        return [self._say("poor_mind", cause=lead, signals=", ".join(got.wanted) or "it")]

    def _lead(self) -> str:
        """What the interviewer asks about: the answer, else the latest hypothesis."""
        held = [self.done.answer[0]] if self.done.answer else list(self.done.hypotheses)
        return held[-1] if held and held[-1] in catalogue().causes and held[-1] != HEALTHY else ""

    def _evidence(self, rest: str) -> list[str]:
        text = rest.strip()
        if len(self.done.cited) >= MOST_CITED:
            return [self._say("most_cited", n=MOST_CITED)]
        if hit := _LINE.match(text):
            return self._cite_lines(int(hit["e"]), int(hit["from"]), int(hit["to"] or hit["from"]))
        quote = " ".join(text.strip("\"'“”「」").split())
        if len(quote) < LEAST_QUOTE:
            return [self._say("short_quote", n=LEAST_QUOTE)]
        for n, piece in enumerate(self.done.shown, 1):
            for i, row in enumerate(piece.lines, 1):
                if quote in " ".join(visible(row).split()):
                    return self._cite_lines(n, i, i)
        return [self._say("not_cited")]

    def _cite_lines(self, shown: int, first: int, last: int) -> list[str]:
        if not 1 <= shown <= len(self.done.shown):
            return [self._say("not_cited")]
        piece = self.done.shown[shown - 1]
        rows = [i for i in range(first, min(last, first + MOST_CITED) + 1) if 1 <= i <= len(piece.lines)]
        rows = [i for i in rows if piece.lines[i - 1].strip()][: MOST_CITED - len(self.done.cited)]
        fresh = [Cite(shown, i, piece) for i in rows]
        self.done.cited += [c for c in fresh if c not in self.done.cited]
        room = WIDTH - 16
        return [
            self._say("cited", e=shown, line=c.line, text=visible(c.text.strip())[:room]) for c in fresh
        ] or [self._say("not_cited")]  # fmt: skip

    def _fix(self, rest: str) -> list[str]:
        if rest:
            self.done.fix = f"{self.done.fix}; {rest}" if self.done.fix else rest
        if self._wants[:1] == ["fix"]:
            self._wants.pop(0)
            return self._next_question()
        return [self._say("fix_kept")]

    def _answer(self, rest: str) -> list[str]:
        got = self._claim(rest)
        if isinstance(got, str):
            return [got]
        self.done.answer = got
        self._wants = [] if self.done.fix or got[0] == HEALTHY else ["fix"]
        if got[0] != HEALTHY and got[0] not in self.done.minds:
            self._wants.insert(0, "because")
        return self._next_question()

    def _next_question(self) -> list[str]:
        """What the interviewer still wants to hear; nothing, and it is over."""
        if self._wants:
            return [self._say("ask_mind" if self._wants[0] == "because" else "ask_fix")]
        self.over = True
        return []


def _around(head: str, text: str, word: str) -> str:
    """A long line, cut so that the word stands in it."""
    room = WIDTH - len(head)
    at = text.lower().find(word.lower())
    if len(text) <= room or at + len(word) < room:
        return head + text[:room]
    start = min(at - room // 3, len(text) - room + 1)
    return f"{head}…{text[start : start + room - 1]}"


def visible(text: str) -> str:
    """A line as a terminal would show it: no colours, nothing that steers."""
    return printable(_COLOUR.sub("", text.replace("\t", "  ")))


def _mentions(cause: Cause, words: str) -> bool:
    said = f"{cause.id} {cause.title} {cause.zh.title if cause.zh else ''}".lower()
    return all(w in said for w in words.lower().split())


def likeliest(text: str, most: int = 3) -> list[str]:
    """Causes that share most of these words in id or title."""
    own = set(tokens(text.replace(".", " ").replace("_", " ")))
    scored = []
    for cause in catalogue().causes.values():
        name = f"{cause.id} {cause.title} {cause.zh.title if cause.zh else ''}".replace(".", " ").replace("_", " ")
        if same := len(own & set(tokens(name))):
            scored.append((-same, cause.id))
    scored.sort()
    return [c for same, c in scored if same == scored[0][0]][:most]


def named(text: str) -> str | None:
    """The cause that some words name, if they name one only."""
    plain = text.strip().strip("\"'“”").lower()
    causes = catalogue().causes
    if plain in causes:
        return plain
    if plain in _HEALTHY_WORDS:
        return HEALTHY
    tail = [c for c in causes if c.endswith("." + plain.replace(" ", "_"))]
    if len(tail) == 1:
        return tail[0]
    found = [c.id for c in causes.values() if plain and _mentions(c, plain)]
    return found[0] if len(found) == 1 else None
