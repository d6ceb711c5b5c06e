"""Profile a program that knows nothing of it: put this folder on PYTHONPATH and set DIAGNOSE_TRACE.

DIAGNOSE_TRACE is ``delay,seconds,path``. The main thread is interrupted now and then. From `delay` seconds after
PyTorch first used the GPU it looks whether the program goes in steady steps (as many allocations in each half second;
after thrice the delay it no longer waits for that). Then PyTorch's profiler runs once for nothing, which takes up its
start-up cost, and at the next even second of the clock, the same for all ranks, for `seconds`; the trace goes to
``path.PID.json``. The program goes on; a process that never imports torch is left alone. A sitecustomize of the
user's own, which this one hides, is run too.
"""

import atexit
import itertools
import os
import signal
import sys
import threading
import time

TRIES = 3  # windows, each four times as long as the last, until a kernel is in one
POLL, FAILS = 0.5, 20
GRID = 2.0  # seconds of the clock at whose multiples a trace starts, so that all ranks of a host start together
KERNEL = b'"cat": "kernel"'


def _chain() -> None:
    """Run the sitecustomize that stands behind this one on the path, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    for folder in sys.path:
        path = os.path.join(folder or ".", "sitecustomize.py")
        if os.path.abspath(folder or ".") != here and os.path.isfile(path):
            with open(path, encoding="utf-8") as stream:
                exec(compile(stream.read(), path, "exec"), {"__name__": "sitecustomize", "__file__": path})  # noqa: S102
            return


class _Hook:
    """What the next interrupt is to do."""

    def __init__(self, said):
        delay, seconds, self.path = said.split(",", 2)
        self.delay, self.seconds = float(delay), float(seconds)
        self.todo, self.run = self.wait, None
        self.since, self.allocations = None, []
        self.tries = self.failed = 0

    def step(self, number, frame):
        try:
            again = self.todo()
        except ImportError as err:  # the program is in the middle of importing what the profiler needs
            self.failed += 1
            again = POLL if self.failed < FAILS else self.give_up(err)
        except Exception as err:  # whatever goes wrong here, the user's program goes on
            again = self.give_up(err)
        if again is None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
        else:
            signal.setitimer(signal.ITIMER_REAL, again)

    def give_up(self, err):
        self.run = None
        sys.stderr.write(f"diagnose: the profiler gave up: {type(err).__name__}: {err}\n")

    def wait(self):
        torch = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "profiler") or not torch.cuda.is_initialized():
            return POLL
        self.since = self.since or time.monotonic()
        self.allocations.append(torch.cuda.memory_stats().get("allocation.all.allocated", 0))
        spent = time.monotonic() - self.since
        if spent < self.delay or (spent < 3 * self.delay and not self.steady()):
            return POLL
        self.todo = self.trace
        warm = self.profiler()
        warm.start()
        warm.stop()
        return self.boundary()

    def steady(self):
        last = self.allocations[-5:]
        grown = [b - a for a, b in itertools.pairwise(last)]
        return len(last) == 5 and min(grown) > 0 and max(grown) <= 1.3 * min(grown)

    @staticmethod
    def boundary():
        return max(GRID - time.time() % GRID, 0.001)

    @staticmethod
    def profiler():
        profiler = sys.modules["torch"].profiler
        return profiler.profile(activities=[profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.CUDA])

    def trace(self):
        run = self.profiler()
        run.start()
        self.run, self.todo = run, self.stop
        self.tries += 1
        return self.seconds * 4 ** (self.tries - 1)

    def stop(self):
        """Write the trace; another, longer one follows where no kernel is in it."""
        run, self.run = self.run, None
        if run is None:
            return None
        run.stop()
        name = f"{self.path}.{os.getpid()}.json"
        run.export_chrome_trace(name)
        with open(name, "rb") as stream:
            found = any(KERNEL in block for block in iter(lambda: stream.read(1 << 20), b""))
        self.todo = self.trace
        return None if found or self.tries >= TRIES else self.boundary()


def _arm(said):
    hook = _Hook(said)
    atexit.register(lambda: hook.run and hook.stop())  # a program that ends inside the window still leaves its trace
    signal.signal(signal.SIGALRM, hook.step)
    signal.setitimer(signal.ITIMER_REAL, POLL)


_chain()
if os.environ.get("DIAGNOSE_TRACE") and threading.current_thread() is threading.main_thread():
    _arm(os.environ["DIAGNOSE_TRACE"])
