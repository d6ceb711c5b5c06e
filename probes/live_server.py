"""Read probes of a running inference server: its metrics over a window, its options, its log.

`--endpoint` names the server, `--prometheus` what scrapes it. A server that dies, restarts or has no traffic gives what
there was and one line that says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from diagnose.collect import Capture, Collected, Collector, NotCaptured
from diagnose.endpoint import NEEDED, Answer, Endpoint, needed, seconds, usable
from diagnose.errors import ProbeError
from diagnose.host import Host
from diagnose.scrapes import FULL, Page, timeline

from . import live_process, live_prometheus
from .live_identity import identity, serves_nothing

WINDOW = 10.0
EVERY = 1.0  # seconds between two looks at the gauges
METRICS = "vllm.metrics"
_PATHS = ("/metrics", "/prometheus/metrics")
NO_TRAFFIC = (
    "no request came or ended in the window of {window:g} s, so there is nothing to measure: run it while the load is "
    "on, or let `diagnose bench --endpoint {url} --allow load` make some meanwhile"
)
NO_MODEL = (
    "it is up and lists no model, so no worker has registered with it: see why none came up, or why it is not found "
    "(discovery, namespace, model name)"
)


def _ready(host: Host) -> str | None:
    return needed(host.params)


def _ready_metrics(host: Host) -> str | None:
    return None if {"endpoint", "prometheus"} & set(host.params) else NEEDED + " (or --prometheus URL)"


def window(host: Host) -> float:
    """Seconds to watch."""
    return seconds(host.params.get("window", ""), WINDOW)


@dataclass
class Watched:
    """One server while it is watched: the page that differences start from, the latest one, gauges in between."""

    at: Endpoint
    label: str  # "" is the endpoint itself
    path: str = _PATHS[0]
    first: Page | None = None
    last: Page | None = None
    gauges: list[tuple[float, bytes]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)  # part and what is to be said of it
    begun: float = 0.0
    seconds: float = 0.0  # that the last answer took
    died: bool = False

    def look(self, timeout: float = 10.0) -> None:
        """Take a page. Raises ProbeError where there is none."""
        begin = time.time()
        answer = self.at.get([self.path], timeout)[0]
        if answer.status == 404 and self.last is None:
            for path in _PATHS[1:]:
                other = self.at.get([path], timeout)[0]
                if other.status == 200:
                    self.path, answer = path, other
        if answer.status == 404:
            why = "HTTP 404: no metrics here (SGLang counts only with --enable-metrics; or the wrong port?)"
            raise ProbeError(f"{self.at.place}{self.path}: {why}")
        body = usable(answer, self.at.place)
        self.seconds = time.time() - begin
        page = Page(body, self.at.place, begin)
        if not page.rows:
            raise ProbeError(f"{self.at.place}{self.path}: answers, but not with metrics: {_start(answer)}")
        if answer.cut:
            self._note("size", f"{self.at.place}{self.path}: the page is larger than that, {answer.cut}")
        if self.last is not None and page.reset_since(self.last):
            since = page.at - self.begun
            why = (
                f"counters were reset {since:.0f} s into the window (a restart?): what is said is of the time after it"
            )
            self._note("reset", f"{self.at.place}: {why}")
            self.first = None
        if self.first is None:
            self.first = page
        self.begun = self.begun or begin
        self.last = page
        self.gauges.append((page.at, page.gauges()))

    def again(self) -> None:
        """Take a page of a server that answered before; once it fails it counts as dead."""
        if self.died:
            return
        try:
            self.look()
        except ProbeError as err:
            self.died = True
            lived = (self.last.at if self.last else self.begun) - self.begun
            self._note("end", f"the server stopped answering {lived:.0f} s into the window: {err.message}")

    def _note(self, part: str, why: str) -> None:
        if part not in {p for p, _ in self.notes}:
            self.notes.append((part, why))

    def collected(self, params: dict[str, str]) -> Iterator[Collected]:
        """What is kept of it."""
        head = f"{self.label} " if self.label else ""
        taken = f"GET {self.at.origin.url}{self.path}"
        if self.first is not None and self.last is not None:
            for page, part in ((self.first, "start"), (self.last, "end")):
                if part == "start" and page is self.last:
                    continue
                data, cut = page.kept(part)
                yield Capture(METRICS, data, head + part, params, (taken,), started=page.at, cut=cut)
            if len(self.gauges) > 2:
                data = timeline(self.gauges, self.at.place)
                spent = self.last.at - self.begun
                yield Capture(METRICS, data, head + "gauges", params, (taken,), started=self.begun, seconds=spent)
            if not self.last.engine and not self.label:
                why = f"no known inference server counts like this (the page starts with {self.last.first_series()})"
                yield NotCaptured(METRICS, f"{self.at.place}{self.path}: {why}", "engine")
        for part, why in self.notes:
            yield NotCaptured(METRICS, why, head + part)


def _start(answer: Answer) -> str:
    return " ".join(answer.text.split())[:80] or "nothing"


def _metrics(host: Host) -> Iterator[Collected]:
    if not host.params.get("endpoint"):
        yield from live_prometheus.metrics(host)
        return
    end = Endpoint.of(host.params)
    for_s = window(host) if not host.params.get("prometheus") else WINDOW
    main = Watched(end, "")
    main.look()  # a server that is not there ends it here, in one line
    watched = [main, *_workers(end, main)]
    stop = time.monotonic() + for_s
    every = EVERY
    while (left := stop - time.monotonic()) > 0 and not all(w.died for w in watched):
        slow = sum(w.seconds for w in watched)
        big = any(w.last is not None and len(w.last.body) > FULL for w in watched)
        every = left if big else max(EVERY, 10 * slow)  # looking must not become load
        time.sleep(min(left, every))
        for item in watched:
            item.again()
    params = {"window": f"{for_s:g}"}
    for item in watched:
        yield from item.collected(params)
    yield from _traffic(watched, end, for_s)
    if host.params.get("prometheus"):
        yield from live_prometheus.metrics(host)


def _traffic(watched: list[Watched], end: Endpoint, for_s: float) -> Iterator[Collected]:
    """Say so when nothing happened."""
    pairs = [(w.first, w.last) for w in watched if w.first is not None and w.last is not None]
    moved = max((last.requests_since(first) for first, last in pairs), default=0.0)
    if moved < 1 and all(last.busy == 0 for _, last in pairs):
        why = NO_MODEL if serves_nothing(end) else NO_TRAFFIC.format(window=for_s, url=end.origin.url)
        yield NotCaptured(METRICS, why, "traffic")
    elif moved < 1:
        why = f"requests run, and none came or ended in the window of {for_s:g} s: take a longer --window"
        yield NotCaptured(METRICS, why, "traffic")


def _workers(end: Endpoint, main: Watched) -> list[Watched]:
    """Engines behind a frontend that can be found: they run here, and count on ports of their own."""
    out: list[Watched] = []
    if main.last is None or main.last.engine != "dynamo" or not end.local:
        return out
    for port in live_process.worker_ports(end.origin.port):
        item = Watched(end.at(port), f"worker {port}")
        try:
            item.look(2.0)
        except ProbeError:
            continue
        out.append(item)
    return out


def _args(host: Host) -> Iterator[Collected]:
    if not host.params.get("endpoint"):
        yield from live_process.servers()
        return
    end = Endpoint.of(host.params)
    answers, text = identity(end)
    if not any(a.status for a in answers):
        raise ProbeError(answers[0].error)
    yield Capture("serving.args", text, "served", argv=(f"GET {end.origin.url}",), started=time.time())
    if not end.local:
        why = "the server runs elsewhere, so its command line cannot be read from here"
        yield NotCaptured("serving.args", why, "command line", "run it there, or give its command line with --evidence")
        return
    yield from live_process.command_lines(end.origin.port)
    yield from live_process.environment(end.origin.port)


def _log_ready(host: Host) -> str | None:
    if not host.params.get("endpoint"):
        return NEEDED
    return None if Endpoint.of(host.params).local else "the server runs elsewhere: give its log with --evidence"


def _log(host: Host) -> Iterator[Collected]:
    yield from live_process.logs(Endpoint.of(host.params).origin.port)


def _capacity(host: Host) -> Iterator[Collected]:
    yield from live_process.capacity(Endpoint.of(host.params).origin.port)


def _use_ready(host: Host) -> str | None:
    why = _log_ready(host)
    return "the server runs elsewhere: its CPU and GPU cannot be watched from here" if why and why != NEEDED else why


def _use(host: Host) -> Iterator[Collected]:
    yield from live_process.use(host, Endpoint.of(host.params).origin.port, min(window(host), 60.0))


def _seconds(host: Host) -> float:
    return window(host) + 1 if host.params.get("endpoint") else 5.0


def _shown(host: Host) -> list[str]:
    if not host.params.get("endpoint"):
        return [f"curl -s '{host.params.get('prometheus', 'URL')}/api/v1/query_range?...'"]
    url = Endpoint.of(host.params).origin.url
    return [f"curl -s {url}/metrics   # again every second for {window(host):g} s"]


COLLECTORS = (
    Collector(METRICS, _ready_metrics, _metrics, seconds=_seconds, commands=_shown),
    Collector("serving.args", lambda host: None, _args),
    Collector("vllm.log", _log_ready, _log),
    Collector("kv.capacity", _log_ready, _capacity),
    Collector("server.use", _use_ready, _use, seconds=lambda host: min(window(host), 60.0) + 1),
)
