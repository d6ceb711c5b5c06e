"""A model that answers as a test wants, behind real HTTP: well, badly, late, or not at all."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from diagnose.models import Report


def core(report: Report) -> dict[str, Any]:
    """Everything that a model may not touch."""
    data = report.model_dump(mode="json", by_alias=True, exclude={"proposals"})
    data["stats"].pop("llm")
    for answer in data["answer"].values():
        answer.pop("short")
        answer.pop("long")
    return data


def echo(body: dict[str, Any]) -> dict[str, Any]:
    """The best a model can do: the same texts again, and what it was offered."""
    asked = json.loads(body["messages"][1]["content"])["data"]
    if body["response_format"]["json_schema"]["name"] == "word":
        return {"short": asked["short"], "long": asked["long"]}
    lines = [line for lines in asked["captures"].values() for line in lines if len(line) > 20]
    return {"playbook": asked["playbooks"][0], "quotes": lines[:2], "hypothesis": asked["causes"][0],
            "probe": (asked["probes"] or [""])[0]}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mode = "echo"
    seen: list[tuple[dict[str, str], dict[str, Any]]]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((dict(self.headers), body))
        try:
            self.answer(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, body: dict[str, Any]) -> None:
        mode = self.mode
        if mode.isdigit():
            self.plain(int(mode), b'{"error": {"message": "no"}}', "application/json")
        elif mode == "html":
            self.plain(200, b"<html>hello</html>", "text/html")
        elif mode == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif mode == "hang":
            time.sleep(30)
        else:
            self.stream(mode, body)

    def plain(self, status: int, text: bytes, media: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def chunk(self, text: str, **delta: str) -> None:
        choice = {"index": 0, "delta": {"content": text, **delta}, "finish_reason": None}
        data = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def stream(self, mode: str, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        text = json.dumps(echo(body), ensure_ascii=False)
        if mode == "refusal":
            self.chunk("", refusal="I would rather not")
        elif mode == "prose":
            self.chunk("Sure! Here is the JSON you asked for: {short: yes}")
        elif mode == "list":
            self.chunk("[1, 2]")
        elif mode == "types":
            self.chunk('{"short": 7, "long": null, "quotes": "x", "playbook": [], "hypothesis": {}, "probe": 3}')
        elif mode == "deep":
            self.chunk("[" * 12_000)
        elif mode == "huge":
            for _ in range(4000):
                self.chunk("x" * 4096)
        elif mode == "drip":
            for _ in range(600):
                self.chunk(" ")
                time.sleep(0.05)
        elif mode == "dies":
            self.chunk(text[: len(text) // 2])
            self.connection.close()
        elif mode == "garbage":
            self.wfile.write(b"data: {not json\n\n")
        else:
            for at in range(0, len(text), 37):
                self.chunk(text[at : at + 37])
        if not self.wfile.closed and mode != "dies":
            self.wfile.write(b"data: [DONE]\n\n")


@contextmanager
def serving(mode: str) -> Iterator[tuple[str, list[tuple[dict[str, str], dict[str, Any]]]]]:
    """A stub's base URL, and the requests it has seen (headers, body)."""
    seen: list[tuple[dict[str, str], dict[str, Any]]] = []
    handler = type("Mode", (Handler,), {"mode": mode, "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
