"""What a text goes through on its way here, and whether the readings survive it.

``python -m diagnose.evals.forms [PATH…] [--form NAME…] [--every N] [-v]`` triages each case (a file of PATH is one
artifact, an incident's JSON is a case) as it is and once a form, and counts the cases whose readings
(signal, value, unit) or whose verdict changed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from diagnose.document import Document
from diagnose.engine import triage

from .case import Case, parse_incident
from .scoring import HEALTHY, Key

MOST = 200_000  # bytes of an artifact
Form = Callable[[str], str | bytes]
Reading = tuple[str, str, str | None]


def _each(change: Callable[[int, str], str]) -> Form:
    """Change every line, the end of the last one kept."""

    def form(text: str) -> str:
        end = "\n" if text.endswith("\n") else ""
        lines = text.removesuffix("\n").split("\n")
        return "\n".join(change(n, line) for n, line in enumerate(lines)) + end

    return form


def _before(prefix: str) -> Form:
    return _each(lambda _, line: prefix + line)


def _clock(n: int) -> str:
    return f"{12 + n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}"


def _cut(width: int) -> Form:
    return _each(lambda _, line: "\n".join(line[i : i + width] for i in range(0, max(len(line), 1), width)))


def _coloured(_: int, line: str) -> str:
    return re.sub(r"\b(NCCL|INFO|WARN\w*|ERROR|GPU|rank|\d+\.\d+)\b", "\x1b[1;33m\\1\x1b[0m", line)


def _docker(n: int, line: str) -> str:
    stamp = f"2026-11-22T{_clock(n)}.000000001Z"
    return json.dumps({"log": line + "\n", "stream": "stderr", "time": stamp}, ensure_ascii=False)


def _export(n: int, line: str) -> str:
    host = {"host": "gpu-07", "service": "llm", "status": "info"}
    return json.dumps({"timestamp": f"2026-11-22T{_clock(n)}.000Z", "message": line, **host}, ensure_ascii=False)


def _smart(text: str) -> str:
    text = re.sub(r"(?<=\w)'(?=\w)", "\u2019", text)
    text = re.sub(r'"([^"\n]*)"', "\u201c\\1\u201d", re.sub(r"(?<!\w)'([^'\n]*)'", "\u2018\\1\u2019", text))
    return text.replace("  ", " \u00a0")


def _interleaved(text: str) -> str:
    """Two ranks write the same lines to one file, at their own pace."""
    rng, out = random.Random(1), []  # noqa: S311
    lines = text.removesuffix("\n").split("\n")
    at = [0, 0]
    while min(at) < len(lines):
        rank = rng.choice([k for k in (0, 1) if at[k] < len(lines)])
        out.append(f"[rank{rank}]: {lines[at[rank]]}")
        at[rank] += 1
    return "\n".join(out) + "\n"


FORMS: dict[str, Form] = {
    "node3:": _before("node3: "),
    "[1,0]<stdout>:": _before("[1,0]<stdout>:"),
    "[rank0]:": _before("[rank0]: "),
    "0: (srun -l)": _before("0: "),
    "ISO time": _each(lambda n, x: f"2026-11-22T{_clock(n)}.123456+00:00 {x}"),
    "time, comma": _each(lambda n, x: f"2026-11-22 {_clock(n)},123 {x}"),
    "[time]": _each(lambda n, x: f"[{_clock(n)}] {x}"),
    "syslog": _each(lambda n, x: f"Nov 22 {_clock(n)} gpu-07 app[1234]: {x}"),
    "docker compose": _before("web-1  | "),
    "rsyslog": _each(lambda n, x: f"2026-11-22T{_clock(n)}.123456+00:00 gpu-07 app[1234]: {x}"),
    "pdsh": _before("10.0.3.17: "),
    "stern": _before("llm-7d9f8b6c5d-x2x9z server "),
    "compose, named": _before("vllm-openai  | "),
    "Ray, colours": _before("\x1b[36m(RayWorkerWrapper pid=4242)\x1b[0m "),
    "Ray, colours, no escape": _before("[36m(RayWorkerWrapper pid=4242)[0m "),
    "colours, no escape": _each(lambda n, x: _coloured(n, x).replace("\x1b", "")),
    "HTML": lambda t: escape(t),
    "Ray": _before("(RayWorkerWrapper pid=4242) "),
    "vLLM process": _before("(EngineCore_DP0 pid=123) "),
    "kubectl --prefix": _before("[pod/llm-0/server] "),
    "kubectl time": _each(lambda n, x: f"2026-11-22T{_clock(n)}.{n + 123456789:09}Z {x}"),
    "launcher and time": _each(lambda n, x: f"node3: 2026-11-22T{_clock(n)}.123Z {x}"),
    "quoted >": _before("> "),
    "indented": _before("    "),
    "bullets": _before("- "),
    "grep -n": _each(lambda n, x: f"{n + 17}:{x}"),
    "grep -Hn": _each(lambda n, x: f"logs/run-1.log:{n + 17}:{x}"),
    "cat -n": _each(lambda n, x: f"{n + 1:6}\t{x}"),
    "blank lines between": _each(lambda _, x: x + "\n"),
    "CRLF": lambda t: t.replace("\n", "\r\n"),
    "CR CR LF": lambda t: t.replace("\n", "\r\r\n"),
    "trailing spaces": _each(lambda _, x: x + "   "),
    "tabs to spaces": lambda t: t.expandtabs(8),
    "smart quotes, nbsp": _smart,
    "colours": _each(_coloured),
    "UTF-8 BOM": lambda t: "\ufeff" + t,
    "UTF-16": lambda t: t.encode("utf-16"),
    "wrapped at 80": _cut(80),
    "wrapped at 100": _cut(100),
    "fence": lambda t: f"```\n{t}\n```\n",
    "fence, language": lambda t: f"```text\n{t}\n```\n",
    "docker json-file": _each(_docker),
    "JSON export": _each(_export),
    "two ranks interleaved": _interleaved,
}


@dataclass
class Seen:
    """What a triage said."""

    readings: frozenset[Reading]
    verdict: tuple[str, ...]


@dataclass
class Tally:
    """How one form fared: cases, those whose readings or verdict changed, and readings kept, lost and new."""

    cases: int = 0
    readings: int = 0
    verdicts: int = 0
    kept: int = 0
    lost: int = 0
    new: int = 0
    names: list[str] = field(default_factory=list)


def seen(symptom: str, docs: Iterable[Document]) -> Seen:
    """Readings and verdict of a triage."""
    got = triage(symptom, docs)
    readings = frozenset((e.signal, str(e.value), e.unit) for e in got.evidence)
    first = got.assessment.accepted[:1] if got.assessment.verdict == "cause" else []
    return Seen(readings, (got.assessment.verdict, *(b.cause.id for b in first)))


def documents(case: Case, form: Form | None = None) -> list[Document]:
    """A case's texts, changed."""
    out = []
    for name, text in case.texts:
        made = form(text) if form else text
        out.append(Document.of(name, made.encode() if isinstance(made, str) else made, case.status))
    return out


