"""Readers of Nsight Compute, Nsight Systems, nvprof, compilers and copy benchmarks, gathered from their modules."""

from __future__ import annotations

from diagnose.plugin import Reader

from . import copies, kernel_text, ncu, nsys, nsys_sqlite

READERS: list[Reader] = [*ncu.READERS, *kernel_text.READERS, *nsys.READERS, *nsys_sqlite.READERS, *copies.READERS]
