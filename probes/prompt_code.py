"""Code that puts a prompt together, and code that waits for a transfer within the loop over layers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

from .facts import computed, excerpt, fact

_SMALL = 1 << 14
_LINES = 200
_VARIES = regex(
    r"datetime\.(?:now|utcnow|today)|\btime\.time\(|strftime\(|\bDate\.now\(|new Date\(|\buuid[14]?\b|uuid\.uuid|(?:UUID\.|crypto\.)?randomUUID\("  # noqa: E501
    r"|random\.(?:shuffle|choice|choices|sample|random|randint)\(|secrets\.token|\bnonce\b|\b(?:request|trace|session|req)_?[iI]d\b"
    r"|time\.Now\(|LocalDateTime\.now|Instant\.now|\bnow\(\)"
)
# What many calls share: a constant by its capitals, or a variable that says so.
_SHARED = regex(
    r"(?<![\w.\"'])(?:[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)*)(?![\w(\"':=])|\b(?:system_prompt|instructions?|handbook|policy|rules|few_?shots?|examples|shots|guidelines?|regulations?|manual|knowledge|template|preamble|tool_defs|documents?_text)\b"
)
_PROMPT = regex(r"prompt|messages|content|role|template|system|提示", re.I)
_NO_TEXT = frozenset(
    [
        "GET",
        "POST",
        "HTTP",
        "URL",
        "API",
        "JSON",
        "UTC",
        "ID",
        "OK",
        "TODO",
        "UUID",
        "WRITE",
        "READ",
        "DONE",
        "PROC",
        "GPU",
        "CPU",
        "TP",
        "MODEL",
    ]
)


class PromptCode:
    """`prompt.head_varies`: in the code of a prompt, what differs per call stands before what all calls share."""

    name = "prompt_code"
    needles: tuple[bytes, ...] = (
        b"datetime", b"time.", b"Date", b"uuid", b"UUID", b"random.", b"token_hex", b"nonce", b"_id", b"now()", b"Id",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact, at the call that varies."""
        lines = excerpt(doc, _SMALL, _LINES)
        code = [i for i, line in enumerate(lines) if re.search(r"[=(\[{`\"']", line.text)]
        for i in code:
            varies = _VARIES.search(lines[i].text)
            if varies is None:
                continue
            around = " ".join(line.text for line in lines[max(0, i - 4) : i + 5])
            if _PROMPT.search(around) is None or re.search(r"\b(?:INFO|WARN|ERROR|DEBUG)\b", lines[i].text):
                continue
            behind = [lines[i].text[varies.end() :], *(line.text for line in lines[i + 1 : i + 4])]
            ahead = [*(line.text for line in lines[max(0, i - 3) : i]), lines[i].text[: varies.start()]]
            # A shuffled list is varied where it is used: what it holds is that very shared text.
            shuffled = "shuffle" in varies.group() or "sample" in varies.group()
            if shuffled or (_shares(behind) and not _shares(ahead)):
                yield fact(doc, lines[i], "prompt.head_varies", varies.group().rstrip("("))
                return


def _shares(texts: list[str]) -> bool:
    return any(word not in _NO_TEXT for text in texts for word in _SHARED.findall(text.split("#")[0]))


_ROW = regex(r"#?(?:cached|cache_hit)[-_ ]tokens?\W{1,4}(?P<hit>\d[\d,]*)")
_NEW = regex(r"(?:#new-tokens?|prompt_tokens|input[_ ]tokens)\W{1,4}(?P<new>\d[\d,]*)")


