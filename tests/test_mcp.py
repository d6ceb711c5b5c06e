"""The MCP server, asked by the official client: over standard input and output, over HTTP with its token, in memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from diagnose import cli, mcp_command, mcp_service
from diagnose.cassette import Cassette
from diagnose.collect import Capture
from diagnose.errors import InputError, UsageError
from diagnose.mcp_server import build
from diagnose.mcp_service import MOST, Service, _fit, brief, size

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "evals/samples/nccl-p2p-disabled"
SYMPTOM = "all-reduce between my two GPUs is slow"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A root with a good capture, one with a secret, and things outside it that must not be read."""
    root = tmp_path / "root"
    shutil.copytree(SAMPLE, root / "run")
    (tmp_path / "outside.log").write_text("NCCL WARN outside\n")
    (root / "link.log").symlink_to(tmp_path / "outside.log")
    (root / "key.log").write_text("export HF_TOKEN=hf_" + "aBcD1234" * 4 + "\nNCCL_P2P_DISABLE=1\n")
    return root


def ask(root: Path, talk: Callable[[Client], Awaitable[None]], *args: str) -> None:
    """Start the server on `root` and talk to it with the official client over stdio."""
    params = StdioServerParameters(
        command=sys.executable, args=["-m", "diagnose.cli", "mcp", "--root", str(root), *args],
        env={"HOME": str(root.parent), "PATH": os.environ["PATH"]}, cwd=root.parent,
    )  # fmt: skip

    async def session() -> None:
        with anyio.fail_after(120):
            async with Client(stdio_client(params)) as client:
                await talk(client)

    anyio.run(session)


def talk_to(root: Path, talk: Callable[[Client], Awaitable[None]], allow: str = "") -> None:
    """The same server in this process: what it answers does not depend on the transport."""

    async def session() -> None:
        with anyio.fail_after(120):
            async with Client(build(Service([root], allow))) as client:
                await talk(client)

    anyio.run(session)


async def call(client: Client, name: str, /, **arguments: Any) -> Any:
    """The structured answer of a tool that must succeed."""
    got = await client.call_tool(name, arguments)
    assert not got.is_error, got.content
    assert arguments.get("full") or len(got.content[0].text) < MOST * 2
    return got.structured_content


async def refused(client: Client, name: str, /, **arguments: Any) -> str:
    """The line with which a tool says no."""
    got = await client.call_tool(name, arguments)
    assert got.is_error
    text = str(got.content[0].text)
    assert "\n" not in text and "Traceback" not in text
    return text


def test_tools_over_stdio(work: Path) -> None:
    async def talk(client: Client) -> None:
        tools = {t.name: t for t in (await client.list_tools()).tools}
        assert set(tools) == {"list_playbooks", "diagnose", "run_probe", "explain_cause", "audit", "replay", "fleet"}
        for tool in tools.values():
            hints = tool.annotations
            assert hints and hints.read_only_hint and hints.destructive_hint is False and hints.title
            assert tool.description
        books = (await call(client, "list_playbooks"))["result"]
        assert {"id", "title", "question"} == set(books[0]) and "high-ttft" in {b["id"] for b in books}

        got = await call(client, "diagnose", symptom=SYMPTOM, evidence=["run"], lang="both")
        assert got["verdict"] == "cause" and got["findings"][0]["cause"] == "nccl.env_override"
        proof = got["findings"][0]["evidence"][0]
        assert proof["where"] == "nccl.log:34" and "NCCL_P2P_DISABLE set" in proof["quote"]
        assert set(got["answer"]) == {"en", "zh"}

        named = {r.name: str(r.uri) for r in (await client.list_resources()).resources}
        assert named["nccl.log"] == proof["capture"]
        lines = (await client.read_resource(proof["capture"] + "/lines/34/34")).contents[0]
        assert lines.text.startswith("vm:1551:1562 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1")
        assert (await client.read_resource(proof["capture"])).contents[0].text.startswith("$ NCCL_P2P_DISABLE=1")

        whole = await call(client, "diagnose", symptom=SYMPTOM, evidence=[str(work / "run")], full=True)
        assert whole["schema"] == "diagnose.report/v1" and whole["evidence"]
        cause = await call(client, "explain_cause", cause="nccl.p2p_disabled", lang="zh")
        assert cause["id"] == "nccl.p2p_disabled" and cause["zh"]["title"] and cause["signs"]

    ask(work, talk)


