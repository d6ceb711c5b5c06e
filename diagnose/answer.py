"""The spoken answer, rendered from a report and the catalogue, never from chance.

`render(report, cat, lang)` is pure: `verify` renders again and compares. Sentences vary because
evidence varies. Every figure is a slot filled from an evidence, limit or reference of the report.

Three lengths: `verdict` is one sentence, `short` half a minute, `long` a minute and a half. What has no room is left
out in the order of the ranks given here (see `answer_fit`); mechanism and fix go last, further evidence first.
"""

from __future__ import annotations

import re

from . import decision
from .answer_facts import (
    cite,
    limit_line,
    names_of,
    opaque,
    phrase,
    quoted,
    reading,
    reason_text,
    reference,
    support,
    telling,
    where,
)  # fmt: skip
from .answer_fit import LONG, SHORT, first_clause, fit, part
from .answer_words import EN, ZH, Words
from .catalogue import Catalogue
from .entries import Cause, FollowUpText
from .limits import is_floor
from .models import Answer, Evidence, Finding, FollowUp, Report, RuledOut
from .units import percent

MOST_CITED = 4
_SPEAKS = 0.2  # probability from which a cause is worth a word where the question does not ask about it
_SCOPE = "in question here"  # ruled out because nobody asked for it: not worth saying
MISSING = " would be the sign"
_ACTS = re.compile(r"(?:Compare|Repeat|Send|Run|Measure|Time the) ")  # a check that tells what to do
_GIVEN = "only the given evidence was read"  # why most of what was not read was not
_PLACES = frozenset({"serving.worker_spread"})  # where it is slow, although not why
_APART = 2.0  # from which such a ratio says so
_BARE = frozenset({"serving.scraped"})  # when something was looked at: nobody says that
_SURE = 0.99  # more is never said: a reading can be wrong
_NAMES = frozenset({"Python", "Triton", "Kubernetes", "Docker", "Slurm", "Nsight", "Linux", "Marlin", "Bootstrap"})
NONE = ("", "none", "low", "无", "低")

__all__ = ["cite", "fix_text", "limit_line", "quoted", "render", "telling", "title_text", "where", "words"]


def words(lang: str) -> Words:
    """The sentence frames of a language."""
    return ZH if lang == "zh" else EN


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
    """Fix, risk and rollback in one language; empty where there is none."""
    fix = cause.zh.fix if lang == "zh" and cause.zh is not None and cause.zh.fix is not None else cause.fix
    risk, rollback = ("" if t.rstrip("。.") in NONE else t for t in (fix.risk, fix.rollback))
    return fix.text, risk, rollback


def render(report: Report, cat: Catalogue, lang: str) -> Answer:
    """The answer of a finished report in one language (``en`` or ``zh``)."""
    if report.verdict == "cause":
        return _cause(report, cat, lang)
    if report.verdict == "healthy":
        return _healthy(report, cat, lang)
    return _open(report, cat, lang)


def _boundary(report: Report, cat: Catalogue, lang: str) -> str:
    w = words(lang)
    parts: list[str] = []
    names = [i.name for i in report.inputs if i.sha256]
    comma = "、" if lang == "zh" else ", "
    told = comma.join(names[:4])
    if len(names) > 4:
        told = w.more_read.format(names=told, n=len(names) if lang == "zh" else len(names) - 4)
    parts.append(w.read.format(names=told) if names else w.read_nothing)
    statuses = {s for e in report.evidence for s in e.status}
    if "simulated" in statuses:
        parts.append(w.simulated)
    cut = [i.name for i in report.inputs if i.reason and i.sha256 and i.recognised_as]
    if cut:
        parts.append(w.cut.format(names=comma.join(cut[:3])))
    refused = [i for i in report.inputs if not i.sha256]
    if refused:
        parts.append(w.refused.format(names=w.join.join(f"{i.name}: {i.reason}" for i in refused[:3])))
    missed = [looked_at(cat, g.probe, lang) for g in report.unavailable if g.reason.startswith(_GIVEN)]
    if missed:
        parts.append(w.unseen.format(names=w.join.join(missed[:2])))
    for gap in [g for g in report.unavailable if not g.reason.startswith(_GIVEN)][:2]:
        parts.append(w.gap.format(what=looked_at(cat, gap.probe, lang), reason=reason_text(cat, gap.reason, lang)))
    if any(item.limit is None for item in report.limits):
        parts.append(w.no_ceiling)
    return w.glue(*parts)