class CachedShare:
    """`serving.cached_share`: the share of all prompt tokens that came from the cache, over lines that say both."""

    name = "cached_share"
    needles: tuple[bytes, ...] = (b"cached-token", b"cached_token")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact for the text; prompts of fewer than a thousand tokens are left out."""
        if doc.is_binary:
            return
        cached, tokens, first = 0.0, 0.0, None
        for line in islice(doc.lines(), 4000):
            hit, new = _ROW.search(line.text), _NEW.search(line.text)
            if hit is None or new is None:
                continue
            held, fresh = (float(n.replace(",", "")) for n in (hit["hit"], new["new"]))
            whole = held + fresh if "new" in new.group() else fresh
            if whole >= 1000:
                cached, tokens, first = cached + held, tokens + whole, first or line
        if first is not None:
            yield Fact(
                "serving.cached_share", round(cached / tokens, 4), "fraction", Subject(), (doc.span(first),),
                kind="derived", formula="reader:cached_share", status=doc.status,
            )  # fmt: skip


_TALK = regex(r"\b(?:conv(?:ersation)?|chat|session|thread|dialog(?:ue)?)(?:_?id)?\W{1,4}(?P<id>[\w-]{1,64})", re.I)
_BACKEND = regex(
    r"\b(?:upstream(?:_addr|_host)?|pod|backend|replica|worker|server|endpoint|instance|routed_to|host)(?:_?(?:id|name))?"
    r"\W{1,4}(?P<at>[\w.:-]+)",
    re.I,
)


class ScatteredTurns:
    """`serving.turns_scattered`: turns of one conversation that went to another replica and found next to nothing."""

    name = "scattered_turns"
    needles: tuple[bytes, ...] = (b"cached", b"cache_hit")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """How many there are, where they are two and more, and most of those that moved."""
        last: dict[str, tuple[str, float]] = {}
        cold: list[Line] = []
        moved = 0
        for line in islice(doc.lines() if not doc.is_binary else (), 4000):
            talk, at, hit = _TALK.search(line.text), _BACKEND.search(line.text), _ROW.search(line.text)
            if talk is None or at is None or hit is None or (new := _NEW.search(line.text)) is None:
                continue
            held, told = (float(n.replace(",", "")) for n in (hit["hit"], new["new"]))
            whole = held + told if "new" in new.group() else told
            before = last.get(talk["id"])
            last[talk["id"]] = at["at"], whole
            if before is not None and before[0] != at["at"] and before[1] >= 512:
                moved += 1
                cold += [line] if held <= 0.25 * before[1] else []
        if len(cold) >= 2 and len(cold) >= 0.6 * moved:
            yield computed(doc, cold[0], "serving.turns_scattered", float(len(cold)), "count", self.name)


_LOOP = regex(r"^\s*for\s*\(?.*(?:layer|blk|block|\bL\b|chunk|stage|enumerate)", re.I)
_SYNC = regex(r"synchronize\(|StreamSynchronize|DeviceSynchronize|\.wait_stream\(|block_until_ready")
_POST = regex(r"transfer\(|postXfer|post_xfer|initialize_xfer|send_kv|\bisend\(|put_async|ucp_put|\.write\(")
_SPIN = regex(
    r"check_xfer_state|getXferStatus|get_xfer_status|is_done\(|\.wait\(\)|\bwait\(\w*h\w*\)|\.poll\(|\.test\(\)"
)


class LayerLoop:
    """`kv.spin_in_loop`: each turn of a loop over layers posts its transfer and waits for it."""

    name = "layer_loop"
    needles: tuple[bytes, ...] = (b"xfer", b"Xfer", b"isend", b"send_kv", b"put_async")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact, at the line that waits."""
        lines = excerpt(doc, _SMALL, _LINES)
        for i, line in enumerate(lines):
            if _LOOP.search(line.text) is None:
                continue
            depth = len(line.text) - len(line.text.lstrip())
            body = []
            for later in lines[i + 1 : i + 16]:
                if later.text.strip() and len(later.text) - len(later.text.lstrip()) <= depth:
                    break
                body.append(later)
            post = next((k for k, b in enumerate(body) if _POST.search(b.text)), None)
            if post is None or not any(_SYNC.search(b.text) for b in body[: post + 1]):
                continue
            spin = next((b for b in body[post:] if _SPIN.search(b.text)), None)
            if spin is not None:
                yield fact(doc, spin, "kv.spin_in_loop", spin.text.strip()[:120])
                return


READERS: list[Reader] = [PromptCode(), CachedShare(), ScatteredTurns(), LayerLoop()]
