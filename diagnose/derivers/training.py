"""Derived facts of the training family."""

from __future__ import annotations

from ..derive import Deriver

DERIVERS: list[Deriver] = []
