"""The embedded generator as a whole: one loop, one client, one target, as many runs as are wanted."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..errors import ProbeError
from .drive import drive, warm_up
from .metrics import result
from .prompts import Sizer, calibrate, prompts
from .records import Load, Result
from .server import account, scrape
from .target import Target, explore
from .ticks import new_loop
from .wire import Client, Origin, WireError

T = TypeVar("T")


class Embedded:
    """Runs loads from this process."""

    name = "embedded"

    def __init__(
        self, endpoint: str, *, model: str = "", api: str = "auto", key: str | None = None, ca: str | None = None,
        slo: dict[str, float] | None = None, timeout: float = 600.0, say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._loop = new_loop()
        self._client = Client(Origin.parse(endpoint), key, ca=ca)
        self._slo, self.say = slo or {}, say
        try:
            self.target: Target = self._do(explore(self._client, model, api, timeout))
            self._sizer: Sizer = self._do(calibrate(self._client, self.target, timeout))
        except WireError as err:
            self.close()
            raise ProbeError(err.message, err.hint) from err
        except BaseException:
            self.close()
            raise

    def measure(self, load: Load) -> Result:
        """One run, warm-up before it; Ctrl-C ends it early with what there is."""
        return self._do(self._measure(load))

    def close(self) -> None:
        """Give connections and loop back."""
        if self._loop.is_closed():
            return
        self._client.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _measure(self, load: Load) -> Result:
        self.say(f"{load.name}: prompts")
        ramp = 0 if math.isinf(load.rate) else math.floor(load.rate * load.ramp / 2)
        warm = load.warmup
        texts, exact = await prompts(self._client, self.target, self._sizer, load, ramp + load.num + warm)
        failed = 0
        if warm:
            self.say(f"{load.name}: warm-up")
            failed = await warm_up(self._client, self.target, load, texts[-warm:])
        before = await scrape(self._client)
        self.say(f"{load.name}: load")
        outcome = await drive(self._client, self.target, load, texts)
        outcome.warmup_failed = failed
        after = "" if outcome.died else await scrape(self._client)
        data = result(outcome, load, self.target, self._slo)
        data["prompt_sizing"] = {"method": self._sizer.text, "counted_as_asked": exact}
        data["server"] = self._server(data, account(before, after))
        files = {"metrics-before.prom": before, "metrics-after.prom": after}
        return Result(data, {k: v for k, v in files.items() if v}, outcome.interrupted, outcome.died)

    @staticmethod
    def _server(data: dict[str, Any], seen: dict[str, Any] | None) -> dict[str, Any] | None:
        """Beside the server's stages: what of the TTFT lies before or behind them."""
        for name, stage in (seen or {}).items():
            whole = name.endswith("time_to_first_token_seconds") and stage["observations"] == data["completed"]
            if whole and seen is not None and data["mean_ttft_ms"] is not None:
                return seen | {"client_minus_server_ttft_ms": data["mean_ttft_ms"] - stage["average_ms"]}
        return seen

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end; the first Ctrl-C asks it to stop."""
        task = self._loop.create_task(work)
        handled = False
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            self._loop.add_signal_handler(signal.SIGINT, task.cancel)
            handled = True
        try:
            return self._loop.run_until_complete(task)
        except asyncio.CancelledError as err:
            raise KeyboardInterrupt from err
        finally:
            if handled:
                self._loop.remove_signal_handler(signal.SIGINT)
