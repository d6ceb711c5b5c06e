"""Find secrets in text, and keep them out of reports.

Two kinds of knowledge: shapes that issuers gave their tokens (`mask_shapes`), and places where a value
is secret because of its name (`_NAMED`): ``HF_TOKEN=…``, ``--api-key …``, ``password: …``. Logs are
full of long random-looking words that are no secrets (communicator ids, UUIDs, hashes, addresses,
memory keys), so a shape needs its issuer's prefix and a name needs to mean a credential.
"""

from __future__ import annotations

import base64
import binascii
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from .document import Document
from .document_undo import cut_lines
from .lazy import regex
from .mask_shapes import CASELESS, SHAPES
from .models import Evidence, Model

Told = TypeVar("Told", bound=Model)
Secret = tuple[int, int, str]  # first and last offset, kind

# `name = value`: the end of a name that means a credential, a separator, the value (quoted or not).
# The value is looked at without being consumed: it may be a name itself (`-u '$oauthtoken' --password x`).
_NAMED = re.compile(
    r"""(?P<n>token|api[_-]?key|apikey|secret|passw(?:or)?d|passphrase|pwd|pass|credentials?|requirepass|masterauth
        |(?:access|secret|private|account|auth|encryption|signing|master|license|storage|subscription|service
         |session|client|ssh|root|functions|wandb|hf|ngc|openai|azure)[_.-]?key(?:[_-]?(?:id|secret))?
        |_key)
        (?:[_-]?(?:value|base64|b64))?
        (?P<sep>\\?["']?[ \t]{0,3}(?:=>|:=|[:=])[ \t]{0,3}|["']?[ \t]+(?=\S)|["'],[ \t]?(?=["'])
              |[ \t]*\n[ \t]*-[ \t]+(?=\S))
        (?=\\?(?P<q>["'])(?P<qv>[^"'\r\n\\]{3,})\\?(?P=q)|(?P<v>[^\s"'`,;&|)\]}>\\]{3,}))""",
    re.VERBOSE,  # searched in lower-cased text: several times faster than ignoring case
)
_NAME_BEFORE = re.compile(r"[A-Za-z0-9_.-]{0,60}\Z")
_FLAG = re.compile(r"--[A-Za-z]")
_KEY_FOR = re.compile(
    r"(?:api|access|secret|private|account|auth|encryption|signing|master|license|storage|subscription|service"
    r"|session|client|ssh|root|functions|wandb|hf|ngc|openai|azure)_key$"
)
_COMPOUND = re.compile(r"[a-z0-9][_.-](?:token|password|secret|key)$")  # such a name may stand before a blank
_LOWER = {ord(c): c.lower() for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}  # ASCII only, so that offsets stay
_NAMED_HINTS = ("token", "key", "secret", "pass", "pwd", "credential", "masterauth")
_BEARER = re.compile(r"\b(bearer|basic)\s+([A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE)
# NULs, escapes that colour (of a terminal, or as a JSON string or `cat -v` writes them), a backslash before a quote
_UNSEEN = regex(r"\x00|\x1b\[[0-9;:]*[A-Za-z]|(?:\\u001b|\\x1b|\\033|\^\[)\[[0-9;]*m|\\+(?=[\"'])")
_NARROW = 80  # characters; no terminal that cuts lines is narrower
_KUBERNETES = regex(r"(?m)^[ \t]+[\w.-]+:[ \t]+(?![|>][-+]?[ \t]*$)([A-Za-z0-9+/]{4,}={0,2}|\S{6,})[ \t]*$")
_DOCUMENTS = regex(r"(?m)^---$")
_KIND_SECRET = regex(r"(?im)^[ \t-]*kind:\s*[\"']?Secret\b|\"kind\"\s*:\s*\"Secret\"")
_DATA = regex(r"(?im)^([ \t]*)(?:string)?data:[ \t]*\n((?:\1[ \t]+\S.*(?:\n|\Z))+)")
_JSON_DATA = regex(r"\"(?:stringD|d)ata\"\s*:\s*\{([^{}]*)\}")
_JSON_VALUE = regex(r"\"[\w.-]+\"\s*:\s*\"([^\"]{4,})\"")

# Words that end like a credential and are none: vocabulary of tokenizers, caches and RDMA.
_NOT_CREDENTIAL = re.compile(
    r"(?:^|[_.-])(?:eos|bos|pad|unk|sep|cls|mask|image|audio|video|stop|special|first|last|next|per|output|input|prompt"
    r"|draft|end|start|think|tool|chat|added|extra|sort|cache|partition|primary|foreign|hash|dict|group|sub|routing"
    r"|metric|index|lookup|map|config|state|weight|block|batch|feature|column|object|band|warmup|by|bypass|first_pass)"
    r"[_.-]?(?:token|key|pass)$|^(?:keys?|pass|[lrmpq]key|[lrmpq]_key|old_?pwd|pwd|_key)$",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"""^(?:none|null|nil|true|false|yes|no|not|unset|empty|undefined|default|dummy|missing|required|optional|string|str|bytes
        |int|float|bool|is|was|and|or|for|from|file|auto|ok|failed|invalid|expired|provided|found|set|redacted|hidden|token
        |[*x.•_-]{2,}|<.*|\[.*|\{.*|\$.*|%[a-z_]*%|%[sdr]|%\(\w+\)[sdr]|\(.*|\*[a-z_]*|.*\*{3,}.*|.*\.\.\.$|.*…$|/(?![A-Za-z0-9+/]{35,}={0,2}$)\S*|\./\S*|~/\S*|[A-Za-z]:\\\S*
        |[-+]?[\d.,]+(?:e[-+]?\d+)?\s?(?:%|[kmgt]?i?b?(?:ps|/s)?|[munp]?s(?:ec)?|min|[kmgt]?hz|k?w|tok(?:en)?s?(?:/s)?|x|gbit(?:/s)?|mv?|h|d|c)?|0x[0-9a-f]+|(?:hf|sk|nvapi)[_-]x+|your[-_].*|\[masked.*|xxx.*)$""",
    re.VERBOSE | re.IGNORECASE,
)


def _random(value: str) -> bool:
    """Does a value look made up by a machine (not a word, a path or an identifier)?"""
    return len(value) >= 12 and any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


def _named_secret(name: str, separator: str, value: str, quoted: bool) -> str | None:
    """Kind of secret that ``name = value`` shows, or None."""
    value = value.rstrip(".:")
    if len(value) < 3 or _HARMLESS.match(value) or _NOT_CREDENTIAL.search(name):
        return None
    spaced = not separator.strip("\"' \t\n,-")  # `--api-key abc`, `login bob password abc`
    flag = _FLAG.match(name) is not None
    lower = name.lower()
    if spaced and not flag and lower not in ("requirepass", "masterauth"):
        if "\n" in separator or "," in separator or not _random(value):
            return None
        if lower == "password":
            return "password"
        return "credential" if _COMPOUND.search(lower) and len(value) >= 16 else None
    word = "password" if re.search(r"pass|pwd|masterauth", lower) else "credential"
    shouted = name.isupper() and "_" in name
    if lower.endswith("_key") and not _KEY_FOR.search(lower):
        return word if shouted and len(value) >= 8 and _random(value) else None
    if word == "password":
        return word
    if shouted or flag:
        return word if len(value) >= 6 else None
    return word if _random(value) or (quoted and len(value) >= 8 and " " not in value) else None


@dataclass(frozen=True)
class _Shape:
    kind: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]


