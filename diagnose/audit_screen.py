"""The audit as a person reads it: what is wrong with its line and its fix, then one line a group; `-v` lists all."""

from __future__ import annotations

import json
import sys
from collections import Counter

from .answer import where
from .audit_models import Audit, AuditFinding
from .checks import Check, Group, load
from .fold import columns, folded
from .models import Evidence, Severity
from .predicates import in_words

SAYS = {
    "en": {"fix": "fix", "risk": "risk", "passed": "passed", "unknown": "unknown", "not_applicable": "do not apply",
           "finding": "found", "nothing": "nothing found", "drift": "changed since the baseline",
           "same": "nothing changed since the baseline", "all": "-v lists every check",
           "missing": "not read", "high": "HIGH", "medium": "MEDIUM", "low": "LOW", "info": "info", "of": "audit of",
           "was": "was", "none": "not there"},
    "zh": {"fix": "处理", "risk": "风险", "passed": "项正常", "unknown": "项未知", "not_applicable": "项不适用",
           "finding": "项异常", "nothing": "未发现问题", "drift": "与基线相比的变化", "same": "与基线相比没有变化",
           "all": "-v 列出全部检查项", "missing": "未读取", "high": "高", "medium": "中", "low": "低", "info": "提示",
           "of": "审计", "was": "原为", "none": "无", "this machine": "本机"},
}  # fmt: skip
_COLOUR = {"high": "1;31", "medium": "1;33", "low": "33", "info": "36"}
ORDER: tuple[Severity, ...] = ("high", "medium", "low", "info")


class _Page:
    """Lines for a terminal, coloured where one reads them."""

    def __init__(self) -> None:
        import os

        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.width = columns()

    def paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def say(self, text: str = "") -> None:
        safe = "".join(c if c.isprintable() or c in "\n\x1b" else "�" for c in text)
        for line in safe.split("\n"):
            sys.stdout.writelines(f"{part}\n" for part in ((line,) if "\x1b" in line else folded(line, self.width)))


def _counts(made: Audit, w: dict[str, str]) -> str:
    found = Counter(f.severity for f in made.findings)
    head = ", ".join(f"{found[s]} {w[s].lower()}" for s in ORDER if found[s]) or w["nothing"]
    rest = ", ".join(f"{made.counts[s]} {w[s]}" for s in ("passed", "unknown", "not_applicable") if made.counts.get(s))
    return f"{head}; {rest}"


def screen(made: Audit, groups: dict[str, Group], lang: str, verbose: bool) -> None:
    """Print the audit."""
    page, w = _Page(), SAYS[lang]
    by_id = {e.id: e for e in made.evidence}
    page.say(f"{w['of']} {w.get(made.machine, made.machine)}: {_counts(made, w)}\n")
    for item in made.inputs:
        if item.sha256 is None:
            page.say(f"  {item.name}: {item.reason}")
    for finding in made.findings:
        _finding(page, finding, by_id, w, lang)
    if made.drift is not None:
        page.say(w["drift"] if made.drift else w["same"])
        for change in made.drift:
            who = f" {change.subject}" if change.subject else ""
            was, now = (w["none"] if v is None else shown(v) for v in (change.before, change.after))
            page.say(f"  {change.what}{who}: {was} -> {now}")
        page.say()
    width = max((len(g) for g in groups), default=0)
    for name in groups:
        rows = [c for c in made.checks if c.group == name]
        if not rows:
            continue
        seen = Counter(c.status for c in rows)
        told = ", ".join(f"{seen[s]} {w[s]}" for s in ("finding", "passed", "unknown", "not_applicable") if seen[s])
        page.say(f"  {name:{width}}  {told}")
        if verbose:
            for row in rows:
                page.say(f"    {w.get(row.status, row.status):14} {row.id}{': ' + row.reason if row.reason else ''}")
    if made.unavailable and verbose:
        page.say(f"\n{w['missing']}:")
        for gap in made.unavailable:
            page.say(f"  {gap.probe}: {gap.reason}")
    if not verbose:
        page.say(f"\n{w['all']}")


