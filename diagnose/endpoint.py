"""A server that a live run looks at: plain requests with limits on time and size, for synchronous code.

No proxy of the environment is used, no redirect followed; a key comes from a variable that the user named, and is kept
nowhere. What goes wrong is one line.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .bench.target import refusal
from .bench.wire import BODY_CAP, Client, Origin, Response, WireError
from .errors import ProbeError, UsageError

TIMEOUT = 10.0  # seconds for one answer
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?")
_SECONDS = {"ms": 1e-3, "s": 1.0, None: 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


NEEDED = "it needs the server's address: --endpoint http://HOST:PORT"


def needed(params: Mapping[str, str]) -> str | None:
    """Why a probe of a server cannot run; None where the server is named."""
    return None if params.get("endpoint") else NEEDED


def told(params: Mapping[str, str]) -> str:
    """The server's address for a command line that is only shown."""
    return params.get("endpoint") or "http://HOST:PORT"


def seconds(text: str, usual: float) -> float:
    """A length of time as one types it: ``10s``, ``30m``, ``90``; `usual` where nothing was said.

    Raises:
        UsageError: it is none, or not above zero.
    """
    if not text:
        return usual
    hit = _DURATION.fullmatch(text.strip().lower())
    if hit is None or float(hit[1]) <= 0:
        raise UsageError(f"--window {text!r} is no length of time", "like 10s or 30m")
    return float(hit[1]) * _SECONDS[hit[2]]


@dataclass(frozen=True)
class Answer:
    """What a path gave; `error` is one line where it gave nothing that can be used."""

    path: str
    status: int = 0
    body: bytes = b""
    media: str = ""
    error: str = ""
    hint: str = ""
    cut: str | None = None

    @property
    def text(self) -> str:
        """The body, decoded."""
        return self.body.decode("utf-8", "replace")

    @property
    def html(self) -> bool:
        """Is it a web page?"""
        return "html" in self.media or self.body[:64].lstrip().startswith((b"<!", b"<html", b"<HTML"))


@dataclass(frozen=True)
class Endpoint:
    """Where a server is, and with which key it is asked."""

    origin: Origin
    key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, params: Mapping[str, str], name: str = "endpoint") -> Endpoint:
        """The endpoint among a run's parameters.

        Raises:
            UsageError: the address is none, or the key's variable is not set.
        """
        origin = Origin.parse(params[name])
        variable = params.get("api-key-env", "")
        if variable and not os.environ.get(variable):
            raise UsageError(f"the environment has no {variable}", "--api-key-env takes the name of a variable")
        return cls(origin, os.environ[variable] if variable else None)

    @property
    def place(self) -> str:
        """Host and port as text."""
        return self.origin.url.partition("://")[2]

    @property
    def local(self) -> bool:
        """Does the address say that the server runs on this machine?"""
        host = self.origin.host
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def at(self, port: int) -> Endpoint:
        """The same host at another port, without a path in front and without the key."""
        return Endpoint(Origin("http", self.origin.host, port))

    def get(self, paths: Sequence[str], timeout: float = TIMEOUT) -> list[Answer]:
        """GET each path, one after the other on one connection; never raises for what the server does."""
        return asyncio.run(self._get(paths, timeout))

    async def _get(self, paths: Sequence[str], timeout: float) -> list[Answer]:
        try:
            client = Client(self.origin, self.key, connect_timeout=min(5.0, timeout))
        except OSError as err:
            return [Answer(p, error=f"no TLS here: {err}") for p in paths]
        out: list[Answer] = []
        try:
            for path in paths:
                try:
                    out.append(_answer(path, await client.get(path, timeout)))
                except WireError as err:
                    out.append(Answer(path, error=f"{self.origin.url}: {_short(err, self.origin.url)}", hint=err.hint))
                    if err.kind in ("refused", "resolve", "connect", "tls"):  # the others would say the same
                        out += [Answer(p, error=out[-1].error, hint=err.hint) for p in paths[len(out) :]]
                        break
        finally:
            client.close()
            await asyncio.sleep(0)
        return out


def _short(err: WireError, url: str) -> str:
    """The message without the address that stands before it already."""
    return err.message.removeprefix(f"{url}: ").replace(f" at {url}", " there")


def _answer(path: str, response: Response) -> Answer:
    media = response.headers.get("content-type", "").split(";")[0].lower()
    body = bytes(response.body)
    cut = f"cut at {BODY_CAP >> 20} MiB" if len(body) >= BODY_CAP else None
    if response.status == 200:
        return Answer(path, 200, body, media, cut=cut)
    hint = "--api-key-env NAME takes a key from the environment" if response.status in (401, 403) else ""
    return Answer(path, response.status, body, media, refusal(response)[1], hint, cut)


def usable(answer: Answer, place: str) -> bytes:
    """The body of a page of metrics.

    Raises:
        ProbeError: there is none, in one line.
    """
    if answer.error:
        lead = "" if answer.error.startswith("http") else f"{place}{answer.path}: "
        raise ProbeError(f"{lead}{answer.error}" + (f" ({answer.hint})" if answer.hint else ""))
    if answer.html:
        raise ProbeError(f"{place}{answer.path}: HTML, no metrics (a proxy's page, or the port of something else?)")
    if not answer.body.strip():
        raise ProbeError(f"{place}{answer.path}: an empty answer")
    return answer.body
