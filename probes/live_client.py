"""`client.direct`: a few small requests, timed here and counted by the server; between lie client and network."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.endpoint import Endpoint, needed, told
from diagnose.host import Host
from diagnose.scrapes import Page

NAME = "client.direct"
REQUESTS, INPUT, OUTPUT = 8, 64, 16


def _ready(host: Host) -> str | None:
    return needed(host.params)


def _direct(host: Host) -> Iterator[Collected]:
    from diagnose.bench.embedded import Embedded
    from diagnose.bench.records import Load, dump

    end = Endpoint.of(host.params)
    own = Embedded(end.origin.url, key=end.key, timeout=60.0)
    try:
        load = Load(input=INPUT, output=OUTPUT, rate=math.inf, concurrency=1, num=REQUESTS, warmup=1, timeout=60.0,
                    salt=f"{time.time_ns():x}")  # fmt: skip
        started = time.time()
        got = own.measure(load)
    finally:
        own.close()
    params = {"requests": str(REQUESTS), "input": str(INPUT), "output": str(OUTPUT)}
    spent = time.time() - started
    said = (f"{REQUESTS} requests of {INPUT} tokens in, {OUTPUT} out, one after the other, to {end.origin.url}",)
    place = f"{end.place}/direct"  # differences over these requests alone, beside those over the window
    for name, part, at in (("metrics-before.prom", "start", started), ("metrics-after.prom", "end", started + spent)):
        if text := got.files.get(name):
            data, cut = Page(text.encode(), place, at).kept(part)
            yield Capture(NAME, data, part, params, said, started=at, cut=cut)
    if got.data.get("completed"):
        data = dump(got.data).encode()
        yield Capture(NAME, data, "result", params, said, started=started, seconds=spent)
    else:
        yield NotCaptured(NAME, got.died or "none of its requests was answered")


def _shown(host: Host) -> list[str]:
    return [f"{REQUESTS} requests of {INPUT} tokens in, {OUTPUT} out, to {told(host.params)}"]


COLLECTORS = (Collector(NAME, _ready, _direct, commands=_shown),)