def shown(value: object, most: int = 100) -> str:
    """A reading, cut to so many characters."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def _finding(page: _Page, finding: AuditFinding, by_id: dict[str, Evidence], w: dict[str, str], lang: str) -> None:
    title = finding.title.get(lang) or next(iter(finding.title.values()))
    page.say(f"{page.paint(w[finding.severity], _COLOUR[finding.severity])} {title}  [{finding.check}]")
    for ident in finding.evidence[:3]:
        if item := by_id.get(ident):
            said = (item.quote or item.statement).strip()
            place = where(item)
            page.say(f"    {said[:160]}" + (f"  ({place})" if place else ""))
    page.say(f"    {w['fix']}: {finding.fix.text.get(lang) or next(iter(finding.fix.text.values()))}")
    if finding.fix.risk:
        page.say(f"    {w['risk']}: {finding.fix.risk}")
    page.say()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def markdown(made: Audit, groups: dict[str, Group], lang: str) -> str:
    """The audit for an issue or a chat."""
    w = SAYS[lang]
    by_id = {e.id: e for e in made.evidence}
    out = [f"## {w['of']} {made.machine}", "", _counts(made, w), ""]
    if made.findings:
        out += ["| severity | check | what | evidence | fix |", "|---|---|---|---|---|"]
    for item in made.findings:
        quotes = "; ".join(
            f"`{_cell((e.quote or e.statement)[:120]).replace('`', chr(39))}`"
            for e in (by_id.get(i) for i in item.evidence[:2]) if e is not None
        )  # fmt: skip
        title, fix = (next(iter(t.values())) for t in (item.title, item.fix.text))
        out.append(f"| {w[item.severity]} | `{item.check}` | {_cell(title)} | {quotes} | {_cell(fix)} |")
    if made.drift:
        out += ["", f"### {w['drift']}", ""]
        out += [f"- `{d.what}` {d.subject}: {_cell(str(d.before))} -> {_cell(str(d.after))}" for d in made.drift]
    out += ["", "| group | found | passed | unknown | not applicable |", "|---|---|---|---|---|"]
    for name in groups:
        seen = Counter(c.status for c in made.checks if c.group == name)
        if seen:
            cells = " | ".join(str(seen[s]) for s in ("finding", "passed", "unknown", "not_applicable"))
            out.append(f"| {name} | {cells} |")
    return "\n".join(out) + "\n"


def listing(checks: list[Check], lang: str, format_: str) -> None:
    """The checks themselves, without running them (`--show`)."""
    if format_ == "json":
        rows = [c.model_dump(mode="json", exclude_none=True) for c in checks]
        sys.stdout.write(
            json.dumps({"schema": "diagnose.checks/v1", "checks": rows}, ensure_ascii=False, indent=1) + "\n"
        )
        return
    if format_ == "md":
        sys.stdout.write(reference(checks))
        return
    page = _Page()
    width = max((len(c.id) for c in checks), default=0)
    for check in checks:
        page.say(f"{check.id:{width}}  {check.severity:6}  {check.title[lang == 'zh']}")


def reference(checks: list[Check]) -> str:
    """The checks as a page of the documentation (`docs/checks.md`)."""
    groups, _ = load()
    out = [
        "# Checks of `diagnose audit`", "",
        "Made by `diagnose audit --show --format md` from `playbooks/checks/`; `diagnose explain ID` says more.",
        "A check is decided only where the readings it needs are there: otherwise it is unknown, never a finding.", "",
        f"{len(checks)} checks. Exit status 1 from a finding at `--fail-on` (default `high`).",
    ]  # fmt: skip
    for name in dict.fromkeys(c.group for c in checks):
        out += ["", f"## {name}: {groups[name].title[0]} ({groups[name].title[1]})", ""]
        out += ["| id | severity | what | why | fix | needs |", "|---|---|---|---|---|---|"]
        for check in (c for c in checks if c.group == name):
            needs = ", ".join(f"`{n}`" for n in check.needs)
            cells = (check.title[0], check.because, check.fix[0], needs)
            out.append(f"| `{check.id}` | {check.severity} | {' | '.join(map(_cell, cells))} |")
        sources = sorted({c.source for c in checks if c.group == name})
        out += ["", f"Sources: {'; '.join(sources)}."]
    return "\n".join(out) + "\n"


def explain(check: Check, lang: str, format_: str) -> None:
    """One check in full."""
    if format_ == "json":
        made = {"schema": "diagnose.check/v1", **check.model_dump(mode="json", exclude_none=True)}
        sys.stdout.write(json.dumps(made, ensure_ascii=False, indent=1) + "\n")
        return
    page = _Page()
    for one in ("en", "zh") if lang == "both" else (lang,):
        w, zh = SAYS[one], one == "zh"
        page.say(f"{check.id}  ({check.group}, {check.severity})\n{check.title[zh]}\n")
        page.say(f"{'原因' if zh else 'Why'}: {check.because}")
        page.say(f"{w['fix']}: {check.fix[zh]}")
        if check.risk:
            page.say(f"{w['risk']}: {check.risk}")
        page.say()
    page.say(f"  found when: {in_words(check.when) if check.when else 'rule ' + check.rule}")
    page.say(f"  decided by: {', '.join(check.needs)}")
    if check.applies:
        page.say(f"  applies to: {in_words(check.applies)}")
    if check.versions:
        page.say(f"  versions: {check.versions}")
    page.say(f"  source: {check.source}")
