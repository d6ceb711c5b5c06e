"""Rules about drivers, builds, GPUs and the links between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..hardware import gpu as sheet
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome, parse_version
from .base import OK, each, env, found, gpus, packages, virtual

# Lowest Linux driver that runs every minor version of a CUDA major (CUDA Compatibility, minor version compatibility).
DRIVER_FLOOR = {13: (580, 65, 6), 12: (525, 60, 13), 11: (450, 80, 2), 10: (410, 48)}
# First CUDA toolkit that knows a compute capability (CUDA release notes).
CUDA_FOR = ((12.0, (12, 8)), (10.0, (12, 8)), (9.0, (11, 8)), (8.9, (11, 8)), (8.6, (11, 1)), (8.0, (11, 0)))
BUSY = 0.5  # share of time in which something runs, from which a link is under load


# --- driver and software


def _runtime(ctx: Context) -> tuple[tuple[int, ...], Evidence] | None:
    """CUDA runtime that PyTorch brings: from its build, or from the runtime package beside it."""
    if (built := ctx.version("torch-cuda")) is not None:
        return built if built[0][0] else None
    for item in ctx.of("version", {"label": "^torch$"}):
        if hit := re.search(r"\+cu(\d\d)(\d+)", str(item.value)):
            return (int(hit[1]), int(hit[2])), item
    installed = packages(ctx)
    if "torch" not in installed and ctx.version("torch") is None:
        return None
    for name in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12",
                 "nvidia-cuda-runtime-cu11"):  # fmt: skip
        if name in installed:
            return parse_version(str(installed[name].value)), installed[name]
    return None


def _compat(ctx: Context) -> Evidence | None:
    """Sign of a forward-compatibility package: its folder in the library path."""
    for item in ctx.of("env.var"):
        if item.subject.label in ("LD_LIBRARY_PATH", "LD_PRELOAD") and "compat" in str(item.value):
            return item
    return next((e for name, e in packages(ctx).items() if name.startswith("cuda-compat")), None)


def cuda_needs_newer_driver(ctx: Context) -> Outcome:
    """PyTorch's CUDA major version needs a newer driver, and no compatibility package is in sight."""
    driver, runtime = ctx.version("driver"), _runtime(ctx)
    if driver is None or runtime is None:
        return UNKNOWN
    floor = DRIVER_FLOOR.get(runtime[0][0])
    if floor is None:
        return UNKNOWN
    return Outcome(driver[0] < floor and _compat(ctx) is None, (runtime[1], driver[1]))


def image_needs_newer_driver(ctx: Context) -> Outcome:
    """The CUDA major version of the image needs a newer driver, and no compatibility package is in sight."""
    driver, image = ctx.version("driver"), env(ctx, "CUDA_VERSION")
    if driver is None or image is None:
        return UNKNOWN
    major = (parse_version(str(image.value)) or (0,))[0]
    floor = DRIVER_FLOOR.get(major)
    return UNKNOWN if floor is None else Outcome(driver[0] < floor and _compat(ctx) is None, (image, driver[1]))


def minor_version_compatibility(ctx: Context) -> Outcome:
    """The runtime is of the driver's major version and a newer minor one: runs, but not PTX made by that toolkit."""
    top, runtime = ctx.version("cuda-driver"), _runtime(ctx)
    if top is None or runtime is None:
        return UNKNOWN
    newer = runtime[0][:1] == top[0][:1] and runtime[0][:2] > top[0][:2]
    return Outcome(newer, (runtime[1], top[1]))


def compat_on_geforce(ctx: Context) -> Outcome:
    """A forward-compatibility library is in front, and the cards are consumer cards, which refuse it."""
    found, names = _compat(ctx), gpus(ctx)
    if not names:
        return UNKNOWN
    cards = [e for e in names.values() if re.search(r"GeForce|RTX \d{4}\b|TITAN", str(e.value))]
    cards = [e for e in cards if not re.search(r"Ada|RTX A?\d{4} (?:Ada|Blackwell)|RTX A\d", str(e.value))]
    return Outcome(bool(found and cards), (found, *cards[:2]) if found and cards else ())