def looked_at(cat: Catalogue, probe: str, lang: str) -> str:
    """What a probe shows, as one says it: ``the server's own counters and histograms over a window``."""
    if lang == "zh" and probe in cat.spoken_zh["probes"]:
        return cat.spoken_zh["probes"][probe]
    return cat.probes[probe].what.partition(":")[0] if probe in cat.probes else probe


def sureness(p: float, w: Words) -> str:
    """A confidence as one says it: never certainty."""
    return f"{p:.2f}" if round(p, 2) <= _SURE else w.surest.format(p=f"{_SURE:.2f}")


def _titles(causes: list[str], cat: Catalogue, lang: str) -> str:
    return listed([f"“{title_text(cat.causes[c], lang).rstrip('。.')}”" for c in causes if c in cat.causes], lang)


def listed(items: list[str], lang: str) -> str:
    """Some names as one says them."""
    comma, last = ("、", "和") if lang == "zh" else (", ", " and ")
    return comma.join(items[:-1]) + (last if len(items) > 1 else "") + "".join(items[-1:])


def spaced(text: str) -> str:
    """Chinese with a blank between a character and a term in Latin letters that was joined to it."""
    return re.sub(r"(?<=于是|先看|，看|：看)(?=[A-Za-z])", " ", text)


def capped(text: str) -> str:
    """A clause as a sentence of its own; a name in small letters keeps them."""
    return text[:1].upper() + text[1:] if re.match(r"[a-z]+(?:[ ,']|$)", text) else text


def uncapped(text: str) -> str:
    """A sentence to stand behind a colon: its first word without the capital, unless it is a name."""
    first = text.split(" ", 1)[0]
    return (
        text[0].lower() + text[1:]
        if re.fullmatch(r"(?:A|[A-Z][a-z]+(?:-[a-z]+)*,?)", first) and first not in _NAMES
        else text
    )


def _experiment(report: Report, cat: Catalogue, lang: str, *, command: bool = True) -> str:
    """The next probe, with what it would tell apart; without its command where this is to be said aloud."""
    if not report.next_probes:
        return ""
    w = words(lang)
    first = report.next_probes[0]
    apart = _titles(first.separates[:3], cat, lang) if len(first.separates) > 1 else ""
    frame = w.next if command else w.next_said
    what = looked_at(cat, first.probe, lang)
    return w.glue(
        spaced(frame.format(what=what, command=first.command)), w.separates.format(names=apart) if apart else ""
    )


def _limits(report: Report, cat: Catalogue, lang: str, most: int) -> str:
    w = words(lang)
    told = [x for x in telling(report) if x.ratio is not None][:most]  # a figure without a ceiling says nothing aloud
    frames = ((w.beside, [i for i in told if not is_floor(i)]), (w.beside_floor, [i for i in told if is_floor(i)]))
    return w.glue(*(f.format(lines=w.join.join(limit_line(i, w, cat, lang) for i in s)) for f, s in frames if s))


