"""Derived facts of the collectives family."""

from __future__ import annotations

from ..derive import Deriver

DERIVERS: list[Deriver] = []