def test_bounds(work: Path) -> None:
    async def talk(client: Client) -> None:
        for path in ("../outside.log", str(work.parent / "outside.log"), "link.log", "/etc/passwd", "-"):
            said = await refused(client, "diagnose", symptom="slow", evidence=[path])
            assert "outside the folders" in said or path == "-"
            assert "NCCL WARN" not in said
        assert "no such file" in await refused(client, "diagnose", symptom="slow", evidence=["none.log"])
        assert "evidence only" in await refused(client, "diagnose", symptom="slow", evidence=["run"], live=True)
        assert "nothing to look at" in await refused(client, "diagnose", symptom="slow")
        assert "lang takes" in await refused(client, "diagnose", symptom="slow", evidence=["run"], lang="fr")
        assert "no cause" in await refused(client, "explain_cause", cause="nccl.p2p_disable")
        assert "outside the folders" in await refused(client, "replay", cassette="../x.zip")
        assert "only reads" in await refused(client, "run_probe", name="nccl.tests")
        assert "no probe" in await refused(client, "run_probe", name="rm -rf /")
        with pytest.raises(MCPError):
            await client.read_resource("diagnose://capture/0123456789abcdef")
        got = await call(client, "diagnose", symptom="slow", evidence=["key.log"])
        address = got["inputs"][0]["capture"]
        text = (await client.read_resource(address)).contents[0].text
        assert "[masked" in text and "hf_" not in text and "hf_aB" not in json.dumps(got)

    talk_to(work, talk)


def test_probe_and_audit_of_this_machine_read_only(work: Path) -> None:
    async def talk(client: Client) -> None:
        got = await call(client, "run_probe", name="host.memory")
        assert got["footprint"] == "read" and any("Mem" in c["text"] for c in got["captures"])
        found = await call(client, "audit")
        assert found["counts"] and all(f["severity"] in ("high", "medium", "low", "info") for f in found["findings"])
        again = await call(client, "audit", evidence=["run"])
        assert again["machine"] == "evidence"
        assert "exclude each other" in await refused(client, "audit", evidence=["run"], cassette="run")

    talk_to(work, talk)


def test_a_recorded_machine_is_replayed(work: Path) -> None:
    argv = ["record", "--playbook", "slow-allreduce", "--symptom", SYMPTOM, "-o", str(work / "box.cassette")]
    assert cli._run(argv) == 0

    async def talk(client: Client) -> None:
        got = await call(client, "replay", cassette="box.cassette")
        assert got["symptom"] == SYMPTOM and got["playbook"] == "slow-allreduce"
        assert got["inputs"] and got["verdict"] in ("inconclusive", "healthy", "cause")  # it depends on the machine

    talk_to(work, talk)


def test_recorded_nodes_are_compared(work: Path) -> None:
    nodes = work / "nodes"
    for name, gpus in (("n1", "none"), ("n2", "none"), ("n3", "none")):
        made = Cassette.create(nodes / f"{name}.cassette", "")
        made.add([Capture("devices.visible", f"# device nodes of GPUs\n/dev/nvidia[0-9]* {gpus}\n".encode(), "nodes")])
    (nodes / "n4.zip").symlink_to(work.parent / "outside.log")

    async def talk(client: Client) -> None:
        assert "outside the folders" in await refused(client, "fleet", folder="nodes")
        assert "outside the folders" in await refused(client, "fleet", folder="..")
        (nodes / "n4.zip").unlink()
        got = await call(client, "fleet", folder="nodes", expect="n[1-4]")
        assert [n["name"] for n in got["nodes"]] == ["n1", "n2", "n3"] and got["missing"] == ["n4"]
        gone = {c["check"]: c for c in got["checks"]}["platform.no_gpu"]
        assert gone["nodes"] == ["n1", "n2", "n3"] and gone["where"]["n2"]["line"] == 2
        judged = await call(client, "fleet", folder="nodes", symptom="all-reduce is slow")
        assert judged["verdict"] == "inconclusive" and "3 of 3 nodes" in "\n".join(judged["fleet"])

    talk_to(work, talk)


def test_what_a_server_allows_shows_in_its_annotations(work: Path) -> None:
    async def talk(client: Client) -> None:
        tools = {t.name: t.annotations for t in (await client.list_tools()).tools}
        assert not tools["run_probe"].read_only_hint and not tools["diagnose"].read_only_hint
        assert tools["audit"].read_only_hint and tools["explain_cause"].read_only_hint
        assert not any(a.destructive_hint for a in tools.values())

    talk_to(work, talk, "load")


def test_live_where_allowed(work: Path) -> None:
    async def talk(client: Client) -> None:
        got = await call(client, "diagnose", symptom="the host is slow, is its memory exhausted?", live=True)
        assert got["inputs"] and got["verdict"] in ("inconclusive", "healthy", "cause")

    talk_to(work, talk, "read")


# --- bounds without a server