def _cause(report: Report, cat: Catalogue, lang: str) -> Answer:
    w = words(lang)
    by_id = {e.id: e for e in report.evidence}
    lead = report.findings[0]
    cause = cat.causes[lead.cause]
    cited = [by_id[i] for i in lead.reasons if i in by_id][:MOST_CITED]
    title = title_text(cause, lang).rstrip("。.")
    sure = sureness(lead.confidence, w)
    at = "".join(f"{e.subject.host}: " for e in report.evidence if e.signal == "fleet.subject")  # a fleet's odd node
    bare = at + w.bare.format(title=title, p=sure)
    sign = cat.spoken_zh["reasons"].get(lead.because, "") if lang == "zh" else lead.because
    spare = bool(cited and sign and opaque(cited[0]))  # the line alone would not show it: what it means is said, too
    verdict = bare
    if cited:
        key, slots = reading(cited[0], cat, lang), {"title": title, "id": cited[0].id, "p": sure}
        if spare and key.startswith("“"):
            verdict = at + w.verdict_sign.format(sign=sign, key=key, **slots)
        else:
            verdict = at + w.verdict.format(key=sign if spare else key, **slots)
    more = support(cited, w, cat, lang, verdict)
    text, risk, undo = (t.rstrip("。.") for t in fix_text(cause, lang))
    check = _text(cause, lang, "verify").rstrip("。.")
    definition = _text(cause, lang, "definition")
    proof, doubt = _proof(lead, w), _doubt(report, lead, cat, lang)
    why = w.why.format(because=capped(sign), refs=reference(cited[0])) if sign and cited and not spare else ""
    clause = first_clause(text, lang)
    short = fit(
        [
            part(0, verdict, bare),
            part(2, why),
            part(5, definition),
            part(6, *more[:1]),
            part(3, _limits(report, cat, lang, 1)),
            part(2, proof),
            part(1, w.change.format(text=text), w.change.format(text=clause)),
            part(4, doubt),
        ],
        SHORT[lang],
        lang,
    )
    two, one = _ruled(report, cat, lang, 2), _ruled(report, cat, lang, 1)
    long = fit(
        [
            part(0, verdict, bare),
            part(1, why),
            part(0, definition),
            part(0, _text(cause, lang, "mechanism")),
            part(2, proof),
            part(9, *more[:1]),
            part(3, _limits(report, cat, lang, 2), _limits(report, cat, lang, 1)),
            part(10, _chain(report, cat, lang, w)),
            part(7, two, one),
            part(11, *more[1:2]),
            part(4, _text(cause, lang, "tradeoff") if cause.tradeoff not in NONE else ""),
            part(1, w.fix.format(text=text), w.fix.format(text=clause)),
            part(5, _gain(report, cat, lang)),
            part(8, w.risk.format(risk=uncapped(risk)) if risk else ""),
            part(1, _undone(undo, w) if undo else ""),
            part(2, _checked(check, w)),
            part(6, doubt),
        ],
        LONG[lang],
        lang,
    )
    rivals = [h.cause for h in report.hypotheses[:2]]
    told = support(cited, w, cat, lang)
    follow = [
        FollowUp(level=1, q=w.q_how.format(title=title), a=w.glue(why, *told) or verdict),
        FollowUp(level=2, q=w.q_mind.format(title=title), a=_change_of_mind(report, rivals, check, cat, lang)),
        *_own(cause, lang),
    ]
    return Answer(
        verdict=verdict, short=w.glue(*short), long=w.glue(*long), validate_=_text(cause, lang, "verify"),
        boundary=_boundary(report, cat, lang), follow_ups=follow,
    )  # fmt: skip


def _checked(text: str, w: Words) -> str:
    """How one sees that it worked: something to do, something that must hold, or a state."""
    if _ACTS.match(text):
        frame = w.check_act
    else:
        frame = w.check_must if re.search(r"\bmust\b|(?<![对响反适])应", text) else w.check
    return frame.format(text=uncapped(text))


def _undone(text: str, w: Words) -> str:
    return (w.undo if w is ZH or re.match(r"[A-Z][a-z]+ ", text) else w.undo_other).format(rollback=uncapped(text))


def _doubt(report: Report, lead: Finding, cat: Catalogue, lang: str) -> str:
    """Below what one may act upon: what else it could be."""
    if lead.confidence >= 0.8:
        return ""
    w = words(lang)
    rival = next((h.cause for h in report.hypotheses if h.cause in cat.causes), "")
    if rival:
        return w.doubt.format(rival=title_text(cat.causes[rival], lang).rstrip("。."), p=sureness(lead.confidence, w))
    return w.doubt_alone.format(ids=", ".join(lead.reasons[:2]), p=sureness(lead.confidence, w))


def _gain(report: Report, cat: Catalogue, lang: str) -> str:
    told = report.advice[0] if report.advice else None
    if told is None:
        return ""
    change, predicted = (phrase(cat, t) if lang == "zh" else t for t in (told.change, told.predicted))
    return words(lang).gain.format(change=change, predicted=predicted)