def compat_not_needed(ctx: Context) -> Outcome:
    """A compatibility library is in front although the driver runs this CUDA version itself."""
    found, driver, runtime = _compat(ctx), ctx.version("driver"), _runtime(ctx)
    if driver is None or runtime is None:
        return UNKNOWN
    floor = DRIVER_FLOOR.get(runtime[0][0])
    enough = floor is not None and driver[0] >= floor
    return Outcome(bool(found and enough), (found, driver[1]) if found else ())


def packages_clash(ctx: Context) -> Outcome:
    """Two wheels that unpack one library into one folder."""
    out: list[Evidence] = []
    installed = packages(ctx)
    for name, item in installed.items():
        if hit := re.fullmatch(r"(nvidia-(?:nccl|cudnn|cusparselt|nvshmem))-cu(\d+)", name):
            rivals = [installed[n] for n in installed if n.startswith(hit[1] + "-cu") and n != name]
            out += [item, *rivals] if rivals else []
    return found(out)


def torch_older_than_gpu(ctx: Context) -> Outcome:
    """PyTorch was built by a toolkit that does not know this GPU."""
    runtime = _runtime(ctx)
    if runtime is None or not gpus(ctx):
        return UNKNOWN
    known = False
    for item in gpus(ctx).values():
        if (card := sheet(str(item.value))) is None:
            continue
        known = True
        need = next((v for cc, v in CUDA_FOR if card.cc >= cc), (0,))
        if runtime[0][:2] < need:
            return Outcome(True, (item, runtime[1]))
    return OK if known else UNKNOWN


def nccl_older_than_gpu(ctx: Context) -> Outcome:
    """NCCL from before the GPU's generation."""
    nccl = ctx.version("nccl")
    if nccl is None:
        return UNKNOWN
    cards = [(sheet(str(e.value)), e) for e in gpus(ctx).values()]
    for card, item in cards:
        need = (2, 25) if card and card.cc >= 10 else (2, 16) if card and card.cc >= 9 else (0,)
        if nccl[0][:2] < need:
            return Outcome(True, (item, nccl[1]))
    return OK if any(card for card, _ in cards) else UNKNOWN


def numpy_two_with_old_torch(ctx: Context) -> Outcome:
    """PyTorch from before 2.3 was compiled against NumPy 1."""
    torch, numpy = ctx.version("torch"), ctx.version("numpy")
    if torch is None or numpy is None:
        return UNKNOWN
    return Outcome(torch[0][:2] < (2, 3) and numpy[0][:1] >= (2,), (torch[1], numpy[1]))


def torch_without_cuda(ctx: Context) -> Outcome:
    """A CPU build of PyTorch on a machine with NVIDIA GPUs."""
    built = ctx.version("torch-cuda")
    torch = ctx.version("torch")
    if not gpus(ctx) or torch is None:
        return UNKNOWN
    cpu = "+cpu" in str(torch[1].value) or (built is not None and not any(built[0]))
    return Outcome(cpu, (torch[1],))


# --- GPUs


def gpu_missing(ctx: Context) -> Outcome:
    """There are device nodes for more GPUs than nvidia-smi lists."""
    nodes = ctx.of("host.gpu_nodes")
    counts = ctx.numbers("gpu.count")
    listed = {e.subject.gpu for e in ctx.of("gpu.name")} - {None}
    seen = max([len(listed), *(int(v) for v, _ in counts)], default=0)
    if not nodes or not seen:
        return UNKNOWN
    there = len(set(re.findall(r"/dev/nvidia(\d+)", str(nodes[0].value))))
    used = (nodes[0], *(e for _, e in counts[:1]))
    return Outcome(there > seen, used)


def gpus_differ(ctx: Context) -> Outcome:
    """Several models of GPU in one host."""
    names = gpus(ctx)
    if len(names) < 2:
        return UNKNOWN
    first: dict[str, Evidence] = {}
    for item in names.values():
        first.setdefault(str(item.value), item)
    return Outcome(len(first) > 1, tuple(first.values())[:4])


def _uneven(signal: str, share: float, label: str | None = None) -> Callable[[Context], Outcome]:
    def rule(ctx: Context) -> Outcome:
        if gpus_differ(ctx).holds:
            return UNKNOWN  # different models differ in everything
        got = {k: r for k, r in each(ctx, signal, label).items() if k is not None}
        if len(got) < 2:
            return UNKNOWN
        low, high = min(got.values(), key=lambda r: r[0]), max(got.values(), key=lambda r: r[0])
        return Outcome(low[0] < high[0] * share, (low[1], high[1]))

    return rule


