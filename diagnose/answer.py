"""The spoken answer, rendered from a report and the catalogue, never from chance.

`render(report, cat, lang)` is pure: `verify` renders again and compares. Sentences vary because
evidence varies. Every figure is a slot filled from an evidence, limit or reference of the report.
"""

from __future__ import annotations

from .answer_words import EN, ZH, Words
from .catalogue import Catalogue, Cause, FollowUpText
from .document import printable
from .models import Answer, Evidence, Finding, FollowUp, Limit, Report

MOST_CITED = 4


def words(lang: str) -> Words:
    """The sentence frames of a language."""
    return ZH if lang == "zh" else EN


def where(item: Evidence) -> str:
    """``file:line`` of an evidence, or how it came about."""
    if item.capture is not None:
        return f"{item.capture.name}:{item.capture.line}"
    return item.formula or item.kind


def quoted(item: Evidence, width: int = 110) -> str:
    """The first line of the quote, cut to `width`."""
    text = printable(" ".join((item.quote or "").split()))
    return text if len(text) <= width else text[: width - 1] + "…"


def cite(item: Evidence) -> str:
    """``statement [E3, file:line]``, with the quote where the statement does not repeat it."""
    quote = quoted(item)
    body = item.statement.rstrip("。.")
    if item.kind == "observed" and quote and str(item.value) not in body:
        body = f"{body}: “{quote}”"
    return f"{body} [{item.id}, {where(item)}]"


def reading(item: Evidence) -> str:
    """The fact itself, as short as it can be said: ``NCCL_P2P_DISABLE=1``, ``--max-num-seqs 4``, a quote, a figure."""
    label = item.subject.label or ""
    if item.signal == "env.var":
        return printable(f"{label}={item.value}")
    if item.signal == "serving.arg":
        return printable(f"--{label}" + ("" if item.value in (True, "true") else f" {item.value}"))
    if item.signal == "version":
        return printable(f"{label} {item.value}")
    if item.kind == "derived" or item.unit:
        return item.statement.rstrip("。.")
    return f"“{quoted(item, 90)}”" if item.quote else item.statement.rstrip("。.")


def title_text(cause: Cause, lang: str) -> str:
    """The title in one language."""
    if lang == "zh" and cause.zh is not None and cause.zh.title:
        return cause.zh.title
    return cause.title


def _text(cause: Cause, lang: str, field: str) -> str:
    if lang == "zh" and cause.zh is not None:
        got = getattr(cause.zh, field)
        if got:
            return str(got)
    return str(getattr(cause, field))


def fix_text(cause: Cause, lang: str) -> tuple[str, str, str]:
    """Fix, risk and rollback in one language."""
    fix = cause.zh.fix if lang == "zh" and cause.zh is not None and cause.zh.fix is not None else cause.fix
    return fix.text, fix.risk, fix.rollback


def limit_line(limit: Limit, w: Words) -> str:
    """``all-reduce busbw, 2 GPUs, NV18: 27.1 of 370.8 GB/s (7 %)`` or why there is no ceiling."""
    if limit.limit is None or limit.ratio is None:
        return w.no_limit.format(
            what=limit.what, measured=f"{limit.measured:g}", unit=limit.unit, why=limit.reason or ""
        )
    return w.limit.format(
        what=limit.what,
        measured=f"{limit.measured:g}",
        limit=f"{limit.limit:g}",
        unit=limit.unit,
        ratio=f"{limit.ratio:.0%}",
    )


def telling(report: Report) -> list[Limit]:
    """Limits worth saying: those that back the verdict, the most telling first."""
    known = [item for item in report.limits if item.ratio is not None]
    known.sort(key=lambda x: (abs((x.ratio or 1.0) - 1.0) * (-1 if report.verdict == "cause" else 1), x.what))
    return known[:2] or report.limits[:1]


def render(report: Report, cat: Catalogue, lang: str) -> Answer:
    """The answer of a finished report in one language (``en`` or ``zh``)."""
    if report.verdict == "cause":
        return _cause(report, cat, lang)
    if report.verdict == "healthy":
        return _healthy(report, cat, lang)
    return _open(report, cat, lang)