def _proof(finding: Finding, w: Words) -> str:
    """What the intervention gave, if there was one and it measured something."""
    told = finding.intervention or {}
    if "after" not in told:
        return ""
    frame = {"confirmed": w.proved, "withdrawn": w.withdrawn}.get(finding.status)
    if frame is None:
        return ""
    shown = {name: f"{told[name]:.4g}" for name in ("before", "after", "predicted")}
    change = str(told["change"])
    if w is ZH:
        change = change.replace("without ", "去掉 ").replace("with ", "改用 ")
    return frame.format(change=change, unit=told["unit"], error=percent(float(told["error"] or 0)), **shown)


def _own(cause: Cause, lang: str) -> list[FollowUp]:
    source: tuple[FollowUpText, ...] = cause.follow_ups
    if lang == "zh" and cause.zh is not None and cause.zh.follow_ups:
        source = cause.zh.follow_ups
    return [FollowUp(level=min(i + 1, 3), q=f.q, a=f.a) for i, f in enumerate(source)]


def _ruled(report: Report, cat: Catalogue, lang: str, most: int) -> str:
    """What it is not, with the reading that says so."""
    w = words(lang)
    by_id = {e.id: e for e in report.evidence}
    lead = report.findings[0].reasons if report.findings else []
    told = [r for r in report.ruled_out if r.cause in cat.causes and asked(r)]
    told.sort(key=lambda r: bool(set(r.evidence) & {*lead}))  # one reading that names the cause excludes all others
    picked: list[RuledOut] = []
    for item in told:  # each by a reading of its own: one that excludes them all says so once
        if not any(set(item.evidence[:1]) & set(p.evidence[:1]) for p in picked):
            picked.append(item)
    said = {*lead[:1]}  # stands in the verdict word for word
    return w.glue(*(_out(item, by_id, cat, lang, said, first=n == 0) for n, item in enumerate(picked[:most])))


def asked(item: RuledOut) -> bool:
    """Was it ruled out by a reading? That nobody asks about it needs no words."""
    return not item.because.endswith(_SCOPE)


def ruled_reason(item: RuledOut, by_id: dict[str, Evidence], cat: Catalogue, lang: str) -> str:
    """Why a cause is out, with the reading where that says what it is instead; a Chinese reason where one is known."""
    seen = next((reading(by_id[i], cat, lang) for i in item.evidence if i in by_id), "")
    sign, missing, _ = item.because.partition(MISSING)
    if lang != "zh":
        return f"not so: {sign}; seen: {seen}" if missing else item.because
    title = title_text(cat.causes[item.cause], lang).rstrip("。.") if item.cause in cat.causes else ""
    why = cat.spoken_zh["reasons"].get(sign, "")
    if missing:
        why = f"没有看到“{why}”的迹象" if why else ""
    return "：".join(filter(None, [title, "；".join(filter(None, [why, seen]))]))


def _out(
    item: RuledOut, by_id: dict[str, Evidence], cat: Catalogue, lang: str, said: set[str], *, first: bool = True
) -> str:
    w = words(lang)
    name = title_text(cat.causes[item.cause], lang).rstrip("。.")
    seen = next((by_id[i] for i in item.evidence if i in by_id), None)
    if seen is None:
        return w.ruled_bare.format(name=name)
    why = f"{reading(seen, cat, lang)} [{reference(seen)}]"
    sign, missing, _ = item.because.partition(MISSING)
    if missing:
        why = w.ruled_sign.format(because=sign, fact=why)
    elif lang == "en" and item.because:
        why = first_clause(item.because, lang) + (f" [{seen.id}]" if seen.id in said else f" ({why})")
    elif lang == "zh":
        known = cat.spoken_zh["reasons"].get(item.because, "")
        if seen.id in said:
            why = f"{known} [{seen.id}]" if known else w.ruled_same.format(id=seen.id)
        elif known:
            why = f"{known}（{why}）"
    return (w.ruled if first else w.ruled_next).format(name=name, why=why)


def _change_of_mind(report: Report, rivals: list[str], check: str, cat: Catalogue, lang: str) -> str:
    w = words(lang)
    probe = report.next_probes[0] if report.next_probes else None
    step = w.falls_step.format(command=probe.command, what=looked_at(cat, probe.probe, lang)) if probe else ""
    parts = [w.falls.format(check=uncapped(check), step=spaced(step))]
    if rivals:
        parts.append(w.rivals.format(names=_titles(rivals, cat, lang)))
    against = report.findings[0].against if report.findings else []
    if against:
        parts.append(w.against.format(ids=", ".join(against)))
    return w.glue(*parts)


