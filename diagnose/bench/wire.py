"""A small HTTP/1.1 client on asyncio protocols: the time is taken the moment bytes reach the process.

It keeps connections open, speaks TLS, follows no redirect, uses no proxy. Every failure is a `WireError` with one line.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..errors import ProbeError, UsageError
from .sse import EventStream

BODY_CAP = 16 << 20
HEAD_CAP = 1 << 16
OnEvent = Callable[[int, bytes], None]


class WireError(ProbeError):
    """A request that got no answer that can be used; `kind` is a word to count by."""

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.kind = kind


@dataclass(frozen=True)
class Origin:
    """Where a server is: scheme, host, port, and the path in front of `/v1`."""

    scheme: str
    host: str
    port: int
    base: str = ""

    @property
    def url(self) -> str:
        """The address as text."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.base}"

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Read an address; a path that ends in `/v1…` is cut there.

        Raises:
            UsageError: no such address can be.
        """
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            port = parts.port
        except ValueError as err:
            raise UsageError(f"--endpoint {text!r}: {err}", "like http://127.0.0.1:8000") from err
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--endpoint {text!r} is no http address", "like http://127.0.0.1:8000")
        if parts.username or parts.password:
            raise UsageError("no name or password inside --endpoint", "--api-key-env NAME reads a key")
        base = parts.path.split("/v1")[0].rstrip("/")
        return cls(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), base)


@dataclass(slots=True)
class Response:
    """What came back, and when (readings of `perf_counter_ns`)."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    began: int = 0
    connected: int = 0
    sent: int = 0
    ended: int = 0
    reused: bool = False

    def json(self) -> Any:
        """The body as JSON, or None."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Exchange:
    """One answer as it is read. Events go to `on_event` when the answer is a stream of them."""

    def __init__(self, response: Response, on_event: OnEvent | None) -> None:
        self.response, self.on_event = response, on_event
        self.done = False
        self.begun = False
        self.keep = True
        self._raw = bytearray()
        self._head = True
        self._left: int | None = None  # bytes to come of the body or the chunk; None: until the end
        self._chunked = False
        self._events: EventStream | None = None

    def feed(self, stamp: int, data: bytes) -> None:
        """Take bytes.

        Raises:
            WireError: this is no HTTP.
        """
        self.begun = True
        if self._head:
            self._raw += data
            while self._head and (end := self._raw.find(b"\r\n\r\n")) >= 0:
                head = bytes(self._raw[:end])
                data = bytes(self._raw[end + 4 :])
                self._raw = bytearray(data)
                self._read_head(head)
            if self._head:
                if not b"HTTP/".startswith(self._raw[:5]) and not self._raw.startswith(b"HTTP/"):
                    raise WireError("protocol", "answers, but not in HTTP", _tls_hint(bytes(self._raw[:3])))
                if len(self._raw) > HEAD_CAP:
                    raise WireError("protocol", "sends headers without end")
                return
            self._raw = bytearray()
        if self.done:
            return
        if self._chunked:
            self._chunks(stamp, data)
        elif self._left is None:
            self._payload(stamp, data)
        else:
            self._payload(stamp, data[: self._left])
            self._left -= len(data)
            self.done = self._left <= 0

    def eof(self) -> None:
        """The peer closed.

        Raises:
            WireError: in the middle of an answer.
        """
        self.keep = False
        if self._head or self._chunked or self._left is not None:
            raise WireError("closed", "the server closed the connection before its answer was complete")
        self.done = True

    def _read_head(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        first = lines[0].split(" ", 2)
        if len(first) < 2 or not first[0].startswith("HTTP/") or not first[1].isdigit():
            raise WireError("protocol", "answers, but not in HTTP", _tls_hint(head[:3]))
        status = int(first[1])
        if 100 <= status < 200:
            return
        out = self.response
        out.status = status
        out.headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        self._head = False
        self.keep = "close" not in out.headers.get("connection", "").lower() and first[0] != "HTTP/1.0"
        self._chunked = "chunked" in out.headers.get("transfer-encoding", "").lower()
        if self._chunked:
            self._left = 0
        elif (length := out.headers.get("content-length", "")).isdigit():
            self._left = int(length)
            self.done = self._left == 0
        elif status in (204, 304):
            self.done = True
        else:
            self.keep = False
        if status == 200 and "text/event-stream" in out.headers.get("content-type", ""):
            self._events = EventStream()

    def _chunks(self, stamp: int, data: bytes) -> None:
        raw = self._raw
        raw += data
        at = 0
        while at < len(raw):
            if self._left:
                part = bytes(raw[at : at + self._left])
                at += len(part)
                self._left -= len(part)
                self._payload(stamp, part)
                continue
            end = raw.find(b"\r\n", at)
            if end < 0:
                break
            line = bytes(raw[at:end]).split(b";")[0].strip()
            if not line:  # the end of the chunk before, or of the trailer
                at = end + 2
                continue
            try:
                size = int(line, 16)
            except ValueError as err:
                raise WireError("protocol", "sends a chunk without a length") from err
            if size == 0:
                if raw.find(b"\r\n\r\n", at) < 0:
                    break  # the trailer is not here yet
                self.done = True
                at = len(raw)
                break
            self._left = size
            at = end + 2
        del raw[:at]

    def _payload(self, stamp: int, data: bytes) -> None:
        if self._events is not None and self.on_event is not None:
            for at, event in self._events.feed(stamp, data):
                self.on_event(at, event)
        elif len(self.response.body) < BODY_CAP:
            self.response.body += data


def _tls_hint(first: bytes) -> str:
    return "it speaks TLS: use https://" if first[:2] == b"\x15\x03" else "wrong port?"


class Connection(asyncio.Protocol):
    """One open connection; it carries one exchange at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Small writes leave at once."""
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.open = transport, True
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """The clock is read before anything else is done."""
        stamp = time.perf_counter_ns()
        exchange = self.exchange
        if exchange is None:  # nothing was asked: not a server to go on with
            self.abort()
            return
        try:
            exchange.feed(stamp, data)
        except WireError as err:
            self._settle(err)
            return
        if exchange.done:
            exchange.response.ended = stamp
            self._settle(None)

    def eof_received(self) -> bool | None:
        """Handled when the connection is lost."""
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer without a length ends here; any other is cut."""
        self.open = False
        exchange = self.exchange
        if exchange is None or exchange.done:
            return
        exchange.response.ended = time.perf_counter_ns()
        try:
            exchange.eof()
        except WireError as err:
            self._settle(err)
        else:
            self._settle(None)

    def abort(self) -> None:
        """Drop the connection."""
        self.open = False
        if self.transport is not None:
            self.transport.abort()

    def _settle(self, err: WireError | None) -> None:
        if self.waiter is not None and not self.waiter.done():
            if err is None:
                self.waiter.set_result(None)
            else:
                self.waiter.set_exception(err)


