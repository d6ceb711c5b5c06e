"""Ray over three nodes of one machine: one dies midway, one hangs, the result of the third counts and both are named.

``pytest -m live tests/test_fleet_ray.py``; needs Ray (``pip install 'gpu-diagnose[fleet]'``).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from diagnose import fleet_ray
from diagnose.audit import Options
from diagnose.errors import EXIT_INCONCLUSIVE, InputError, ToolMissing
from diagnose.fleet import merged, results_of, status
from diagnose.fleet_collect import collect, is_folder

NODES = ("alpha", "beta", "gamma")
SLOW = 'echo "### host.limits"; touch {0}/$$; until [ -e {0}/$$.go ]; do sleep 0.1; done; cat /proc/self/limits'


def test_names_of_nodes() -> None:
    def node(ident: str, name: str, host: str = "box") -> dict[str, str]:
        return {"NodeID": ident * 4, "NodeName": name, "NodeManagerHostname": host, "NodeManagerAddress": "10.0.0.1"}

    found = [node("aaaa", "alpha"), node("bbbb", "10.0.0.1", "gpu-7"), node("cccc", "x y/.."), node("dddd", "alpha")]
    assert fleet_ray.named(found) == {
        "alpha-aaaaaaaa": "aaaa" * 4, "gpu-7": "bbbb" * 4, "x_y__.": "cccc" * 4, "alpha-dddddddd": "dddd" * 4,
    }  # fmt: skip


def test_without_ray_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(InputError, match=r"nothing answers at .*127\.0\.0\.1:1"):
            fleet_ray.answers(address)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ToolMissing, match="needs Ray"):
        fleet_ray.Ray.connect("auto")
    assert not is_folder("ray") and not is_folder("ray://head:10001") and is_folder("rays/")


def test_the_task_runs_the_script_in_the_node_s_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_ID", "1")
    task = fleet_ray.task()
    out = task('echo "job=$RAY_JOB_ID"; head -c 40 /dev/zero | tr "\\0" x', 20.0, 24)
    assert out.decode().startswith("job=\n") and len(out) == 24
    begin = time.monotonic()
    said = next(filter(None, (task("echo here; sleep 600 & sleep 600", limit, 99) for limit in (0.5, 5.0, 50.0))), b"")
    assert said == b"here\n"  # what it had said by its limit; a busy machine may take longer to start a shell
    assert time.monotonic() - begin < 500  # none of the sleeps was waited for


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, psutil.Process]]]:
    """Three raylets; `ray start --block` keeps each below a process of ours."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temp = tmp_path_factory.mktemp("r")
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"RAY_TMPDIR": f"/tmp/r{port}"}
    Path(env["RAY_TMPDIR"]).mkdir()
    ray = Path(sys.executable).with_name("ray")
    started: dict[str, psutil.Process] = {}
    for name in NODES:
        joins = ["--head", f"--port={port}", "--include-dashboard=false"]
        argv = [str(ray), "start", "--block", f"--node-name={name}", "--num-cpus=1", "--object-store-memory=80000000"]
        argv += joins if not started else [f"--address=127.0.0.1:{port}"]
        with (temp / name).open("wb") as log:
            made = psutil.Popen(argv, env=env, stdout=log, stderr=log, start_new_session=True)
        started[name] = made
        until = time.monotonic() + 60
        while b"terminated" not in (temp / name).read_bytes() and time.monotonic() < until:
            time.sleep(0.3)
    yield f"127.0.0.1:{port}", {name: raylet(process) for name, process in started.items()}
    for process in reversed(started.values()):
        for child in process.children(recursive=True):
            child.send_signal(signal.SIGCONT)
        process.terminate()
    psutil.wait_procs(list(started.values()), 20)
    subprocess.run(["rm", "-rf", env["RAY_TMPDIR"]], check=False)


def raylet(process: psutil.Process) -> psutil.Process:
    """The raylet below a `ray start --block`."""
    return next(c for c in process.children(recursive=True) if c.name() == "raylet")


@pytest.mark.live
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_one_node_dies_and_one_hangs(cluster: tuple[str, dict[str, psutil.Process]], tmp_path: Path) -> None:
    address, raylets = cluster
    how = fleet_ray.Ray.connect(address)
    assert how.nodes == sorted(NODES)
    raylets["gamma"].send_signal(signal.SIGSTOP)  # it neither takes the task nor says that it cannot
    out, flags = tmp_path / "out", tmp_path / "flags"
    out.mkdir()
    flags.mkdir()

    def kill_at_work() -> None:
        """Beta dies once it and alpha are at work; alpha may go on then, and beta's script never may."""
        until = time.monotonic() + 60
        while len(at_work := [f.name for f in flags.iterdir()]) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        of_beta = {str(child.pid) for child in raylets["beta"].children(recursive=True)}
        raylets["beta"].kill()
        for pid in set(at_work) - of_beta:
            (flags / f"{pid}.go").touch()

    threading.Thread(target=kill_at_work, daemon=True).start()
    begin = time.monotonic()
    got = collect(how, out, command=["no-such-command"], plain=SLOW.format(flags), limit=40)
    took = time.monotonic() - begin
    assert sorted(got.cassettes) == ["alpha"], got.failed
    why = {f.name: f.reason for f in got.failed}
    assert sorted(why) == ["beta", "gamma"]
    assert "Ray lost the node" in why["beta"]
    assert "no answer within 40 s" in why["gamma"] or "Ray lost the node" in why["gamma"]
    assert took < 150
    made = merged(results_of(got, Options()), ["alpha", "beta", "gamma", "delta"])
    assert [n.name for n in made.nodes] == ["alpha"]
    assert made.missing == ["delta"]
    made.missing = []
    assert status(made, "high") == EXIT_INCONCLUSIVE
