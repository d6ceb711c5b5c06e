"""Readers of Nsight Compute, Nsight Systems, nvprof, compilers and copy benchmarks, gathered from their modules."""

from __future__ import annotations

from diagnose.plugin import Reader

from . import contrasts, copies, kernel_text, kernel_words, ncu, nsys, nsys_sqlite, peaks, step_series

READERS: list[Reader] = [
    *ncu.READERS, *kernel_text.READERS, *kernel_words.READERS, *peaks.READERS, *nsys.READERS,
    *nsys_sqlite.READERS, *copies.READERS, *step_series.READERS, *contrasts.READERS,
]  # fmt: skip
