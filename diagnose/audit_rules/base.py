"""What the audit's rules share: readings by GPU, by variable, by package, and outcomes."""

from __future__ import annotations

from collections.abc import Iterable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome

OK = Outcome(False)


def found(hits: Iterable[Evidence], known: bool = True) -> Outcome:
    """A finding with this evidence; in order where there is none, and unknown where nothing was `known`."""
    used = tuple({e.id: e for e in hits}.values())
    return Outcome(True, used[:6]) if used else OK if known else UNKNOWN


def each(ctx: Context, signal: str, label: str | None = None) -> dict[int | None, tuple[float, Evidence]]:
    """The reading of each GPU; where several tools printed it, the last."""
    return {e.subject.gpu: (v, e) for v, e in ctx.numbers(signal) if e.subject.label == label}


def env(ctx: Context, name: str) -> Evidence | None:
    """A variable of the environment."""
    return next((e for e in ctx.of("env.var") if e.subject.label == name), None)


def packages(ctx: Context) -> dict[str, Evidence]:
    """Installed packages by name."""
    return {(e.subject.label or ""): e for e in ctx.of("pip.package")}


def gpus(ctx: Context) -> dict[int | None, Evidence]:
    """Names of the GPUs."""
    return {e.subject.gpu: e for e in ctx.of("gpu.name") if e.subject.gpu is not None}


def virtual(ctx: Context) -> bool | None:
    """Is this a virtual machine? None where nothing says so."""
    seen = [str(e.value) for e in ctx.of("host.virtual")]
    return None if not seen and not ctx.of("host.wsl") else "yes" in seen or bool(ctx.of("host.wsl"))
