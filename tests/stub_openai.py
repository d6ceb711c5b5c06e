"""A stub of an OpenAI-compatible server with known delays: ``python tests/stub_openai.py --ttft 0.05 --gap 0.01``.

It is no model: every answer is the same number of chunks at fixed times after the request came in. The port is printed.
Modes make it misbehave in one way each.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from diagnose.bench.ticks import new_loop, sleep_until

MAX_CHUNKS = 16
delays: list[list[float]] = []  # of each answer: when its chunks really left, from the request's arrival


def event(data: object) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    body = f"data: {text}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(body), body)


def plain(status: str, body: bytes, media: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def as_json(data: object, status: str = "200 OK") -> bytes:
    return plain(status, json.dumps(data).encode(), "application/json")


def counted(text: str) -> int:
    """Tokens in a vocabulary of pieces: a word of three letters is one token, longer ones are several."""
    return 1 + sum(-(-len(word) // 3) for word in text.split())


class Stub:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.seen = args, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                came = time.perf_counter_ns()
                lines = head.decode().split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (x.partition(":") for x in lines[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self.answer(lines[0].split()[1], json.loads(body or b"{}"), headers, writer, came)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(
        self, path: str, body: dict[str, Any], headers: dict[str, str], writer: asyncio.StreamWriter, came: int
    ) -> None:
        mode = self.args.mode
        if mode == "html":
            writer.write(plain("200 OK", b"<html>hello</html>", "text/html"))
        elif mode == "key" and headers.get("authorization") != "Bearer sesame":
            writer.write(as_json({"error": {"message": "no key"}}, "401 Unauthorized"))
        elif path == "/v1/models":
            writer.write(as_json({"object": "list", "data": [{"id": "stub", "owned_by": "stub"}]}))
        elif path == "/stub/delays":
            writer.write(as_json(delays))
        elif path == "/tokenize" and mode == "tokenize":
            writer.write(as_json({"count": counted(body["prompt"]), "tokens": []}))
        elif path == "/metrics" and mode == "tokenize":
            name = "vllm:time_to_first_token_seconds"
            text = f"# TYPE {name} histogram\n{name}_sum {self.seen * self.args.ttft}\n{name}_count {self.seen}\n"
            writer.write(plain("200 OK", text.encode(), "text/plain"))
        elif mode == "strict" and set(body) - {"model", "prompt", "max_tokens", "temperature", "stream"}:
            writer.write(as_json({"error": {"message": "unknown field"}}, "400 Bad Request"))
        elif path in ("/v1/completions", "/v1/chat/completions") and not (mode == "chat" and path == "/v1/completions"):
            await self.stream(path, body, writer, came)
        else:
            writer.write(as_json({"detail": "Not Found"}, "404 Not Found"))

    async def stream(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter, came: int) -> None:
        self.seen += 1
        args = self.args
        if args.mode == "dies" and self.seen > args.after:
            os._exit(1)
        if args.mode == "fails" and self.seen % 3 == 0:
            writer.write(as_json({"error": {"message": "out of luck"}}, "500 Internal Server Error"))
            return
        chat = path.startswith("/v1/chat")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        if chat:
            writer.write(event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))
        left = []
        tokens = min(int(body["max_tokens"]), MAX_CHUNKS * args.per_chunk)
        chunks = max(1, tokens // args.per_chunk)
        for number in range(chunks):
            await sleep_until(came + int((args.ttft + args.gap * number) * 1e9))
            last = {"finish_reason": "length"} if number == chunks - 1 else {"finish_reason": None}
            piece = {"delta": {"content": "word "}} if chat else {"text": "word "}
            writer.write(event({"choices": [piece | last]}))
            left.append((time.perf_counter_ns() - came) / 1e9)
        if body.get("stream_options"):
            text = str(body.get("prompt") or body["messages"][0]["content"])
            seen = counted(text) if args.mode == "tokenize" else 2 * len(text.split()) + 3
            usage = {"prompt_tokens": seen, "completion_tokens": tokens}
            writer.write(event({"choices": [], "usage": usage}))
        writer.write(event("[DONE]") + b"0\r\n\r\n")
        delays.append(left)


async def main(args: argparse.Namespace) -> None:
    server = await asyncio.start_server(Stub(args).serve, "127.0.0.1", args.port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttft", type=float, default=0.02, help="seconds to the first chunk")
    parser.add_argument("--gap", type=float, default=0.005, help="seconds between chunks")
    parser.add_argument("--per-chunk", type=int, default=1, help="tokens a chunk")
    parser.add_argument("--mode", default="", help="html, key, tokenize, strict, chat, dies, fails")
    parser.add_argument("--after", type=int, default=20, help="answers before it dies")
    loop = new_loop()
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_until_complete(main(parser.parse_args()))
