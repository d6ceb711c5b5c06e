"""Nodes reached by ssh and srun. Stand-ins for both programs lie on PATH: they run the script that they get, here."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shlex
import signal
import subprocess
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from diagnose import cli, fleet, fleet_launch, fleet_payload, fleet_ray, fleet_triage, hostlist, record
from diagnose.audit import PROBES, Options
from diagnose.cassette import Cassette
from diagnose.collect import Capture
from diagnose.errors import EXIT_ERROR, EXIT_INCONCLUSIVE, EXIT_OK, InputError, ToolMissing, UsageError
from diagnose.fleet_collect import audited, collect, hosts, launcher
from diagnose.record import script_text

# In place of ssh: the last word but one is the host; `bad…` refuses, `hang…` and what it started never end, `odd…` says
# something else, `stuck…` runs a script whose command hangs.
SSH = """#!/bin/bash
printf '%s\\n' "$*" >> "$FAKE_LOG"
host=${*: -2:1}; last=${*: -1}
case $host in
  bad*) echo "ssh: connect to host $host port 22: Connection refused" >&2; exit 255;;
  hang*) sleep $FAKE_HANG & wait;;
  odd*) echo "This account is not available."; exit 1;;
  cut*) echo "diagnose-fleet begin $host"; echo "diagnose-fleet text"; echo "### host.cpu"; exit 0;;
esac
PATH=/usr/bin:/bin exec $last
"""
# In place of srun: one task a node of --nodelist, its lines labelled; a node called n3 is down, n4 hangs.
SRUN = """#!/bin/bash
printf '%s\\n' "$*" >> "$FAKE_LOG"
script=$(cat)
i=0
for node in n1 n2 n3 n4; do
  case $node in
    n3) echo "srun: error: Node failure on n3" >&2;;
    n4) sleep $FAKE_HANG & ;;
    *) (SLURMD_NODENAME=$node PATH=/usr/bin:/bin setsid sh -c "$script" </dev/null | sed "s/^/$i: /") & ;;
  esac
  i=$((i+1))
done
wait
"""
PATIENCE = (1.0, 5.0, 25.0)  # s: those that answer need a tenth of the first, and more only on a busy machine
PLAIN = """echo "### host.limits"; grep -H "open files" /proc/self/limits
echo "### env.dump"; echo "HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz012345 HOSTNAME=$(uname -n)"
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("ssh", SSH), ("srun", SRUN)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    hang = f"300.{os.getpid()}"  # told from what another run beside this one hangs on
    monkeypatch.setenv("FAKE_HANG", hang)
    monkeypatch.setattr(fleet_launch, "CONNECT", 0)
    monkeypatch.setattr(fleet_launch, "GRACE", 0.3)
    yield tmp_path / "log"
    until = time.monotonic() + 30
    while time.monotonic() < until:
        left = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", hang]]
        if not left:
            break
        time.sleep(0.05)
    assert not left, "a process outlived its launcher"


def text_of(cassette: Path, part: str) -> str:
    with zipfile.ZipFile(cassette) as archive:
        return next(archive.read(n).decode() for n in archive.namelist() if part in n)


def test_lists_of_hosts() -> None:
    assert hostlist.expand("node[001-003,070]") == ["node001", "node002", "node003", "node070"]
    assert hostlist.expand("r[1-2]n[08-10], login") == [
        "r1n08", "r1n09", "r1n10", "r2n08", "r2n09", "r2n10", "login",
    ]  # fmt: skip
    assert hostlist.expand("a+b[1-2]+a") == ["a", "b1", "b2"]
    assert len(hostlist.expand("n[0-9999]")) == 10_000
    for wrong in ("n[0-10000]", "n[1-3", "n1]", "n[3-1]", "n[a-b]", "n[]", "", "n[1-99][1-99][1-99]", "n[1-999999999]"):
        with pytest.raises(UsageError):
            hostlist.expand(wrong)
    for evil in ("-oProxyCommand=x", "a;reboot", "a$(id)", "a b|c", "../x", "a/b", "é1", "a\nb -l", "a..b"):
        with pytest.raises(UsageError):
            hostlist.expand(evil)


