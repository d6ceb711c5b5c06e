"""Proxy configuration: nginx, Ingress annotations, Envoy, HAProxy, Traefik, Apache; what it does to a token stream.

A directive is a reading, not a verdict: whether it explains anything depends on the question asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.document import Document, Line
from diagnose.lazy import regex
from diagnose.marks import possible
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import computed, fact

# setting -> pattern whose first group is the value
_SETTINGS = tuple(
    (name, regex(pattern, re.IGNORECASE))
    for name, pattern in (
        ("buffering", r"^\s*(?:proxy|fastcgi|uwsgi)_buffering\s+(on|off)\s*;"),
        ("buffering", r"(?:proxy-buffering|proxyBuffering)[\"']?\s*[:=]\s*[\"']?(on|off|true|false)\b"),
        ("buffering", r"X-Accel-Buffering[\"']?\s*[:,=]?\s*[\"']?(yes|no)\b"),
        ("buffering", r"name[\"']?\s*:\s*[\"']?(envoy\.(?:filters\.http\.)?buffer)\b"),
        ("buffering", r"^\s*(flushinterval|flush_interval)\s*[:=]?\s*\"?-1"),
        ("http version", r"^\s*proxy_http_version\s+([\d.]+)\s*;"),
        ("http version", r"proxy-http-version[\"']?\s*:\s*[\"']?([\d.]+)"),
        ("compression", r"^\s*gzip\s+(on|off)\s*;"),
        ("compression", r"^\s*(compression algo gzip\b.*)"),
        ("compression", r"name[\"']?\s*:\s*[\"']?(envoy\.(?:filters\.http\.)?(?:compressor|gzip))\b"),
        ("compression", r"^\s*(compress:\s*\{\}|SetOutputFilter DEFLATE)"),
        ("compressed types", r"^\s*gzip_types\s+([^;]+);"),
        ("compressed types", r"^\s*compression type\s+(\S.*)"),
        ("timeout", r"^\s*((?:proxy|fastcgi|uwsgi|grpc|client_body|send)_(?:read_|send_)?timeout\s+\d+\w*)\s*;"),
        ("timeout", r"(proxy-(?:read|send)-timeout[\"']?\s*:\s*[\"']?\d+\w*)"),
        ("timeout", r"^\s*(timeout (?:server|client|tunnel|queue)\s+\d+\w*)"),
        ("timeout", r"^\s*(?:-\s*)?((?:request_|idle_|stream_idle_)?timeout\s*:\s*[\"']?\d+(?:\.\d+)?m?s)\b"),
        ("timeout", r"^\s*((?:ProxyTimeout|responseHeaderTimeout|readTimeout|writeTimeout)\W+\d+\w*)"),
        ("connection limit", r"^\s*server\s+\S+\s+\S+.*?\bmaxconn\s+(\d+)"),
        ("connection limit", r"^\s*(limit_conn\s+\S+\s+\d+)\s*;"),
        ("request limit", r"^\s*(limit_req\s+\S.*?)\s*;"),
        ("balance", r"^\s*(?:balance\s+|lb_policy\s*:\s*)(\w+)"),
        ("keepalive", r"^\s*keepalive\s+(\d+)\s*;"),
        ("request closes", r"^\s*option\s+(httpclose|http-server-close|forceclose)\b"),
        ("nagle", r"^\s*tcp_nodelay\s+(off|on)\s*;"),
    )
)
_PASS = regex(r"^\s*(?:proxy_pass|fastcgi_pass|uwsgi_pass)\s+\S+;")
_NGINX = regex(r"^\s*(?:server|location\b[^{]*|upstream\s+\S+|http)\s*\{")
_COMMENT = regex(r"^\s*(?:#|//)")
_SAID = regex(r"buffering\s+(?:on|off)|X-Accel-Buffering", re.IGNORECASE)


class ProxyReader:
    """Settings of a proxy in front of an inference server."""

    name = "proxy_config"
    needles: tuple[bytes, ...] = (
        b"proxy_",
        b"proxy-",
        b"envoy.",
        b"gzip ",
        b"compression algo",
        b"timeout server",
        b"timeout client",
        b"idle_timeout",
        b"X-Accel-Buffering",
        b"limit_conn",
        b"limit_req",
        b"lb_policy",
        b"flush_interval",
        b"ProxyTimeout",
        b"maxconn",
        b"flushInterval",
        b"request_timeout",
        b"tcp_nodelay",
        b"responseHeaderTimeout",
        b"compress:",
    )

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Each setting once a value; nginx that passes on and says nothing about buffering buffers by default."""
        seen: set[tuple[str, str]] = set()
        passes: Line | None = None
        said = nginx = False
        for line in possible(doc.lines(), _PASS, _NGINX, _SAID, *(pattern for _, pattern in _SETTINGS)):
            text = line.text
            if len(text) > 400 or _COMMENT.match(text):
                continue
            nginx = nginx or _NGINX.match(text) is not None
            said = said or _SAID.search(text) is not None
            if passes is None and _PASS.match(text):
                passes = line
            for setting, pattern in _SETTINGS:
                hit = pattern.search(text)
                if hit is None:
                    continue
                value = _plain(setting, hit[1].strip().strip("\"'"))
                if (setting, value) not in seen:
                    seen.add((setting, value))
                    yield fact(doc, line, "proxy.setting", value, label=setting)
        if passes is not None and nginx and not said:
            yield fact(doc, passes, "proxy.setting", "default", label="buffering")


def _plain(setting: str, value: str) -> str:
    """`on` and `off` whatever the proxy calls them."""
    low = value.lower()
    if setting == "buffering":
        return "on" if low in ("on", "true", "yes") or "buffer" in low else "off"
    if setting == "compression":
        return "off" if low == "off" else "on"
    return value


_TIMES = regex(
    r"\b(?:rt|request_time)\W{1,3}(?P<all>\d+\.\d+)\b.*?\b(?:urt|upstream_response_time)\W{1,3}(?P<up>\d+\.\d+)\b"
)
_LEAST = 3


class ProxyTimes:
    """Access lines with the time of the whole request beside that of the server behind the proxy."""

    name = "proxy_times"
    needles: tuple[bytes, ...] = (b"urt", b"upstream_response_time")

    def parse(self, doc: Document) -> Iterator[Fact]:
        """`proxy.share`: what the proxy adds, over the whole."""
        whole = behind = 0.0
        first: Line | None = None
        count = 0
        for line in doc.lines():
            if (hit := _TIMES.search(line.text)) is not None:
                first, count = first or line, count + 1
                whole, behind = whole + float(hit["all"]), behind + float(hit["up"])
        if first is not None and count >= _LEAST and whole > 0:
            share = max(0.0, whole - behind) / whole
            yield computed(doc, first, "proxy.share", share, "fraction", self.name)


READERS: list[Reader] = [ProxyReader(), ProxyTimes()]