_COMPILED = tuple(
    _Shape(kind, hints, regex(pattern, re.IGNORECASE if kind in CASELESS else 0)) for kind, hints, pattern in SHAPES
)
_ALWAYS = frozenset(i for i, shape in enumerate(_COMPILED) if not shape.hints)
_HINTED: dict[str, list[int]] = {}  # hint -> places of its shapes: hundreds of texts a report, and few hold any hint
for _place, _shape in enumerate(_COMPILED):
    for _hint in _shape.hints:
        _HINTED.setdefault(_hint, []).append(_place)


def secrets(text: bytes | str) -> list[Secret]:
    """Secrets in a text, in order, without overlaps; offsets are into `text` as it was given."""
    raw = text if isinstance(text, bytes) else b""
    if isinstance(text, bytes):
        text = text.decode("latin-1")  # one character a byte, so that offsets stay byte offsets
    unseen = [hit.span() for hit in _UNSEEN.finditer(text)]  # UTF-16 seen as bytes, colours
    found = _around(text, unseen)
    if len(text) > _NARROW and "\n" in text:
        cuts = _cuts(text, raw or text.encode("utf-8", "replace"))
        if cuts:
            return _merged([*found, *_around(text, sorted([*unseen, *cuts]))])
    return found


def _cuts(text: str, raw: bytes) -> list[tuple[int, int]]:
    """Line ends that a terminal put where its width was full."""
    joined = cut_lines(raw)
    ends = [hit.span() for hit in re.finditer(r"\r?\n", text)] if joined else []
    return [ends[n - 1] for n in joined]


