"""What a run spends on its checkpoints: timers, log lines with a duration, and pairs of lines with the clock."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader
from diagnose.units import IN_MS, canonical

from .facts import computed, fact, number

_CKPT = r"(?:checkpoint|ckpt|检查点|断点)"
_SAVE = regex(
    rf"\b(?:sav(?:e|ed|ing)|writ(?:e|ing|ten)|wrote|flush\w*)\b[^\n]{{0,40}}{_CKPT}|(?:保存|写入?|落盘)[^\n]{{0,12}}{_CKPT}"
    rf"|{_CKPT}[\w./-]*[^\n\d]{{0,16}}(?:\bsav(?:e|ed|ing)\b|\bwrit|\bwrote|保存|写|落盘)"
    rf"|{_CKPT}[\w./-]*:? wrote|\bsave (?:of|took|takes)\b",
    re.I,
)
_TIMER = regex(r"\bsave[-_]checkpoint\W{1,60}\(?(\d+(?:\.\d+)?)(?:, (\d+(?:\.\d+)?)\))?")
_TOOK = regex(
    r"(?<![\w.])(\d[\d,]*(?:\.\d+)?) ?(ms|s|secs?|seconds|min|minutes|秒|分钟)(?![\w/])"
    r"(?!\w* (?:between|interval|apart))",
    re.I,
)
_IDLE = regex(
    r"\b0 ?%? for ~?(\d+(?:\.\d+)?) ?(s|seconds|min|minutes) (?:at|in|during) "
    r"(?:the |each |every )?(?:save|checkpoint)",
    re.I,
)
_NO_TIME = regex(r"interval|\bevery\b|\bload|restor|resum|step[_ ]time|ETA|间隔|加载|恢复", re.I)
_SIZE = regex(r"(?<![\w.])(\d+(?:\.\d+)?) ?([GT])i?B\b")
_START = regex(r"\b[Ss]aving\b[^\n]*?(?P<path>/[\w./=-]{4,})|\b[Ss]aving\b[^\n]{0,24}[Cc]heckpoint")
_END = regex(
    r"\b[Ss]aved\b[^\n]*?(?P<path>/[\w./=-]{4,})|\b[Ss]aved\b[^\n]{0,24}[Cc]heckpoint|[Cc]heckpoint[^\n]{0,16}[Ss]aved"
)
_CLOCK = regex(r"(?<!\d)(\d\d):(\d\d):(\d\d)(?!\d)")
_STEP = regex(
    r"elapsed time per iteration \((?P<u1>ms|s)\): (?P<v1>[\d.]+)|iter(?:ation)? time \((?P<u2>s|ms)\): (?P<v2>[\d.]+)"
    r"|train_step_timing in s=(?P<v3>[\d.]+)|\bstep(?:[_ ]time)?\s*[=:]?\s+(?P<v4>\d+(?:\.\d+)?) ?(?P<u4>ms|s)\b"
    r"|(?:正常一?步|一步|每步|单步)(?:耗时|时间)?\W{1,24}(?P<v5>\d+(?:\.\d+)?) ?(?P<u5>ms|s|秒)"
)
_EVERY = regex(
    r"\bsave[-_ ]?(?:interval|steps|every|freq\w*)\W{1,4}(?P<a>\d{1,7})\b|\bsaved? every (?P<b>\d{1,7}) (?:steps|iter)"
    r"|every_n_train_steps\W{1,3}(?P<c>\d{1,7})|(?:保存间隔|每)\W{0,24}(?P<d>\d{1,7}) ?步"
)
_WORDS = ("heckpoint", "ckpt", "save", "Saving", "Saved", "saving", "检查点", "断点", "保存", "every_n_")
_NEEDED = (*_WORDS, "iter", "step", "步")


def _seconds(value: float, spelling: str) -> float:
    time, unit = canonical(value, spelling) or (value, "s")
    return round(time * IN_MS[unit] / 1e3, 9)


class SavesReader:
    """The longest save, the share of a run that it takes, and the rate at which it is written, as far as shown."""

    name = "saves"
    needles: tuple[bytes, ...] = (
        b"heckpoint",
        b"ckpt",
        "检查点".encode(),
        b"[Torch] Sav",
        b"at save",
        b"at each save",
        b"save of ",
        b"save took",
        b"save takes",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact of each kind."""
        best: tuple[float, Fact] | None = None
        step: Fact | None = None
        every: Fact | None = None
        opened: dict[str, tuple[float, Line]] = {}
        for line in doc.holding(*_NEEDED):
            text = line.text[:400]
            saves = any(word in text for word in _WORDS)
            if not saves and step is not None:
                continue
            if step is None and (hit := _STEP.search(text)) is not None:
                key = next(k for k in "12345" if hit[f"v{k}"])
                unit = "s" if key == "3" else hit[f"u{key}"]
                if (value := number(hit[f"v{key}"])) is not None:
                    step = fact(doc, line, "host.save.step", _seconds(value, unit), "s", around=hit[f"v{key}"])
            if every is None and saves and (hit := _EVERY.search(text)) is not None:
                count = next(g for g in hit.groups() if g)
                every = fact(doc, line, "host.save.every", float(count), "count", around=count)
            for seconds, made in self._times(doc, line, text, opened) if saves else ():
                if best is None or seconds > best[0]:
                    best = seconds, made
        if best is None:
            return
        yield best[1]
        if step is not None and every is not None:
            yield Fact(
                "host.save.share", best[0] / (best[0] + float(step.value or 0) * float(every.value or 0)), "fraction",
                Subject(), best[1].spans, kind="derived", formula="a / (a + b * c)", inputs=(best[1], step, every),
                status=doc.status,
            )  # fmt: skip

    def _times(
        self, doc: Document, line: Line, text: str, opened: dict[str, tuple[float, Line]]
    ) -> Iterator[tuple[float, Fact]]:
        """Seconds that this line gives for a save."""
        clock = _CLOCK.search(f"{line.prefix}{text}"[:120])
        now = sum(int(n) * f for n, f in zip(clock.groups(), (3600, 60, 1), strict=True)) if clock else None
        if (hit := _TIMER.search(text)) is not None:
            last = hit[2] or hit[1]
            seconds = _seconds(float(last), "ms")
            yield seconds, fact(doc, line, "host.save.time", seconds, "s", around=last)
            return
        if (hit := _IDLE.search(text)) is not None or (_SAVE.search(text) and not _NO_TIME.search(text)):
            took = [hit] if hit else list(_TOOK.finditer(text))
            if took:
                seconds = _seconds(float(took[-1][1].replace(",", "")), took[-1][2])
                yield seconds, fact(doc, line, "host.save.time", seconds, "s", around=took[-1][0])
                return
        if now is None:
            return
        if (end := _END.search(text)) is not None:
            begun = opened.pop(end["path"].rstrip(".") if end["path"] else "", None)
            if begun is not None and 0 < (seconds := (now - begun[0]) % 86400) < 14400:
                made = computed(doc, line, "host.save.time", float(seconds), "s", self.name)
                yield seconds, made
        elif (start := _START.search(text)) is not None:
            opened.setdefault(start["path"].rstrip(".") if start["path"] else "", (now, line))


READERS: list[Reader] = [SavesReader()]
