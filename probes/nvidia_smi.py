"""Reader(s) of nvidia_smi; to be filled."""

from __future__ import annotations

from diagnose.plugin import Reader

READERS: list[Reader] = []
