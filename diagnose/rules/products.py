"""Which GPU product the evidence or the question names, and all that a bare name like "A100" can mean."""

from __future__ import annotations

import re

from .. import hardware
from ..lazy import regex
from ..models import Evidence
from ..predicates import Context, once

_NAMES = {
    name: got for name in (*hardware.GPUS, *hardware.ALIASES)
    if re.search("[a-z]", name) and (got := hardware.gpu(name)) is not None
}  # fmt: skip
_PRODUCT = regex(
    r"(?<![a-z0-9])(?:" + "|".join(map(re.escape, sorted(_NAMES, key=len, reverse=True))) + r")(?![a-z0-9])"
)
# A DGX or HGX board holds the SXM product.
_BOARD = regex(
    r"(?<![a-z0-9])(?:[dh]gx[ -]?(a100|h100|h200|b200)(?![a-z0-9])|(a100|h100|h200|b200)[ -]sxm\d?(?![a-z0-9]))"
)
_ON_BOARD = {"a100": "a100-sxm4-80gb", "h100": "h100 80gb hbm3", "h200": "h200", "b200": "b200"}
_TIMES = regex(r"\d+ ?[x×] ?(?=[a-z]*\d{2,4})", re.I)
BARE = regex(
    r"(?<![a-z0-9])(h100|h200|a100|h800|a800|b200|h20|l40s|l40|l4|a10g|a10|a6000|(?:rtx ?)?[345]0[6789]0(?: ?ti)?)(?![a-z0-9])",  # noqa: E501
    re.I,
)


@once
def product(ctx: Context) -> tuple[hardware.Gpu, tuple[Evidence, ...]] | None:
    """The one product that the evidence names, else the one that the question names."""
    said = {
        got.name: (got, (e,)) for e in (*ctx.of("gpu.name"), *ctx.of("gpu.product"))
        if (got := hardware.gpu(str(e.value))) is not None
    }  # fmt: skip
    if said:
        return next(iter(said.values())) if len(said) == 1 else None
    words = ctx.symptom.lower().replace("_", " ")
    named = {_NAMES[hit.group()].name: _NAMES[hit.group()] for hit in _PRODUCT.finditer(words)}
    if not named:
        boards = {hit[1] or hit[2] for hit in _BOARD.finditer(words)}
        named = {b: got for b in boards if (got := hardware.gpu(_ON_BOARD[b])) is not None}
    return (next(iter(named.values())), ()) if len(named) == 1 else None


@once
def candidates(ctx: Context) -> tuple[list[hardware.Gpu], tuple[Evidence, ...]]:
    """The product that is named, or all that a bare name can mean."""
    got = product(ctx)
    if got is not None:
        return [got[0]], got[1]
    if len({str(e.value) for e in (*ctx.of("gpu.name"), *ctx.of("gpu.product"))}) > 1:
        return [], ()
    words = _TIMES.sub(" ", ctx.symptom)
    named = {re.sub(r"^rtx ?", "", hit[1].lower()) for hit in BARE.finditer(words)}
    if len(named) != 1:
        return [], ()
    name = named.pop()
    shape = re.compile(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])(?! ?(?:ti|super)\b)", re.I)
    found = [hardware.GPUS[n] for n in hardware.GPUS if shape.search(n.replace("-", " ")) and "max-q" not in n]
    return found, ()
