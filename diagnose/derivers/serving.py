"""Derived facts of the serving family."""

from __future__ import annotations

from ..derive import Deriver

DERIVERS: list[Deriver] = []
