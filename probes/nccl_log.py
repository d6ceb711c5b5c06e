"""Reader(s) of nccl_log; to be filled."""

from __future__ import annotations

from diagnose.plugin import Reader

READERS: list[Reader] = []