def _boundary(report: Report, w: Words) -> str:
    parts: list[str] = []
    names = [i.name for i in report.inputs if i.sha256]
    parts.append(
        w.read.format(n=len(names), names=", ".join(names[:4]) + (" …" if len(names) > 4 else ""))
        if names
        else w.read_nothing
    )
    statuses = {s for e in report.evidence for s in e.status}
    if "simulated" in statuses:
        parts.append(w.simulated)
    cut = [i.name for i in report.inputs if i.reason and i.sha256 and i.recognised_as]
    if cut:
        parts.append(w.cut.format(names=", ".join(cut[:3])))
    refused = [i for i in report.inputs if not i.sha256]
    if refused:
        parts.append(w.refused.format(names="; ".join(f"{i.name}: {i.reason}" for i in refused[:3])))
    for gap in report.unavailable[:2]:
        parts.append(w.gap.format(probe=gap.probe, reason=gap.reason))
    if any(item.limit is None for item in report.limits):
        parts.append(w.no_ceiling)
    return " ".join(parts)


def _experiment(report: Report, w: Words) -> str:
    if not report.next_probes:
        return ""
    first = report.next_probes[0]
    return w.next.format(command=first.command, separates=", ".join(first.separates[:3]))


def _cause(report: Report, cat: Catalogue, lang: str) -> Answer:
    w = words(lang)
    by_id = {e.id: e for e in report.evidence}
    lead = report.findings[0]
    cause = cat.causes[lead.cause]
    cited = [by_id[i] for i in lead.evidence if i in by_id][:MOST_CITED]
    told = telling(report)
    key = reading(cited[0]) if cited else ""
    title = title_text(cause, lang).rstrip("。.")
    verdict = w.verdict.format(title=title, key=key, p=f"{lead.confidence:.2f}") if key else w.bare.format(title=title)
    shown = w.shown.format(facts=w.join.join(cite(e) for e in cited[:2])) if cited else ""
    beside = w.beside.format(lines=w.join.join(limit_line(item, w) for item in told)) if told else ""
    chain = _chain(report, cat, lang, w)
    out = report.ruled_out[:3]
    ruled = w.ruled.format(items=w.join.join(f"{r.cause} ({r.because.rstrip('.')})" for r in out)) if out else ""
    text, risk, rollback = fix_text(cause, lang)
    fix = w.fix.format(
        text=text.rstrip("。."), rollback=rollback.rstrip("。.") or w.none, risk=risk.rstrip("。.") or w.none
    )
    doubt = w.doubt if lead.confidence < 0.8 else ""
    proof = _proof(lead, w)
    short = w.glue(verdict, shown, beside, proof, w.change.format(text=text.rstrip("。.")), doubt)
    long = w.glue(
        verdict, proof, _text(cause, lang, "definition"), _text(cause, lang, "mechanism"),
        w.shown.format(facts=w.join.join(cite(e) for e in cited)) if cited else "",
        beside, chain, ruled, _text(cause, lang, "tradeoff"), fix,
    )  # fmt: skip
    rivals = [h.cause for h in report.hypotheses[:2]]
    follow = [
        FollowUp(level=1, q=w.q_how, a=w.glue(*(cite(e) + "." for e in cited)) or verdict),
        FollowUp(level=2, q=w.q_mind, a=_change_of_mind(report, rivals, w)),
        *_own(cause, lang),
    ]
    validate = _text(cause, lang, "verify")
    return Answer(
        verdict=verdict, short=short, long=long, validate_=validate, boundary=_boundary(report, w), follow_ups=follow
    )


def _proof(finding: Finding, w: Words) -> str:
    """What the intervention gave, if there was one and it measured something."""
    told = finding.intervention or {}
    if "after" not in told:
        return ""
    frame = {"confirmed": w.proved, "withdrawn": w.withdrawn}.get(finding.status)
    if frame is None:
        return ""
    shown = {name: f"{told[name]:.4g}" for name in ("before", "after", "predicted")}
    return frame.format(change=told["change"], unit=told["unit"], error=f"{told['error']:.0%}", **shown)


def _own(cause: Cause, lang: str) -> list[FollowUp]:
    source: tuple[FollowUpText, ...] = cause.follow_ups
    if lang == "zh" and cause.zh is not None and cause.zh.follow_ups:
        source = cause.zh.follow_ups
    return [FollowUp(level=min(i + 1, 3), q=f.q, a=f.a) for i, f in enumerate(source)]


def _change_of_mind(report: Report, rivals: list[str], w: Words) -> str:
    parts = []
    if rivals:
        parts.append(w.rivals.format(names=", ".join(rivals)))
    parts.append(_experiment(report, w))
    against = report.findings[0].against if report.findings else []
    if against:
        parts.append(w.against.format(ids=", ".join(against)))
    return w.glue(*parts) or w.nothing_open


