"""Find secrets in text, and keep them out of reports.

Two kinds of knowledge: shapes that issuers gave their tokens (`_SHAPES`), and places where a value
is secret because of its name (`_NAMED`): ``HF_TOKEN=…``, ``--api-key …``, ``password: …``. Logs are
full of long random-looking words that are no secrets (communicator ids, UUIDs, hashes, addresses,
memory keys), so a shape needs its issuer's prefix and a name needs to mean a credential.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .document import Document
from .lazy import regex
from .models import Report

Secret = tuple[int, int, str]  # first and last offset, kind

_W = r"[A-Za-z0-9_-]"
_A = r"[A-Za-z0-9]"
# kind, literal that must be present (any of, lower case), pattern; group 1, if there is one, is the secret part
# ruff: noqa: E501 (one shape a line)
_SHAPES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("private key", ("private key",), r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"),
    ("age key", ("age-secret-key-",), r"AGE-SECRET-KEY-1[A-Z0-9]{20,}"),
    ("ssh key", ("aaaa",), r"\bAAAA(?:B3NzaC1|C3NzaC1|E2VjZHNh)[A-Za-z0-9+/]{20,}={0,3}"),
    ("aws access key", ("akia", "asia", "abia", "acca", "aroa", "aida"), r"\b(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[A-Z0-9]{16}\b"),
    ("aws signature", ("x-amz-",), r"X-Amz-(?:Signature|Security-Token|Credential)[=:]\s*([^\s&\"']{8,})"),
    ("gcp api key", ("aiza",), rf"\bAIza{_W}{{35}}"),
    ("gcp oauth token", ("ya29.",), r"\bya29\.[A-Za-z0-9_.-]{20,}"),
    ("gcp client secret", ("gocspx-",), rf"\bGOCSPX-{_W}{{20,}}"),
    ("gcp signature", ("x-goog-signature",), r"X-Goog-Signature=([0-9a-fA-F]{16,})"),
    ("azure storage key", ("accountkey", "sharedaccesskey"), r"(?:AccountKey|SharedAccessKey)\s*=\s*([A-Za-z0-9+/]{20,}={0,2})"),
    ("azure sas", ("sig=",), r"[?&;]sig=([A-Za-z0-9%+/=_-]{16,})"),
    ("azure client secret", ("q~",), r"\b[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}"),
    ("alibaba access key", ("ltai",), rf"\bLTAI{_A}{{12,24}}\b"),
    ("tencent secret id", ("akid",), rf"\bAKID{_A}{{32}}\b"),
    ("volcengine access key", ("aklt",), rf"\bAKLT{_A}{{32,}}={{0,2}}"),
    ("github token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"), rf"\b(?:gh[pousr]_{_A}{{20,}}|github_pat_\w{{20,}})"),
    ("gitlab token", ("gl",), r"\bgl(?:pat|dt|rt|cbt|ptt|ft|soat|ffct|imt|agent)-[A-Za-z0-9_.-]{16,}"),
    ("bitbucket token", ("atbb", "atatt"), rf"\b(?:ATBB{_A}{{24,}}|ATATT3[A-Za-z0-9_=-]{{40,}})"),
    ("hugging face token", ("hf_", "api_org_"), rf"\b(?:hf|api_org)_{_A}{{24,}}"),
    ("anthropic key", ("sk-ant-",), rf"\bsk-ant-{_W}{{12,}}"),
    ("openai key", ("sk-",), rf"\bsk-(?:proj-|svcacct-|admin-|or-v1-|lf-)?(?=[A-Za-z_-]*\d){_W}{{20,}}"),
    ("langsmith key", ("lsv2_",), r"\blsv2_(?:pt|sk)_[A-Za-z0-9_]{20,}"),
    ("groq key", ("gsk_",), rf"\bgsk_{_A}{{30,}}"),
    ("xai key", ("xai-",), rf"\bxai-{_A}{{40,}}"),
    ("perplexity key", ("pplx-",), rf"\bpplx-{_A}{{32,}}"),
    ("cerebras key", ("csk-",), rf"\bcsk-{_A}{{30,}}"),
    ("replicate token", ("r8_",), rf"\br8_{_A}{{30,}}"),
    ("together key", ("tgp_v1_",), rf"\btgp_v1_{_W}{{20,}}"),
    ("fireworks key", ("fw_",), rf"\bfw_{_A}{{20,}}\b"),
    ("runpod key", ("rpa_",), rf"\brpa_{_A}{{30,}}"),
    ("nvidia key", ("nvapi-",), rf"\bnvapi-{_W}{{20,}}"),
    ("wandb key", ("wandb",), r"(?:\bwandb_v\d_[A-Za-z0-9_]{20,}|(?<=wandb login )(?:--\S+ )*[0-9a-f]{40})"),
    ("kaggle key", ("kgat_", "kaggle", "username"), r"(?:\bKGAT_[0-9a-f]{32}|\"key\"\s*:\s*\"([0-9a-f]{32})\")"),
    ("docker token", ("dckr_",), rf"\bdckr_[po]at_{_W}{{16,}}"),
    ("docker auth", ('auth"',), r"\"(?:identity)?auth\"\s*:\s*\"([A-Za-z0-9+/]{8,}={0,2})\""),
    ("npm token", ("npm_", "_authtoken"), rf"(?:\bnpm_{_A}{{30,}}|_authToken\s*=\s*([^\s$]{{8,}}))"),
    ("pypi token", ("pypi-ag",), rf"\bpypi-Ag{_W}{{16,}}"),
    ("rubygems key", ("rubygems_",), r"\brubygems_[0-9a-f]{40,}"),
    ("jfrog token", ("akcp", "cmvmdgtu"), rf"\b(?:AKCp{_A}{{40,}}|cmVmdGtu{_A}{{40,}})"),
    ("vault token", ("hvs.", "hvb.", "hvr."), rf"\bhv[sbr]\.{_W}{{20,}}"),
    ("terraform token", (".atlasv1.",), rf"\b{_A}{{10,}}\.atlasv1\.{_W}{{40,}}"),
    ("grafana token", ("glsa_", "glc_"), r"\b(?:glsa|glc)_[A-Za-z0-9_+/=]{20,}"),
    ("new relic key", ("nrak-",), r"\bNRAK-[A-Z0-9]{20,}"),
    ("databricks token", ("dapi",), r"\bdapi[0-9a-f]{32}(?:-\d)?"),
    ("digitalocean token", ("do",), r"\bdo[opr]_v1_[0-9a-f]{40,}"),
    ("heroku key", ("hrku-",), rf"\bHRKU-{_W}{{30,}}"),
    ("fly token", ("fm2_", "fm1"), r"\bfm[12][ar]?_[A-Za-z0-9+/=_-]{40,}"),
    ("tailscale key", ("tskey-",), rf"\btskey-[a-z]+-{_W}{{10,}}"),
    ("linear key", ("lin_api_",), rf"\blin_(?:api|oauth)_{_A}{{30,}}"),
    ("notion token", ("ntn_",), rf"\bntn_{_A}{{40,}}"),
    ("postman key", ("pmak-",), r"\bPMAK-[0-9a-f]{20,}-[0-9a-f]{20,}"),
    ("doppler token", ("dp.",), rf"\bdp\.(?:pt|st|ct|sa|scim|audit)\.(?:\w+\.)?{_A}{{40,}}"),
    ("supabase token", ("sbp_", "sb_secret_"), r"\b(?:sbp_[0-9a-f]{40}|sb_secret_[\w-]{20,})"),
    ("planetscale token", ("pscale_",), r"\bpscale_(?:tkn|oauth|pw)_[\w.=-]{30,}"),
    ("slack token", ("xox", "xapp-"), rf"\b(?:xox[abeoprs](?:\.xox[bp])?-{_W}{{10,}}|xapp-\d-{_W}{{10,}})"),
    ("slack webhook", ("hooks.slack.com",), r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_-]{12,})"),
    ("discord webhook", ("/api/webhooks/",), r"/api/webhooks/\d{15,}/([\w-]{40,})"),
    ("discord token", ("discord",), r"\b[MNO][A-Za-z\d_-]{23,25}\.[\w-]{6}\.[\w-]{27,}"),
    ("telegram token", (":aa",), r"\b\d{8,10}:AA[\w-]{33}\b"),
    ("teams webhook", ("webhook.office.com",), r"webhook\.office\.com/webhookb2/([\w@/-]{30,})"),
    ("feishu webhook", ("/open-apis/bot/",), r"/open-apis/bot/v2/hook/([0-9a-f-]{20,})"),
    ("stripe key", ("k_live_", "k_test_", "whsec_"), rf"\b(?:[srp]k_(?:live|test)_{_A}{{10,}}|whsec_{_A}{{20,}})"),
    ("square token", ("sq0",), rf"\bsq0[a-z]{{3}}-{_W}{{20,}}"),
    ("shopify token", ("shp",), r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("sendgrid key", ("sg.",), r"\bSG\.[\w-]{16,}\.[\w-]{30,}"),
    ("mailgun key", ("key-",), r"\bkey-[0-9a-f]{32}\b"),
    ("twilio key", ("sk", "ac"), r"\b(?:SK|AC)[0-9a-f]{32}\b"),
    ("munge credential", ("munge:",), r"\bMUNGE:[A-Za-z0-9+/=]{40,}:?"),
    ("jwt", ("eyj",), r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
    ("url password", ("://",), r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>?#]*:([^\s/@\"'<>]+)@"),
    ("url token", ("://",), r"\bhttps?://([A-Za-z0-9_-]{20,})@"),
    ("authorization header", ("authorization",), r"authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token|digest|negotiate|apikey|aws4-hmac-sha256)\s+)?([^\s\"'][^\"'\r\n]{3,})"),
    ("cookie", ("cookie",), r"\b(?:set-)?cookie[\"']?\s*:\s*[\"']?([^\"'\r\n]*\w=[^\"'\r\n]{4,})"),
    ("key material", (), r"(?m)^(?![0-9a-fA-F]+\s*$)(?=\S*[a-z])(?=\S*[A-Z])(?=\S*\d)[A-Za-z0-9+/]{60,76}={0,2}[ \t\r]*$"),
)  # fmt: skip

# `name = value`: the end of a name that means a credential, a separator, the value (quoted or not).
_NAMED = re.compile(
    r"""(?P<n>token|api[_-]?key|apikey|secret|passw(?:or)?d|passphrase|pwd|pass|credentials?|requirepass|masterauth
        |(?:access|secret|private|account|auth|encryption|signing|master|license|storage|subscription|service
         |session|client|ssh|root)[_-]?key(?:[_-]?id)?
        |_key)
        (?:[_-]?(?:value|base64|b64))?
        (?P<sep>["']?[ \t]{0,3}(?:=>|:=|[:=])[ \t]{0,3}|["']?[ \t]+(?=\S))
        (?:(?P<q>["'])(?P<qv>[^"'\r\n]{3,})(?P=q)|(?P<v>[^\s"'`,;&|)\]}>]{3,}))""",
    re.VERBOSE,  # searched in lower-cased text: several times faster than ignoring case
)
_NAME_BEFORE = re.compile(r"[A-Za-z0-9_.-]{0,60}\Z")
_FLAG = re.compile(r"--[A-Za-z]")
_KEY_FOR = re.compile(
    r"(?:api|access|secret|private|account|auth|encryption|signing|master|license|storage|subscription|service"
    r"|session|client|ssh|root)_key$"
)
_LOWER = {ord(c): c.lower() for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}  # ASCII only, so that offsets stay
_NAMED_HINTS = ("token", "key", "secret", "pass", "pwd", "credential", "masterauth")
_BEARER = re.compile(r"\b(bearer|basic)\s+([A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE)
_KUBERNETES = re.compile(r"(?im)^[ \t]+[\w.-]+:[ \t]+([A-Za-z0-9+/]{4,}={0,2}|\S{6,})[ \t]*$")

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
        |[*x.•_-]{2,}|<.*|\[.*|\{.*|\$.*|%.*%?|\(.*|\*.*|.*\*{3,}.*|.*\.\.\.$|.*…$|/\S*|\./\S*|~/\S*|[A-Za-z]:\\\S*
        |[-+]?[\d.,]+(?:e[-+]?\d+)?\s?(?:%|[a-z/]{1,8})?|0x[0-9a-f]+|(?:hf|sk|nvapi)[_-]x+|your[-_].*|\[masked.*|xxx.*)$""",
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
    spaced = not separator.strip("\"' \t")  # `--api-key abc`, `login bob password abc`: only a flag or netrc
    flag = _FLAG.match(name) is not None
    lower = name.lower()
    if spaced and not flag and lower not in ("requirepass", "masterauth"):
        return "password" if lower == "password" and _random(value) else None
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
    _Shape(kind, hints, regex(pattern, re.IGNORECASE if kind in (
        "authorization header", "cookie", "url password", "url token", "aws signature", "docker auth",
    ) else 0))
    for kind, hints, pattern in _SHAPES
)  # fmt: skip


def secrets(text: bytes | str) -> list[Secret]:
    """Secrets in a text, in order, without overlaps; offsets are into `text` as it was given."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")  # one character a byte, so that offsets stay byte offsets
    if "\x00" in text:  # UTF-16 seen as bytes: search without the zeros, answer with them
        keep = [i for i, c in enumerate(text) if c != "\x00"]
        found = secrets("".join(text[i] for i in keep))
        return [(keep[a], keep[b - 1] + 1, kind) for a, b, kind in found]
    lower = text.lower()
    found = []
    for shape in _COMPILED:
        if shape.hints and not any(h in lower for h in shape.hints):
            continue
        for hit in shape.pattern.finditer(text):
            part = 1 if shape.pattern.groups and hit.group(1) else 0
            if not _HARMLESS.match(hit.group(part)):
                found.append((*hit.span(part), shape.kind))
    if any(h in lower for h in _NAMED_HINTS):
        for hit in _NAMED.finditer(lower if len(lower) == len(text) else text.translate(_LOWER)):
            group = "qv" if hit.group("qv") is not None else "v"
            before = _NAME_BEFORE.search(text, max(0, hit.start() - 60), hit.start())
            name = text[before.start() if before else hit.start() : hit.end("n")]
            kind = _named_secret(name, hit.group("sep"), text[slice(*hit.span(group))], group == "qv")
            if kind:
                found.append((*hit.span(group), kind))
    if "bearer" in lower or "basic" in lower:
        for hit in _BEARER.finditer(text):
            if _random(hit.group(2)) or _user_and_password(hit.group(2)):
                found.append((*hit.span(2), f"{hit.group(1).lower()} authentication"))
    if re.search(r"(?im)^\s*kind:\s*Secret\b", text):
        body = re.search(r"(?im)^(?:string)?data:[ \t]*\n((?:[ \t]+\S.*\n?)+)", text)
        if body:
            for hit in _KUBERNETES.finditer(text, body.start(1), body.end(1)):
                found.append((*hit.span(1), "kubernetes secret"))
    return _merged(found)


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
    for start, end, kind in reversed(secrets(text)):
        text = f"{text[:start]}[masked: {kind}]{text[end:]}"
    return text


# --- reports -------------------------------------------------------------------------------

_MARGIN = 4096  # bytes around a quote in which a secret that it cuts through would begin or end
_KEPT_AS_IS = frozenset(["sha256", "id", "cause", "signal", "name", "capture", "probe", "command"])


def mask_report(report: Report, documents: Iterable[Document] = ()) -> Report:
    """The report without secrets: quotes are cut around them, other text has them replaced.

    Args:
        report: a finished report.
        documents: the inputs, when at hand, so that a quote which cuts through a secret is seen too.
    """
    docs = {d.name: d for d in documents}
    data = report.model_dump(mode="json", by_alias=True)
    words: dict[str, str] = {}
    for item in data["evidence"]:
        for span in item["spans"]:
            raw = span["quote"].encode()
            _learn(raw, secrets(raw), words)
        value, label = item["value"], item["subject"].get("label")
        if isinstance(value, str) and label:
            pair = f"{'--' if item['signal'] == 'serving.arg' else ''}{label}={value}".encode()
            _learn(pair, secrets(pair), words)
    for item in data["evidence"]:
        _cut_quotes(item, docs, words)
    clean = _clean(data, words)
    return report if clean == report.model_dump(mode="json", by_alias=True) else Report.model_validate(clean)


def _learn(raw: bytes, found: list[Secret], words: dict[str, str]) -> None:
    for start, end, kind in found:
        word = raw[start:end].decode("utf-8", "replace")
        if len(word) >= 8 or _random(word) or kind == "password":
            words[word] = kind


def _cut_quotes(item: dict[str, Any], docs: dict[str, Document], words: dict[str, str]) -> None:
    """Shorten every span of an evidence to its best part without a secret; drop those with none."""
    kept = []
    for span in item["spans"]:
        cut = _safe_part(span, item, docs.get(span["capture"]), words)
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
    span: dict[str, Any], item: dict[str, Any], doc: Document | None, words: dict[str, str]
) -> dict[str, Any] | None:
    raw: bytes = span["quote"].encode()
    start, end = span["bytes"]
    exact = len(raw) == end - start  # otherwise undecodable bytes stand behind the quote
    found = secrets(raw) + [
        (at, at + len(w.encode()), kind)
        for w, kind in words.items()
        for at in [m.start() for m in re.finditer(re.escape(w.encode()), raw)]
    ]
    if doc is not None:
        low = max(0, start - _MARGIN)
        around = secrets(doc.read(low, end + _MARGIN))
        found += [
            (max(0, a + low - start), min(end - start, b + low - start), kind)
            for a, b, kind in around
            if a + low < end and b + low > start
        ]
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


def _clean(data: Any, words: dict[str, str], key: str = "") -> Any:
    if isinstance(data, dict):
        if "quote" in data:  # spans and evidence: the quote is settled, the rest is text
            return {k: v if k == "quote" else _clean(v, words, k) for k, v in data.items()}
        return {k: _clean(v, words, k) for k, v in data.items()}
    if isinstance(data, list):
        return [_clean(v, words, key) for v in data]
    if isinstance(data, str) and key not in _KEPT_AS_IS:
        for word in sorted(words, key=len, reverse=True):
            data = data.replace(word, f"[masked: {words[word]}]")
        return mask(data)
    return data
