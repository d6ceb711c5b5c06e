"""Which files the workers take first: those that take longest, so that neither worker ends with one of them."""

from __future__ import annotations

import functools
import gc
import os
import sys

import pytest
import typer.main

# Compiled once, not by each worker and each program that a test starts: half a second of CPU each time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The words of the whole command line are made once, not for each command that a test runs.
typer.main.get_command = functools.cache(typer.main.get_command)

# Reports are large graphs without cycles; looking through all of them again and again takes a twentieth of the time.
gc.set_threshold(100_000, 50, 100)

LONGEST = (
    "fleet_ray", "movement_live", "reader_properties", "practice", "mcp", "answer", "microbench", "bad_input",
    "serving_causes", "live_server", "docs", "cli", "report_forms", "advice", "security", "movement_trees", "boundary",
    "llm", "live_repeat", "bench_stub", "graph", "packaging", "probe_new", "plugin",
)  # fmt: skip
_PLACE = {f"test_{name}": place for place, name in enumerate(LONGEST)}


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Half as many again as there are CPUs: servers, programs and time-outs that tests wait for leave CPUs idle."""
    return (os.cpu_count() or 2) * 3 // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _PLACE.get(item.path.stem, len(_PLACE)))