def _below(signal: str, reference: str, share: float, label: str | None = None) -> Callable[[Context], Outcome]:
    def rule(ctx: Context) -> Outcome:
        normal = each(ctx, reference, label)
        pairs = [(r, normal[g]) for g, r in each(ctx, signal, label).items() if g in normal]
        return found([e for (v, e), (n, of) in pairs if v < n * share for e in (e, of)], bool(pairs))

    return rule


def _loaded(ctx: Context) -> set[int | None]:
    return {gpu for gpu, (value, _) in each(ctx, "gpu.util").items() if value >= BUSY}


def _link(signal: str, busy: bool) -> Callable[[Context], Outcome]:
    """A PCIe link below its highest setting, on GPUs that work (or that do not)."""

    def rule(ctx: Context) -> Outcome:
        top, used = each(ctx, f"{signal}.max"), _loaded(ctx)
        chosen = {g: r for g, r in each(ctx, signal).items() if g in top and (g in used) == busy}
        hits = [e for g, (v, e) in chosen.items() if v < top[g][0] for e in (e, top[g][1])]
        return found(hits, bool(chosen))

    return rule


def clock_low_without_reason(ctx: Context) -> Outcome:
    """A GPU that works runs well below its highest clock, and no limit is active: the clock is locked."""
    util, top = each(ctx, "gpu.util"), each(ctx, "gpu.clock.sm.max")
    active: dict[int | None, set[str]] = {}
    for item in ctx.of("gpu.throttle"):
        active.setdefault(item.subject.gpu, set()).add(item.subject.label or "")
    hits: list[Evidence] = []
    known = False
    for gpu, (value, item) in each(ctx, "gpu.clock.sm").items():
        if gpu not in top or util.get(gpu, (0.0, item))[0] < 0.9:
            continue
        known = True
        limits = {r for r in active.get(gpu, set()) if not re.search(r"idle|applications?_clocks?|^none", r)}
        if value < 0.7 * top[gpu][0] and not limits:
            hits += [item, top[gpu][1]]
    return found(hits, known)


def mig_mixed(ctx: Context) -> Outcome:
    """MIG is on for some GPUs only."""
    modes: dict[str, Evidence] = {}
    for item in ctx.of("gpu.mig"):
        if str(item.value) in ("Enabled", "Disabled"):
            modes.setdefault(str(item.value), item)
    return Outcome(len(modes) > 1, tuple(modes.values())) if modes else UNKNOWN


def mig_without_devices(ctx: Context) -> Outcome:
    """MIG is on, and no instance was made: nothing can run there."""
    on = {e.subject.gpu: e for e in ctx.of("gpu.mig") if str(e.value) == "Enabled"}
    if not ctx.of("gpu.mig"):
        return UNKNOWN
    made = {e.subject.gpu for e in ctx.of("gpu.mig.device")}
    return found(e for gpu, e in on.items() if gpu not in made and None not in made)


def memory_held_by_nobody(ctx: Context) -> Outcome:
    """GPU memory is in use, nothing computes, and no process is listed."""
    util = each(ctx, "gpu.util")
    owners = {e.subject.gpu for e in ctx.of("gpu.process")}
    used = each(ctx, "gpu.memory.used")
    if not used or None in owners:
        return UNKNOWN
    return found(e for gpu, (v, e) in used.items() if v > 1.5 and gpu not in owners and util.get(gpu, (1.0, e))[0] == 0)


# --- links between GPUs


def nvlink_short(ctx: Context) -> Outcome:
    """Fewer active NVLinks than the model has."""
    names = gpus(ctx)
    hits: list[Evidence] = []
    known = False
    for value, item in ctx.numbers("nvlink.links"):
        card = sheet(str(names[item.subject.gpu].value)) if item.subject.gpu in names else None
        if card is None or card.form not in ("SXM", "superchip") or not card.links:
            continue
        known = True
        if value < card.links:
            hits.append(item)
    return found(hits, known)