def _seen(text: str) -> list[Secret]:
    lower = text.lower()
    found = []
    for place in sorted(_ALWAYS.union(*[_HINTED[h] for h in _HINTED if h in lower])):
        shape = _COMPILED[place]
        for hit in shape.pattern.finditer(text):
            part = hit.lastindex or 0
            if not _HARMLESS.match(hit.group(part)):
                found.append((*hit.span(part), shape.kind))
    if any(h in lower for h in _NAMED_HINTS):
        found += _named(text, lower if len(lower) == len(text) else text.translate(_LOWER))
    if "bearer" in lower or "basic" in lower:
        for hit in _BEARER.finditer(text):
            if _random(hit.group(2)) or _user_and_password(hit.group(2)):
                found.append((*hit.span(2), f"{hit.group(1).lower()} authentication"))
    if "secret" in lower and "data" in lower:
        found += _kubernetes(text)
    return _merged(found)


def _around(text: str, gaps: Sequence[tuple[int, int]]) -> list[Secret]:
    """Secrets of a text without these parts of it, which may stand before a secret or in it."""
    if not gaps:
        return _seen(text)
    kept, starts, places, at, size = [], [], [], 0, 0
    for stop, after in [*gaps, (len(text), len(text))]:
        if stop > at:
            kept.append(text[at:stop])
            starts.append(size)
            places.append(at)
            size += stop - at
        at = after

    def place(offset: int) -> int:
        run = bisect_right(starts, offset) - 1
        return places[run] + offset - starts[run]

    whole = "".join(kept)
    again = [hit.span() for hit in _UNSEEN.finditer(whole)]  # colours of a text in UTF-16
    found = _around(whole, again)
    return [(place(a), place(b - 1) + 1, kind) for a, b, kind in found]


def _named(text: str, lower: str) -> Iterator[Secret]:
    """Values that are secret because of their name; `lower` has the same offsets."""
    for hit in _NAMED.finditer(lower):
        group = "qv" if hit.group("qv") is not None else "v"
        before = _NAME_BEFORE.search(text, max(0, hit.start() - 60), hit.start())
        name = text[before.start() if before else hit.start() : hit.end("n")]
        kind = _named_secret(name, hit.group("sep"), text[slice(*hit.span(group))], group == "qv")
        if kind:
            yield (*hit.span(group), kind)


def _kubernetes(text: str) -> Iterator[Secret]:
    """Values of Secret manifests, one YAML document at a time so that a ConfigMap beside one stays readable."""
    at = 0
    for part in _DOCUMENTS.split(text):
        if _KIND_SECRET.search(part):
            for body in _DATA.finditer(part):
                for hit in _KUBERNETES.finditer(part, *body.span(2)):
                    yield (hit.start(1) + at, hit.end(1) + at, "kubernetes secret")
            for body in _JSON_DATA.finditer(part):
                for hit in _JSON_VALUE.finditer(part, *body.span(1)):
                    yield (hit.start(1) + at, hit.end(1) + at, "kubernetes secret")
        at += len(part) + 3  # the dashes that were split at


def _user_and_password(value: str) -> bool:
    try:
        return b":" in base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False


