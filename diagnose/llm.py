"""A language model beside the finished report: it may propose and reword, and decides nothing.

`assist` gets a report and gives the same report with three things changed at most: `proposals`, the `short` and `long`
of answers (sentence by sentence, as far as they pass `llm_check`), and `stats.llm`. Verdict, findings, evidence and
the one-sentence verdict are never touched. Everything runs in a thread that is left behind at the deadline.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from . import llm_prompts as prompts
from .answer_fit import LONG, SHORT, spoken
from .answer_words import EN, ZH
from .catalogue import Catalogue, catalogue
from .document import Document
from .errors import UsageError
from .llm_check import FAILURES, Checker
from .llm_client import Budget, Client, Endpoint, LlmError, OpenAiClient, bare, parsed
from .mask import mask, secrets
from .models import Proposal, Report

MOST_QUOTES = 5
_OTHER = re.compile(r"other:\s*([A-Za-z一-鿿][A-Za-z一-鿿 -]{2,60})")


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    endpoint: Endpoint
    dry_run: bool = False
    seconds: float = 20.0


def options(flags: Mapping[str, str], user: Mapping[str, Any], *, on: bool, dry_run: bool) -> Options | None:
    """The model to use, if one was asked for by a flag or by the user's own settings file; None otherwise.

    Raises:
        UsageError: a model is wanted and not said, or its address makes no sense.
    """
    if not (on or dry_run or any(flags.values()) or user.get("on") is True):
        return None
    said = {name: flags.get(name) or str(user.get(name, "")) for name in ("model", "base_url", "key_env")}
    for name in ("model", "base_url"):
        if not said[name]:
            raise UsageError(
                f"--llm needs --llm-{name.replace('_', '-')}", "or set it under [llm] in your own settings"
            )
    parts = urlsplit(said["base_url"])
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise UsageError("--llm-base-url takes an address like http://127.0.0.1:8000/v1, without a key in it")
    if said["key_env"] and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", said["key_env"]):
        raise UsageError("--llm-key-env takes the name of a variable, not the key")
    try:
        seconds = float(user.get("seconds", 20.0))
    except (TypeError, ValueError) as err:
        raise UsageError("[llm] seconds is no number") from err
    return Options(Endpoint(**said, schema=user.get("schema") is not False), dry_run, max(0.1, min(seconds, 120.0)))


def bodies(report: Report, documents: Sequence[Document], model: str, veil: prompts.Veil) -> list[dict[str, Any]]:
    """Every request that is made for a report, in order; none depends on the answer to another."""
    made = [prompts.propose(report, documents, catalogue(), model, veil)]
    return made + [prompts.word(report, lang, model, veil) for lang in report.answer]


def shown(report: Report, documents: Sequence[Document], chosen: Options) -> str:
    """What would be sent, for ``--llm-dry-run``."""
    sent = bodies(report, documents, chosen.endpoint.model, prompts.Veil())
    sent = sent if chosen.endpoint.schema else [bare(b) for b in sent]
    place = mask(chosen.endpoint.base_url.rstrip("/") + "/chat/completions")
    requests = [{**b, "stream": True} for b in sent]
    return json.dumps({"post": place, "key from": chosen.endpoint.key_env or None, "requests": requests},
                      ensure_ascii=False, indent=1)  # fmt: skip


@dataclass
class _Work:
    """What the thread leaves behind, answer by answer."""

    answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def go(self, client: Client, sent: Sequence[dict[str, Any]], budget: Budget) -> None:
        for number, body in enumerate(sent):
            try:
                self.answers[number] = parsed(client.complete(body, budget))
            except LlmError as err:
                self.problems.append(err.message)


def assist(report: Report, documents: Sequence[Document], chosen: Options, client: Client | None = None) -> Report:
    """The report with what a model proposes and words; the same report where it gives nothing that holds."""
    out = report.model_copy(deep=True)
    veil = prompts.Veil()
    sent = bodies(report, documents, chosen.endpoint.model, veil)
    budget = Budget(calls=len(sent), seconds=chosen.seconds)
    work = _Work()
    thread = threading.Thread(
        target=work.go, args=(client or OpenAiClient(chosen.endpoint), sent, budget), daemon=True, name="llm"
    )
    thread.start()
    thread.join(chosen.seconds)
    late = thread.is_alive()
    budget.stopped.set()
    answers, problems = dict(work.answers), list(work.problems)
    if late:
        problems.append(f"no answer within {chosen.seconds:g} s")
    notes = []
    if 0 in answers:
        out.proposals = list(_proposals(answers[0], out, documents, catalogue()))
        notes.append(f"{len(out.proposals)} proposal(s)")
    for number, lang in enumerate(report.answer, 1):
        if number in answers:
            notes += _reword(out, lang, answers[number], veil.pseudonyms())
    notes += dict.fromkeys(problems)
    out.stats.llm = f"{chosen.endpoint.model}: " + "; ".join(notes or ["nothing came back"])
    return out


def _reword(report: Report, lang: str, got: Mapping[str, Any], made_up: set[str]) -> list[str]:
    """Put in the texts that hold; say what became of each."""
    answer = report.answer[lang]
    checker = Checker.of(report, answer.model_copy(deep=True))
    notes = []
    for name, bound in (("short", SHORT[lang]), ("long", LONG[lang])):
        text = got.get(name)
        if not isinstance(text, str) or not text.strip():
            notes.append(f"{lang} {name}: no text, ours stands")
            continue
        good, bad = checker.keep(text)
        named = [s for s in good if any(re.search(rf"\b{re.escape(p)}\b", s) for p in made_up)]
        good = [s for s in good if s not in named]
        failed = len(bad) + len(named)
        said = (ZH if lang == "zh" else EN).glue(*good)
        if failed >= FAILURES or not good or spoken(said, lang) > bound:
            notes.append(f"{lang} {name}: {failed} sentence(s) did not hold, ours stands")
            continue
        setattr(answer, name, said)
        notes.append(f"{lang} {name}: reworded" + (", a sentence dropped" if failed else ""))
    return notes


def _proposals(got: Mapping[str, Any], report: Report, documents: Sequence[Document], cat: Catalogue) -> list[Proposal]:
    """What a model proposed, as far as it is in the lists it was given or verbatim in a capture."""
    out: list[Proposal] = []
    playbook, cause, probe = (got.get(k) for k in ("playbook", "hypothesis", "probe"))
    if isinstance(playbook, str) and playbook in cat.playbooks and playbook != report.playbook:
        out.append(Proposal(kind="question", value=playbook))
    if isinstance(cause, str) and cause in cat.causes:
        out.append(Proposal(kind="hypothesis", value=cause))
    elif isinstance(cause, str) and (other := _OTHER.fullmatch(cause.strip())):
        out.append(Proposal(kind="hypothesis", value=f"other: {other[1].strip()}", status="unverified"))
    if isinstance(probe, str) and probe in {p.probe for p in report.next_probes}:
        out.append(Proposal(kind="probe", value=probe))
    quotes = got.get("quotes")
    for quote in (quotes if isinstance(quotes, list) else [])[:MOST_QUOTES]:
        if isinstance(quote, str) and (place := _verbatim(quote, documents)):
            out.append(Proposal(kind="evidence", value=quote, where=place))
    return out


def _verbatim(quote: str, documents: Sequence[Document]) -> str:
    """``file:line`` of a quote that stands in a capture and shows no secret, or nothing."""
    if not 8 <= len(quote) <= 300 or not quote.isprintable() or secrets(quote):
        return ""
    wanted = quote.encode()
    for doc in documents:
        text = b"" if doc.is_binary else doc.read(0, min(doc.size, prompts.HEAD))
        at = text.find(wanted)
        hidden = secrets(text) if at >= 0 else []
        if at >= 0 and not any(a < at + len(wanted) and b > at for a, b, _ in hidden):
            return f"{doc.name}:{text.count(bytes([10]), 0, at) + 1}"
    return ""