def cases(paths: Sequence[Path]) -> list[Case]:
    """Incidents, and other text files as one artifact each."""
    out = []
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not file.is_file() or file.stat().st_size > MOST:
                continue
            data = file.read_bytes()
            try:
                text = data.decode()
            except UnicodeDecodeError:
                continue
            if file.suffix == ".json" and '"root_cause"' in text and '"artifacts"' in text:
                out.append(parse_incident(json.loads(text)))
            elif text.count("\n") >= 2 and not text.lstrip().startswith(("{", "<", "[{")) and "\x00" not in text:
                name = str(file.relative_to(path.parent)) if path.is_dir() else file.name
                out.append(Case(name, "", Key(HEALTHY, (), "healthy", ()), texts=((file.name, text),)))
    return out


def compare(
    found: Sequence[Case], forms: Iterable[str], watch: Callable[[str, Case, Seen, Seen], None] | None = None
) -> dict[str, Tally]:
    """Each form against the texts as they are."""
    out = {name: Tally() for name in forms}
    for case in found:
        plain = seen(case.symptom, documents(case))
        for name, tally in out.items():
            after = seen(case.symptom, documents(case, FORMS[name]))
            tally.cases += 1
            tally.kept += len(plain.readings & after.readings)
            tally.lost += len(plain.readings - after.readings)
            tally.new += len(after.readings - plain.readings)
            tally.readings += plain.readings != after.readings
            tally.verdicts += plain.verdict != after.verdict
            if plain != after:
                tally.names.append(case.id)
                if watch:
                    watch(name, case, plain, after)
    return out


def _show(name: str, case: Case, plain: Seen, after: Seen) -> None:
    print(f"{name} | {case.id} | {plain.verdict if plain.verdict == after.verdict else (plain.verdict, after.verdict)}")
    for sign, items in (("-", plain.readings - after.readings), ("+", after.readings - plain.readings)):
        for item in sorted(map(str, items))[:6]:
            print(f"    {sign} {item[:150]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Print one row a form."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--form", nargs="*", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("-v", action="store_true")
    args = parser.parse_args(argv)
    got = compare(cases(args.paths)[:: args.every], args.form, _show if args.v else None)
    print(f"{'form':24} {'cases':>5} {'readings':>8} {'verdicts':>8} {'lost':>6} {'new':>6} {'kept':>6}")
    for name, t in got.items():
        print(f"{name:24} {t.cases:5} {t.readings:8} {t.verdicts:8} {t.lost:6} {t.new:6} {t.kept:6}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