def test_paths_stay_inside_the_roots(work: Path) -> None:
    service = Service([work])
    assert service.path("run") == service.path(str(work / "run")) == str((work / "run").resolve())
    for bad in ("", "a\0b", "../root/../outside.log", "run/../../outside.log", "link.log", str(work.parent), "/"):
        with pytest.raises(InputError):
            service.path(bad)
    with pytest.raises(InputError):
        service.path("-")  # a file of that name at most, never standard input
    with pytest.raises(UsageError):
        Service([work / "none"])
    with pytest.raises(UsageError):
        Service([work], "everything")


def test_long_answers_are_cut_and_say_so() -> None:
    value = {"verdict": "cause", "findings": [{"x": "y" * 200}] * 9, "limits": ["z" * 900] * 99, "stages": []}
    got = _fit(dict(value), ("stages", "limits"))
    assert size(got) < MOST and got["limits"] == [] and got["left_out"] == ["limits (99)"] and len(got["findings"]) == 9
    with pytest.raises(UsageError):
        _fit({"answer": "x" * MOST}, ())


def test_brief_of_a_large_report_fits(work: Path) -> None:
    from diagnose.engine import report
    from diagnose.inputs import open_inputs

    docs, out = open_inputs([str(SAMPLE)])
    made = report(SYMPTOM, docs, out, ("en", "zh"))
    got = brief(made)
    assert size(got) <= MOST and "left_out" not in got
    made.findings = made.findings * 40
    assert size(brief(made)) <= MOST * 1.01


def test_captures_are_cut_and_forgotten(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_service, "KEPT", 3)
    service = Service([work])
    (work / "long.log").write_text("".join(f"line {n}\n" for n in range(2600)))
    service.diagnose("slow", ["long.log"])
    address = next(iter(service.captures))
    text = service.capture(address)
    assert text.startswith("line 0\n") and text.splitlines()[-1].startswith("[cut before line 2001")
    assert service.capture(address, 2599, 9999) == "line 2598\nline 2599"
    for n in range(4):
        (work / "one.log").write_text(f"other {n}\n")
        service.diagnose("slow", ["one.log"])
    with pytest.raises(InputError):
        service.capture(address)


# --- HTTP


@pytest.fixture
def served(work: Path) -> Iterator[tuple[str, str]]:
    argv = [sys.executable, "-m", "diagnose.cli", "mcp", "--root", str(work), "--http", "--port", "0"]
    env = {k: v for k, v in os.environ.items() if k != "DIAGNOSE_MCP_TOKEN"}
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, cwd=work, env=env) as server:
        assert server.stderr
        url, token = server.stderr.readline().strip(), server.stderr.readline().split()[4]
        try:
            yield url, token
        finally:
            server.terminate()


def post(url: str, headers: dict[str, str]) -> int:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode()
    head = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **headers}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, head), timeout=30) as got:
            return int(got.status)
    except urllib.error.HTTPError as err:
        return err.code


def test_http_needs_the_token_and_the_right_host(served: tuple[str, str]) -> None:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    url, token = served
    assert re.match(r"http://127\.0\.0\.1:\d+/mcp$", url) and len(token) >= 32
    deadline = 100
    while deadline:
        try:
            assert post(url, {}) == 401
            break
        except urllib.error.URLError:
            deadline -= 1
            import time

            time.sleep(0.1)
    assert post(url, {"Authorization": "Bearer wrong"}) == 401
    assert post(url, {"Authorization": f"Bearer {token}", "Host": "evil.example"}) in (403, 421)
    assert post(url, {"Authorization": f"Bearer {token}", "Origin": "http://evil.example"}) == 403

    async def talk() -> None:
        with anyio.fail_after(60):
            head = {"Authorization": f"Bearer {token}"}
            async with (
                httpx2.AsyncClient(headers=head, timeout=60) as http,
                Client(streamable_http_client(url, http_client=http)) as client,
            ):
                got = await call(client, "explain_cause", cause="nccl.env_override")
                assert got["id"] == "nccl.env_override"

    anyio.run(talk)


def test_mistakes_of_the_command_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*argv: str) -> str:
        assert cli._run(["mcp", *argv]) == 3
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return err.splitlines()[0]

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIAGNOSE_MCP_TOKEN", raising=False)
    assert "is no folder" in said("--root", "none")
    assert "--allow takes" in said("--allow", "all")
    assert "port 99999" in said("--http", "--port", "99999")
    monkeypatch.setenv("DIAGNOSE_MCP_TOKEN", "short")
    assert "shorter than" in said("--http", "--port", "0")
    monkeypatch.setattr(mcp_command, "find_spec", lambda name: None)
    assert "needs the SDK" in said()
