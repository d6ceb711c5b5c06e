"""Options of inference servers and of benchmark clients, wherever they are written down.

Command lines, container argument lists, YAML and TOML config, ``Namespace(…)`` and dictionary dumps,
and hand-typed ``max_num_seqs=4``: all become `serving.arg` (server) or `serving.bench_arg` (client)
with the option's name, dashes between words, as the label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import told
from diagnose.models import Fact, Subject
from diagnose.plugin import Reader

# Options that mean the same wherever they stand. Names of vLLM, SGLang, TensorRT-LLM, TGI, Dynamo.
_KNOWN = frozenset(
    """
    tensor-parallel-size pipeline-parallel-size data-parallel-size expert-parallel-size tp-size dp-size ep-size pp-size
    max-model-len max-num-seqs max-num-batched-tokens gpu-memory-utilization kv-cache-dtype kv-cache-memory-bytes
    kv-cache-memory enforce-eager quantization block-size num-gpu-blocks-override num-gpu-blocks
    enable-prefix-caching no-enable-prefix-caching enable-chunked-prefill no-enable-chunked-prefill
    long-prefill-token-threshold max-num-partial-prefills max-long-partial-prefills scheduling-policy
    speculative-config speculative-model num-speculative-tokens guided-decoding-backend structured-outputs-config
    attention-backend compilation-config swap-space cpu-offload-gb disable-custom-all-reduce enable-expert-parallel
    enable-eplb eplb-config moe-backend all2all-backend num-scheduler-steps api-server-count tokenizer-mode
    tokenizer-pool-size tokenizer-pool-type disable-log-requests enable-log-requests disable-log-stats
    disable-frontend-multiprocessing served-model-name chat-template kv-transfer-config cuda-graph-sizes
    cudagraph-capture-sizes max-cudagraph-capture-size max-seq-len-to-capture max-context-len-to-capture
    async-scheduling no-async-scheduling stream-interval disable-sliding-window hf-overrides rope-scaling
    limit-mm-per-prompt mm-processor-cache-gb trust-remote-code load-format optimization-level
    mem-fraction-static max-running-requests max-total-tokens chunked-prefill-size max-prefill-tokens schedule-policy
    schedule-conservativeness cuda-graph-max-bs cuda-graph-bs disable-cuda-graph disable-cuda-graph-padding
    disable-radix-cache disable-overlap-schedule context-length enable-dp-attention speculative-algorithm
    speculative-num-steps speculative-eagle-topk speculative-num-draft-tokens speculative-draft-model-path
    grammar-backend tokenizer-worker-num sampling-backend moe-runner-backend moe-a2a-backend disaggregation-mode
    enable-torch-compile num-continuous-decode-steps stream-output prefill-attention-backend decode-attention-backend
    page-size enable-mixed-chunk fp8-gemm-backend deepep-mode init-expert-location ep-num-redundant-experts
    disable-overlap-scheduler enable-overlap-scheduler enable-attention-dp cuda-graph-padding-enabled
    cuda-graph-max-batch-size cuda-graph-batch-sizes
    max-batch-size max-num-tokens max-beam-width max-seq-len free-gpu-memory-fraction kv-cache-free-gpu-mem-fraction
    kv-cache-free-gpu-memory-fraction enable-block-reuse use-cuda-graph cuda-graph-config batch-scheduler-policy
    batching-type capacity-scheduler-policy enable-kv-cache-reuse max-tokens-in-paged-kv-cache gpt-attention-plugin
    gemm-plugin use-paged-context-fmha multiple-profiles enable-chunked-context max-attention-window-size
    max-concurrent-requests max-batch-prefill-tokens max-batch-total-tokens max-input-length max-input-tokens
    max-waiting-tokens waiting-served-ratio cuda-graphs cuda-memory-fraction max-client-batch-size
    cache-max-entry-count session-len quant-policy max-prefill-token-num n-gpu-layers parallel cont-batching flash-attn
    ctx-size ubatch-size threads-http router-mode busy-threshold kv-transfer-bandwidth enable-auto-tool-choice
    tool-call-parser reasoning-parser tp dp ep pp
    """.split()  # noqa: SIM905
)
# words that also name results or anything else: an option only behind dashes
_DASHES_ONLY = frozenset(("max-concurrent-requests", "parallel", "profile", "concurrency", "rate", "streaming"))
_BENCH_KNOWN = frozenset(
    """
    request-rate max-concurrency num-prompts random-input-len random-output-len random-range-ratio random-prefix-len
    dataset-name ignore-eos burstiness num-warmups concurrency request-count warmup-request-count rate rate-type profile
    disable-ignore-eos prefix-repetition-prefix-len prefix-repetition-num-prefixes streaming warmup-requests temperature
    synthetic-input-tokens-mean output-tokens-mean max-requests num-concurrent-requests
    """.split()  # noqa: SIM905
)
_SERVER = regex(
    r"\bvllm\b|sglang|trtllm|tensorrt[_-]?llm|text-generation-(?:launcher|inference)|dynamo\.\w+|llama-server|llama_cpp"
    r"|lmdeploy|tritonserver|api_server|launch_server|openai_server|tgi\b|mlc_llm|deepspeed-mii|aphrodite",
    re.IGNORECASE,
)
_BENCH = regex(
    r"vllm bench|bench_serving|benchmark_serving|bench_one_batch|benchmark_throughput|benchmark_latency|subparser='bench'"  # noqa: E501
    r"|\baiperf\b|genai-perf|\bguidellm\b|token_benchmark|llmperf|\boha\b|\bwrk\b|\blocust\b|llm-?bench|inference-benchmarker",
    re.IGNORECASE,
)
_FLAG = regex(r"(?<![\w-])--([A-Za-z][\w.-]*)")
_AFTER = regex(
    r"""(?:=|\s+|["']\s*,\s*)                   # --flag=v, --flag v, "--flag", "v"
        (?!-{1,2}[A-Za-z])                      # not the next option
        ( \{.*\} | '[^']*' | "[^"]*" | \d{1,3}(?:,\d{3})+ | [^\s"',\]\\`]+ )""",
    re.VERBOSE,
)
_KEY = regex(
    r"""(?<![\w./-])['"]?(?P<key>[a-z][a-z0-9]*(?:[_-][a-z0-9]+)+|quantization)['"]?\s*[=:]\s*
        (?P<val> \{[^{}]*\} | \[[^\]]*\] | '[^']*' | "[^"]*" | \d{1,3}(?:,\d{3})+\b | [^\s,;(){}\[\]`]+ )""",
    re.VERBOSE,
)
# advice in a message ("consider --x", "Replace … with `--x`", "set --x or --y to …") is not a setting
_ADVICE = regex(
    r"(?:(?<![\w/.=-])(?:consider|try|use|include|pass(?:ing)?|add|(?:in|de)creas\w+|specify(?:ing)?|replace|via"
    r"|enabl\w+ with|(?:please|or|by|and|can|\d\.) set(?:ting)?|lower(?:ing)?|reduc\w+|rais(?:e|ing)|adjust\w*"
    r"|disable \S+(?: graphs?)? (?:by|with)|default(?: value)? (?:of|for|is))\b|, set\b|\(e\.g\.)"
    r"(?:(?!\s--?[A-Za-z])[^.;]){0,60}(?:\s--[\w-]+\W+(?:or|and)\W+)?$",
    re.IGNORECASE,
)
# what a parser of arguments prints of its own, and what is said of an option that does not act
_REFUSED = regex(
    r"error: (?:unrecognized arguments|argument )|unexpected keyword argument|invalid choice:|^\s*usage: ",
    re.IGNORECASE,
)
_INERT = regex(
    r"(?:=\S+|\s+\S+)?[`'\"]?\s+(?:is|are|was|will be)\s+"
    r"(?:not\s+(?:\w+\s+)?supported|ignored|deprecated|incompatible|unsupported)",
    re.IGNORECASE,
)
# The captured sizes have names of their own kind: `max_batch_size` in there is not the server's.
_GRAPHS = regex(r"^(\s*)[\"']?cuda[_-]graph[_-]config[\"']?\s*:\s*$")
_GRAPHS_CALL = regex(r"\bCudaGraphConfig\([^()]*\)")
_PROSE = frozenset(("to", "is", "was", "are", "above", "below", "or", "and", "for", "if", "in", "of", "than", "(e.g"))
# the header of a table in which an option is swept: its name, a gap, another column's name
_SWEPT = regex(r"^\W*(?:--)?([a-z][a-z0-9_-]+)(?:\s{2,}|\t+|\s*\|\s*)[A-Za-z(]", re.IGNORECASE)
_SWITCH = regex(r"^(?:enforce-eager$|enable-|disable-|no-|trust-|ignore-eos$|async-|use-cuda-graph)")
# single-dash options of llama.cpp's server
_LLAMA = regex(r"\bllama-(?:server|cli)\b|\bllama_cpp\b|LLAMA_ARG_")
_SHORT = regex(r"(?<![\w-])-(np|c|ngl|b|ub|t|fa|nkvo|ctk|ctv)(?:[ =]+([\w.]+))?(?=\s|$)")
_LLAMA_ENV = regex(r"\b(?:LLAMA_ARG_(N_PARALLEL|CTX_SIZE|N_GPU_LAYERS)|OLLAMA_(NUM_PARALLEL))\s*[=:]\s*[\"']?(\d+)")
_LONG = {"np": "parallel", "c": "ctx-size", "ngl": "n-gpu-layers", "b": "batch-size", "ub": "ubatch-size", "t": "threads", "fa": "flash-attn",  # noqa: E501
         "nkvo": "no-kv-offload", "ctk": "cache-type-k", "ctv": "cache-type-v", "N_PARALLEL": "parallel", "CTX_SIZE": "ctx-size",  # noqa: E501
         "N_GPU_LAYERS": "n-gpu-layers", "NUM_PARALLEL": "parallel"}  # fmt: skip
_ITEM = regex(r"""^\s*-\s*["']?([^"'\s]+)["']?\s*$""")
_NOTHING = frozenset(("none", "null", "auto", "", "<factory>"))
_MAX = 160
_ONE_DIGIT = str.maketrans("123456789", "0" * 9)
_GOES_ON = ("-", '"', "'")  # how a wrapped command's next line begins
_TELLING = (_SERVER, _BENCH, _GRAPHS, _LLAMA, _LLAMA_ENV)
_OPTIONS = sorted(name.replace("-", "[_-]") for name in _KNOWN | _BENCH_KNOWN if "-" in name or name == "quantization")
_HEADS = sorted(name for name in _KNOWN if "-" not in name)  # of tables
_NAMED = rf"(?i:{'|'.join(_OPTIONS)}|^\W*(?:{'|'.join(_HEADS)}))"


def name_of(flag: str) -> str:
    """Canonical name of an option: lower case, words joined by dashes."""
    return flag.lower().replace("_", "-").strip("-")


class ServingArgsReader:
    """Options as facts; the first place an option with one value stands in is quoted."""

    name = "serving_args"
    needles: tuple[bytes, ...] = (b"--", b"_size", b"-size", b"-seqs", b"-tokens", b"-util", b"NUM_PARALLEL", b"max_", b"max-", b"Namespace", b"gpu_memory", b"enable_", b"disable_", b"quantization",  # noqa: E501
               b"server_args", b"enforce_eager", b"block", b"_seqs", b"context", b"num_", b"llama-", b"LLAMA")  # fmt: skip  # noqa: E501

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Yield one fact for each option and value."""
        if doc.size > 64 << 20:
            return
        seen: set[tuple[str, str, str]] = set()
        context = ""  # what the lines of a wrapped command belong to
        pending: tuple[str, str, Line] | None = None
        llama = False  # the command is llama.cpp's, whose options have one dash
        dull: set[str] = set()  # lines with all digits alike: most of a log says nothing, over and over
        graphs: int | None = None  # how far the section about CUDA graphs is indented
        for line, may in told(doc.novel(), *_TELLING, words=("--",), also=_NAMED):
            text = line.text
            if not may and pending is None and graphs is None and not text.lstrip().startswith(_GOES_ON):
                context, llama = "", False
                continue
            if graphs is not None and text.strip():
                if len(text) - len(text.lstrip()) > graphs:
                    continue
                graphs = None
            if head := _GRAPHS.match(text):
                graphs = len(head[1])
            form = text.translate(_ONE_DIGIT)
            if form in dull and pending is None:
                context, llama = "", False
                continue
            if pending is not None:
                item = _ITEM.match(text)
                target, option, where = pending
                pending = None
                if item and not item.group(1).startswith("--"):
                    yield from self._emit(doc, where, target, option, item.group(1), seen, text, line)
                else:
                    yield from self._emit(doc, where, target, option, "true", seen, "--" + option)
            context = self._context(text, context)
            telling = bool(context) or "--" in text or text.lstrip().startswith(_GOES_ON)
            swept = _SWEPT.match(text)
            if swept and name_of(swept.group(1)) in _KNOWN:
                yield from self._emit(doc, line, "serving.swept", name_of(swept.group(1)), "swept", seen, swept.group())
                continue
            refused = _REFUSED.search(text) is not None
            if "--" in text and not refused:
                for hit in _FLAG.finditer(text):
                    flag = name_of(hit.group(1))
                    signal = self._signal(flag, context)
                    if signal is None or text[hit.start() - 1 : hit.start()] == "[":
                        continue
                    if _ADVICE.search(text[: hit.start()]) or _INERT.match(text, hit.end()):
                        continue
                    after = _AFTER.match(text, hit.end())
                    listed = text.lstrip().startswith("- ") and not text[hit.end() :].strip(" \"'")
                    if after is None and listed:
                        pending = (signal, flag, line)
                        continue
                    value = after.group(1).strip("'\"") if after else "true"
                    if _SWITCH.match(flag) and value.lower() not in ("false", "0", "no"):
                        value = "true"  # what follows a switch is something else, e.g. a table's figure
                    if value.lower() in _PROSE or (value.isupper() and name_of(value) == flag):
                        continue  # a sentence goes on, or the help names what stands here
                    yield from self._emit(doc, line, signal, flag, value, seen, hit.group())
            llama = _LLAMA.search(text) is not None or (llama and text.lstrip().startswith("-"))
            telling = telling or llama
            for short in _SHORT.finditer(text) if llama else ():
                value = short.group(2) or "true"
                yield from self._emit(doc, line, "serving.arg", _LONG[short.group(1)], value, seen, short.group())
            for env in _LLAMA_ENV.finditer(text):
                telling = True
                yield from self._emit(
                    doc, line, "serving.arg", _LONG[env.group(1) or env.group(2)], env.group(3), seen, env.group()
                )
            if ("=" in text or ":" in text) and not refused:
                bench = bool(_BENCH.search(text)) or context == "bench"
                plain = _GRAPHS_CALL.sub(lambda call: " " * len(call[0]), text) if "GraphConfig(" in text else text
                for hit in _KEY.finditer(plain):
                    flag = name_of(hit.group("key"))
                    known = _BENCH_KNOWN if bench else _KNOWN
                    if flag not in known or flag in _DASHES_ONLY:
                        continue
                    telling = True
                    value = hit.group("val").strip("'\" ")
                    if value.lower() in _NOTHING or _INERT.match(text, hit.end()):
                        continue
                    where_to = "serving.bench_arg" if bench else "serving.arg"
                    yield from self._emit(doc, line, where_to, flag, value, seen, hit.group())
            if not telling and not refused:
                dull.add(form)
        if pending is not None:
            yield from self._emit(doc, pending[2], pending[0], pending[1], "true", seen, "--" + pending[1])

    @staticmethod
    def _context(text: str, before: str) -> str:
        """``bench`` or ``server`` for a command line and the wrapped lines after it, else nothing."""
        if _BENCH.search(text):
            return "bench"
        if _SERVER.search(text):
            return "server"
        stripped = text.lstrip()
        return before if stripped.startswith(_GOES_ON) else ""

    @staticmethod
    def _signal(flag: str, context: str) -> str | None:
        if context == "bench" or (flag in _BENCH_KNOWN and flag not in _KNOWN):
            return "serving.bench_arg"
        if context == "server" or flag in _KNOWN or (flag.startswith("no-") and flag[3:] in _KNOWN):
            return "serving.arg"
        return None

    @staticmethod
    def _emit(
        doc: Document, line: Line, signal: str, flag: str, value: str, seen: set[tuple[str, str, str]],
        around: str, second: Line | None = None,
    ) -> Iterator[Fact]:  # fmt: skip
        value = value[:_MAX].rstrip(",;.`")
        key = (signal, flag, value)
        if key in seen:
            return
        seen.add(key)
        spans = [doc.span(line, around)]
        if second is not None:
            spans.append(doc.span(second))
        yield Fact(signal, value.lower() if value in ("True", "False") else value, None, Subject(label=flag),
                   tuple(spans), status=doc.status)  # fmt: skip


READERS: list[Reader] = [ServingArgsReader()]