def test_hosts_of_a_file(tmp_path: Path) -> None:
    place = tmp_path / "nodes"
    place.write_text("node[1-2]  # rack one\n\n# spare: node9\nlogin slots=8\n")
    assert hosts(str(place)) == ["node1", "node2", "login"]
    with pytest.raises(InputError, match="no file"):
        hosts(str(tmp_path / "none"))
    with pytest.raises(UsageError):
        launcher("hosts:")


def test_ssh_names_what_fails_and_what_hangs_and_keeps_the_rest(fakes: Path, tmp_path: Path) -> None:
    how = fleet_launch.Ssh(hostlist.expand("n[1-2],bad1,hang1,odd1,cut1"), at_once=3)
    for limit in PATIENCE:
        fakes.unlink(missing_ok=True)
        got = collect(how, tmp_path, command=["no-such"], plain=PLAIN, limit=limit)
        if len(got.cassettes) == 2:
            break
    assert sorted(got.cassettes) == ["n1", "n2"]
    why = {f.name: f.reason for f in got.failed}
    assert why == {
        "bad1": "ssh: connect to host bad1 port 22: Connection refused (2 attempts)",
        "cut1": "stopped before its end, in host.cpu",
        "hang1": f"no answer within {limit:g} s",
        "odd1": "exit 1",
    }
    ran = fakes.read_text().splitlines()
    assert ran[0] == "-T -o BatchMode=yes -o ConnectTimeout=0 -- n1 sh -s"
    assert sum("bad1" in line for line in ran) == 2
    kept = text_of(got.cassettes["n1"], "env.dump")
    assert "hf_abc" not in kept and f"HOSTNAME={os.uname().nodename}" not in kept and "HOSTNAME=host" in kept
    assert json.loads(text_of(got.cassettes["n1"], "cassette.json"))["node"] == "n1"


