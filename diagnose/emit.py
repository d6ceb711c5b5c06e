"""What the commands that print a verdict share: formats, languages, severities, a report on standard output."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models import Report

SEVERITY = {"info": 0, "low": 1, "medium": 2, "high": 3, "never": 9}
FORMATS = ("text", "json", "md")
LANGS = {"en": ("en",), "zh": ("zh",), "both": ("en", "zh")}


def escaped(text: str) -> str:
    """JSON with what a terminal would act on (C1 escapes, direction marks) as escapes: the same values, safe to see."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def emit(report: Report, format_: str, verbose: bool) -> None:
    """Write the report to standard output."""
    if format_ == "json":
        sys.stdout.write(escaped(report.model_dump_json(by_alias=True, indent=1)) + "\n")
        return
    if format_ == "md":
        from .markdown import markdown

        sys.stdout.write(markdown(report))
        return
    from .catalogue import catalogue
    from .screen import Terminal, show

    show(report, catalogue(), Terminal(highlight=False), verbose)
