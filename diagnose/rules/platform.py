"""Named predicates of the platform family: figures of one GPU, one failure or one host held together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ..lazy import regex
from ..models import Evidence
from ..predicates import UNKNOWN, Context, Outcome, parse_version
from .base import Reading, highest, lowest, outcome
from .hosts import RULES as HOST_RULES
from .hosts_shares import RULES as SHARE_RULES
from .platform_env import RULES as ENV_RULES
from .platform_memory import RULES as MEMORY_RULES
from .platform_tables import RULES as TABLE_RULES

# Rated board power in W, as the default limit of the model's data sheet (nvidia.com product pages); exact names only.
RATED_POWER = {
    "NVIDIA H100 80GB HBM3": 700, "NVIDIA H200": 700, "NVIDIA H100 PCIe": 350, "NVIDIA A100-SXM4-80GB": 400,
    "NVIDIA A100-SXM4-40GB": 400, "NVIDIA A100 80GB PCIe": 300, "NVIDIA A100-PCIE-40GB": 250, "NVIDIA L40S": 350,
    "NVIDIA L4": 72, "NVIDIA A10": 150, "NVIDIA A40": 300, "NVIDIA B200": 1000, "Tesla V100-SXM2-32GB": 300,
    "Tesla V100-SXM2-16GB": 300, "Tesla T4": 70, "NVIDIA GeForce RTX 4090": 450, "NVIDIA GeForce RTX 3090": 350,
    "NVIDIA GeForce RTX 5090": 575,
}  # fmt: skip
# Lowest driver branch that runs a CUDA major version without the compatibility package (CUDA release notes, table 2).
DRIVER_FLOOR = {13: 580, 12: 525, 11: 450, 10: 410}
_BUSY = 0.8
_HOT_AND_SLOW = 0.8  # of the highest clock
_RESTING = {"P5", "P8", "P12", "P15"}


def _per_gpu(ctx: Context, signal: str, label: str | None = "") -> dict[int | None, Reading]:
    """Last reading of each GPU; `label` "" takes any, None only unlabelled ones."""
    out: dict[int | None, Reading] = {}
    for value, item in ctx.numbers(signal):
        if label == "" or item.subject.label == label:
            out[item.subject.gpu] = (value, item)
    return out


def _pick(readings: dict[int | None, Reading], gpu: int | None) -> Reading | None:
    """The reading of a GPU, or the one that was printed without saying which GPU."""
    hit = readings.get(gpu) or readings.get(None)
    if hit is None and gpu is None and len(readings) == 1:
        return next(iter(readings.values()))
    return hit


_CARD = regex(r"(?:GPU|MIG)-\S+|[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:\S+")
_Processes = dict[tuple[int | None, str], dict[str, Evidence]]  # of one GPU, by pid


def _power_limits(ctx: Context) -> list[tuple[float, tuple[Evidence, ...]]]:
    """Limit in force over the board's default, with the evidence, for each GPU."""
    defaults = _per_gpu(ctx, "gpu.power.default")
    names = {e.subject.gpu: e for e in ctx.of("gpu.name")}
    out: list[tuple[float, tuple[Evidence, ...]]] = []
    for gpu, (limit, item) in _per_gpu(ctx, "gpu.power.limit").items():
        normal = _pick(defaults, gpu)
        if normal is not None:
            out.append((limit / normal[0], (item, normal[1]) if normal[1] is not item else (item,)))
        elif (name := names.get(gpu)) is not None and str(name.value) in RATED_POWER:
            out.append((limit / RATED_POWER[str(name.value)], (item, name)))
    return out


def power_limit_reduced(ctx: Context) -> Outcome:
    """The power limit in force is clearly below the board's default."""
    ratios = _power_limits(ctx)
    return outcome([e for ratio, used in ratios if ratio < 0.92 for e in used], bool(ratios))


