"""Readers of Nsight tools."""

from __future__ import annotations

from diagnose.plugin import Reader

from . import kernel_text

READERS: list[Reader] = [*kernel_text.READERS]