class Client:
    """Requests to one origin over connections that are kept open."""

    def __init__(
        self, origin: Origin, key: str | None = None, connect_timeout: float = 5.0, ca: str | None = None
    ) -> None:
        self.origin, self.connect_timeout = origin, connect_timeout
        self._key = key
        self._tls = ssl.create_default_context(cafile=ca) if origin.scheme == "https" else None
        self._idle: list[Connection] = []
        self.opened = self.in_use = self.peak = 0

    def frame(self, method: str, path: str, body: Any = None) -> bytes:
        """The bytes of a request, ready to be sent later."""
        data = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        lines = [
            f"{method} {self.origin.base}{path} HTTP/1.1", f"Host: {host}:{self.origin.port}",
            "User-Agent: diagnose-bench", "Accept: */*", "Accept-Encoding: identity",
        ]  # fmt: skip
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        if self._key:
            lines.append(f"Authorization: Bearer {self._key}")
        return "\r\n".join([*lines, "", ""]).encode() + data

    async def send(self, frame: bytes, *, timeout: float, on_event: OnEvent | None = None) -> Response:
        """Send a request and read its answer to the end.

        Raises:
            WireError: no connection, no HTTP, a cut answer, or no end within `timeout` seconds.
        """
        response = Response(began=time.perf_counter_ns())
        self.in_use += 1
        self.peak = max(self.peak, self.in_use)
        try:
            async with asyncio.timeout(timeout):
                for last in (False, True):
                    try:
                        await self._once(frame, response, on_event, fresh=last)
                        break
                    except WireError as err:
                        # a kept connection that the server had closed meanwhile: one more try, on a new one
                        if last or err.kind != "stale":
                            raise
        except TimeoutError as err:
            raise WireError("timeout", f"no complete answer within {timeout:g} s") from err
        finally:
            self.in_use -= 1
        return response

    async def get(self, path: str, timeout: float = 10.0) -> Response:
        """GET a path."""
        return await self.send(self.frame("GET", path), timeout=timeout)

    async def post(self, path: str, body: Any, timeout: float, on_event: OnEvent | None = None) -> Response:
        """POST JSON to a path."""
        return await self.send(self.frame("POST", path, body), timeout=timeout, on_event=on_event)

    def close(self) -> None:
        """Drop what is idle."""
        while self._idle:
            self._idle.pop().abort()

    async def _once(self, frame: bytes, response: Response, on_event: OnEvent | None, fresh: bool) -> None:
        conn = None
        while self._idle and not fresh and conn is None:
            conn = self._idle.pop()
            conn = conn if conn.open else None
        response.reused = conn is not None
        if conn is None:
            conn = await self._connect()
        exchange = Exchange(response, on_event)
        conn.exchange = exchange
        conn.waiter = asyncio.get_running_loop().create_future()
        response.connected = time.perf_counter_ns()
        assert conn.transport is not None
        try:
            conn.transport.write(frame)
            response.sent = time.perf_counter_ns()
            await conn.waiter
        except WireError as err:
            conn.abort()
            if response.reused and not exchange.begun and err.kind == "closed":
                raise WireError("stale", err.message) from err
            raise
        except BaseException:
            conn.abort()
            raise
        finally:
            conn.exchange = None
        if exchange.keep and conn.open:
            self._idle.append(conn)
        else:
            conn.abort()

    async def _connect(self) -> Connection:
        url = self.origin.url
        try:
            async with asyncio.timeout(self.connect_timeout):
                _, conn = await asyncio.get_running_loop().create_connection(
                    Connection, self.origin.host, self.origin.port, ssl=self._tls
                )
        except TimeoutError as err:
            hint = "it may not speak TLS: use http://" if self._tls else ""
            raise WireError("connect", f"{url} takes no connection within {self.connect_timeout:g} s", hint) from err
        except ssl.SSLCertVerificationError as err:
            raise WireError("tls", f"{url}: its certificate is refused: {err.verify_message}", "--ca FILE") from err
        except ssl.SSLError as err:
            hint = "it may not speak TLS: use http://" if "WRONG_VERSION" in str(err) else ""
            raise WireError("tls", f"{url}: no TLS connection: {err.reason or err}", hint) from err
        except socket.gaierror as err:
            raise WireError("resolve", f"{url}: no such host: {err.strerror}") from err
        except ConnectionRefusedError as err:
            raise WireError("refused", f"nothing listens at {url}", "is the server up, and is this its port?") from err
        except OSError as err:  # several addresses that all refuse come as one error without a number
            if "refused" in str(err).lower() or "Errno 111" in str(err):
                raise WireError("refused", f"nothing listens at {url}") from err
            raise WireError("connect", f"{url}: {err.strerror or err}") from err
        self.opened += 1
        return conn