def power_limit_binds(ctx: Context) -> Outcome:
    """… and the card draws all it may, or says that the cap is what holds it."""
    reduced = power_limit_reduced(ctx)
    if not reduced.holds:
        return reduced
    limits = _per_gpu(ctx, "gpu.power.limit")
    hits = [e for e in ctx.of("gpu.throttle") if e.subject.label == "sw_power_cap"]
    for gpu, (draw, item) in _per_gpu(ctx, "gpu.power").items():
        limit = _pick(limits, gpu)
        if limit is not None and draw >= 0.93 * limit[0]:
            hits += [item, limit[1]]
    return outcome(hits, True)


def power_limit_costs(ctx: Context) -> Outcome:
    """… and this machine is measured slower than another or than itself, by no more than clocks explain."""
    reduced = power_limit_reduced(ctx)
    if not reduced.holds:
        return reduced
    hits = [e for value, e in ctx.numbers("compare.ratio") if 1.03 <= value <= 2.5]
    return Outcome(True, (*reduced.used[:2], *hits[:4])) if hits else Outcome(False, reduced.used[:2])


def _clock_ratios(ctx: Context) -> Iterable[tuple[float, bool, tuple[Evidence, ...]]]:
    """(SM clock / max, is the power budget used up, evidence) of GPUs that are busy."""
    tops, utils = _per_gpu(ctx, "gpu.clock.sm.max"), _per_gpu(ctx, "gpu.util", None)
    powers, limits = _per_gpu(ctx, "gpu.power", None), _per_gpu(ctx, "gpu.power.limit")
    for value, item in ctx.numbers("gpu.clock.sm"):
        gpu = item.subject.gpu
        top, util = _pick(tops, gpu), _pick(utils, gpu)
        if top is None or util is None or util[0] < _BUSY or top[0] <= 0:
            continue
        power, limit = _pick(powers, gpu), _pick(limits, gpu)
        capped = power is not None and limit is not None and power[0] >= 0.9 * limit[0]
        yield value / top[0], capped, (item, top[1], util[1])


def _clock_below(ctx: Context, share: float) -> Outcome:
    seen = list(_clock_ratios(ctx))
    return outcome([e for ratio, capped, used in seen if ratio < share and not capped for e in used], bool(seen))


def clock_low_under_load(ctx: Context) -> Outcome:
    """A busy GPU runs well below its clock without having used up its power budget."""
    return _clock_below(ctx, 0.75)


def clock_very_low_under_load(ctx: Context) -> Outcome:
    """… at about half of it or less."""
    return _clock_below(ctx, 0.55)


def clock_spread_under_load(ctx: Context) -> Outcome:
    """Of several busy GPUs of one model, one is clocked much lower."""
    utils = _per_gpu(ctx, "gpu.util", None)
    clocks = [
        (value, item)
        for gpu, (value, item) in _per_gpu(ctx, "gpu.clock.sm", None).items()
        if (util := _pick(utils, gpu)) is None or util[0] >= 0.5
    ]
    capped = {e.subject.gpu for e in ctx.of("gpu.throttle") if e.subject.label == "sw_power_cap"}
    names = {str(e.value) for e in ctx.of("gpu.name")}
    if len(clocks) < 2 or len(names) > 1:
        return UNKNOWN
    low, high = lowest(clocks), highest(clocks)
    if low[0] < 400 or low[1].subject.gpu in capped:  # an idle card among busy ones, or one that works harder
        return UNKNOWN
    return Outcome(high[0] / low[0] >= 1.25, (low[1], high[1]))


def app_clock_below_default(ctx: Context) -> Outcome:
    """Application clocks are set below their default."""
    defaults = _per_gpu(ctx, "gpu.clock.app.default", "graphics")
    pairs = [(r, d) for g, r in _per_gpu(ctx, "gpu.clock.app", "graphics").items() if (d := _pick(defaults, g))]
    return outcome([e for now, top in pairs if now[0] < 0.95 * top[0] for e in (now[1], top[1])], bool(pairs))


