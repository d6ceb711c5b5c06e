"""Profile a program that knows nothing of it: put this folder on PYTHONPATH and set DIAGNOSE_TRACE.

DIAGNOSE_TRACE is ``delay,seconds,path``. `delay` seconds after PyTorch first used the GPU an interrupt of the
main thread starts its profiler, after `seconds` more another one ends it and writes ``path.PID.json``. The program
goes on; a process that never imports torch is left alone. A sitecustomize of the user's own, which
this one hides, is run too.
"""

import atexit
import os
import signal
import sys
import threading

TRIES = 3  # windows, each four times as long as the last, until a kernel is in one
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


def _arm(said: str) -> None:
    delay, seconds, path = said.split(",", 2)
    state = {}

    def off() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)

    def step(number, frame):
        try:
            advance()
        except Exception as err:  # whatever goes wrong here, the user's program goes on
            off()
            sys.stderr.write(f"diagnose: the profiler gave up: {type(err).__name__}: {err}\n")

    def advance():
        torch = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "profiler") or not torch.cuda.is_initialized():
            signal.setitimer(signal.ITIMER_REAL, 0.5)  # not on the GPU yet
        elif "ready" not in state:
            state["ready"] = True
            signal.setitimer(signal.ITIMER_REAL, float(delay))
        elif "run" not in state:
            start(torch, float(seconds))
        elif not finish() and state["tries"] < TRIES:
            # CUPTI drops what ran while it was still being set up, which takes longer the more kernels are loaded
            start(torch, float(seconds) * 4 ** state["tries"])
        else:
            off()

    def start(torch, window):
        kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        state["tries"] = state.get("tries", 0) + 1
        state["run"] = torch.profiler.profile(activities=kinds)
        state["run"].start()
        signal.setitimer(signal.ITIMER_REAL, window)

    def finish():
        """Write the trace; True when it holds kernels, or nothing was being traced."""
        run = state.get("run")
        if run is None:
            return True
        state["run"] = None
        run.stop()
        name = f"{path}.{os.getpid()}.json"
        run.export_chrome_trace(name)
        with open(name, "rb") as stream:
            return any(KERNEL in block for block in iter(lambda: stream.read(1 << 20), b""))

    atexit.register(finish)  # a program that ends inside the window still leaves its trace
    signal.signal(signal.SIGALRM, step)
    signal.setitimer(signal.ITIMER_REAL, 0.5)


_chain()
if os.environ.get("DIAGNOSE_TRACE") and threading.current_thread() is threading.main_thread():
    _arm(os.environ["DIAGNOSE_TRACE"])
