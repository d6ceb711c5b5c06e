"""What stands at an endpoint: engine, version, model and the options that it tells, from what it serves."""

from __future__ import annotations

import json
from typing import Any

from diagnose.endpoint import Answer, Endpoint

from .served import MARK

# paths by engine; each is asked once, and most are not there
PATHS = ("/v1/models", "/version", "/health", "/get_server_info", "/server_info", "/info")
_MOST = 16 << 10  # characters of one answer that are kept
_OWNERS = {
    "vllm": "vllm", "sglang": "sglang", "nvidia": "dynamo", "dynamo": "dynamo", "tensorrt_llm": "tensorrt-llm",
    "tensorrt-llm": "tensorrt-llm", "llamacpp": "llama.cpp", "llama.cpp": "llama.cpp", "lmdeploy": "lmdeploy",
}  # fmt: skip


def identity(end: Endpoint) -> tuple[list[Answer], bytes]:
    """Every path's answer, and all of it as text: first what it comes to, then what was said."""
    answers = end.get(PATHS, 5.0)
    told = {a.path: _json(a) for a in answers if a.status == 200 and not a.html}
    engine, version = _engine(told), _version(told)
    lines = [f"{MARK}{end.place}", f"engine {engine or 'unknown'}"]
    if engine and version:
        lines.append(f"version {engine} {version}")
    lines += [f"model {name}" for name in _models(told.get("/v1/models"))[:4]]
    for answer in answers:
        lines += ["", f"GET {answer.path}: {answer.status or answer.error}"]
        if answer.status == 200 and not answer.html:
            data = told[answer.path]
            text = json.dumps(data, indent=1, ensure_ascii=False) if data is not None else answer.text
            lines.append(text[:_MOST])
        elif answer.html:
            lines.append("HTML, nothing of a server's own")
    return answers, ("\n".join(lines) + "\n").encode()


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


def serves_nothing(end: Endpoint) -> bool:
    """Does it answer with a list of models that is empty?"""
    data = _json(end.get([PATHS[0]])[0])
    return isinstance(data, dict) and data.get("data") == []


def _models(data: Any) -> list[str]:
    rows = data.get("data") if isinstance(data, dict) else None
    return (
        [str(r["id"])[:200] for r in rows or () if isinstance(r, dict) and "id" in r] if isinstance(rows, list) else []
    )


def _engine(told: dict[str, Any]) -> str:
    """Which server it is, by what only that one serves."""
    health, info, models = told.get("/health"), told.get("/info"), told.get("/v1/models")
    if isinstance(health, dict) and any(str(e).startswith("dyn://") for e in _listed(health.get("endpoints"))):
        return "dynamo"
    if isinstance(info, dict) and {"model_id", "max_concurrent_requests"} & info.keys():
        return "tgi"
    if any(isinstance(told.get(p), dict) and _args(told[p]) for p in ("/get_server_info", "/server_info")):
        return "sglang"
    rows = models.get("data") if isinstance(models, dict) else None
    owner = (
        str(rows[0].get("owned_by", "")).lower()
        if isinstance(rows, list) and rows and isinstance(rows[0], dict)
        else ""
    )
    return _OWNERS.get(owner, "")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _args(data: dict[str, Any]) -> bool:
    return bool({"mem_fraction_static", "max_total_num_tokens", "chunked_prefill_size"} & data.keys())


def _version(told: dict[str, Any]) -> str:
    for path in ("/version", "/get_server_info", "/server_info", "/info"):
        data = told.get(path)
        if isinstance(data, dict) and isinstance(data.get("version"), str) and data["version"][:1].isdecimal():
            return str(data["version"])[:40]
    return ""
