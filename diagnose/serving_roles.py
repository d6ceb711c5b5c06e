"""Which part of a serving engine a process is, by the name under which `ps`, `top` and `pidstat` list it.

vLLM runs a ``vllm`` or ``VLLM::APIServer`` before a ``VLLM::EngineCore`` with a ``VLLM::Worker_TP0`` for each GPU;
SGLang ``sglang::scheduler`` and ``sglang::detokenizer``. The kernel keeps 15 characters: ``VLLM::EngineCor``.
"""

from __future__ import annotations

import re

from .lazy import regex

# Batches requests and drives the GPU; it works only while there are any.
ENGINE = regex(r"EngineCor|Worker|scheduler", re.I)
# Takes requests over HTTP; `vllm` and `sglang` bare, for their other processes have them in front of a name.
FRONT = regex(r"api|uvicorn|vllm serve|^(?:vllm|sglang)$", re.I)
# Any of an engine, and the client that measures it.
SERVING = regex(
    r"vllm|sglang|EngineCore|APIServer|api_server|trtllm|uvicorn|bench|detokenizer|tokenizer|scheduler|triton|dynamo",
    re.I,
)
