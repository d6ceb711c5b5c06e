"""`diagnose doctor`: is this installation whole, and what is there to probe on this machine?"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

import typer

from . import __version__, nvml
from .errors import EXIT_ERROR, EXIT_OK, DiagnoseError

TOOLS = (
    "nvidia-smi", "nsys", "ncu", "ucx_info", "ucx_perftest", "ibv_devinfo", "ibstat", "all_reduce_perf",
    "lspci", "numactl", "dmesg", "vllm",
)  # fmt: skip
PACKAGES = ("langgraph", "pydantic", "typer", "rich", "openai", "torch", "vllm", "ncu_report", "ray", "mcp")


def _catalogue() -> tuple[bool, str]:
    from .catalogue import catalogue
    from .check import check_all

    try:
        problems = check_all(catalogue())
    except DiagnoseError as err:
        return False, err.message
    if problems:
        return False, problems[0]
    cat = catalogue()
    return True, (
        f"{len(cat.causes)} causes, {len(cat.playbooks)} playbooks, {len(cat.signals)} signals, "
        f"{len(cat.marks)} marks, {len(cat.probes)} probes ({cat.version})"
    )


def _plugins() -> tuple[bool, str]:
    from .plugin import failed, readers

    skipped = failed()
    return not skipped, f"{len(readers()[0])} readers" + (f"; skipped: {'; '.join(skipped)}" if skipped else "")


def _other_distribution() -> tuple[bool, str]:
    try:
        version("diagnose")
    except PackageNotFoundError:
        return True, "gpu-diagnose only"
    return (
        False,
        "the unrelated distribution 'diagnose' is installed too and owns the same import name: pip uninstall diagnose",
    )


def run(format_: str) -> int:
    """Print the check-up; exit 3 if something of ours is broken."""
    rows: list[dict[str, object]] = []
    for name, check in (("catalogue", _catalogue), ("plugins", _plugins), ("distribution", _other_distribution)):
        ok, text = check()
        rows.append({"check": name, "ok": ok, "detail": text})
    rows.append({"check": "python", "ok": True, "detail": f"{sys.version.split()[0]} on {platform.platform()}"})
    for package in PACKAGES:
        try:
            text = version(package.replace("_", "-"))
        except PackageNotFoundError:
            text = "not installed"
        rows.append({"check": f"package {package}", "ok": None, "detail": text})
    for tool in TOOLS:
        rows.append({"check": f"tool {tool}", "ok": None, "detail": shutil.which(tool) or "not found"})
    rows.append({"check": "gpu", "ok": None, "detail": _gpus()})
    if format_ == "json":
        typer.echo(json.dumps({"schema": "diagnose.doctor/v1", "version": __version__, "checks": rows}, indent=1))
    else:
        for row in rows:
            mark = {True: "ok ", False: "BAD", None: "   "}[row["ok"]]  # type: ignore[index]
            typer.echo(f"{mark} {row['check']:22} {row['detail']}")
    return EXIT_ERROR if any(r["ok"] is False for r in rows) else EXIT_OK


def _gpus() -> str:
    try:
        return f"{nvml.count()} NVIDIA GPU(s)"
    except nvml.NvmlGap as gap:
        return f"no NVIDIA GPU here ({gap})"