def resting_pstate_under_load(ctx: Context) -> Outcome:
    """A performance state of rest on a GPU that is busy."""
    utils = _per_gpu(ctx, "gpu.util", None)
    hits, known = [], False
    for item in ctx.of("gpu.pstate"):
        util = _pick(utils, item.subject.gpu)
        if item.subject.gpu is None and item.capture is not None:  # rows that do not say which GPU: by their line
            line = item.capture.line
            beside = [(v, e) for v, e in ctx.numbers("gpu.util") if e.capture is not None and e.capture.line == line]
            util = beside[0] if beside else util
        if util is None:
            continue
        known = True
        if item.value in _RESTING and util[0] >= _BUSY:
            hits += [item, util[1]]
    return outcome(hits, known)


def gpu_hot(ctx: Context) -> Outcome:
    """The GPU is at its thermal limit."""
    hits = [e for v, e in ctx.numbers("gpu.temperature.headroom") if v <= 1]
    limits = _per_gpu(ctx, "gpu.temperature.limit")
    for value, item in ctx.numbers("gpu.temperature"):
        limit = _pick(limits, item.subject.gpu)
        hot = 104 if item.subject.label == "memory" else limit[0] - 2 if limit else 90
        if value >= hot:
            hits.append(item)
    return outcome(hits, bool(ctx.of("gpu.temperature")))


def hot_and_slow(ctx: Context) -> Outcome:
    """A GPU at its thermal limit runs far below its highest clock."""
    hot = gpu_hot(ctx)
    if not hot.holds:
        return hot
    clocks, tops = _per_gpu(ctx, "gpu.clock.sm", None), _per_gpu(ctx, "gpu.clock.sm.max")
    for item in hot.used:
        now, top = _pick(clocks, item.subject.gpu), _pick(tops, item.subject.gpu)
        if now is not None and top is not None and now[0] < _HOT_AND_SLOW * top[0]:
            return Outcome(True, (item, now[1], top[1]))
    return UNKNOWN


def _widths(ctx: Context) -> list[tuple[float, float | None, tuple[Evidence, ...]]]:
    """(lanes now, lanes possible, evidence); what is possible comes from the card or its peers in the text."""
    tops: dict[int | None, Reading] = _per_gpu(ctx, "gpu.pcie.width.max")
    now = ctx.numbers("gpu.pcie.width")
    best = max(now, key=lambda r: r[0], default=None)
    out: list[tuple[float, float | None, tuple[Evidence, ...]]] = []
    for value, item in now:
        top = _pick(tops, item.subject.gpu)
        if top is None and best is not None and best[0] > value:
            top = best
        out.append((value, top[0] if top else None, (item, top[1]) if top else (item,)))
    return out


def pcie_narrow(ctx: Context) -> Outcome:
    """A GPU has fewer PCIe lanes than it could have."""
    seen = _widths(ctx)
    return outcome([e for now, top, used in seen if top and now < top for e in used], bool(seen))


def pcie_very_narrow(ctx: Context) -> Outcome:
    """… a quarter of them or less."""
    seen = _widths(ctx)
    return outcome([e for now, top, used in seen if top and now <= top / 4 for e in used], bool(seen))


def _generations(ctx: Context) -> Iterable[tuple[float, float, bool, tuple[Evidence, ...]]]:
    """(generation now, possible, is the GPU at work, evidence)."""
    tops = dict(_per_gpu(ctx, "gpu.pcie.gen.max").items())
    utils, states = _per_gpu(ctx, "gpu.util", None), {e.subject.gpu: e for e in ctx.of("gpu.pstate")}
    for value, item in ctx.numbers("gpu.pcie.gen"):
        top = _pick(tops, item.subject.gpu)
        if top is None:
            continue
        util, state = _pick(utils, item.subject.gpu), states.get(item.subject.gpu)
        working = util is not None and util[0] >= 0.2
        used = [item, top[1], *([util[1]] if util else []), *([state] if state else [])]
        yield value, top[0], working, tuple(used)


def pcie_gen_low_at_work(ctx: Context) -> Outcome:
    """The link stays below its generation while the GPU works."""
    seen = list(_generations(ctx))
    return outcome([e for now, top, busy, used in seen if now < top and busy for e in used], bool(seen))


def pcie_gen_first_at_work(ctx: Context) -> Outcome:
    """… at two or more generations below."""
    seen = list(_generations(ctx))
    return outcome([e for now, top, busy, used in seen if now <= top - 2 and busy for e in used], bool(seen))


