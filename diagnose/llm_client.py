"""One streamed, structured answer of an OpenAI-compatible endpoint. The only place that knows the `openai` package."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from .errors import DiagnoseError

MOST_CHARS = 16_000  # of an answer; a longer one is no answer to what was asked
_FORM = (400, 422, 500)  # what servers answer that do not know a form of structured outputs


class LlmError(DiagnoseError):
    """The endpoint gave nothing that can be used.

    Attributes:
        status: of its HTTP answer, 0 where it gave none.
    """

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Endpoint:
    """Where the model is. The key is read from the variable that was named, never from one that happens to be set.

    Attributes:
        schema: ask for structured outputs. Some servers constrain so slowly that nothing comes in time; without it
            the model is only asked for JSON in words.
    """

    model: str
    base_url: str
    key_env: str = ""
    schema: bool = True

    def key(self) -> str:
        """The key, or a placeholder for endpoints that need none.

        Raises:
            LlmError: a variable was named and is not set.
        """
        if not self.key_env:
            return "none"
        if not (found := os.environ.get(self.key_env, "")):
            raise LlmError(f"the variable {self.key_env} is not set")
        return found


@dataclass
class Budget:
    """What may be spent; every call takes from it."""

    calls: int = 3
    tokens: int = 6000
    seconds: float = 20.0
    started: float = field(default_factory=time.monotonic)
    stopped: threading.Event = field(default_factory=threading.Event)

    def left(self) -> float:
        """Seconds."""
        return 0.0 if self.stopped.is_set() else max(0.0, self.started + self.seconds - time.monotonic())

    def take(self, tokens: int) -> None:
        """Count a call before it is made.

        Raises:
            LlmError: nothing is left.
        """
        if self.calls < 1 or self.tokens < tokens or self.left() <= 0:
            raise LlmError("the budget is spent")
        self.calls -= 1
        self.tokens -= tokens


class Client(Protocol):
    """Answers one request body with text."""

    def complete(self, body: dict[str, Any], budget: Budget) -> str:
        """The text of the answer.

        Raises:
            LlmError: there is none.
        """
        ...


def older(body: dict[str, Any]) -> dict[str, Any]:
    """A request with its schema in the form that llama.cpp's Python server knows."""
    schema = body["response_format"]["json_schema"]["schema"]
    return {**body, "response_format": {"type": "json_object", "schema": schema}}


def bare(body: dict[str, Any]) -> dict[str, Any]:
    """A request that asks for JSON in words alone: the schema stands behind the rules."""
    rest = {name: value for name, value in body.items() if name != "response_format"}
    if "messages" in rest and "response_format" in body:
        schema = json.dumps(body["response_format"]["json_schema"]["schema"])
        first, *others = rest["messages"]
        rest["messages"] = [{**first, "content": f"{first['content']} The schema: {schema}"}, *others]
    return rest


class OpenAiClient:
    """The real one. The form of structured outputs is OpenAI's, llama.cpp's where the server refuses that, or none."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._forms: list[Callable[[dict[str, Any]], dict[str, Any]]] = (
            [dict, older, bare] if endpoint.schema else [bare]
        )

    def complete(self, body: dict[str, Any], budget: Budget) -> str:
        """Stream one answer; no longer than the budget, no larger than `MOST_CHARS`.

        Raises:
            LlmError: there is none.
        """
        budget.take(int(body["max_tokens"]))
        while True:
            try:
                text = self._ask(self._forms[0](body), budget)
            except LlmError as err:
                if len(self._forms) < 2 or err.status not in _FORM or "response_format" not in body:
                    raise
                self._forms.pop(0)  # the server does not know this form, nor will it for the next request
            else:
                del self._forms[1:]
                return text

    def _ask(self, body: dict[str, Any], budget: Budget) -> str:
        import httpx
        import openai

        client = openai.OpenAI(
            api_key=self.endpoint.key(), base_url=self.endpoint.base_url, max_retries=0,
            timeout=max(0.1, budget.left()), organization="", project="",
        )  # fmt: skip
        try:
            with client, client.chat.completions.create(**body, stream=True) as stream:
                return self._read(stream, budget)
        except openai.APIStatusError as err:
            raise LlmError(f"the endpoint answered {err.status_code}", status=err.status_code) from err
        except (openai.OpenAIError, httpx.HTTPError, OSError) as err:
            raise LlmError(f"the endpoint failed: {type(err).__name__}") from err
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as err:
            raise LlmError("the endpoint does not speak this protocol") from err

    def _read(self, stream: Any, budget: Budget) -> str:
        parts: list[str] = []
        size = 0
        for chunk in stream:
            if budget.left() <= 0:
                raise LlmError("the endpoint took too long")
            for choice in (chunk.choices or [])[:1]:
                if getattr(choice.delta, "refusal", None):
                    raise LlmError("the model refused")
                if choice.finish_reason == "content_filter":
                    raise LlmError("the endpoint filtered the answer")
                text = choice.delta.content or ""
                size += len(text)
                parts.append(text)
            if size > MOST_CHARS:
                raise LlmError("the answer is too large")
        if not size:
            raise LlmError("the answer is empty")
        return "".join(parts)


def parsed(text: str) -> dict[str, Any]:
    """An answer as JSON; a fence around it is taken off.

    Raises:
        LlmError: it is no JSON object.
    """
    body = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as err:
        raise LlmError("the answer is no JSON") from err
    if not isinstance(found, dict):
        raise LlmError("the answer is no JSON object")
    return found
