"""NIXL on this machine."""

from __future__ import annotations

from diagnose.collect import Collector

COLLECTORS: tuple[Collector, ...] = ()