def pcie_idle_gen_only(ctx: Context) -> Outcome:
    """The worry is a low link generation at full width on a card that is not working: a state of rest."""
    gens = ctx.numbers("gpu.pcie.gen")
    widths = _widths(ctx)
    if not gens or not widths or any(top is not None and now < top for now, top, _ in widths):
        return UNKNOWN
    tops = _per_gpu(ctx, "gpu.pcie.gen.max")
    best = max(v for v, _ in gens)
    low = [e for v, e in gens if v < (((top := _pick(tops, e.subject.gpu)) and top[0]) or best)]
    working = any(v >= 0.2 for v, _ in ctx.numbers("gpu.util"))
    asked = re.search(r"pci|\bgen ?\d|slot|link|带宽", ctx.symptom, re.IGNORECASE) is not None
    return Outcome(bool(low) and not working and asked, tuple(low[:4]))


def sw_power_cap_only(ctx: Context) -> Outcome:
    """The only active reason is the power cap, at the board's own limit, with a clock that is normal for full load."""
    reasons = ctx.of("gpu.throttle")
    if not reasons or any(e.subject.label not in ("sw_power_cap", "idle", "gpu_idle") for e in reasons):
        return UNKNOWN
    caps = [e for e in reasons if e.subject.label == "sw_power_cap"]
    asked = re.search(r"cap|throttl|power|clock|降频|功耗", ctx.symptom, re.IGNORECASE) is not None
    if not caps or not asked or any(ratio < 0.92 for ratio, _ in _power_limits(ctx)):
        return UNKNOWN
    limits = _per_gpu(ctx, "gpu.power.limit")
    full = [
        e
        for gpu, (draw, e) in _per_gpu(ctx, "gpu.power").items()
        if (limit := _pick(limits, gpu)) is not None and draw >= 0.93 * limit[0]
    ]
    return Outcome(True, (*caps[:2], *full[:2])) if full else UNKNOWN


def pci_endpoint_downgraded(ctx: Context) -> Outcome:
    """A device, not a bridge, has negotiated fewer lanes than it has."""
    tops = {e.subject.label: (v, e) for v, e in ctx.numbers("pci.link.width.max")}
    hits, known = [], False
    for value, item in ctx.numbers("pci.link.width"):
        top = tops.get(item.subject.label)
        if top is None or re.search(r"bridge|root port|switch", item.subject.label or "", re.IGNORECASE):
            continue
        known = True
        if value < top[0]:
            hits += [item, top[1]]
    return outcome(hits, known)


def shared_by_processes(ctx: Context) -> Outcome:
    """Two compute processes hold real memory on one GPU, and no sample shows that only one of them computes.

    Memory that an idle process holds takes nothing from the other's time, only its room.
    """
    if any(str(e.value).startswith("Enabled") for e in ctx.of("gpu.mig")):
        return UNKNOWN
    alone = one_of_several_computes(ctx)
    if alone.holds and not ctx.asks("out-of-memory"):
        return Outcome(False, alone.used)
    per: _Processes = {}
    for held, item in ctx.numbers("gpu.process.memory"):
        if held >= 1 and not (item.subject.label or "").endswith(" G"):
            _count(per, item)
    return outcome([e for group in per.values() if len(group) > 1 for e in group.values()], bool(per))


def _count(per: _Processes, item: Evidence) -> None:
    """File a process under its GPU, which a label may name by UUID or bus id; listings repeat each other."""
    label = item.subject.label or ""
    hit = _CARD.match(label)
    per.setdefault((item.subject.gpu, hit[0] if hit else ""), {}).setdefault(label, item)


def computed_by_processes(ctx: Context) -> Outcome:
    """Two processes use the SMs of one GPU at the same time."""
    per: _Processes = {}
    for share, item in ctx.numbers("gpu.process.sm"):
        if share >= 0.05:
            _count(per, item)
    return outcome([e for group in per.values() if len(group) > 1 for e in group.values()], bool(per))


