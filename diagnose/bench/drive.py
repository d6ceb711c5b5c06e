"""The open-loop generator: requests leave when they are due, whatever the server does with those before them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import Sequence

from .records import Load, Outcome, Sample
from .schedule import schedule
from .target import Collector, Target
from .ticks import sleep_until, ticker
from .wire import Client, WireError

LEAD = 0.05  # seconds between the last preparation and the start of the schedule
DEAD_AFTER = 8  # connections refused in a row, with none answered between, that end a run


class _Run:
    """One run over one client."""

    def __init__(self, client: Client, target: Target, load: Load) -> None:
        self.client, self.target, self.load = client, target, load
        self.gate = asyncio.Semaphore(load.concurrency) if load.concurrency is not None else None
        self.refused = 0
        self.died = ""
        self.over = asyncio.Event()

    async def one(self, sample: Sample, frame: bytes) -> None:
        """Send one request and keep what happens, failures included."""
        sample.woke = time.perf_counter_ns()
        if self.gate is not None:
            await self.gate.acquire()
        sample.began = time.perf_counter_ns()
        if self.load.closed:  # no schedule: a user asks when the answer before has come
            sample.due = sample.woke = sample.began
        collect = Collector(sample)
        try:
            response = await self.client.send(frame, timeout=self.load.timeout, on_event=collect)
        except WireError as err:
            sample.kind, sample.error = err.kind, err.message
            self._failed(err)
        except asyncio.CancelledError:
            sample.kind, sample.error = "unfinished", "given up before its end"
            raise
        else:
            self.refused = 0
            sample.connected, sample.sent, sample.reused = response.connected, response.sent, response.reused
            sample.ended = response.ended
            collect.close(response)
        finally:
            sample.ended = sample.ended or time.perf_counter_ns()
            if self.gate is not None:
                self.gate.release()

    def _failed(self, err: WireError) -> None:
        if err.kind not in ("refused", "connect"):
            return
        self.refused += 1
        if self.refused >= DEAD_AFTER:
            self.died = f"the server is gone: {err.message}"
            self.over.set()


async def warm_up(client: Client, target: Target, load: Load, texts: Sequence[str]) -> int:
    """Send what is not measured, all at once, which also opens connections; says how many failed."""
    run = _Run(client, target, Load(timeout=load.timeout))
    samples = [Sample(-1 - i) for i in range(len(texts))]
    frames = [client.frame("POST", target.path, target.body(t, load.output)) for t in texts]
    await asyncio.gather(*(run.one(s, f) for s, f in zip(samples, frames, strict=True)))
    return sum(not s.ok for s in samples)


async def drive(client: Client, target: Target, load: Load, texts: Sequence[str]) -> Outcome:
    """Run a load; a cancellation ends it early and is noted in the outcome, not raised.

    Args:
        texts: prompts, at least one a request; those of the ramp come first.
    """
    due = schedule(load.num, load.rate, load.burstiness, load.ramp, random.Random(load.seed))  # noqa: S311
    frames = [client.frame("POST", target.path, target.body(t, load.output)) for t in texts[: len(due)]]
    run = _Run(client, target, load)
    opened = client.opened
    client.peak = client.in_use
    out = Outcome()
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection in the middle would be measured as latency of the server
    tasks: list[asyncio.Task[None]] = []
    ticking = asyncio.create_task(ticker(out.loop_lags))
    cpu, out.begin = time.process_time(), time.perf_counter_ns() + int(LEAD * 1e9)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            for index, (moment, frame) in enumerate(zip(due, frames, strict=True)):
                sample = Sample(index, moment.ramp, out.begin + int(moment.at * 1e9))
                await sleep_until(sample.due)
                if run.over.is_set():
                    break
                out.samples.append(sample)
                tasks.append(asyncio.create_task(run.one(sample, frame)))
            await _all(tasks, run.over)
        out.interrupted = _uncancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        out.cpu = time.process_time() - cpu
        ticking.cancel()
        gc.enable()
        gc.unfreeze()
    for sample in out.samples:  # a task that was cancelled before its first step
        if not sample.began:
            sample.kind, sample.error = "unfinished", "never sent"
    out.died = run.died
    out.unsent = len(due) - len(out.samples)
    out.end = max((s.ended for s in out.samples), default=out.begin)
    out.opened, out.peak = client.opened - opened, client.peak
    return out


async def _all(tasks: list[asyncio.Task[None]], over: asyncio.Event) -> None:
    """Wait for all answers, or for the word that the server is gone."""
    pending: set[asyncio.Task[None]] = set(tasks)
    watch = asyncio.create_task(over.wait())
    try:
        while pending and not over.is_set():
            done, _ = await asyncio.wait({*pending, watch}, return_when=asyncio.FIRST_COMPLETED)
            pending -= {t for t in done if t is not watch}
    finally:
        watch.cancel()


def _uncancel() -> bool:
    """Was this task asked to stop? It goes on to tidy up."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return False
    while task.cancelling():
        task.uncancel()
    return True
