"""NVML is opened and closed in one place; what it cannot read is said in words."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from diagnose import live, nvml


class Refused(Exception):
    """As pynvml's."""


def api(log: list[str], count: int | None = 2, driver: bool = True) -> Any:
    """A stand-in for the binding that writes down what is called."""

    def init() -> None:
        log.append("init")
        if not driver:
            raise Refused("NVML Shared Library Not Found")

    def counted() -> int:
        if count is None:
            raise Refused("Unknown Error")
        return count

    return SimpleNamespace(
        NVMLError=Refused, nvmlInit=init, nvmlShutdown=lambda: log.append("shutdown"), nvmlDeviceGetCount=counted,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [1, 2] if handle else [],
    )  # fmt: skip


def test_read_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setitem(sys.modules, "pynvml", api(log))
    assert nvml.count() == 2 and log == ["init", "shutdown"]
    assert live.busy() == "GPU 1: 2 process(es)"


def test_a_reading_that_fails_closes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setitem(sys.modules, "pynvml", api(log, count=None))
    with pytest.raises(nvml.NvmlGap, match="Unknown Error") as gap:
        nvml.count()
    assert gap.value.driver and log == ["init", "shutdown"] and live.busy() == "not known (Unknown Error)"


def test_no_driver_and_no_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setitem(sys.modules, "pynvml", api(log, driver=False))
    assert live.busy() == "no NVIDIA driver here (NVML Shared Library Not Found)" and log == ["init"]
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(nvml.NvmlGap, match="nvidia-ml-py") as gap:
        nvml.start()
    assert not gap.value.driver
