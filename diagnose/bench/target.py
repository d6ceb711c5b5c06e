"""What stands at the endpoint: its model, its engine, and which parts of the protocol it takes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ..errors import ProbeError, UsageError
from .records import Sample
from .wire import Client, Response, WireError

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
_ENGINES = {"tensorrt_llm": "tensorrt-llm", "nvidia": "dynamo", "llamacpp": "llama.cpp"}
# How engines are told to go on past the end-of-text token, most common first; the last one is not to tell them.
_PAST_EOS: tuple[dict[str, Any], ...] = ({"ignore_eos": True}, {"nvext": {"ignore_eos": True}}, {})


@dataclass
class Target:
    """A server that answered a first streaming request."""

    model: str
    engine: str
    api: str
    extra: dict[str, Any] = field(default_factory=dict)
    usage: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Where requests go."""
        return PATHS[self.api]

    def body(self, text: str, output: int) -> dict[str, Any]:
        """A streaming request for `output` tokens."""
        body: dict[str, Any] = {"model": self.model, "max_tokens": output, "temperature": 0.0, "stream": True}
        if self.api == "chat":
            body["messages"] = [{"role": "user", "content": text}]
        else:
            body["prompt"] = text
        if self.usage:
            body["stream_options"] = {"include_usage": True}
        return body | self.extra


