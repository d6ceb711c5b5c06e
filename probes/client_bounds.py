"""How many requests a client, pool or proxy lets through at once, as code and settings say it; and who is running."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import excerpt, fact

# Each names one thing that only so many requests can hold at a time.
_STATED = regex(
    r"(?P<aiohttp>TCPConnector\([^)\n]*?\blimit(?:_per_host)?\s*=\s*(?P<n1>\d+))"
    r"|(?P<semaphore>(?:Bounded)?Semaphore\(\s*(?:value\s*=\s*)?(?P<n2>\d+)\s*\))"
    r"|(?P<pool>(?:max_connections|pool_maxsize|maxsize|MaxConnsPerHost|MaxIdleConnsPerHost|maxSockets|max_conns(?:_per_host)?|max_workers|maxTotal|setMaxTotal|defaultMaxPerRoute|connectionPoolSize|pool_size|poolsize|max_pool_size|num_connections)[\"']?\s*[=:(]\s*[\"']?(?P<n3>\d+))"
    r"|(?P<breaker>(?:max_requests|max_pending_requests|maxRequestsPerConnection|http2MaxRequests|http1MaxPendingRequests|max_ongoing_requests|max_concurrent_queries|containerConcurrency|max_inflight|maxInFlight|limit_conn\s+\w+)[\"']?\s*[=: ]\s*[\"']?(?P<n4>\d+))"  # noqa: E501
    r"|(?P<load>(?:--max-concurrency|--concurrency|--num-concurrent|--vus|-u|--users|--max-outstanding)[ =](?P<n5>\d+))",  # noqa: E501
    re.IGNORECASE,
)
# Clients whose pool has a size of its own if none is given, and what gives one.
_DEFAULTS = (
    (
        "aiohttp",
        regex(r"aiohttp\.ClientSession\((?![^)\n]*connector)|aiohttp\.(?:request|ClientSession)\b(?!.*connector)"),
    ),
    ("httpx", regex(r"httpx\.(?:Async)?Client\((?![^)\n]*limits)")),
    ("requests", regex(r"requests\.(?:Session|adapters)\b|\bHTTPAdapter\(\s*\)")),
    ("urllib3", regex(r"urllib3\.PoolManager\(\s*\)")),
)
_RUNNING = regex(
    r"(?:num_requests_|requests?[ _])?running(?:[ _-]re(?:q|quest)s?)?[\"']?\s*[:=]\s*(?P<n>\d+)(?:\.0)?\b(?! ?(?:ms|s|%|/))",  # noqa: E501
    re.I,
)
_WAITING = regex(
    r"(?:(?:num_requests_|requests?[ _])?waiting|queue[ _-]?(?:req|length|depth|d))[a-z_-]*[\"']?\s*[:=]\s*(?P<n>\d+)(?:\.0)?\b(?! ?(?:ms|s|%))",  # noqa: E501
    re.I,
)


class ClientBoundReader:
    """Numbers of connections, slots of a semaphore, limits of a proxy; a client without one has its library's own."""

    name = "client_bounds"
    needles: tuple[bytes, ...] = (
        b"ClientSession", b"httpx", b"emaphore", b"requests.", b"urllib3", b"onnector", b"max_conn", b"maxsize", b"axConns",  # noqa: E501
        b"max_workers", b"max_requests", b"maxSockets", b"oncurrency", b"limit_conn", b"max_ongoing", b"pool_size", b"--vus",  # noqa: E501
        b"axRequests", b"PendingRequests", b"maxTotal", b"onnectionPoolSize", b"nflight", b"nFlight", b"connections",
    )  # fmt: skip

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Limits as numbers, pools left at their library's size by name."""
        lines = excerpt(doc, 1 << 17)
        stated = False
        for line in lines:
            for hit in _STATED.finditer(line.text):
                number = next(hit[f"n{i}"] for i in range(1, 6) if hit[f"n{i}"])
                stated = True
                yield fact(doc, line, "client.bound", float(number), "count", label=_kind(hit))
        if stated:
            return
        for line in lines:
            for name, made in _DEFAULTS:
                if made.search(line.text):
                    yield fact(doc, line, "client.pool_default", name, label=name)


def _kind(hit: re.Match[str]) -> str:
    return next(k for k in ("aiohttp", "semaphore", "pool", "breaker", "load") if hit[k])


class RunningNoteReader:
    """``num_requests_running = 50   num_requests_waiting = 0`` as people type it."""

    name = "running_note"
    needles: tuple[bytes, ...] = (b"unning",)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Both counts where one line has both."""
        for line in excerpt(doc, 1 << 14):
            if "throughput" in line.text or "#" in line.text:
                continue  # the engines' own lines have readers
            run, wait = _RUNNING.search(line.text), _WAITING.search(line.text)
            if run and wait:
                for signal, hit in (("serving.running", run), ("serving.waiting", wait)):
                    yield fact(doc, line, signal, float(hit["n"]), "count", label="noted")


READERS: list[Reader] = [ClientBoundReader(), RunningNoteReader()]