def one_of_several_computes(ctx: Context) -> Outcome:
    """Of the processes on a GPU one uses its SMs; the others were sampled with it and used none."""
    per: dict[tuple[int | None, str], tuple[float, Evidence]] = {}
    for share, item in ctx.numbers("gpu.process.sm"):
        key = item.subject.gpu, item.subject.label or ""
        if not key[1].endswith(" G") and share >= per.get(key, (0.0, item))[0]:
            per[key] = share, item  # the most that it used, over all samples
    crowds = [[row for (gpu, _), row in per.items() if gpu == one] for one in {gpu for gpu, _ in per}]
    working = [sum(v >= 0.05 for v, _ in rows) for rows in crowds if len(rows) > 1]
    used = tuple(e for rows in crowds if len(rows) > 1 for _, e in rows)
    return Outcome(1 in working and max(working) == 1, used) if working else UNKNOWN


def neighbour_slows_rank(ctx: Context) -> Outcome:
    """The rank that takes longer for the same work sits on a GPU that was busy before the test began."""
    slow = [e for value, e in ctx.numbers("nccl.lockstep.spread") if value > 1.25]
    busy = [e for share, e in ctx.numbers("gpu.util") if share >= 0.5]
    hits = [e for e in busy for s in slow if e.subject.gpu is not None and e.subject.gpu == s.subject.rank]
    return outcome([*slow, *hits] if hits else [], bool(slow and busy))


def busy_for_somebody(ctx: Context) -> Outcome:
    """The question is why a GPU is busy without one's own work, and a compute process keeps it busy."""
    asked = re.search(
        r"(?:nothing|none|no (?:job|process|load)\w*|stopped|idle|not running|finished|没有(?:任务|进程|跑)|停了)",
        ctx.symptom,
        re.I,
    )
    users = [e for e in ctx.of("gpu.process") if not (e.subject.label or "").endswith(" G")]
    busy = [e for v, e in ctx.numbers("gpu.util") if v >= 0.5]
    held = [e for v, e in ctx.numbers("gpu.memory.used") if v >= 1]
    if asked is None or not (busy or held):
        return UNKNOWN
    return Outcome(bool(users), (*users[:2], *busy[:1], *held[:1]))


def driver_below_cuda(ctx: Context) -> Outcome:
    """The driver's branch is older than the CUDA major version in use can run on."""
    driver = ctx.version("driver")
    wanted = [v for name in ("torch-cuda", "cuda") if (v := ctx.version(name)) and v[0][0] in DRIVER_FLOOR]
    if driver is None or not wanted:
        return UNKNOWN
    worst = highest(wanted)
    return Outcome(driver[0][0] < DRIVER_FLOOR[worst[0][0]], (driver[1], worst[1]))


def driver_serves_cuda(ctx: Context) -> Outcome:
    """The question is whether driver and CUDA fit, and they do: minor-version compatibility."""
    below = driver_below_cuda(ctx)
    if below.holds is not False:
        return UNKNOWN
    asked = re.search(r"driver|mismatch|compat|驱动", ctx.symptom, re.IGNORECASE) is not None
    broken = any(
        ctx.of(s) for s in ("gpu.mark.driver_old", "gpu.mark.ptx_toolchain", "gpu.mark.compat_804", "env.mark.no_gpu")
    )
    return Outcome(asked and not broken, below.used)


def _visible(value: str) -> int | None:
    """How many devices CUDA_VISIBLE_DEVICES shows; None where it says all."""
    text = value.strip()
    if text.lower() in ("all",):
        return None
    if text.lower() in ("", "-1", "void", "none", "nodevfiles"):
        return 0
    return len([p for p in text.split(",") if p.strip()])


def _devices(ctx: Context) -> tuple[int, Evidence] | None:
    found = [
        (count, e)
        for e in ctx.of("env.var", {"label": r"^(?:CUDA|NVIDIA|HIP|ROCR)_VISIBLE_DEVICES$"})
        if (count := _visible(str(e.value))) is not None
    ]
    return lowest(found) if found else None


