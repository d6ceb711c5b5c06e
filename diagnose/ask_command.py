"""`diagnose ask`: a question in words, an answer with its arithmetic for one GPU."""

from __future__ import annotations

import json
from typing import Any

import typer

from . import concepts as bank
from . import config, napkin
from .catalogue import near
from .concepts import Concept, Filled, Hit
from .errors import EXIT_INCONCLUSIVE, EXIT_OK, UsageError
from .linebreak import wrapped

SCHEMA = "diagnose.ask/v1"
FORMATS = ("text", "json", "md")
_LABELS = {
    "en": {
        "short": "In short", "long": "In 90 seconds", "napkin": "On a napkin", "tradeoff": "Trade-off",
        "measure": "How to measure it", "wrong": "Often said, and wrong", "follow": "They will ask next",
        "none": "Nothing in the bank answers that.", "nearest": "Nearest", "see": "See also", "sources": "Sources",
    },
    "zh": {
        "short": "一句话", "long": "90 秒", "napkin": "手算", "tradeoff": "取舍", "measure": "怎么测",
        "wrong": "常见的错误说法", "follow": "接着会问", "none": "题库里没有能回答这个问题的条目。",
        "nearest": "最接近的", "see": "相关", "sources": "出处",
    },
}  # fmt: skip


def run(words: list[str], *, gpu: str, lang: str, level: str, track: str, list_: bool, format_: str) -> int:
    """Answer, or list the bank.

    Raises:
        UsageError: an unknown language, level, track, format or GPU; or no question.
    """
    settings = config.load({"lang": lang, "format": format_}, " ".join(words))
    _check("language", settings.lang, ("en", "zh", "both"))
    _check("format", settings.format, FORMATS)
    _check("level", level, ("", *bank.LEVELS))
    _check("track", track, ("", *bank.TRACKS))
    langs = bank.LANGS if settings.lang == "both" else (settings.lang,)
    pool = [c for c in bank.concepts().values() if level in ("", c.level) and track in ("", c.track)]
    if list_:
        _list(pool, langs, settings.format)
        return EXIT_OK
    query = " ".join(words).strip()
    if not query:
        raise UsageError("no question", 'diagnose ask "Why is decode memory-bound?", or diagnose ask --list')
    product, note = napkin.pick_gpu(gpu or napkin.DEFAULT_GPU)
    hits = bank.find(query, pool)
    if not hits or hits[0].score < bank.ENOUGH:
        _nothing(query, bank.nearest(query, hits), langs, settings.format)
        return EXIT_INCONCLUSIVE
    answer = bank.filled(hits[0].concept, product)
    notes = [n for n in (note if gpu else "", answer.note) if n]
    if settings.format == "json":
        _json({"query": query, "matched": True, "score": round(hits[0].score, 3), **as_json(answer, langs, notes)})
    elif settings.format == "md":
        typer.echo(markdown(answer, langs, notes))
    else:
        typer.echo(text(answer, langs, notes))
    return EXIT_OK


def _check(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"no {what} {value!r}", near(value, known) or f"one of: {', '.join(k for k in known if k)}")


def _json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps({"schema": SCHEMA, **value}, ensure_ascii=False, indent=1))


def _list(pool: list[Concept], langs: tuple[str, ...], format_: str) -> None:
    pool = sorted(pool, key=lambda c: (bank.TRACKS.index(c.track), bank.LEVELS.index(c.level), c.id))
    if format_ == "json":
        _json({"concepts": [_brief(c) for c in pool]})
        return
    for concept in pool:
        asked = " / ".join(concept.words(one).question for one in langs)
        head = f"- `{concept.id}`" if format_ == "md" else f"{concept.id:30}"
        typer.echo(f"{head} {concept.track}, {concept.level}: {asked}")


def _brief(concept: Concept) -> dict[str, Any]:
    return {
        "id": concept.id, "track": concept.track, "level": concept.level,
        "question": {one: concept.words(one).question for one in bank.LANGS},
    }  # fmt: skip