def _merged(found: list[Secret]) -> list[Secret]:
    out: list[Secret] = []
    for start, end, kind in sorted(found, key=lambda s: (s[0], -s[1])):
        if out and start < out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]), out[-1][2])
        else:
            out.append((start, end, kind))
    return out


def mask(text: str) -> str:
    """`text` with every secret replaced by ``[masked: kind]``."""
    return _short(text) if len(text) <= _SHORT else _masked(text)


_SHORT = 1000  # of these a report holds many twice: as a quote, in its span, in a statement


def _masked(text: str) -> str:
    for start, end, kind in reversed(secrets(text)):
        text = f"{text[:start]}[masked: {kind}]{text[end:]}"
    return text


_short = lru_cache(maxsize=4096)(_masked)


def mask_words(words: Sequence[str]) -> tuple[str, ...]:
    """A command line without secrets: `--api-key` and the word after it belong together."""
    out, at = [], 0
    found = secrets(" ".join(words))
    for word in words:
        end, text = at + len(word), word
        for first, last, kind in reversed(found):
            if first < end and last > at:
                text = f"{text[: max(0, first - at)]}[masked: {kind}]{text[last - at :] if last < end else ''}"
        out.append(text)
        at = end + 1
    return tuple(out)


# --- reports -------------------------------------------------------------------------------

_MARGIN = 4096  # bytes around a quote in which a secret that it cuts through would begin or end
_WHOLE = 2 << 20  # bytes of captures that are searched as a whole
_FRAGMENT = regex(r"[A-Za-z0-9_+.~%-]{8,}")
_KEPT_AS_IS = frozenset(["sha256", "id", "cause", "signal", "name", "capture", "probe", "command"])


def mask_report(report: Told, documents: Iterable[Document] = ()) -> Told:
    """The report, or audit, without secrets: quotes are cut around them, other text has them replaced.

    Args:
        report: a finished report.
        documents: the inputs, when at hand, so that a quote which cuts through a secret is seen too.
    """
    docs = {d.name: d for d in documents}
    data = report.model_dump(mode="json", by_alias=True)
    words: dict[str, str] = {}
    around: dict[tuple[str, int, int], list[Secret]] = {}
    whole: dict[str, list[Secret]] = {}
    room = _WHOLE
    for name in sorted({s["capture"] for item in data["evidence"] for s in item["spans"]} & docs.keys()):
        if docs[name].size <= room:  # a label may come from lines that no quote shows
            room -= docs[name].size
            whole[name] = secrets(docs[name].data)
            _learn(docs[name].data, whole[name], words)
    for item in data["evidence"]:
        for span in item["spans"]:
            raw = span["quote"].encode()
            _learn(raw, secrets(raw), words)
            doc, (start, end) = docs.get(span["capture"]), span["bytes"]
            if span["capture"] in whole:
                around[span["capture"], start, end] = [s for s in whole[span["capture"]] if s[0] < end and s[1] > start]
            elif doc is not None and (span["capture"], start, end) not in around:
                low = max(0, start - _MARGIN)
                wide = doc.read(low, end + _MARGIN)
                found = [s for s in secrets(wide) if s[0] + low < end and s[1] + low > start]
                _learn(wide, found, words)
                around[span["capture"], start, end] = [(a + low, b + low, kind) for a, b, kind in found]
        value, label = item["value"], item["subject"].get("label")
        if isinstance(value, str) and label:
            pair = f"{'--' if item['signal'] == 'serving.arg' else ''}{label}={value}".encode()
            _learn(pair, secrets(pair), words)
    for item in data["evidence"]:
        _cut_quotes(item, around, words)
    clean = _Cleaner(words)(data)
    return report if clean == report.model_dump(mode="json", by_alias=True) else type(report).model_validate(clean)


class _Bundle(Model):
    evidence: list[Evidence]


def mask_evidence(items: list[Evidence], documents: Iterable[Document]) -> list[Evidence]:
    """Evidence without secrets, for where it is kept before there is a report."""
    return mask_report(_Bundle(evidence=items), documents).evidence


