"""`stages` of the report: the parts of a latency from derived evidence, each beside its floor where one is known."""

from __future__ import annotations

from .models import Evidence, Limit, Stage

# what a user feels first; of each metric the stages in the order in which they happen
METRICS = ("ttft", "tpot", "e2e", "ttft tail")
ORDER = (
    "client and network", "tokenise", "frontend and router", "prefill server", "before the queue", "API server",
    "queue", "prefill", "first token", "KV transfer", "decode", "decode step", "inference", "residual",
)  # fmt: skip
RESIDUAL = "not exposed by the engine"
PERCENTILE = "upper bound of a histogram bucket; percentiles of stages do not add up"
# stage of a metric -> beginning of the limit that holds its floor
_FLOORS = {
    ("ttft", "prefill"): "prefill stage", ("e2e", "prefill"): "prefill stage",
    ("tpot", "decode step"): "decode stage",
}  # fmt: skip


def stages(evidence: list[Evidence], limits: list[Limit]) -> list[Stage]:
    """Stages of every metric whose parts are known; the seconds of a mean add up to that mean exactly."""
    out: list[Stage] = []
    totals = {e.subject.label or "": e for e in evidence if e.signal == "serving.stage_total"}
    for metric in METRICS:
        if metric in totals:
            out += _means(metric, totals[metric], evidence, limits)
    return out + _percentiles(evidence)


def shown(stage: Stage) -> tuple[float, float]:
    """Seconds and share as one shows them: two processes' clocks may leave a part slightly below nothing."""
    return max(stage.seconds, 0.0), min(max(stage.share or 0.0, 0.0), 1.0)


def _number(item: Evidence) -> float:
    return float(item.value) if isinstance(item.value, (int, float)) else 0.0


def _means(metric: str, total: Evidence, evidence: list[Evidence], limits: list[Limit]) -> list[Stage]:
    prefix = f"{metric}: "
    parts = {
        (e.subject.label or "").removeprefix(prefix): e
        for e in evidence
        if e.signal == "serving.stage_mean" and (e.subject.label or "").startswith(prefix)
    }
    whole, window = _number(total), total.statement.rpartition(", ")[2]
    known = [s for s in ORDER if s in parts]
    return [
        Stage(
            metric=metric, stage=stage, seconds=_number(parts[stage]) / 1000,
            share=round(_number(parts[stage]) / whole, 4) if whole else None,
            floor=_floor(metric, stage, limits), evidence=[parts[stage].id, total.id],
            note=f"{RESIDUAL}, {window}" if stage == "residual" else window,
        )
        for stage in known
    ]  # fmt: skip


def _floor(metric: str, stage: str, limits: list[Limit]) -> float | None:
    """Seconds of the floor, from the limit that shows where it comes from."""
    name = _FLOORS.get((metric, stage))
    if stage == "queue":
        return 0.0  # a server with room does not let anybody wait
    for limit in limits:
        if name and limit.what.startswith(name) and limit.limit is not None and limit.unit == "ms":
            return limit.limit / 1000
    return None


def _percentiles(evidence: list[Evidence]) -> list[Stage]:
    out = []
    for item in evidence:
        if item.signal != "serving.stage_percentile":
            continue
        metric, _, stage = (item.subject.label or "").partition(": ")
        out.append(Stage(metric=metric, stage=stage, seconds=_number(item) / 1000, evidence=[item.id], note=PERCENTILE))
    order = {name: i for i, name in enumerate(ORDER)}
    return sorted(out, key=lambda s: (s.metric, order.get(s.stage, 99) if s.stage != "whole" else -1, s.stage))
