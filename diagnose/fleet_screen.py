"""The fleet as a person reads it: who is missing, what is wrong where, who stands apart, what is mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from .audit_screen import SAYS, shown
from .fleet_models import Fleet, Outlier

_ZH = {
    "nodes": "个节点", "missing": "缺失的节点", "failed": "未能读取的节点", "findings": "检查发现",
    "outliers": "离群读数", "mixed": "不一致的设置", "median": "中位数", "usual": "多数为",
    "ranking": "最需要关注的节点", "slow": "偏慢的节点", "of": "同类读数",
}  # fmt: skip
_EN = {
    "nodes": "nodes", "missing": "missing nodes", "failed": "nodes that could not be read", "findings": "findings",
    "outliers": "readings that stand apart", "mixed": "settings that differ", "median": "median", "usual": "usually",
    "ranking": "nodes to look at first", "slow": "slow nodes", "of": "readings compared",
}  # fmt: skip
MOST = 20


def names(found: Iterable[str], most: int = 8) -> str:
    """A list of nodes, short enough for a line."""
    listed = list(found)
    return ", ".join(listed[:most]) + (f" (+{len(listed) - most})" if len(listed) > most else "")


def page(made: Fleet, lang: str, markdown: bool) -> str:
    """The whole page, as text or Markdown."""
    w, says = (_ZH if lang == "zh" else _EN), SAYS[lang]
    kinds = Counter(n.hardware for n in made.nodes)
    out = [f"{len(made.nodes)} {w['nodes']}: " + "; ".join(f"{n} x [{kind}]" for kind, n in kinds.most_common())]

    def section(title: str, rows: list[str]) -> None:
        if rows:
            out.extend(["", f"## {title}" if markdown else f"{title}:", *([""] if markdown else [])])
            out.extend(f"{'-' if markdown else ' '} {row}" for row in rows[:MOST])
            if len(rows) > MOST:
                out.append(f"{'-' if markdown else ' '} … +{len(rows) - MOST}")

    section(w["missing"], [names(made.missing, 64)] if made.missing else [])
    section(w["slow"], [names(made.slow)] if made.slow else [])
    section(w["failed"], [f"{f.name}: {f.reason}" for f in made.failed])
    section(
        w["ranking"],
        [
            f"{n.name}: {names(f'{c} ({says[s].lower()})' for c, s in _ranked(n.findings))}"
            + (f"; {w['outliers']}: {n.outliers}" if n.outliers else "")
            for n in made.nodes[:10]
            if n.outliers or n.worst in ("high", "medium")
        ],
    )
    section(
        w["findings"],
        [
            f"{says[c.severity]} {c.title.get(lang, c.check)} [{c.check}]: {names(c.nodes)}"
            for c in made.checks
            if c.severity != "info"
        ],
    )
    section(
        w["outliers"],
        [_apart(o, w["median"], w["of"]) for o in made.outliers],
    )
    section(
        w["mixed"],
        [
            f"{m.signal} {m.subject}: {w['usual']} {shown(m.usual, 60)} ({m.nodes}); "
            + "; ".join(f"{shown(v, 60)}: {names(who)}" for v, who in m.others.items())
            for m in made.mixed
        ],
    )
    return "\n".join(out) + "\n"


def _apart(o: Outlier, median: str, of: str) -> str:
    """One reading with the arithmetic that makes it stand apart."""
    told = f"{o.node} {o.signal} {o.subject}: {o.value:g} {o.unit or ''} ({median} {o.median:g}, {o.compared} {of}"
    if o.deviations is not None:
        told += f"; {o.formula} = {o.deviations:g} > {o.needed:g}"
    return " ".join(told.split()) + ")"


def _ranked(findings: Mapping[str, str]) -> list[tuple[str, str]]:
    order = {"high": 0, "medium": 1, "low": 2, "info": 3}
    return sorted(((c, s) for c, s in findings.items() if s != "info"), key=lambda p: (order[p[1]], p[0]))
