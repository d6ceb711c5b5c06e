"""The packages this one needs, pinned, with their licences: ``python -m diagnose.evals.licences``.

Writes `requirements.lock` and `docs/licences.md` from what is installed here; a package that is not is left out.
"""

# ruff: noqa: E501
from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
EXTRAS = ("mcp", "report")
_LONG = {"Apache Software License": "Apache-2.0", "MIT License": "MIT", "BSD License": "BSD", "ISC License (ISCL)": "ISC",
         "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "Python Software Foundation License": "PSF-2.0"}  # fmt: skip


def canonical(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct() -> dict[str, str]:
    """Direct dependencies by name, with the extra they belong to ("" for none)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"": project["dependencies"], **{e: project["optional-dependencies"][e] for e in EXTRAS}}
    return {canonical(Requirement(text).name): extra for extra, texts in groups.items() for text in texts}


def licence(dist: Distribution) -> str:
    """The licence as the package states it, in short."""
    meta: Any = dist.metadata  # the typed protocol has no `get`
    said = meta.get("License-Expression") or ""
    if not said:
        classified = [c.rpartition(" :: ")[2] for c in meta.get_all("Classifier") or [] if c.startswith("License ::")]
        said = " AND ".join(_LONG.get(c, c) for c in classified if c != "OSI Approved")
    if not said:
        said = next((line.strip() for line in (meta.get("License") or "").splitlines() if line.strip()), "")
    return said[:60] or "see the package"


def closure() -> dict[str, Distribution]:
    """Every package that the direct ones need on this platform, by name."""
    found: dict[str, Distribution] = {}
    todo = [(name, frozenset[str]()) for name in direct()]
    while todo:
        name, extras = todo.pop()
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            continue
        new = name not in found
        found[name] = dist
        for text in dist.requires or []:
            need = Requirement(text)
            wanted = [need.marker.evaluate({"extra": e}) for e in ("", *extras)] if need.marker else [True]
            key = canonical(need.name)
            if any(wanted) and (new or extras) and (key not in found or need.extras):
                todo.append((key, frozenset(need.extras)))
    return dict(sorted(found.items()))


def lock(found: dict[str, Distribution]) -> str:
    """`requirements.lock`."""
    head = f"# what {', '.join(EXTRAS)} and the core need, Python {sys.version_info.major}.{sys.version_info.minor} on Linux\n"
    return head + "".join(f"{name}=={dist.version}\n" for name, dist in found.items())


def table(found: dict[str, Distribution]) -> str:
    """`docs/licences.md`."""
    asked = direct()
    lines = ["# Licences of dependencies", "", "Written by `python -m diagnose.evals.licences`.", "",
             "| package | version | licence | needed |", "|---|---|---|---|"]  # fmt: skip
    for name, dist in found.items():
        why = "by another" if name not in asked else f"extra `{asked[name]}`" if asked[name] else "directly"
        lines.append(f"| {name} | {dist.version} | {licence(dist)} | {why} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write both files."""
    found = closure()
    (ROOT / "requirements.lock").write_text(lock(found), "utf-8")
    (ROOT / "docs" / "licences.md").write_text(table(found), "utf-8")
    missing = sorted(set(direct()) - set(found))
    print(f"{len(found)} packages" + (f"; not installed here: {', '.join(missing)}" if missing else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
