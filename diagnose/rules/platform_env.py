"""Named predicates of environments: halves of a driver, builds without CUDA, GPUs that only a mask hides."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome
from .base import highest, lowest

_ELSEWHERE = (
    "gpu.mark.driver_old", "gpu.mark.driver_down", "gpu.mark.nvml_mismatch", "gpu.mark.compat_804", "gpu.mark.fallen",
    "gpu.mark.init_failed", "gpu.mark.ptx_toolchain", "env.mark.wheel_arch", "env.mark.cpu_build", "gpu.xid.hardware",
    "env.mark.abi", "env.mark.undefined_symbol", "env.mark.no_module", "env.mark.please_install",
    "env.mark.no_library",
)  # fmt: skip


def _versions(ctx: Context, label: str) -> list[Evidence]:
    return [e for e in ctx.of("version") if e.subject.label == label]


def driver_halves_differ(ctx: Context) -> Outcome:
    """The loaded kernel module and the driver's libraries have different versions."""
    module = _versions(ctx, "driver-module")
    library = [*_versions(ctx, "driver-library"), *_versions(ctx, "driver-on-disk")]
    if not module or not library:
        return UNKNOWN
    loaded = {str(e.value) for e in module}

    def same(value: str) -> bool:
        return any(value == m or value.startswith(f"{m}.") or m.startswith(f"{value}.") for m in loaded)

    other = [e for e in library if not same(str(e.value))]
    return Outcome(bool(other), (module[0], *other[:2]) if other else (module[0], library[0]))


def module_for_other_kernel(ctx: Context) -> Outcome:
    """The driver's module was built for kernels that do not run here."""
    built, kernel = ctx.of("driver.built_for"), ctx.of("host.kernel")
    if not built or not kernel:
        return UNKNOWN
    running = str(kernel[0].value)
    fits = any(running.startswith(str(e.value)) or str(e.value).startswith(running) for e in built)
    return Outcome(not fits, (built[0], kernel[0]))


def only_hidden(ctx: Context) -> Outcome:
    """The program sees no GPU, and nothing says that driver, card or build is the reason."""
    lines = ctx.of("env.mark.no_gpu")
    if not lines:
        return UNKNOWN
    other = [e for signal in _ELSEWHERE for e in ctx.of(signal)]
    return Outcome(not other, tuple((other or lines)[:2]))


def cpu_build_sees_none(ctx: Context) -> Outcome:
    """A build without CUDA is installed, and the program sees no GPU or is asked to use one."""
    build = ctx.of("env.mark.cpu_build")
    if not build:
        return UNKNOWN
    effect = [*ctx.of("env.mark.no_gpu"), *ctx.of("env.mark.wheel_arch")]
    asked = re.search(r"\bgpu|cuda|显卡|cpu only|on (?:the )?cpu|slow", ctx.symptom, re.I) is not None
    return Outcome(bool(effect) or asked, (*build[:2], *effect[:1]))


def driver_works_here(ctx: Context) -> Outcome:
    """nvidia-smi of the same machine answers, so the driver runs."""
    shown = [*ctx.of("gpu.name"), *_versions(ctx, "nvidia-smi")]
    broken = [*ctx.of("gpu.mark.driver_down"), *ctx.of("gpu.mark.driver_old"), *ctx.of("gpu.mark.nvml_mismatch")]
    return Outcome(not broken, tuple(shown[:1])) if shown else UNKNOWN


def hidden_on_working_host(ctx: Context) -> Outcome:
    """nvidia-smi shows the card and the program sees none."""
    hidden, works = only_hidden(ctx), driver_works_here(ctx)
    if hidden.holds is None or works.holds is None:
        return UNKNOWN
    return Outcome(bool(hidden.holds and works.holds), (*hidden.used, *works.used))


def fewer_seen_than_there(ctx: Context) -> Outcome:
    """The program counts fewer GPUs than the machine lists."""
    seen, there = ctx.numbers("gpu.visible"), ctx.numbers("gpu.count")
    if not seen or not there:
        return UNKNOWN
    few, all_ = lowest(seen), highest(there)
    return Outcome(few[0] < all_[0], (few[1], all_[1]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        driver_halves_differ, module_for_other_kernel, only_hidden, cpu_build_sees_none, driver_works_here,
        hidden_on_working_host, fewer_seen_than_there,
    )
}  # fmt: skip