class Collector:
    """Reads the events of one answer into a sample."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.finished = False

    def __call__(self, stamp: int, data: bytes) -> None:
        """Take one event."""
        if data == b"[DONE]":
            self.finished = True
            return
        out = self.sample
        try:
            event = json.loads(data)
        except ValueError:
            out.kind, out.error = "protocol", f"an event is no JSON: {data[:80]!r}"
            return
        if not isinstance(event, dict):
            return
        if event.get("error"):
            out.kind, out.error = "server", f"error in the stream: {said(event)}"
            return
        if isinstance(usage := event.get("usage"), dict):
            _usage(out, usage)
        choices = event.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return
        out.message = out.message or stamp
        out.last = stamp
        choice = choices[0]
        if choice.get("finish_reason"):
            out.finish = str(choice["finish_reason"])
            self.finished = True
        if _text(choice):
            out.first = out.first or stamp
            out.chunks.append(stamp)

    def close(self, response: Response) -> None:
        """Judge the answer as a whole."""
        out = self.sample
        if out.kind:
            return
        if response.status != 200 or not out.message:
            out.kind, out.error = refusal(response)
        elif not out.first:
            if out.usage_tokens:  # tokens without text, such as special ones: the first message is all there is
                out.first = out.message
            else:
                out.kind, out.error = "empty", "an answer without a token"
        elif not self.finished:
            out.kind, out.error = "closed", "the stream ended without a finish reason"


def _usage(out: Sample, usage: dict[str, Any]) -> None:
    for name, key in (("prompt_tokens", "prompt_tokens"), ("usage_tokens", "completion_tokens")):
        if isinstance(usage.get(key), int):
            setattr(out, name, usage[key])
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
        out.cached_tokens = details["cached_tokens"]


def _text(choice: dict[str, Any]) -> bool:
    """Does it carry output: text, reasoning, or a piece of a tool call? A role alone does not."""
    if choice.get("text"):
        return True
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(
        delta.get(k) for k in ("content", "reasoning_content", "reasoning", "tool_calls", "function_call")
    )


def said(data: Any) -> str:
    """The message inside an error body of any engine, on one line."""
    for key in ("error", "message", "detail", "object"):
        if not isinstance(data, dict):
            break
        if isinstance(data.get(key), str) and data[key]:
            return " ".join(data[key].split())[:200]
        if isinstance(data.get(key), dict):
            data = data[key]
            return said(data)
    return " ".join(str(data).split())[:200]


def refusal(response: Response) -> tuple[str, str]:
    """Kind and one line for an answer that is no stream of tokens."""
    kind, text = f"http {response.status}", f"HTTP {response.status}"
    if response.status in (401, 403):
        return kind, f"{text}: the server asks for a key"
    if response.status in (301, 302, 307, 308):
        return kind, f"{text}: it points to {response.headers.get('location', 'nowhere')[:120]}, which is not followed"
    media = response.headers.get("content-type", "").split(";")[0].lower()
    if media == "text/html" or response.body[:256].lstrip()[:1] == b"<":
        return ("html" if response.status == 200 else kind), f"{text}: HTML, not an OpenAI-compatible API"
    data = response.json()
    if response.status == 200:
        return "protocol", f"no stream of events but {media or 'something'}: {said(data) if data else 'not JSON'}"
    return kind, f"{text}: {said(data)}" if data else text


def _hint(response: Response) -> str:
    return "--api-key-env NAME takes a key from the environment" if response.status in (401, 403) else "wrong port?"


async def explore(client: Client, model: str, api: str, timeout: float) -> Target:
    """Find model and engine, and the form of request that the server takes.

    Raises:
        ProbeError: no server that can be measured, in one line.
        UsageError: a model that it does not serve.
    """
    models, engine = await _models(client)
    notes = []
    if not model:
        if not models:
            raise UsageError(f"{client.origin.url} lists no model", "has a worker registered? else --model NAME")
        model = models[0]
        if len(models) > 1:
            notes.append(f"{len(models)} models served, the first is used: {model}")
    elif models and model not in models:
        raise UsageError(f"no model {model!r} at {client.origin.url}", f"it serves: {', '.join(models[:8])}")
    found = Target(model, engine, api, notes=notes)
    response = Response()
    for path in [api] if api != "auto" else ["completions", "chat"]:
        found.api = path
        response, error = await _accepted(client, found, timeout)
        if not error:
            return found
        if response.status not in (404, 405, 501):
            raise ProbeError(f"{client.origin.url}{found.path}: {error}", _hint(response))
    raise ProbeError(f"{client.origin.url}{found.path}: {refusal(response)[1]}", _hint(response))


async def _models(client: Client) -> tuple[list[str], str]:
    response = await client.get("/v1/models")
    data = response.json()
    if response.status in (404, 405, 501) and "html" not in refusal(response)[1].lower():
        return [], "unknown"
    listed = data.get("data") if isinstance(data, dict) else None
    if response.status != 200 or not isinstance(listed, list):
        why = refusal(response)[1]
        if response.status == 200 and data is not None:
            why = "JSON, but no list of models"
        raise ProbeError(f"{client.origin.url}/v1/models: {why}", _hint(response))
    rows = [m for m in listed if isinstance(m, dict) and isinstance(m.get("id"), str)]
    owner = str(rows[0].get("owned_by", "")).lower() if rows else ""
    return [m["id"] for m in rows], _ENGINES.get(owner, owner or "unknown")


async def _accepted(client: Client, target: Target, timeout: float) -> tuple[Response, str]:
    """Send a short request, leaving out what the server refuses; says why none was taken, or nothing."""
    first: tuple[Response, str] | None = None
    for usage in (True, False):
        for extra in _PAST_EOS:
            target.usage, target.extra = usage, extra
            sample = Sample(-1)
            collect = Collector(sample)
            try:
                response = await client.post(target.path, target.body("Count: one two three", 4), timeout, collect)
            except WireError as err:
                raise ProbeError(f"{client.origin.url}{target.path}: {err.message}", err.hint) from err
            collect.close(response)
            if sample.ok:
                if not extra:
                    target.notes.append("the server refuses ignore_eos: answers may be shorter than asked")
                if sample.usage_tokens is None:
                    target.notes.append("the server sends no usage: output tokens are counted by chunks")
                return response, ""
            first = first or (response, sample.error)
            if response.status not in (400, 422):
                return response, sample.error
    assert first is not None
    return first
