"""`RESULTS.md`: the measured figures in one page, made by ``diagnose eval --results FILE``.

Development cases and cases that nothing was tuned on stand side by side. Of the latter, misses are named by id only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from .interactive import Run
from .report import averaged, failure, said
from .scoring import Calibration, Outcome, Scores, Share

UNSEEN = "held"  # nothing was fitted or tuned on these
_WIDE = 30  # characters of a bar
_MOST = 60  # failures listed of a suite


def page(
    scores: Sequence[Scores],
    overall: Scores | None,
    version: str,
    catalogue: str,
    played: Sequence[Run],
    repeated: tuple[Sequence[str], int],
    sampled: bool = False,
) -> str:
    """The page.

    Args:
        played: recorded machines, investigated probe by probe.
        repeated: ids that differed in two runs, and how many ran. sampled: whether this was ``--quick``.
    """
    whole = [s for s in scores if s.kept is None]
    lines = [
        "# Results",
        "",
        f"Made by `diagnose eval --results`; diagnose {version}, catalogue {catalogue}, {date.today().isoformat()}.",
        "Shares have Wilson 95 % intervals, means bootstrap intervals over cases; see docs/evaluation.md.",
        f"`{UNSEEN}` was written apart, and nothing is tuned or fitted on it; all others were used in development,",
        "with the words' prior fitted without the source that a case comes from.",
        *(["", "**A sample only (`--quick`).**"] if sampled else []),
        "",
        "## Scores",
        "",
        *_table(whole),
        "",
        "## What a change must do, and what must be gone without its lines",
        "",
        *_kept([s for s in scores if s.kept is not None]),
        "",
        *_kinds(scores),
        "## Baselines",
        "",
        *_baselines(whole),
        "",
    ]
    for item in [s for s in ([overall] if overall else []) + [s for s in whole if s.suite == UNSEEN] if s is not None]:
        lines += [f"## Calibration: {item.suite}", "", "```text", *reliability(item.calibration), "```", ""]
    lines += ["## Recorded machines, probe by probe", "", *_played(played), ""]
    ids, n = repeated
    lines += ["## Determinism", "", f"Reports that differed in two runs with other hash seeds: {len(ids)} of {n}.", ""]
    lines += ["## Failures", "", *_failures(scores)]
    return "\n".join(lines).rstrip() + "\n"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(row) + " |" for row in lines]


def _table(scores: Sequence[Scores]) -> list[str]:
    def row(item: Scores) -> list[str]:
        brier, ece = item.brier, item.calibration.ece
        low, high = item.calibration.ece_interval
        return [
            item.suite, str(item.n), said(item.first), said(item.third), said(item.chained),
            averaged(item.cited), averaged(item.precise), said(item.verbatim, False), said(item.supported, False),
            said(item.wrong_and_sure), said(item.alarms), said(item.rightly_open),
            "–" if brier is None else f"{brier:.3f}", "–" if ece is None else f"{ece:.3f} [{low:.3f}, {high:.3f}]",
            "; ".join(f"{name} {said(got, False)}" for name, got in item.languages), f"{item.seconds:.0f}",
        ]  # fmt: skip

    head = (
        "suite", "n", "top-1", "top-3", "chain sound", "evidence recall", "evidence precision", "quotes verbatim",
        "no unsupported claim", "confidently wrong", "alarms on healthy", "rightly left open", "Brier", "ECE",
        "top-1 by language", "CPU s",
    )  # fmt: skip
    columns = [head, *(row(s) for s in scores)]
    return _grid(["", *(c[0] for c in columns[1:])], [[c[i] for c in columns] for i in range(1, len(head))])


def _kept(scores: Sequence[Scores]) -> list[str]:
    rows = [[s.suite, str(s.n), said(s.kept), said(s.verbatim, False)] for s in scores if s.kept is not None]
    if not rows:
        return ["No such suite was run."]
    return _grid(("suite", "n", "cause or health still held at 0.5 or more", "quotes verbatim"), rows)


def _kinds(scores: Sequence[Scores]) -> Iterator[str]:
    for item in scores:
        if item.kinds:
            word = "still held" if item.kept is not None else "right"
            yield f"{item.suite}, {word}: " + ", ".join(f"{name} {said(got, False)}" for name, got in item.kinds) + "."
            yield ""


def _baselines(scores: Sequence[Scores]) -> list[str]:
    rows = [[s.suite, "the tool", said(s.first), said(s.third), _three(s.brier)] for s in scores if s.baselines]
    for s in scores:
        rows += [[s.suite, b.name, said(b.first), said(b.third), _three(b.brier)] for b in s.baselines]
    order = {s.suite: i for i, s in enumerate(scores)}
    rows.sort(key=lambda r: order[r[0]])
    return _grid(("suite", "method", "top-1", "top-3", "Brier"), rows)


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def reliability(got: Calibration) -> Iterator[str]:
    """The reliability diagram as text: a bar to the share that was right, `|` at the probability stated."""
    yield "stated   mean  right"
    for row in got.bins:
        share: Share = row.right
        bar = ["#" if i < round((share.value or 0) * _WIDE) else "." for i in range(_WIDE + 1)]
        bar[round(row.mean * _WIDE)] = "|"
        yield f"{row.low:.1f}-{row.high:.1f}  {row.mean:.2f}  {''.join(bar)}  {said(share)}"


def _played(runs: Sequence[Run]) -> Iterator[str]:
    right = Share(sum(r.right for r in runs), len(runs))
    spent, least = sum(r.seconds for r in runs), sum(r.best_seconds or 0.0 for r in runs)
    probes, fewest = sum(len(r.planned) for r in runs), sum(len(r.best or ()) for r in runs)
    yield f"Right: {said(right)}. Beyond the first look: {probes} probes and {spent:g} s."
    if any(r.best is not None for r in runs):
        yield f"With the answer at hand {fewest} probes and {least:g} s would have been enough."
    yield ""
    rows = [
        [
            r.id, "yes" if r.right else "NO", r.lead if r.verdict == "cause" else r.verdict, f"{len(r.planned)}",
            f"{r.seconds:g}", *(("–", "–") if r.best is None else (f"{len(r.best)}", f"{r.best_seconds or 0:g}")),
        ]
        for r in runs
    ]  # fmt: skip
    yield from _grid(("machine", "right", "verdict", "probes", "s", "probes at best", "s at best"), rows)


def _failures(scores: Sequence[Scores]) -> Iterator[str]:
    for item in scores:
        failed = [o for o in item.outcomes if o.error or _failed(item, o)]
        if not failed:
            continue
        yield f"### {item.suite}: {len(failed)} of {item.n}"
        yield ""
        if item.suite == UNSEEN:
            yield ", ".join(f"`{o.id}`" for o in failed)
        else:
            yield from (f"- `{o.id}`: {failure(o)}" for o in failed[:_MOST])
        if len(failed) > _MOST and item.suite != UNSEEN:
            yield f"- and {len(failed) - _MOST} more"
        yield ""


def _failed(item: Scores, outcome: Outcome) -> bool:
    if item.kept is not None:
        return outcome.kept
    return not outcome.first or bool(outcome.key.beside and not outcome.third) or outcome.unsupported > 0
