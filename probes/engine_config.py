"""Settings below a heading or beside a key: nested YAML of engines, `config.pbtxt` of Triton, pools by sequence.

Sources: TensorRT-LLM `llmapi/llm_args.py` (`cuda_graph_config`, `kv_cache_config`), `config.pbtxt` of its Triton backend,
`cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp`; vLLM `config/compilation.py`.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import excerpt, fact

_SECTIONS = r"cuda[_-]graph[_-]config|kv[_-]cache[_-]config|scheduler[_-]config|moe[_-]config|compilation[_-]config|cache[_-]transceiver[_-]config"  # noqa: E501
_HEAD = regex(rf"^(?P<indent>\s*)(?:-\s+)?[\"']?(?P<name>{_SECTIONS})[\"']?\s*:\s*$")
_ENTRY = regex(
    r"^(?P<indent>\s*)[\"']?(?P<key>[a-z][a-z0-9_-]*)[\"']?\s*:\s*[\"']?(?P<value>[^\s#\"'{][^#\"']*?)[\"']?\s*,?\s*$"
)
_INLINE = regex(rf"[\"']?(?P<name>{_SECTIONS})[\"']?\s*[=:]\s*(?:\w+\()?\{{?(?P<body>[^{{}}()]{{3,300}})[)}}]")
_CALL = regex(r"\b(?P<name>CudaGraph|KvCache|Scheduler|Moe)Config\((?P<body>[^()]{3,300})\)")
_PAIR = regex(r"[\"']?(?P<key>[a-z][a-z0-9_]*)[\"']?\s*[=:]\s*[\"']?(?P<value>\[[^\]]*\]|[^\s,\"']+)")
_KEY = regex(r"\bkey:\s*\"(?P<key>[\w-]+)\"")
_STRING = regex(r"\bstring_value:\s*\"(?P<value>[^\"$]+)\"")
_PAGES = regex(r"Max KV cache (?:pages|blocks) per sequence:?\s*(\d+)")
_BLOCKS = regex(
    r"(?:Number of blocks in KV cache primary pool|blocks in (?:the )?primary pool|\bprimary blocks)\s*[:=]\s*(\d+)"
)


class EngineConfigReader:
    """Options by section, so that one name in two sections stays two options."""

    name = "engine_config"
    needles: tuple[bytes, ...] = (
        b"graph_config", b"graph-config", b"cache_config", b"scheduler_config", b"compilation_config", b"moe_config",
        b"GraphConfig(", b"CacheConfig(", b"string_value", b"per sequence", b"primary pool",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Options, then sizes of the pool."""
        section: tuple[str, int] | None = None
        key: tuple[str, int] | None = None
        pool: dict[str, Fact] = {}  # a small one is set up first where activations are measured: the last one serves
        for line in excerpt(doc, 1 << 20):
            text = line.text
            if len(text) > 4000:
                continue
            if head := _HEAD.match(text):
                section = (head["name"], len(head["indent"]))
                continue
            if section is not None:
                entry = _ENTRY.match(text)
                if entry and len(entry["indent"]) > section[1]:
                    yield _option(doc, line, f"{section[0]}.{entry['key']}", entry["value"])
                elif text.strip():
                    section = None
            for hit in (*_INLINE.finditer(text), *_CALL.finditer(text)):
                name = {"CudaGraph": "cuda_graph_config", "KvCache": "kv_cache_config"}.get(hit["name"], hit["name"])
                for pair in _PAIR.finditer(hit["body"]):
                    yield _option(doc, line, f"{name}.{pair['key']}", pair["value"])
            if named := _KEY.search(text):
                key = (named["key"], line.number)
            value = _STRING.search(text)
            if value and key is not None and line.number - key[1] <= 3:
                yield _option(doc, line, key[0], value["value"])
                key = None
            if pages := _PAGES.search(text):
                pool["pages"] = fact(doc, line, "serving.kv_blocks_per_request", float(pages[1]), "count")
            if blocks := _BLOCKS.search(text):
                pool["blocks"] = fact(doc, line, "serving.kv_blocks", float(blocks[1]), "count", label="profiled")
        yield from pool.values()


def _option(doc: Document, line: Line, name: str, value: str) -> Fact:
    label = name.lower().replace("_", "-")
    return fact(doc, line, "serving.arg", value.strip(), label=label)


READERS: list[Reader] = [EngineConfigReader()]
