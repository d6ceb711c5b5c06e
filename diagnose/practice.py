"""`diagnose practice`: incident drills, interview questions, a report told as a story; by keyboard, pipe or script."""

from __future__ import annotations

import random
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import config
from .catalogue import near
from .concepts import TRACKS
from .errors import EXIT_OK, UsageError
from .practice_talk import LANGS, SCHEMA, Talk, emit
from .practice_words import say

if TYPE_CHECKING:
    from .llm import Options

KINDS = ("drill", "interview", "story")
FORMATS = ("text", "json")


def run(
    words: list[str], *, list_: bool, drill: str, track: str, lang: str, seed: int, script: str, format_: str,
    rounds: int, restart: bool, llm: Options | None = None,
) -> int:  # fmt: skip
    """Practise.

    Raises:
        UsageError: an unknown kind, track, language, format or drill.
    """
    settings = config.load({"lang": lang, "format": format_})
    known = {
        "kind": (words[0] if words else "drill", KINDS), "track": (track, ("", *TRACKS)),
        "--format": (settings.format, FORMATS), "--lang": (settings.lang, LANGS),
    }  # fmt: skip
    if settings.lang == "both" and not lang:
        known["--lang"] = ("en", LANGS)  # a setting for reports; a conversation has one language
    for what, (value, allowed) in known.items():
        if value not in allowed:
            raise UsageError(
                f"no {what} {value!r}", near(value, allowed) or f"one of: {', '.join(filter(None, allowed))}"
            )
    kind, one = known["kind"][0], known["--lang"][0]
    if kind == "story":
        from .practice_story import run as story

        if len(words) < 2:
            raise UsageError("no report", "diagnose practice story REPORT.json (write one with --format json)")
        return story(Path(words[1]), LANGS if not lang else (one,), settings.format)
    talk = Talk(script, settings.format == "text", one)
    if kind == "interview":
        from .practice_interview import run as interview

        examiner = None
        if llm is not None:
            from .practice_llm import Examiner

            examiner = Examiner(llm)
        return interview(talk, track=track, seed=seed, rounds=rounds, list_=list_, examiner=examiner)
    if list_:
        return _list(track, one, settings.format)
    return _drill(talk, drill or (words[1] if len(words) > 1 else ""), track, seed, restart)


def _examiner() -> Any:
    """Drills and their keys; loaded by name, as the evaluation is, so that nothing else here can know them."""
    return import_module("diagnose.evals.drills")


def _list(track: str, lang: str, format_: str) -> int:
    from .practice_store import Store

    rows = _examiner().listed(track, lang)
    with closing(Store()) as store:
        left = {name for name, *_ in rows if store.lines(name)}
    if format_ == "json":
        keys = ("drill", "track", "title", "limit")
        emit({"schema": SCHEMA, "kind": "list", "drills": [dict(zip(keys, row, strict=True)) for row in rows]})
        return EXIT_OK
    print(say(lang, "l_head"))
    for name, of, title, limit in rows:
        note = f" [{say(lang, 'l_open')}]" if name in left else ""
        print(f"  {name:30}{of:13}{limit:>4g} s  {title}{note}")
    return EXIT_OK


def _drill(talk: Talk, name: str, track: str, seed: int, restart: bool) -> int:
    """Play one drill to its end, or until the player goes away."""
    from .practice_card import as_json, debrief
    from .practice_drill import Drill
    from .practice_store import Store

    examiner = _examiner()
    if not name:
        names = [row[0] for row in examiner.listed(track, talk.lang)]
        if not names:
            raise UsageError(f"no drill of track {track}", "diagnose practice drill --list")
        name = random.Random(seed).choice(names)  # noqa: S311 (which drill comes is no secret)
    setup = examiner.setup(name, talk.lang)
    drill = Drill(setup, talk.lang)
    with closing(Store()) as store:
        talk.say(drill.opening())
        if store.note:
            talk.say([say(talk.lang, "memory", why=store.note)])
        if not (talk.fresh or restart) and (before := store.lines(setup.id)):
            talk.say(drill.again(before))
        try:
            for line in talk.lines(lambda: f"[{drill.remaining:g} s]"):
                talk.say(drill.feed(line))
                store.keep(setup.id, [] if drill.over and not drill.left else drill.lines)
                if drill.over:
                    break
        except KeyboardInterrupt:
            talk.say(["", say(talk.lang, "paused")])
            raise
    finished = drill.finished
    card = examiner.card(setup, drill.done) if finished else None
    if card is not None:
        talk.pages(debrief(drill, card))
    elif not drill.left:
        talk.say([say(talk.lang, "paused")])
    if not talk.shows:
        emit(as_json(drill, card))
    return EXIT_OK
