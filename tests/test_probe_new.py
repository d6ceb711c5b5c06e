"""A plugin as `probe new` writes it: installed beside the package it is found, and its own test passes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diagnose.errors import UsageError
from diagnose.probe_new import new


def test_the_written_plugin_works_without_touching_the_engine(tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    new("my_nic", str(folder))
    meta = folder / "diagnose_my_nic-0.1.0.dist-info"  # what an installation leaves
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: diagnose-my-nic\nVersion: 0.1.0\n")
    (meta / "entry_points.txt").write_text(
        "[diagnose.probes]\nmy_nic = diagnose_my_nic:readers\n"
        "[diagnose.collectors]\nmy_nic = diagnose_my_nic:collectors\n"
        "[diagnose.causes]\nmy_nic = diagnose_my_nic\n"
    )
    env = os.environ | {"PYTHONPATH": str(folder), "PYTEST_ADDOPTS": "-p no:cacheprovider -p no:langsmith_plugin"}
    own = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), "-c", os.devnull, str(folder / "tests")],
        env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert own.returncode == 0, own.stdout + own.stderr
    sample = tmp_path / "log.txt"
    sample.write_text("my_nic errors: 412\n")
    asked = ["all-reduce is slow", "-e", str(sample), "--offline", "--format", "json"]
    got = subprocess.run(
        [sys.executable, "-m", "diagnose.cli", *asked],
        env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert '"cause": "plugin.my_nic_errors"' in got.stdout, got.stdout[-2000:] + got.stderr


def test_bad_names_and_existing_folders_are_refused(tmp_path: Path) -> None:
    for name in ("My-NIC", "../x", ""):
        with pytest.raises(UsageError):
            new(name, str(tmp_path / "p"))
    with pytest.raises(UsageError, match="exists"):
        new("my_nic", str(tmp_path))