def all_gpus_masked(ctx: Context) -> Outcome:
    """The variable that selects devices selects none."""
    got = _devices(ctx)
    return UNKNOWN if got is None else Outcome(got[0] == 0, (got[1],))


def fewer_visible_than_asked(ctx: Context) -> Outcome:
    """Fewer devices are visible than the job's parallel size needs."""
    got = _devices(ctx)
    sizes: dict[str, Reading] = {}
    for item in ctx.of(
        "serving.arg",
        {"label": r"^(?:tensor-parallel-size|tp|tp-size|tensor-parallel|pipeline-parallel-size|nproc-per-node)$"},
    ):
        if str(item.value).isdigit():
            sizes[item.subject.label or ""] = (float(str(item.value)), item)
    if got is None or not sizes:
        return UNKNOWN
    need = 1.0
    for value, _ in sizes.values():
        need *= value
    return Outcome(got[0] < need, (got[1], *(e for _, e in sizes.values())))


def fewer_visible_than_present(ctx: Context) -> Outcome:
    """Fewer devices are visible to the job than the machine has."""
    got, present = _devices(ctx), ctx.numbers("gpu.count")
    if got is None or not present:
        return UNKNOWN
    most = highest(present)
    return Outcome(0 < got[0] < most[0], (got[1], most[1]))


def masked_to_few(ctx: Context) -> Outcome:
    """The question is why only some GPUs are used, and a variable shows only some."""
    asked = re.search(
        r"only (?:one|two|\w+ of|gpu ?0|the first|\d)|one of (?:the )?\w+ gpus|只(?:有|用|看到|识别)", ctx.symptom, re.I
    )
    got = _devices(ctx)
    return UNKNOWN if asked is None or got is None else Outcome(got[0] < 8, (got[1],))


def container_without_gpus(ctx: Context) -> Outcome:
    """A container was started without asking for GPUs, and the program sees none."""
    runs = ctx.of("container.flag", {"label": "^command$"})
    inspected = [
        e for e in ctx.of("container.flag", {"label": "^(?:devicerequests|devices)$"}) if e.value in ("null", "[]")
    ]
    if not (runs or inspected) or not ctx.of("env.mark.no_gpu"):
        return UNKNOWN
    given = ctx.of("container.gpus") or [
        e for e in ctx.of("container.flag") if re.search(r"nvidia", f"{e.subject.label} {e.value}", re.IGNORECASE)
    ]
    return Outcome(not given, (*runs[:1], *inspected[:1], *given[:1]))


def torch_too_old_for_gpu(ctx: Context) -> Outcome:
    """A Blackwell card with a wheel from before its architecture (torch 2.7 / CUDA 12.8)."""
    cards = [
        e
        for e in ctx.of("gpu.name")
        if re.search(r"RTX 50\d0|\bB[123]00\b|GB[23]00|RTX PRO \d000 Blackwell", str(e.value))
    ]
    cuda = ctx.version("torch-cuda")
    if not cards or cuda is None:
        return UNKNOWN
    return Outcome((0, 0) < cuda[0] < parse_version("12.8"), (cards[0], cuda[1]))


RULES: dict[str, Callable[[Context], Outcome]] = {
    rule.__name__: rule
    for rule in (
        power_limit_reduced, power_limit_binds, power_limit_costs, clock_low_under_load,
        clock_very_low_under_load, clock_spread_under_load, app_clock_below_default, resting_pstate_under_load,
        gpu_hot, hot_and_slow, pcie_narrow, pcie_very_narrow, pcie_gen_low_at_work, pcie_gen_first_at_work,
        pcie_idle_gen_only, sw_power_cap_only, pci_endpoint_downgraded, shared_by_processes, computed_by_processes,
        one_of_several_computes,
        busy_for_somebody, neighbour_slows_rank, masked_to_few, driver_below_cuda, driver_serves_cuda,
        all_gpus_masked, fewer_visible_than_asked,
        fewer_visible_than_present, container_without_gpus, torch_too_old_for_gpu,
    )
}  # fmt: skip
RULES |= HOST_RULES | SHARE_RULES | MEMORY_RULES | ENV_RULES | TABLE_RULES