def nvlink_unused(ctx: Context) -> Outcome:
    """GPUs of a kind that is always wired by NVLink, and the matrix shows PCIe between them."""
    names = gpus(ctx)
    links = [e for e in ctx.of("topo.link") if e.subject.gpu in names]
    known = [e for e in links if (card := sheet(str(names[e.subject.gpu].value))) and card.form == "SXM" and card.links]
    return found([e for e in known if not str(e.value).startswith("NV")], bool(known))


def peer_access_refused(ctx: Context) -> Outcome:
    """A pair of GPUs linked by NVLink may not access each other."""
    wired = {(e.subject.gpu, e.subject.peer) for e in ctx.of("topo.link") if str(e.value).startswith("NV")}
    got = ctx.of("topo.p2p")
    if not got:
        return UNKNOWN
    return found(e for e in got if str(e.value) not in ("OK", "U") and (e.subject.gpu, e.subject.peer) in wired)


def peer_access_missing(ctx: Context) -> Outcome:
    """A pair of data-centre GPUs without NVLink has no peer access over PCIe either."""
    names = gpus(ctx)
    wired = {(e.subject.gpu, e.subject.peer) for e in ctx.of("topo.link") if str(e.value).startswith("NV")}
    pairs = [e for e in ctx.of("topo.p2p") if e.subject.label == "r" and (e.subject.gpu, e.subject.peer) not in wired]
    able = [
        e for e in pairs if (card := sheet(str(getattr(names.get(e.subject.gpu), "value", "")))) and card.p2p == "pcie"
    ]
    return found([e for e in able if str(e.value) in ("CNS", "GNS", "TNS", "NS", "DR")], bool(able))


def iommu_translates(ctx: Context) -> Outcome:
    """Bare metal with several GPUs whose kernel was told to translate every device's addresses."""
    line = ctx.of("host.kernel.cmdline")
    if not line or virtual(ctx) is None or len(gpus(ctx)) < 2:
        return UNKNOWN
    on = [e for e in line if re.search(r"\b(?:intel|amd)_iommu=(?:on|force)\b|\biommu=force\b", str(e.value))]
    through = any(re.search(r"\biommu=(?:pt|off)\b|iommu\.passthrough=1", str(e.value)) for e in line)
    return Outcome(bool(on) and not through and not virtual(ctx), tuple(on[:1]))


def acs_redirects(ctx: Context) -> Outcome:
    """Bare metal with several GPUs and a bridge that sends peer traffic up to the root."""
    got = ctx.of("pci.acs")
    if not got or virtual(ctx) is None or len(gpus(ctx)) < 2:
        return UNKNOWN
    return Outcome(False) if virtual(ctx) else found(e for e in got if e.value == "on")


RULES: Mapping[str, Callable[[Context], Outcome]] = {
    **{
        rule.__name__: rule
        for rule in (
            cuda_needs_newer_driver,
            image_needs_newer_driver,
            minor_version_compatibility,
            compat_on_geforce,
            compat_not_needed,
            packages_clash,
            torch_older_than_gpu,
            nccl_older_than_gpu,
            numpy_two_with_old_torch,
            torch_without_cuda,
            gpu_missing,
            gpus_differ,
            clock_low_without_reason,
            mig_mixed,
            mig_without_devices,
            memory_held_by_nobody,
            nvlink_short,
            nvlink_unused,
            peer_access_refused,
            peer_access_missing,
            iommu_translates,
            acs_redirects,
        )
    },
    "power_limit_low": _below("gpu.power.limit", "gpu.power.default", 0.95),
    "power_limits_differ": _uneven("gpu.power.limit", 0.97),
    "memory_differs": _uneven("gpu.memory.total", 0.98),
    "top_clocks_differ": _uneven("gpu.clock.sm.max", 0.99),
    "app_clock_low": _below("gpu.clock.app", "gpu.clock.app.default", 0.99, "graphics"),
    "memory_clock_low": _below("gpu.clock.app", "gpu.clock.app.default", 0.99, "memory"),
    "pcie_width_low_busy": _link("gpu.pcie.width", busy=True),
    "pcie_gen_low_busy": _link("gpu.pcie.gen", busy=True),
    "pcie_width_low_idle": _link("gpu.pcie.width", busy=False),
    "nvlinks_differ": _uneven("nvlink.links", 1.0),
}
