"""Cross-checks of the whole catalogue: every condition refers to something that exists."""

from __future__ import annotations

from . import checks, rules  # noqa: F401 (rules: fills the named predicates that conditions are held against)
from .catalogue import Catalogue, near
from .errors import CatalogueError
from .playbook import faults
from .predicates import check


def check_all(cat: Catalogue) -> list[str]:
    """Problems as one line each; empty when the catalogue is sound."""
    out: list[str] = []

    def attempt(when: dict[str, object], file: str, where: str) -> None:
        try:
            check(when, file, where, cat.signals)
        except (CatalogueError, ValueError) as err:
            hint = getattr(err, "hint", "")
            out.append(f"{err}{' (' + hint + ')' if hint else ''}")

    for cause in cat.causes.values():
        for n, indicator in enumerate(cause.indicators, 1):
            attempt(indicator.when, cause.id, f"indicator {n}")
        for n, decoy in enumerate(cause.decoys, 1):
            attempt(decoy.when, cause.id, f"decoy {n}")
        for target in cause.produces:
            if target not in cat.causes and target not in cat.signals:
                out.append(f"{cause.id}: produces unknown {target} {near(target, cat.causes)}")
        for n, when in enumerate(cause.beside, 1):
            attempt(when, cause.id, f"beside {n}")
        for book in cause.playbooks:
            if book not in cat.playbooks:
                out.append(f"{cause.id}: unknown playbook {book} {near(book, cat.playbooks)}")
    for tree in cat.playbooks.values():
        out.extend(f"{tree.id}: {fault}" for fault in faults(tree))
        for step in tree.steps:
            for n, branch in enumerate(step.branches, 1):
                attempt(branch.when, tree.id, f"step {step.id} branch {n}")
            if step.probe not in cat.probes:
                out.append(f"{tree.id}: step {step.id}: unknown probe {step.probe} {near(step.probe, cat.probes)}")
            for name in step.reads:
                if name not in cat.signals and not any(s.startswith(name.rstrip("*")) for s in cat.signals):
                    out.append(f"{tree.id}: step {step.id}: unknown signal {name} {near(name, cat.signals)}")
    out.extend(checks.faults())
    return out