def _chain(report: Report, cat: Catalogue, lang: str, w: Words) -> str:
    names = [title_text(cat.causes[f.cause], lang).rstrip("。.") for f in report.findings if f.cause in cat.causes]
    linked = {link.to for link in report.chain} & {f.cause for f in report.findings}
    if not linked:
        return w.also.format(names=w.join.join(names[1:])) if len(names) > 1 else ""
    order = [report.findings[0].cause, *(f.cause for f in report.findings[1:] if f.cause in linked)]
    return w.chain.format(
        steps=" → ".join([*(title_text(cat.causes[c], lang).rstrip("。.") for c in order), w.symptom])
    )


def _healthy(report: Report, cat: Catalogue, lang: str) -> Answer:
    w = words(lang)
    by_id = {e.id: e for e in report.evidence}
    facts = [by_id[i] for c in report.checked for i in c.evidence if i in by_id]
    facts = list({e.id: e for e in facts}.values())[:MOST_CITED]
    told = telling(report)
    beside = w.beside.format(lines=w.join.join(limit_line(item, w) for item in told)) if told else ""
    shown = w.shown.format(facts=w.join.join(cite(e) for e in facts)) if facts else ""
    limited = tuple(item.what for item in report.limits)
    reasons = w.join.join(
        dict.fromkeys(c.what.rstrip("。.") for c in report.checked[:3] if not c.what.startswith(limited))
    )
    reasons = reasons[:1].upper() + reasons[1:]
    odd = w.odd.format(
        items=w.join.join(f"{r.text.rstrip('.')} ({r.because.rstrip('.')})" for r in report.red_herrings[:2])
    )
    verdict = w.healthy.format(p=f"{report.confidence:.2f}")
    short = w.glue(verdict, w.because.format(reasons=reasons) if reasons else "", beside)
    long = w.glue(short, shown, odd if report.red_herrings else "", w.keep)
    follow = [
        FollowUp(level=1, q=w.q_how, a=w.glue(*(cite(e) + "." for e in facts)) or verdict),
        FollowUp(level=2, q=w.q_mind, a=w.healthy_mind),
        FollowUp(level=3, q=w.q_next, a=_experiment(report, w) or w.nothing_open),
    ]
    return Answer(
        verdict=verdict,
        short=short,
        long=long,
        validate_=w.healthy_validate,
        boundary=_boundary(report, w),
        follow_ups=follow,
    )


def _open(report: Report, cat: Catalogue, lang: str) -> Answer:
    w = words(lang)
    names = [h for h in report.hypotheses[:3] if h.cause in cat.causes and h.basis == "evidence"]
    verdict = w.open if report.evidence else w.open_empty
    no_gpu = any(e.signal == "host.gpu_nodes" and e.value == "none" for e in report.evidence)
    server = next((p.outcome for p in report.path if p.step == "server"), "")
    if server and all(h.p < 0.2 for h in names):
        names, verdict = [], w.open_server.format(reason=server)
    elif no_gpu and all(h.p < 0.2 for h in names):
        names, verdict = [], w.open_no_gpu
    leading = (
        w.leading.format(
            names=w.join.join(
                f"{title_text(cat.causes[h.cause], lang).rstrip('.')} ({h.cause}, {h.p:.2f})" for h in names
            )
        )
        if names
        else ""
    )
    told = telling(report)
    beside = w.beside.format(lines=w.join.join(limit_line(item, w) for item in told)) if told else ""
    step = "" if server and not names else _experiment(report, w)
    short = w.glue(verdict, leading, step)
    seen = [e for e in report.evidence if e.kind == "observed"][:MOST_CITED]
    shown = w.seen.format(facts=w.join.join(cite(e) for e in seen)) if seen else ""
    long = w.glue(verdict, leading, shown, beside, step)
    expect = report.unavailable[0].experiment if report.unavailable else None
    validate = w.glue(step, expect.expect if expect else "")
    follow = [
        FollowUp(level=1, q=w.q_missing, a=leading or w.open_empty),
        FollowUp(level=2, q=w.q_next, a=step or w.nothing_open),
        FollowUp(level=3, q=w.q_guess, a=w.no_guess),
    ]
    return Answer(
        verdict=verdict,
        short=short,
        long=long,
        validate_=validate or w.nothing_open,
        boundary=_boundary(report, w),
        follow_ups=follow,
    )
