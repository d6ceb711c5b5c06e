"""The recipes of the documentation do what they say, with the scheduler's own programs played."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from diagnose.cli import _run, app

ROOT = Path(__file__).parents[1]
HIGH = '{"findings": [{"check": "gpu.xid", "severity": "high"}, {"check": "cpu.x", "severity": "low"}]}'


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("status", "text", "drained"),
    [(1, HIGH, True), (0, HIGH, False), (2, HIGH, False), (3, "", False), (1, "no json", False)],
)
def test_slurm_drains_for_high_findings_only(tmp_path: Path, status: int, text: str, drained: bool) -> None:
    program(tmp_path, "diagnose", f"echo \"$@\" > {tmp_path}/asked; echo '{text}'; exit {status}")
    program(tmp_path, "scontrol", f'echo "$@" > {tmp_path}/done')
    env = dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}")
    got = subprocess.run(["sh", str(ROOT / "docs/recipes/slurm-health.sh")], env=env, capture_output=True, text=True)
    done = tmp_path / "done"
    assert done.exists() == drained and got.returncode == 0
    if drained:
        assert re.fullmatch(r"update nodename=\S+ state=drain reason=diagnose: gpu\.xid\n", done.read_text())
    assert "--fail-on high" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(("status", "code", "reported"), [(0, 0, True), (1, 1, True), (2, 0, True), (3, 3, False)])
def test_kubernetes_job_fails_for_high_findings_or_no_audit(
    tmp_path: Path, status: int, code: int, reported: bool
) -> None:
    job = yaml.safe_load((ROOT / "docs/recipes/kubernetes-job.yaml").read_text())
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert job["kind"] == "Job" and container["securityContext"]["allowPrivilegeEscalation"] is False
    program(tmp_path, "diagnose", f"case $1 in report) echo '<xml/>';; *) echo '{{}}'; exit {status};; esac")
    env = dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}")
    script = container["command"][2].replace("/tmp/", f"{tmp_path}/")
    got = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True)
    assert got.returncode == code and ("<xml/>" in got.stdout) == reported


def test_every_command_of_the_page_exists(capsys: pytest.CaptureFixture[str]) -> None:
    texts = [(ROOT / p).read_text() for p in ("docs/reports.md", "docs/recipes/slurm-health.sh",
                                              "docs/recipes/kubernetes-job.yaml")]  # fmt: skip
    known = get_command(app).commands  # type: ignore[attr-defined]
    used = {(m[1], option) for text in texts for m in re.finditer(r"diagnose (audit|report|mcp)\b([^\n#|>]*)", text)
            for option in re.findall(r"(?<!\S)--[a-z-]+", m[2])}  # fmt: skip
    assert len(used) >= 5
    for name, option in used:
        assert option in {o for p in known[name].params for o in p.opts}, (name, option)
    assert _run(["mcp", "--help"]) == 0 and "--root" in capsys.readouterr().out