def _chain(report: Report, cat: Catalogue, lang: str, w: Words) -> str:
    names = names_of(report, cat)
    linked = {link.to for link in report.chain} & {f.cause for f in report.findings}
    if not linked:
        return w.also.format(names=_titles(names[1:], cat, lang)) if len(names) > 1 else ""
    order = [report.findings[0].cause, *(f.cause for f in report.findings[1:] if f.cause in linked)]
    titles = [title_text(cat.causes[c], lang).rstrip("。.") for c in order]
    return spaced(w.chain.format(steps=w.leads.join(map(uncapped, titles))))


def _healthy(report: Report, cat: Catalogue, lang: str) -> Answer:
    w = words(lang)
    by_id = {e.id: e for e in report.evidence}
    cause = cat.causes.get("none.healthy")
    facts = [by_id[i] for c in report.checked for i in c.evidence if i in by_id]
    facts = list({e.id: e for e in facts}.values())[:MOST_CITED]
    limited = tuple(item.what for item in report.limits)
    reasons = [
        reason_text(cat, c.what, lang).rstrip("。.")
        for c in report.checked[:3]
        if not (limited and c.what.startswith(limited))
    ]
    reasons = list(dict.fromkeys(reasons))
    sure = sureness(report.confidence, w)
    key = reasons[0] if reasons else (reading(facts[0], cat, lang) if facts else "")
    verdict = w.healthy.format(reason=key, p=sure) if key else w.healthy_bare.format(p=sure)
    more = support(facts, w, cat, lang, verdict)
    odd = w.odd.format(
        items=w.join.join(
            w.odd_item.format(
                what=reason_text(cat, r.text, lang).rstrip("."), why=reason_text(cat, r.because, lang).rstrip(".")
            )
            for r in report.red_herrings[:2]
        )
    )
    beside, one = _limits(report, cat, lang, 2), _limits(report, cat, lang, 1)
    also = w.healthy_also.format(reasons=w.join.join(reasons[1:])) if reasons[1:] else ""
    unknown = _unknown(report, cat, lang)
    short = fit(
        [
            part(0, verdict),
            part(2, also),
            part(1, beside, one),
            part(3, *more[:1]),
            part(4, unknown),
            part(5, w.keep),
        ],
        SHORT[lang],
        lang,
    )
    long = fit(
        [
            part(0, verdict),
            part(1, _text(cause, lang, "definition") if cause else ""),
            part(2, _text(cause, lang, "mechanism") if cause else ""),
            part(1, beside, one),
            part(3, also),
            part(4, *more[:1]),
            part(8, *more[1:2]),
            part(6, odd if report.red_herrings else ""),
            part(7, _ruled(report, cat, lang, 2), _ruled(report, cat, lang, 1)),
            part(3, unknown),
            part(5, _text(cause, lang, "tradeoff") if cause else ""),
            part(5, w.healthy_validate),
            part(2, w.keep),
        ],
        LONG[lang],
        lang,
    )
    follow = [
        FollowUp(level=1, q=w.q_how_healthy, a=w.glue(*more) or verdict),
        FollowUp(level=2, q=w.q_mind_healthy, a=w.healthy_mind),
        FollowUp(level=3, q=w.q_next, a=_experiment(report, cat, lang) or w.nothing_open),
        *(_own(cause, lang) if cause else ()),
    ]
    return Answer(
        verdict=verdict, short=w.glue(*short), long=w.glue(*long), validate_=w.healthy_validate,
        boundary=_boundary(report, cat, lang), follow_ups=follow,
    )  # fmt: skip


def _unknown(report: Report, cat: Catalogue, lang: str) -> str:
    """What a healthy verdict leaves open: a ceiling that is not known, an output that was not read."""
    w = words(lang)
    bare = [x.reason.partition("; ")[0].replace(": ", ", ") for x in report.limits if x.limit is None and x.reason]
    why = [reason_text(cat, r, lang) for r in bare]
    gaps = [
        w.gap.format(what=looked_at(cat, g.probe, lang), reason=reason_text(cat, g.reason, lang))
        for g in report.unavailable
    ]
    items = [*dict.fromkeys(why), *gaps][:2]
    return w.healthy_unknown.format(what=w.join.join(i.rstrip("。.") for i in items)) if items else ""