def _learn(raw: bytes, found: list[Secret], words: dict[str, str]) -> None:
    for start, end, kind in found:
        shown = raw[start:end].decode("utf-8", "replace")
        for word in {shown, _UNSEEN.sub("", shown)}:  # readers take colours off
            if len(word) >= 8 or _random(word) or kind == "password":
                words[word] = kind


def _cut_quotes(item: dict[str, Any], around: dict[tuple[str, int, int], list[Secret]], words: dict[str, str]) -> None:
    """Shorten every span of an evidence to its best part without a secret; drop those with none."""
    kept = []
    for span in item["spans"]:
        cut = _safe_part(span, item, around.get((span["capture"], *span["bytes"]), []), words)
        if cut is not None:
            kept.append(cut)
    if kept == item["spans"]:
        return
    if not kept:
        item["reason"] = "; ".join(filter(None, [item["reason"], "masked: the line holds a secret and nothing else"]))
        item["quote"] = item["capture"] = None
    elif item["capture"]:
        first = kept[0]
        item["quote"] = first["quote"]
        item["capture"] = {**item["capture"], "name": first["capture"], "line": first["line"], "bytes": first["bytes"]}
    item["spans"] = kept


def _safe_part(
    span: dict[str, Any], item: dict[str, Any], around: list[Secret], words: dict[str, str]
) -> dict[str, Any] | None:
    """The span, shortened to its best part without a secret; `around` are those the document has there."""
    raw: bytes = span["quote"].encode()
    start, end = span["bytes"]
    exact = len(raw) == end - start  # otherwise undecodable bytes stand behind the quote
    found = secrets(raw) + [
        (at, at + len(w.encode()), kind)
        for w, kind in words.items()
        for at in [m.start() for m in re.finditer(re.escape(w.encode()), raw)]
    ]
    found += [(max(0, a - start), min(end - start, b - start), kind) for a, b, kind in around]
    if not found:
        return span
    if not exact:
        return None
    parts, at = [], 0
    for first, last, _ in _merged(found):
        parts.append((at, first))
        at = last
    parts.append((at, len(raw)))
    trimmed = [_trim(raw, *p) for p in parts]
    trimmed = [p for p in trimmed if p[1] - p[0] >= 3]
    if not trimmed:
        return None
    wanted = [str(w).encode() for w in (item["value"], item["subject"].get("label")) if w not in (None, "", True)]
    best = max(trimmed, key=lambda p: (sum(w in raw[p[0] : p[1]] for w in wanted), p[1] - p[0], -p[0]))
    return {**span, "bytes": [start + best[0], start + best[1]], "quote": raw[best[0] : best[1]].decode()}


def _trim(raw: bytes, start: int, end: int) -> tuple[int, int]:
    while start < end and raw[start : start + 1] in b" \t\"',;":
        start += 1
    while end > start and raw[end - 1 : end] in b" \t\"',;":
        end -= 1
    return start, end


class _Cleaner:
    """Takes known secrets, their fragments and unknown ones out of every text of a report but its quotes."""

    def __init__(self, words: dict[str, str]) -> None:
        self.kinds = words
        known = sorted(words, key=len, reverse=True)
        self.whole = re.compile("|".join(map(re.escape, known))) if known else None
        self.all = "\n".join(known)

    def __call__(self, data: Any, key: str = "") -> Any:
        if isinstance(data, dict):
            if "quote" in data:  # spans and evidence: the quote is settled, the rest is text
                return {k: v if k == "quote" else self(v, k) for k, v in data.items()}
            return {k: self(v, k) for k, v in data.items()}
        if isinstance(data, list):
            return [self(v, key) for v in data]
        return self.text(data) if isinstance(data, str) and key not in _KEPT_AS_IS else data

    def text(self, text: str) -> str:
        """One text; readers shorten labels and take addresses apart, so parts of a secret count too."""
        if self.whole is not None:
            text = self.whole.sub(lambda hit: f"[masked: {self.kinds[hit.group()]}]", text)
            text = _FRAGMENT.sub(lambda hit: "[masked: part]" if self._part(hit.group()) else hit.group(), text)
        return mask(text)

    def _part(self, word: str) -> bool:
        return any(c.isdigit() for c in word) and any(c.isalpha() for c in word) and word in self.all
