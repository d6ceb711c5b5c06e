"""Cases made afresh from a seed: mechanisms written as what tools print, with sizes, hosts, versions and noise drawn.

A template (`templates_*.py`) draws the figures of one mechanism; its label is known by construction. Asked for
`sick=False` it draws the same text with the figures within limits: there the cause must not be found. Templates are
written from the tools' formats, never from the patterns of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import templates_machine, templates_network, templates_serving
from .case import Case
from .templates import TEMPLATES, Template


def templates() -> list[Template]:
    """All mechanisms, by name."""
    assert templates_machine and templates_network and templates_serving  # importing them registers
    return [TEMPLATES[name] for name in sorted(TEMPLATES)]


def generated(seed: int, each: int = 2, sick: bool = True) -> Iterator[Case]:
    """Cases of every mechanism; another seed gives other cases."""
    for template in templates():
        for i in range(each):
            yield template.case(seed * 1000 + i, sick)