def _nothing(query: str, nearest: list[Hit], langs: tuple[str, ...], format_: str) -> None:
    if format_ == "json":
        rows = [{**_brief(h.concept), "score": round(h.score, 3)} for h in nearest]
        _json({"query": query, "matched": False, "nearest": rows})
        return
    for one in langs:
        w = _LABELS[one]
        typer.echo(w["none"])
        typer.echo(f"{w['nearest']}:")
        for hit in nearest:
            typer.echo(f"  {hit.concept.id}: {hit.concept.words(one).question}")


def as_json(answer: Filled, langs: tuple[str, ...], notes: list[str]) -> dict[str, Any]:
    """The answer as data: figures with their formulas, texts with the figures in."""
    concept = answer.concept
    said = {}
    for one in langs:
        words = concept.words(one)
        said[one] = {
            "question": words.question, "short": answer.say(words.short), "long": answer.say(words.long),
            "tradeoff": answer.say(words.tradeoff), "measure": answer.say(words.measure),
            "wrong": {"says": answer.say(words.wrong.says), "because": answer.say(words.wrong.because)},
            "follow_ups": [{"q": answer.say(f.q), "a": answer.say(f.a)} for f in words.follow_ups],
        }  # fmt: skip
    return {
        **{k: v for k, v in _brief(concept).items() if k != "question"}, "gpu": answer.gpu, "notes": notes,
        "napkin": [
            {"name": s.name, "value": s.value, "unit": s.unit, "shown": s.text, "formula": s.formula,
             "terms": dict(s.terms), "assumed": s.why}
            for s in answer.slots.values()
        ],
        "run": concept.run, "playbooks": list(concept.playbooks), "causes": list(concept.causes),
        "sources": [s.model_dump() for s in concept.sources], "answer": said,
    }  # fmt: skip


def _sections(answer: Filled, one: str) -> list[tuple[str, list[str]]]:
    """Heading and lines, in reading order, for one language."""
    words, w, say = answer.concept.words(one), _LABELS[one], answer.say
    follow = [line for n, f in enumerate(words.follow_ups, 1) for line in (f"{n}. {say(f.q)}", f"   {say(f.a)}")]
    return [
        (w["short"], [say(words.short)]),
        (w["long"], [say(words.long)]),
        (w["tradeoff"], [say(words.tradeoff)]),
        (w["measure"], [f"$ {answer.concept.run}", say(words.measure)]),
        (w["wrong"], [f"“{say(words.wrong.says)}”", say(words.wrong.because)]),
        (w["follow"], follow),
    ]


def text(answer: Filled, langs: tuple[str, ...], notes: list[str]) -> str:
    """For a terminal: one block a language, the arithmetic once, wrapped to the window."""
    import shutil

    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    concept, out = answer.concept, []
    for one in langs:
        out += [concept.words(one).question, f"{concept.id} · {concept.track} · {concept.level} · {answer.gpu}"]
        out += [f"({n})" for n in notes]
        for heading, rows in _sections(answer, one):
            out += ["", heading, *(piece for row in rows for piece in wrapped(row, width, "  "))]
        out.append("")
    w = _LABELS[langs[0]]
    out += [w["napkin"], *(piece for row in answer.napkin_lines() for piece in wrapped(row, width, "  ")), ""]
    links = [*concept.playbooks, *concept.causes]
    out += [f"{w['see']}: {', '.join(links)}"] if links else []
    out += [piece for s in concept.sources for piece in wrapped(f"{w['sources']}: {s.fact}. {s.by}", width, "")]
    return "\n".join(out)


def markdown(answer: Filled, langs: tuple[str, ...], notes: list[str]) -> str:
    """For notes and chats."""
    concept, out = answer.concept, []
    for one in langs:
        out += [f"## {concept.words(one).question}", "", f"*{concept.track}, {concept.level}, {answer.gpu}*", ""]
        out += [f"> {n}\n" for n in notes]
        for heading, rows in _sections(answer, one):
            out += [f"### {heading}", ""]
            for row in rows:
                out += ["```sh", row.removeprefix("$ "), "```", ""] if row.startswith("$ ") else [row.strip(), ""]
    w = _LABELS[langs[0]]
    out += [f"### {w['napkin']}", "", *(f"- `{row}`" for row in answer.napkin_lines()), "", f"### {w['sources']}", ""]
    out += [f"- {s.fact} ({s.by})" for s in concept.sources]
    return "\n".join(out)
