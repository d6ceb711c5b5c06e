"""What is installed is what is here, and nothing generic lands in site-packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("dist")
    clean = out / "source"  # in the checkout itself other tests compile modules while this one copies them
    shutil.copytree(ROOT, clean, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info", "tests"))
    ran = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(clean)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_every_module_and_data_file_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    folders = {"diagnose": "diagnose"} | {f: f"diagnose/{f}" for f in ("probes", "evals", "playbooks")}
    wanted = [
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in folders.items()
        for pattern in ("**/*.py", "**/*.yaml")
        for path in (ROOT / folder).glob(pattern)
    ]
    assert not [w for w in wanted if w not in names]
    assert any(n.startswith("diagnose/evals/samples/") for n in names)
    assert {f"diagnose/templates/{p.name}" for p in (ROOT / "diagnose/templates").iterdir()} <= names


def test_only_our_own_name_is_installed(wheel: zipfile.ZipFile) -> None:
    tops = {n.split("/")[0] for n in wheel.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"diagnose"}


def test_declared_packages_are_the_packages() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = set()
    for top in ("diagnose", "probes", "playbooks", "kernels", "evals"):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join(parts if parts[0] == "diagnose" else ("diagnose", *parts)))
    assert found == declared


def test_samples_shipped_stay_small(wheel: zipfile.ZipFile) -> None:
    size = sum(i.compress_size for i in wheel.infolist() if "/evals/samples/" in i.filename)
    assert size < 2 << 20


def test_no_file_is_too_long() -> None:
    long = [
        (str(p.relative_to(ROOT)), n)
        for top in ("diagnose", "probes", "evals", "tests")
        for p in (ROOT / top).rglob("*.py")
        if (n := len(p.read_text("utf-8").splitlines())) > 600
    ]
    assert long == []
