"""Chinese as it is set: full-width punctuation beside Chinese characters; quotes, code and machine output stay."""

from __future__ import annotations

import re
from typing import Any

_HAN = "一-鿿"
_KEEP = re.compile(r"`[^`]*`|“[^”]*”")
_MARKS = str.maketrans(",:;?!", "，：；？！")
_BESIDE = re.compile(rf"(?<=[{_HAN}）”])[,:;?!] ?|(?<!\s)[,:;?!] ?(?=[{_HAN}“（])")
_PARENS = re.compile(
    rf"\(([^()`]*[{_HAN}、][^()`]*)\)"
    rf"|(?<=[{_HAN}])\(([^()`=]+)\)(?!/)"
    rf"|(?<=\w)\(([^()`=]* [^()`=]*)\)(?=[{_HAN}，。；、,;])"
)  # around Chinese, behind it, or words between a term and Chinese; code and arithmetic stay
_LIST = re.compile(r"[^\s,;，；、。：（）]+(?:,[^\s,;，；、。：（）]+){2,}")  # bare commas between three words are code
# no space behind it: typed as a Chinese comma is
_TIGHT = re.compile(r"(?<=[A-Za-z0-9)%}])[,;](?=[A-Za-z{])|(?<=\d),(?=\d{4})")


def native(text: str) -> str:
    """A text with the punctuation of a Chinese one where it is Chinese."""
    if not re.search(f"[{_HAN}]", text):
        return text
    kept: list[str] = []

    def aside(hit: re.Match[str]) -> str:
        kept.append(hit[0])
        return f"\0{len(kept) - 1}\0"

    out = _LIST.sub(lambda m: m[0] if re.search(f"[{_HAN}]", m[0]) else aside(m), _KEEP.sub(aside, text))
    out = _PARENS.sub(lambda m: f"（{m[1] or m[2] or m[3]}）", out)
    out = _TIGHT.sub(lambda m: m[0].translate(_MARKS), out)
    out = re.sub(r"[?!]$", lambda m: m[0].translate(_MARKS), out)
    out = _BESIDE.sub(lambda m: m[0].strip().translate(_MARKS), out)
    while kept and "\0" in out:
        out = re.sub(r"\0(\d+)\0", lambda m: kept[int(m[1])], out)
    return out


def set_natively(raw: Any) -> Any:
    """The same for every text of a nested entry."""
    if isinstance(raw, str):
        return native(raw)
    if isinstance(raw, dict):
        return {k: set_natively(v) for k, v in raw.items()}
    return [set_natively(v) for v in raw] if isinstance(raw, list) else raw
