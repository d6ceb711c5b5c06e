"""`diagnose report FILE`: a finished report in the form that somebody's system reads."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from .document import Document
from .errors import EXIT_OK, ReportError, UsageError
from .report_file import Loaded, load

FORMATS = ("html", "md", "sarif", "junit", "svg")


def run(path: Path, format_: str, output: Path | None, evidence: list[str], lang: str = "") -> int:
    """Write the report to `output` or to standard output; as `svg` its pictures into the folder `output`.

    Raises:
        ReportError: the file is no report, or `output` cannot be written. ToolMissing: html without jinja2.
    """
    if format_ not in FORMATS:
        raise UsageError(f"--format takes {', '.join(FORMATS)}, not {format_!r}")
    if output is not None and output.exists() and os.path.samefile(output, path):
        raise UsageError(f"{output} is the report itself", "name another file")
    if format_ == "svg":
        return _pictures(load(path), output, lang)
    text = render(load(path), format_, path.parent, evidence)
    if output is None:
        sys.stdout.write(text)
        return EXIT_OK
    try:
        output.write_text(text, "utf-8")
    except OSError as err:
        raise ReportError(f"{output}: {err.strerror}") from err
    print(f"{output}: {len(text.encode())} bytes", file=sys.stderr)
    return EXIT_OK


def _pictures(loaded: Loaded, folder: Path | None, lang: str) -> int:
    """Every picture that the evidence allows as a file."""
    from .pictures.report import drawings

    if folder is None:
        raise UsageError("--format svg writes several files", "name their folder with --output")
    if lang not in ("", "en", "zh"):
        raise UsageError(f"--lang takes en or zh, not {lang!r}")
    made = drawings(loaded.report, lang or loaded.langs[0]) if loaded.report is not None else []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for drawing in made:
            (folder / f"{drawing.name}.svg").write_text(drawing.svg.file(), "utf-8")
    except OSError as err:
        raise ReportError(f"{folder}: {err.strerror}") from err
    shown = ", ".join(f"{d.name}.svg" for d in made)
    print(f"{folder}: {shown or 'no picture: the evidence holds none of what pictures show'}", file=sys.stderr)
    return EXIT_OK


def render(loaded: Loaded, format_: str, beside: Path, evidence: list[str]) -> str:
    """The report in one of `FORMATS`; captures named by `evidence`, or found beside it, are quoted in the page."""
    if format_ == "sarif":
        from .sarif import sarif

        return json.dumps(sarif(loaded), ensure_ascii=True, indent=1) + "\n"
    if format_ == "junit":
        from .junit import junit

        return junit(loaded)
    if format_ == "md":
        return _markdown(loaded)
    from .report_page import page

    return page(loaded, _captures(loaded, beside, evidence))


def _markdown(loaded: Loaded) -> str:
    if loaded.report is not None:
        from .markdown import markdown

        return markdown(loaded.report)
    if loaded.fleet is not None:
        from .fleet_screen import page as fleet_page

        return fleet_page(loaded.fleet, loaded.langs[0], markdown=True)
    from .audit_screen import markdown as audit_markdown
    from .checks import load as groups

    assert loaded.audit is not None
    return audit_markdown(loaded.audit, groups()[0], loaded.langs[0])


def _captures(loaded: Loaded, beside: Path, evidence: list[str]) -> list[Document]:
    """The captures: those that were named, or those of the report's inputs that lie here or beside it."""
    from .inputs import open_inputs

    if evidence:
        documents, refused = open_inputs(evidence)
        for item in refused:
            print(f"diagnose: {item.name}: {item.reason}", file=sys.stderr)
        return documents
    paths = []
    for name in dict.fromkeys(i.name.split("!")[0] for i in loaded.inputs):
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            continue  # the names come from the file: they may point at nothing but what lies beside it
        found = next((base / name for base in (Path(), beside) if (base / name).exists()), None)
        paths += [str(found)] if found else []
    return open_inputs(paths)[0] if paths else []
