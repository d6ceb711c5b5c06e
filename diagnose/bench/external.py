"""`vllm bench serve` and aiperf as generators: argv lists, own process group, their result in vLLM's layout."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ProbeError, ProbeTimeout, UsageError
from ..runner import Ran, run
from .records import Load, Result

KEY = "OPENAI_API_KEY"  # the one place where both tools look; a key never goes into an argv
PREPARATION = 300.0  # seconds for start and tokenizer, beside the load itself


def missing(tool: str, tokenizer: str, key_env: str) -> str:
    """Why a tool cannot be used here, or nothing."""
    if shutil.which(tool) is None:
        return f"{tool} is not installed here"
    if not tokenizer or not Path(tokenizer).is_dir():
        return f"{tool} needs the model's tokenizer: --tokenizer FOLDER"
    if key_env and (tool == "aiperf" or key_env != KEY):
        return f"{tool} takes a key only in its argv" if tool == "aiperf" else f"{tool} reads its key from {KEY}"
    return ""


def _rate(load: Load) -> str:
    return "inf" if math.isinf(load.rate) else f"{load.rate:g}"


class _Tool(ABC):
    """What both have in common."""

    name = ""

    def __init__(
        self, endpoint: str, model: str, api: str, tokenizer: str, slo: dict[str, float] | None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.endpoint, self.model, self.api = endpoint, model, "chat" if api == "chat" else "completions"
        self.tokenizer, self.slo, self._say = tokenizer, slo or {}, say

    @abstractmethod
    def argv(self, load: Load, folder: str) -> list[str]:
        """The command line of one run."""

    @abstractmethod
    def read(self, folder: Path, load: Load) -> dict[str, Any]:
        """Its result in vLLM's layout."""

    def measure(self, load: Load) -> Result:
        """One run.

        Raises:
            ProbeError: it gave no result.
        """
        if load.ramp:
            raise UsageError(f"--ramp is not available with {self.name}", "--via embedded")
        self._say(f"{load.name}: {self.name}")
        sending = 0.0 if math.isinf(load.rate) else load.num / load.rate
        with tempfile.TemporaryDirectory() as folder:
            ran = run(self.argv(load, folder), timeout=PREPARATION + sending + load.timeout)
            if ran.status != 0:
                raise _failed(self.name, ran)
            data = self.read(Path(folder), load)
        data.setdefault("label", None)
        data["load"] = {"input": load.input, "output": load.output, "prefix": load.prefix, "seed": load.seed}
        return Result(data, {f"{self.name}.txt": ran.output.decode("utf-8", "replace")})

    def close(self) -> None:  # noqa: B027 (what measures has it; here nothing is kept)
        """Nothing is kept."""


def _failed(tool: str, ran: Ran) -> ProbeError:
    lines = [line.strip() for line in ran.output.decode("utf-8", "replace").splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if "Error" in line or "error" in line), lines[-1] if lines else "")
    if ran.status is None:
        return ProbeTimeout(f"{tool} was {ran.cut}", "--via embedded")
    return ProbeError(f"{tool} ended with status {ran.status}: {last[:200]}", "--via embedded")


def _json(path: Path, tool: str) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as err:
        raise ProbeError(f"{tool} wrote no result that can be read", "--via embedded") from err
    if not isinstance(data, dict):
        raise ProbeError(f"{tool} wrote a result of another layout", "--via embedded")
    return data


class VllmBench(_Tool):
    """`vllm bench serve`."""

    name = "vllm"

    def argv(self, load: Load, folder: str) -> list[str]:
        """Random prompts of fixed lengths, every request saved."""
        path = "/v1/chat/completions" if self.api == "chat" else "/v1/completions"
        out = [
            "vllm", "bench", "serve", "--backend", "openai-chat" if self.api == "chat" else "openai",
            "--base-url", self.endpoint, "--endpoint", path, "--model", self.model, "--tokenizer", self.tokenizer,
            "--dataset-name", "random", "--random-input-len", str(load.input - load.prefix),
            "--random-output-len", str(load.output), "--random-prefix-len", str(load.prefix),
            "--num-prompts", str(load.num), "--request-rate", _rate(load), "--burstiness",
            "1000000" if math.isinf(load.burstiness) else f"{load.burstiness:g}", "--seed", str(load.seed),
            "--ignore-eos", "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,95,99",
            "--num-warmups", str(load.warmup), "--disable-tqdm", "--save-result", "--save-detailed",
            "--result-dir", folder, "--result-filename", "result.json",
        ]  # fmt: skip
        if load.concurrency is not None:
            out += ["--max-concurrency", str(load.concurrency)]
        if self.slo:
            out += ["--goodput", *(f"{name}:{limit:g}" for name, limit in self.slo.items())]
        return out

    def read(self, folder: Path, load: Load) -> dict[str, Any]:
        """As written, less the texts that the model made.

        Raises:
            ProbeError: it left no result that can be read.
        """
        data = _json(folder / "result.json", self.name)
        data.pop("generated_texts", None)
        return data | {"label": load.name}


