"""Time: an event loop that wakes within a tenth of a millisecond, and a ticker that tells how late it wakes."""

from __future__ import annotations

import asyncio
import select
import selectors
import time

TICK = 0.010


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are not rounded up to whole milliseconds."""
    if not hasattr(selectors, "EpollSelector"):
        return asyncio.new_event_loop()

    class FineSelector(selectors.EpollSelector):
        """Waits in `select` on the epoll descriptor itself, whose time-out counts in microseconds."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0 and self.fileno() < 1024:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)

    return asyncio.SelectorEventLoop(FineSelector())


async def sleep_until(at: int) -> None:
    """Sleep to a reading of `perf_counter_ns`; a time that is past gives the loop one turn."""
    await asyncio.sleep(max(0.0, (at - time.perf_counter_ns()) / 1e9))


async def ticker(lags: list[float]) -> None:
    """Add to `lags`, every 10 ms until cancelled, by how many seconds this loop woke late."""
    while True:
        due = time.perf_counter_ns() + int(TICK * 1e9)
        await sleep_until(due)
        lags.append((time.perf_counter_ns() - due) / 1e9)
