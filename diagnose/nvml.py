"""NVML, opened and closed in one place, with a reason in words where it gives nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


class NvmlGap(Exception):
    """What was asked cannot be read; the text says why.

    Attributes:
        driver: a driver answered, and refused this one reading.
    """

    def __init__(self, reason: str, driver: bool = False) -> None:
        super().__init__(reason)
        self.driver = driver


def start() -> Any:
    """The binding, initialised, for a process that goes on reading until it ends.

    Raises:
        NvmlGap: no binding, or no driver.
    """
    try:
        api = import_module("pynvml")
    except ImportError:
        raise NvmlGap("the NVML binding is not installed (nvidia-ml-py)") from None
    try:
        api.nvmlInit()
    except api.NVMLError as err:
        raise NvmlGap(str(err)) from err
    return api


@contextmanager
def opened() -> Iterator[Any]:
    """The binding for a few readings, closed afterwards.

    Raises:
        NvmlGap: no binding, no driver, or a reading inside failed.
    """
    api = start()
    try:
        yield api
    except api.NVMLError as err:
        raise NvmlGap(str(err), driver=True) from err
    finally:
        api.nvmlShutdown()


def count() -> int:
    """GPUs that NVML shows.

    Raises:
        NvmlGap: nothing can be read.
    """
    with opened() as api:
        return int(api.nvmlDeviceGetCount())


def least_free() -> int:
    """Bytes of GPU memory that are free on the fullest GPU.

    Raises:
        NvmlGap: nothing can be read.
    """
    with opened() as api:
        handles = [api.nvmlDeviceGetHandleByIndex(i) for i in range(api.nvmlDeviceGetCount())]
        return min((int(api.nvmlDeviceGetMemoryInfo(h).free) for h in handles), default=0)