# aiperf's metric -> name in vLLM's layout; its inter-token latency is an average a request, which vLLM calls TPOT
_AIPERF = {"time_to_first_token": "ttft", "inter_token_latency": "tpot", "inter_chunk_latency": "itl",
           "request_latency": "e2el"}  # fmt: skip


class AiPerf(_Tool):
    """`aiperf profile`."""

    name = "aiperf"

    def argv(self, load: Load, folder: str) -> list[str]:
        """Synthetic prompts of fixed lengths.

        Raises:
            UsageError: a shared prefix is asked for.
        """
        if load.prefix:
            raise UsageError("--prefix is not available with aiperf", "--via embedded")
        out = [
            "aiperf", "profile", "--model", self.model, "--url", self.endpoint, "--endpoint-type", self.api,
            "--streaming", "--tokenizer", self.tokenizer, "--synthetic-input-tokens-mean", str(load.input),
            "--synthetic-input-tokens-stddev", "0", "--output-tokens-mean", str(load.output),
            "--output-tokens-stddev", "0", "--extra-inputs", "ignore_eos:true", "--request-count", str(load.num),
            "--warmup-request-count", str(max(1, load.warmup)), "--random-seed", str(load.seed),
            "--artifact-dir", folder, "--ui", "none",
        ]  # fmt: skip
        if math.isfinite(load.rate):
            out += ["--request-rate", _rate(load)]
            out += ["--request-rate-mode", "constant" if math.isinf(load.burstiness) else "poisson"]
        if load.concurrency is not None or math.isinf(load.rate):
            out += ["--concurrency", str(load.concurrency or load.num)]
        return out

    def read(self, folder: Path, load: Load) -> dict[str, Any]:
        """Its aggregates under vLLM's names.

        Raises:
            ProbeError: it left no result that can be read.
        """
        found = sorted(folder.rglob("profile_export_aiperf.json"))
        return from_aiperf(_json(found[0] if found else folder / "profile_export_aiperf.json", self.name), load)


def _of(data: dict[str, Any], metric: str, stat: str = "avg") -> float | None:
    row = data.get(metric)
    value = row.get(stat) if isinstance(row, dict) else None
    return float(value) if isinstance(value, int | float) else None


def from_aiperf(data: dict[str, Any], load: Load) -> dict[str, Any]:
    """aiperf's export in vLLM's layout; what it does not hold is None."""
    count, failed = _of(data, "request_count"), _of(data, "error_request_count")
    seconds = (_of(data, "benchmark_duration") or 0.0) or None
    tput, tokens = _of(data, "request_throughput"), _of(data, "output_token_throughput")
    if seconds is None and count and tput:
        seconds = count / tput
    out: dict[str, Any] = {
        "backend": "aiperf", "label": load.name, "num_prompts": load.num,
        "request_rate": "inf" if math.isinf(load.rate) else load.rate, "burstiness": load.burstiness,
        "max_concurrency": load.concurrency, "duration": seconds, "completed": int(count or 0),
        "failed": int(failed or 0), "request_throughput": tput, "request_goodput": None, "output_throughput": tokens,
    }  # fmt: skip
    for theirs, ours in _AIPERF.items():
        row = data.get(theirs)
        scale = 1000.0 if isinstance(row, dict) and row.get("unit") in ("s", "sec", "seconds") else 1.0
        for stat, name in (
            ("avg", "mean"),
            ("p50", "median"),
            ("std", "std"),
            *((p, p) for p in ("p50", "p90", "p95", "p99")),
        ):
            value = _of(data, theirs, stat)
            out[f"{name}_{ours}_ms"] = None if value is None else value * scale
    return out


def key_in_environment(name: str) -> str | None:
    """The key from the variable that was named.

    Raises:
        UsageError: the variable is not set.
    """
    if not name:
        return None
    value = os.environ.get(name, "").strip()
    if not value:
        raise UsageError(f"--api-key-env: {name} is not set or empty")
    if any(c in value for c in "\r\n"):
        raise UsageError(f"--api-key-env: {name} holds a line break")
    return value
