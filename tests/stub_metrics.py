"""A stub of a server's `/metrics`, `/v1/models` and so on, from `http.server`: tests give pages and misbehaviour."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Page = Callable[[int, float], str]  # number of the look at the metrics, seconds since the start -> text


def vllm(count: float, *, waiting: int = 0, running: int = 1, queue: float = 0.0, start: float = 1.7e9) -> str:
    """A small page as vLLM's, after so many requests of 50 ms TTFT, 10 ms a token."""
    rows = [
        f"process_start_time_seconds {start}",
        f'vllm:num_requests_running{{engine="0",model_name="stub"}} {running}',
        f'vllm:num_requests_waiting{{engine="0",model_name="stub"}} {waiting}',
        'vllm:kv_cache_usage_perc{engine="0",model_name="stub"} 0.03',
        f'vllm:request_success_total{{engine="0",finished_reason="length",model_name="stub"}} {count}',
        f'vllm:num_preemptions_total{{engine="0",model_name="stub"}} {count / 10}',
    ]
    for name, each, times in (
        ("time_to_first_token_seconds", 0.05 + queue, 1), ("request_queue_time_seconds", queue, 1),
        ("request_prefill_time_seconds", 0.05, 1), ("inter_token_latency_seconds", 0.01, 10),
        ("e2e_request_latency_seconds", 0.15 + queue, 1),
    ):  # fmt: skip
        rows.append(f'vllm:{name}_sum{{engine="0",model_name="stub"}} {each * count * times}')
        rows.append(f'vllm:{name}_count{{engine="0",model_name="stub"}} {count * times}')
    return "\n".join(rows) + "\n"


@contextmanager
def stub(
    page: Page, *, status: int = 200, media: str = "text/plain; version=0.0.4", key: str = "", dies_after: int = 0,
    paths: dict[str, object] | None = None, redirect: str = "",
) -> Iterator[str]:  # fmt: skip
    """The address of a server that serves `page` at /metrics and JSON at `paths`."""
    looks = [0]
    begun = time.monotonic()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if key and self.headers.get("Authorization") != f"Bearer {key}":
                return self._send(401, b'{"error": "no key"}', "application/json")
            if redirect:
                self.send_response(302)
                self.send_header("Location", redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            if path in (paths or {}):
                return self._send(200, json.dumps((paths or {})[path]).encode(), "application/json")
            if path != "/metrics":
                return self._send(404, b'{"detail": "Not Found"}', "application/json")
            looks[0] += 1
            if dies_after and looks[0] > dies_after:
                server.socket.close()  # nobody listens any more
                self.close_connection = True
                return None
            return self._send(status, page(looks[0], time.monotonic() - begun).encode(), media)

        def _send(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    place = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=_serve, args=(server,), daemon=True)
    thread.start()
    try:
        yield place
    finally:
        if server.socket.fileno() >= 0:
            server.shutdown()
        server.server_close()
        thread.join(5)


def _serve(server: ThreadingHTTPServer) -> None:
    try:
        server.serve_forever(0.05)
    except (OSError, ValueError):  # its socket was closed: the death that a test asked for
        return
