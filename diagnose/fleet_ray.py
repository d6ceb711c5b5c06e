"""Ray as the engine of a fleet: one task a node, bound to it, tried again where a worker was lost.

The only module that imports Ray. The task is sent by value and needs nothing but Python on the node.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from .errors import InputError, ToolMissing
from .fleet_launch import CONNECT, GRACE, Outcome
from .fleet_payload import CAP
from .mask import mask

START = 30.0  # seconds that Ray may take to start a worker
HINT = "ray start --head on one node, or --fleet ray://HOST:10001 from elsewhere"
RETRIES = 1  # where a worker was lost; a node that is gone for good ends the task at once
_STEP = 0.5


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError as err:
        raise ToolMissing(
            "--fleet ray needs Ray, which is not installed here", "pip install 'gpu-diagnose[fleet]'"
        ) from err


def task() -> Callable[[str, float, int], bytes]:
    """What runs on a node; a local function, so that it travels as it is and the node needs no `diagnose`."""

    def examine(script: str, limit: float, cap: int) -> bytes:
        import os
        import signal
        import subprocess
        import sys

        env = dict(os.environ)
        ours = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")  # set by Ray for its worker: no setting of the node
        try:
            with open(f"/proc/{os.getppid()}/environ", "rb") as stream:
                pairs = [p.partition(b"=") for p in stream.read().split(b"\0")]
            own = {k.decode("utf-8", "replace"): v.decode("utf-8", "replace") for k, _, v in pairs}
        except OSError:
            own = {}
        for name in [n for n in env if n in ours or n.startswith("RAY_")]:
            del env[name]
            if name in ours and name in own:
                env[name] = own[name]
        env["PATH"] = os.path.dirname(sys.executable) + os.pathsep + env.get("PATH", os.defpath)
        child = subprocess.Popen(
            ["/bin/sh", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=env, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = child.communicate(script.encode(), timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            output, _ = child.communicate()
        return bytes(output[:cap])

    return examine


@dataclass
class Ray:
    """A running cluster."""

    address: str
    nodes: list[str] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)  # name -> id of the node in Ray
    started: bool = False

    @classmethod
    def connect(cls, address: str) -> Ray:
        """Join the cluster. Raises ToolMissing without Ray, InputError where there is no cluster."""
        ray = _ray()
        made = cls(address)
        answers(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address)
        if not ray.is_initialized():
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError, ValueError, OSError) as err:
                line = next(iter(str(err).splitlines()), "") or type(err).__name__
                raise InputError(f"no Ray cluster at {address}: {mask(line[:160])}", HINT) from err
            made.started = True
        made.ids = named([n for n in ray.nodes() if n.get("Alive")])
        made.nodes = sorted(made.ids)
        return made

    def commands(self) -> list[str]:
        """See `Launcher`."""
        return [f"ray task on {len(self.nodes)} node(s): sh -s   ({', '.join(self.nodes[:8])})"]

    def run(self, script: str, limit: float) -> Iterator[Outcome]:
        """See `Launcher`.

        Raises:
            ToolMissing: Ray is not installed.
        """
        ray = _ray()
        affinity = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        remote = ray.remote(num_cpus=0, max_retries=RETRIES)(task())
        due = time.monotonic() + START + limit + 2 * GRACE
        open_: dict[Any, str] = {}
        try:
            for node in self.nodes:
                bound = affinity(self.ids[node], soft=False)
                open_[remote.options(scheduling_strategy=bound).remote(script, limit + GRACE, CAP)] = node
            while open_ and time.monotonic() < due:
                ready, _ = ray.wait(list(open_), num_returns=1, timeout=_STEP)
                for ref in ready:
                    yield self._got(ray, ref, open_.pop(ref))
            for node in list(open_.values()):
                alive = self._alive(ray, node)
                yield Outcome(node, None, f"no answer within {limit:g} s" + ("" if alive else "; Ray lost the node"))
        finally:
            for ref in open_:
                with contextlib.suppress(Exception):  # the node may be gone; nothing depends on it
                    ray.cancel(ref, force=True)
            if self.started:
                ray.shutdown()

    def _got(self, ray: Any, ref: Any, node: str) -> Outcome:
        try:
            return Outcome(node, ray.get(ref, timeout=GRACE))
        except ray.exceptions.RayError as err:
            line = next((t for t in (s.strip() for s in str(err).splitlines()) if t), type(err).__name__)
            why = "the task failed" if self._alive(ray, node) else "Ray lost the node"
            return Outcome(node, None, f"{why}: {mask(line[:160])}")

    def _alive(self, ray: Any, node: str) -> bool:
        return any(n.get("NodeID") == self.ids[node] and n.get("Alive") for n in ray.nodes())


def answers(address: str) -> None:
    """Is there something at host:port? Ray itself would try for minutes. Raises InputError."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT).close()
    except (OSError, OverflowError) as err:
        raise InputError(f"nothing answers at {address}: {err}"[:200], HINT) from err


def named(found: list[dict[str, Any]]) -> dict[str, str]:
    """A name for each node: its own, else its host's, with part of its id where two are alike."""
    names = []
    for node in found:
        own, address = str(node.get("NodeName") or ""), str(node.get("NodeManagerAddress") or "")
        name = own if own and own != address else str(node.get("NodeManagerHostname") or address)
        names.append(re.sub(r"[^A-Za-z0-9._-]|^[.-]|\.(?=\.)", "_", name)[:200] or "node")
    count = Counter(names)
    return {
        (f"{name}-{str(node['NodeID'])[:8]}" if count[name] > 1 else name): str(node["NodeID"])
        for name, node in zip(names, found, strict=True)
    }