def test_srun_is_one_command_and_its_lines_are_told_apart(
    fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    how = fleet_launch.slurm_nodes("n[1-4]")
    for limit in PATIENCE:
        fakes.unlink(missing_ok=True)
        got = collect(how, tmp_path, command=["no-such"], plain=PLAIN, limit=limit)
        if len(got.cassettes) == 2:
            break
    assert sorted(got.cassettes) == ["n1", "n2"]
    assert {f.name: f.reason for f in got.failed} == {
        "n3": "srun: error: Node failure on n3", "n4": f"no answer within {limit:g} s",
    }  # fmt: skip
    assert fakes.read_text().splitlines() == [
        "--nodes=4 --ntasks=4 --ntasks-per-node=1 --nodelist=n[1-4] --label --no-kill --kill-on-bad-exit=0 --wait=0"
        " --immediate=0 sh -s"
    ]
    assert "open files" in text_of(got.cassettes["n2"], "host.limits")


# As Slurm 22.05 does it: n1 is known to be down; n3 is dead unnoticed, so the step ends before it gave n2 its script.
SINFO = """#!/bin/sh
printf 'n1|down*|Not responding\\nn2|idle|none\\nn2|idle|none\\nn3|idle|none\\n'
"""
DYING = """#!/bin/bash
printf '%s\\n' "$*" >> "$FAKE_LOG"
script=$(cat)
case "$*" in
  *n3*) echo "srun: error: Task launch for StepId=5.0 failed on node n3: Communication connection failure" >&2
        echo "srun: error: n2: task 0: Killed" >&2; exit 1;;
esac
SLURMD_NODENAME=n2 PATH=/usr/bin:/bin sh -c "$script" </dev/null | sed "s/^/0: /"
"""


def test_dead_nodes_do_not_take_the_others_with_them(
    fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(fleet_launch, "CONNECT", 10)  # `sinfo` has that long to answer; at 0 it has to win a race
    for name, text in (("srun", DYING), ("sinfo", SINFO)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    got = collect(fleet_launch.slurm_nodes("n[1-4]"), tmp_path, command=["no-such"], plain=PLAIN, limit=8)
    assert sorted(got.cassettes) == ["n2"]
    assert {f.name: f.reason for f in got.failed} == {
        "n1": "Slurm has it as down: Not responding",
        "n3": "Task launch for StepId=5.0 failed on node n3: Communication connection failure",
        "n4": "Slurm knows no node of this name",
    }
    first, second = fakes.read_text().splitlines()
    assert "--nodelist=n2,n3 " in first and "--nodes=1 " in second and "--nodelist=n2 " in second


def test_an_allocation_names_its_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "gpu[01-02]")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    how = launcher("slurm")
    assert how.nodes == ["gpu01", "gpu02"] and "--overlap" in how.commands()[0]
    monkeypatch.delenv("SLURM_JOB_NODELIST")
    with pytest.raises(UsageError, match="no Slurm allocation"):
        launcher("slurm")


def test_ctrl_c_keeps_what_arrived(fakes: Path, tmp_path: Path) -> None:
    def watch() -> None:
        while not list(tmp_path.glob("*.cassette.zip")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
    got = collect(fleet_launch.Ssh(["n1", "hang1"]), tmp_path, command=["no-such"], plain=PLAIN, limit=60)
    assert sorted(got.cassettes) == ["n1"] and not got.complete
    assert [(f.name, f.reason) for f in got.failed] == [("hang1", "interrupted before it answered")]


def test_the_whole_command(
    fakes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "script_text", lambda names: PLAIN)
    keep = tmp_path / "kept"
    code = fleet.run("hosts:n1,bad1", Options(), fail_on="never", format_="json", limit=20, keep=str(keep))
    made = json.loads(capsys.readouterr().out)
    assert code == EXIT_INCONCLUSIVE
    assert [n["name"] for n in made["nodes"]] == ["n1"] and made["cassettes"] == str(keep)
    assert [f["name"] for f in made["failed"]] == ["bad1"]
    assert [p.name for p in keep.iterdir()] == ["n1.cassette.zip"]
    with pytest.raises(UsageError, match="holds recordings already"):
        fleet.run("hosts:n1", Options(), fail_on="never", format_="json", keep=str(keep))
    assert fleet.run("hosts:bad1", Options(), fail_on="never", format_="text", limit=20) == EXIT_ERROR


def test_without_the_program_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for how in (fleet_launch.Ssh(["n1"]), fleet_launch.Srun(["n1"], "n1")):
        with pytest.raises(ToolMissing, match="not installed here"):
            list(how.run("", 1))


# --- the script and what comes back


def archive(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return (
        b"diagnose-fleet begin n\ndiagnose-fleet archive\n"
        + base64.encodebytes(packed.getvalue())
        + b"\ndiagnose-fleet end\n"
    )


def test_an_archive_is_unpacked_with_care(tmp_path: Path) -> None:
    index = b'{"schema": "diagnose.cassette/v1", "captures": []}'
    good = {"node.cassette/cassette.json": index, "node.cassette/captures/x.txt": b"x", "answer.json": b'{"a": 1}'}
    path, said = fleet_payload.store("n1", fleet_payload.answer(archive(good)), tmp_path)
    assert said == {"a": 1}
    evil = {**good, "../../evil": b"1", "/etc/evil": b"1", "node.cassette/captures/../../evil": b"1"}
    path, _ = fleet_payload.store("n2", fleet_payload.answer(archive(evil)), tmp_path)
    with zipfile.ZipFile(path) as made:
        assert sorted(made.namelist()) == ["n2.cassette/captures/x.txt", "n2.cassette/cassette.json"]
    for broken in (
        archive(good).replace(b"H4sI", b"AAAA"),
        archive({"x": b""}),
        archive({"node.cassette/cassette.json": b"["}),
    ):
        with pytest.raises(InputError):
            fleet_payload.store("n3", fleet_payload.answer(broken), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["n1.cassette.zip", "n2.cassette.zip"]


def test_a_node_s_own_diagnose_is_preferred(tmp_path: Path) -> None:
    """A stand-in for `diagnose` on the node, that records a cassette and prints an audit."""
    folder = tmp_path / "bin"
    folder.mkdir()
    made = Cassette.create(tmp_path / "made.cassette", "")
    made.add([Capture("host.limits", b"Max open files 1024\n")])
    (folder / "diagnose").write_text(
        f'#!/bin/sh\ncp -r {tmp_path}/made.cassette "$3"\necho \'{{"schema": "diagnose.audit/v1"}}\'\n'
    )
    (folder / "diagnose").chmod(0o755)
    body = fleet_payload.script(
        ["audit", "--record", "{cassette}", "--only", "a'b;$(id)"], "echo '### env.dump'; echo no", 20
    )
    env = {"PATH": f"{folder}:/usr/bin:/bin", "TMPDIR": str(tmp_path / "t")}
    (tmp_path / "t").mkdir()
    ran = subprocess.run(
        ["sh", "-s"], input=body.encode(), capture_output=True, env=env, start_new_session=True, check=True
    )
    path, said = fleet_payload.store("n1", fleet_payload.answer(ran.stdout), tmp_path)
    assert said == {"schema": "diagnose.audit/v1"} and "1024" in text_of(path, "host.limits")
    assert list((tmp_path / "t").iterdir()) == []  # nothing is left on the node
    assert audited("n1", said) is None  # made by another version: judged again here


def test_a_node_ends_its_own_part_at_its_limit() -> None:
    body = fleet_payload.script(["no-such"], 'echo "### nvidia_smi.q: nvidia-smi"; sleep 600', 4)
    begin = time.monotonic()
    ran = subprocess.run(
        ["sh", "-s"], input=body.encode(), capture_output=True, start_new_session=True, check=False,
        env={"PATH": "/usr/bin:/bin"},  # a node without `diagnose`
    )  # fmt: skip
    assert time.monotonic() - begin < 300  # the command would take ten minutes
    with pytest.raises(InputError, match=r"did not finish within its limit, in nvidia_smi\.q"):
        fleet_payload.answer(ran.stdout)


def test_what_the_plain_script_prints_is_one_capture_a_command() -> None:
    names = {
        (c.probe, c.part)
        for c in fleet_payload.captures(b"\n### a.b: tool -x 'y z'\n1\n\n### a.b\n2\n### c.d: nothing\n\n### a.b\n3\n")
    }
    assert names == {("a.b", "tool -x 'y z'"), ("a.b", ""), ("a.b", " 2")}
    text = script_text(names=PROBES)
    assert "### nvidia_smi.q: nvidia-smi -q" in text and "### host.limits" in text
    syntax = subprocess.run(
        ["sh", "-n"], input=fleet_payload.script(["audit"], text, 5).encode(), capture_output=True, check=False
    )
    assert syntax.returncode == 0, syntax.stderr


# --- the how-to


def commands() -> list[list[str]]:
    text = (Path(__file__).parents[1] / "docs" / "howto-fleet.md").read_text("utf-8")
    block = text.split("```sh\n")[1].split("```")[0]
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("argv", commands(), ids=" ".join)
def test_the_commands_of_the_how_to_are_taken(
    argv: list[str], fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its nodes as written; what would collect from them is stopped at the door."""
    seen: list[Any] = []

    class Door(Exception):
        pass

    def stop(how: Any, *args: Any, **kwargs: Any) -> None:
        seen.append(how)
        raise Door

    def joined(address: str) -> Any:
        seen.append(address)
        raise Door

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-4]")
    (tmp_path / "nodes.txt").write_text("n[1-3]  # rack\n")
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "n1.json").write_text('{"schema": "diagnose.audit/v1", "findings": [], "readings": []}')
    monkeypatch.setattr(fleet, "collect", stop)
    monkeypatch.setattr(fleet_triage, "collect", stop)
    monkeypatch.setattr(fleet_ray.Ray, "connect", joined)
    with contextlib.suppress(Door):
        assert cli.app(args=cli.arrange(argv), standalone_mode=False) == EXIT_OK
        assert {"recordings/", "--dry-run"} & set(argv)
    target = argv[argv.index("--fleet") + 1]
    if target.startswith("ray"):
        assert seen == ["auto" if target == "ray" else target]
    elif seen:
        assert len(seen[0].nodes) == {"slurm": 4, "hosts:nodes.txt": 3, "slurm:gpu[001-016]": 16}.get(target, 64)
