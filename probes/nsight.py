"""Readers of Nsight Compute, Nsight Systems, nvprof, compilers and copy benchmarks, gathered from their modules."""

from __future__ import annotations

from diagnose.plugin import Reader

from . import copies, kernel_text, nsys

READERS: list[Reader] = [*kernel_text.READERS, *nsys.READERS, *copies.READERS]