def _in_question(report: Report, cause: Cause, p: float) -> bool:
    """Does the question ask about this cause, or the evidence speak up for it? A remark in passing is neither."""
    return report.playbook in cause.playbooks or p >= _SPEAKS


def _open(report: Report, cat: Catalogue, lang: str) -> Answer:
    w = words(lang)
    names = [
        h for h in report.hypotheses[:3]
        if h.cause in cat.causes and h.basis == "evidence" and _in_question(report, cat.causes[h.cause], h.p)
    ]  # fmt: skip
    verdict = w.open if report.evidence else w.open_empty
    no_gpu = any(e.signal == "host.gpu_nodes" and e.value == "none" for e in report.evidence)
    no_gpu = no_gpu and not any(e.signal == "serving.scraped" for e in report.evidence)  # the server is there to see
    no_gpu = no_gpu and not (report.playbook in cat.playbooks and cat.playbooks[report.playbook].without_gpu)
    server = next((p.outcome for p in report.path if p.step == "server"), "")
    if server:
        names, verdict = (
            [h for h in names if h.p >= 0.2],
            w.open_server.format(reason=phrase(cat, server) if lang == "zh" else server),
        )
    elif no_gpu and all(h.p < 0.2 for h in names):
        names, verdict = [], w.open_no_gpu
    if report.decision is not None and not server:  # "should we" asks for no cause
        verdict = decision.verdict(report.decision, lang)
    place = next((e for e in report.evidence if e.signal in _PLACES and float(str(e.value)) >= _APART), None)
    if place is not None and not server:
        verdict = w.open_where.format(fact=reading(place, cat, lang), id=place.id)
    leading = [
        w.leading.format(
            names=w.join.join(f"{title_text(cat.causes[h.cause], lang).rstrip('。.')} ({h.p:.2f})" for h in some)
        )
        for some in (names, names[:1])
        if some
    ]
    quiet = bool(server) and not names
    step = "" if quiet else _experiment(report, cat, lang)
    aloud = "" if quiet else _experiment(report, cat, lang, command=False)
    asked = {i for step in report.path for i in step.evidence}  # what the playbook looked at, else whatever comes first
    told = [] if quiet else [e for e in report.evidence if e.kind == "observed" and e.signal not in _BARE]
    seen = sorted(told, key=lambda e: (e.id not in asked, e.signal == "figure"))[:MOST_CITED]
    shown = [w.seen.format(facts=w.join.join(cite(e, cat, lang) for e in seen[:n])) for n in (3, 1) if seen]
    beside = _limits(report, cat, lang, 1)
    why = w.open_why.format(name=title_text(cat.causes[names[0].cause], lang).rstrip("。.")) if names else ""
    expect = report.unavailable[0].experiment if report.unavailable else None
    short = fit([part(0, verdict), part(1, *leading), part(3, *shown[-1:]), part(2, aloud)], SHORT[lang], lang)
    long = fit(
        [
            part(0, verdict),
            part(1, *leading),
            part(5, _text(cat.causes[names[0].cause], lang, "definition") if names else ""),
            part(6, why),
            part(3, *shown),
            part(4, beside),
            part(7, _ruled(report, cat, lang, 1)),
            part(2, aloud),
        ],
        LONG[lang],
        lang,
    )
    follow = [
        FollowUp(level=1, q=w.q_missing, a=leading[0] if leading else w.glue(verdict, aloud)),
        FollowUp(level=2, q=w.q_next, a=step or w.nothing_open),
        FollowUp(level=3, q=w.q_guess, a=w.no_guess),
    ]
    return Answer(
        verdict=verdict, short=w.glue(*short), long=w.glue(*long),
        validate_=w.glue(step, expect.expect if expect and lang == "en" else "") or w.nothing_open,
        boundary=_boundary(report, cat, lang), follow_ups=follow,
    )  # fmt: skip
