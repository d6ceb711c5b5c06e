"""Prefix caching that is switched off: what it costs where prefill is what first tokens wait for."""

from __future__ import annotations

from collections.abc import Callable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read

_OFF = "^(enable-prefix-caching|enable-block-reuse|enable-kv-cache-reuse)$"
LONG = 512  # tokens: below it a prefill takes a few steps of decoding at most


def switched_off(ctx: Context) -> Evidence | None:
    """The option, or the engine's own word, that no prefix is kept."""
    off = read.flag(ctx, read.PREFIX_OFF, _OFF)
    return off or next(iter(ctx.of("serving.mark.prefix_off")), None)


def off_and_prefill(ctx: Context) -> Outcome:
    """No prefix is kept, prompts are long, and most of TTFT is their prefill."""
    off, prompt, share = switched_off(ctx), read.prompt(ctx), read.top(ctx, "serving.prefill_share")
    if off is None or prompt is None or share is None:
        return UNKNOWN
    return read.yes(off, prompt[1], share[1]) if prompt[0] >= LONG and share[0] >= 0.6 else read.no(prompt[1], share[1])


RULES: dict[str, Callable[[Context], Outcome]] = {"prefix_off_and_prefill": off_and_prefill}
