"""What a release does unless told otherwise: defaults that changed, read beside the command line at hand.

Read in the documentation of vLLM: until 0.7 prefix caching and chunked prefill are off unless asked for; from 0.8 on the
V1 engine has both on; from 0.11 on there is no other engine. Which releases a rule holds for stands with its indicator;
a version that is not in the evidence decides nothing.
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from . import serving_read as read
from .serving_mech import shares_prefix

_COMMAND = r"^(?!(?:num-gpu-blocks|kv-cache-memory)$).+"
_LONG_CONTEXT = 32768  # from here on the V0 engine chunks prefill by itself


def _vllm(ctx: Context) -> tuple[Evidence, Evidence] | None:
    """The version and one option of a command line that does not ask for the V1 engine by hand."""
    version = ctx.version("vllm")
    args = [e for e in ctx.of("serving.arg", {"label": _COMMAND}) if "--" in (e.quote or "") or "=" in (e.quote or "")]
    chosen = [str(e.value) for e in ctx.of("env.var", {"label": "^VLLM_USE_V1$"})]
    if version is None or not args or "1" in chosen:
        return None
    return version[1], args[0]


def prefix_cache_off_by_default(ctx: Context) -> Outcome:
    """Prompts share text, this release caches no prefix unless told to, and the command line does not tell it."""
    found = _vllm(ctx)
    told = ctx.of("serving.arg", {"label": r"enable-prefix-caching|^enable-radix"})
    hits = [v for v, _ in ctx.numbers("serving.prefix_hit_rate") if v > 0.01]
    if found is None or told or hits:
        return UNKNOWN
    asked = ctx.asks("high-ttft", "low-throughput") and ctx.symptom and shares_prefix(ctx)
    return read.yes(*found) if asked else UNKNOWN


def prefill_whole_by_default(ctx: Context) -> Outcome:
    """Late tokens are the question, this release runs a prompt in one step unless told to chunk it, and prompts are long."""  # noqa: E501
    found = _vllm(ctx)
    told = ctx.of("serving.arg", {"label": "chunked-prefill"})
    length = read.option(ctx, "^max-model-len$")
    if found is None or told or any(n > _LONG_CONTEXT for n, _ in length):
        return UNKNOWN
    prompts = read.top(ctx, "serving.told", "^prompt$") or read.top(ctx, "serving.server.prompt_tokens")
    late = ctx.asks("bad-tpot", "high-p99") and re.search(
        r"other|new (?:user|request)|stall|freez|pause|spike|p99|stutter|卡|抖", ctx.symptom, re.I
    )
    return read.yes(*found, prompts[1]) if late and prompts is not None and prompts[0] >= 2000 else UNKNOWN


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule for rule in (prefix_cache_off_by_default, prefill_whole_by_default)
}
