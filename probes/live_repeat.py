"""`client.repeat`: the same prompts twice, each timed to its first token; a prefix cache answers the second faster."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.document import Document
from diagnose.host import Host
from diagnose.lazy import regex
from diagnose.models import Fact, Subject

from .facts import divided

NAME = "client.repeat"
REQUESTS, INPUT, OUTPUT = 4, 1024, 4
HEAD = "# the same prompts twice:"
_ROW = regex(r"^\s*(new|again)\s+\d+\s+(\d+)\s+(\d+(?:\.\d+)?)\s*$")


def _ready(host: Host) -> str | None:
    from diagnose.endpoint import needed  # with it comes asyncio: a reader's module is loaded on each run

    return needed(host.params)


def _repeat(host: Host) -> Iterator[Collected]:
    from diagnose.bench.embedded import Embedded
    from diagnose.bench.records import Load
    from diagnose.endpoint import Endpoint

    end = Endpoint.of(host.params)
    own = Embedded(end.origin.url, key=end.key, timeout=60.0)
    started = time.time()
    load = Load(input=INPUT, output=OUTPUT, rate=math.inf, concurrency=1, num=REQUESTS, warmup=1, timeout=60.0,
                salt=f"{time.time_ns():x}")  # fmt: skip
    said = (f"{REQUESTS} prompts of {INPUT} tokens, one after the other, then the same again, to {end.origin.url}",)
    lines = [f"{HEAD} {REQUESTS} of about {INPUT} tokens, one after the other", " pass  request  tokens  ttft_ms"]
    died = None
    try:
        # no warm-up the second time: it would only repeat a prompt that the first pass already sent
        for name, this in (("new", load), ("again", replace(load, warmup=0))):
            got = own.measure(this)
            died = died or got.died
            timed = zip(got.data.get("input_lens", ()), got.data.get("ttfts", ()), strict=True)
            lines += [f"{name:>5} {n:8d} {size:7d} {1e3 * ttft:8.2f}" for n, (size, ttft) in enumerate(timed) if ttft]
    finally:
        own.close()
    if not any(line.startswith("again") for line in lines):
        yield NotCaptured(NAME, died or "none of its requests was answered")
        return
    params = {"requests": str(REQUESTS), "input": str(INPUT)}
    data = ("\n".join(lines) + "\n").encode()
    yield Capture(NAME, data, "table", params, said, started=started, seconds=time.time() - started)


def _shown(host: Host) -> list[str]:
    from diagnose.endpoint import told

    return [f"{REQUESTS} prompts of {INPUT} tokens, then the same again, to {told(host.params)}"]


class RepeatReader:
    """The table above: TTFT of new prompts and of the same ones again."""

    name = "repeat_table"
    needles: tuple[bytes, ...] = (HEAD.encode(),)

    @staticmethod
    def owns(doc: Document) -> bool:
        """Rows of one pass differ by chance, which is no finding of a general reader."""
        return doc.head.startswith(HEAD.encode())

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`serving.repeat.ttft` by pass (ms), and `serving.repeat.ratio`: median again over median new."""
        rows: dict[str, list[Fact]] = {"new": [], "again": []}
        for line in doc.lines():
            if (hit := _ROW.match(line.text)) is not None:
                fact = Fact("serving.repeat.ttft", float(hit[3]), "ms", Subject(label=f"{hit[1]}|{hit[2]} tokens"),
                            (doc.span(line),), status=doc.status)  # fmt: skip
                rows[hit[1]].append(fact)
                yield fact
        if min(map(len, rows.values())) >= 2:
            new, again = (
                sorted(rows[n], key=lambda f: float(f.value or 0))[(len(rows[n]) - 1) // 2] for n in ("new", "again")
            )
            if new.value:
                yield divided("serving.repeat.ratio", (again, new), "fraction")


COLLECTORS = (Collector(NAME, _ready, _repeat, commands=_shown, seconds=lambda host: 5.0),)
READERS = (RepeatReader(),)
