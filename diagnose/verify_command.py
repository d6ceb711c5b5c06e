"""`diagnose verify REPORT`: is everything in this report still what the captures say?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from .answer import render
from .catalogue import catalogue
from .document import Document
from .errors import EXIT_FINDING, EXIT_OK, ReportError
from .inputs import open_inputs
from .models import Report
from .safe_json import loads
from .verify import verify


def rerender(report: dict[str, Any]) -> dict[str, Any]:
    """The answers of a report, rendered again from its typed parts."""
    parsed = Report.model_validate(report)
    return {lang: render(parsed, catalogue(), lang).model_dump(mode="json", by_alias=True) for lang in parsed.answer}


def _found_beside(report: dict[str, Any], place: Path) -> list[str]:
    """Inputs of the report that exist relative to here or to the report."""
    out: list[str] = []
    for item in report.get("inputs", []):
        outer = str(item.get("name", "")).split("!")[0]
        for base in (Path(), place):
            if outer and (base / outer).exists() and str(base / outer) not in out:
                out.append(str(base / outer))
                break
    return out


def run(path: Path, evidence: list[str], format_: str) -> int:
    """Verify a report file; exit 1 on any mismatch.

    Raises:
        ReportError: the file is missing, no JSON, or not a report.
    """
    try:
        raw = path.read_bytes()
    except OSError as err:
        raise ReportError(f"{path}: {err.strerror}") from err
    report = loads(raw)
    if not isinstance(report, dict) or report.get("schema") != "diagnose.report/v1":
        raise ReportError(f"{path}: not a diagnose.report/v1 file", "write one with --format json")
    paths = evidence or _found_beside(report, path.parent)
    documents: list[Document] = open_inputs(paths, None)[0] if paths else []
    found = verify(report, documents, rerender=rerender)
    if format_ == "json":
        typer.echo(
            json.dumps(
                {"schema": "diagnose.verify/v1", "ok": not found, "mismatches": [str(m) for m in found]}, indent=1
            )
        )
    else:
        for item in found:
            typer.echo(f"BAD {item}")
        typer.echo("verified" if not found else f"{len(found)} mismatch(es)")
    return EXIT_FINDING if found else EXIT_OK
