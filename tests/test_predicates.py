"""Conditions: three-valued, and each says what it used."""

from __future__ import annotations

import pytest

from diagnose.catalogue import catalogue
from diagnose.errors import CatalogueError
from diagnose.models import Evidence, Limit, Subject
from diagnose.predicates import Context, check, holds, in_range, needs, once, parse_version
from diagnose.rules import registered


def ev(ident: str, signal: str, value: object, unit: str | None = None, count: int = 1, **subject: object) -> Evidence:
    return Evidence(
        id=ident, kind="observed", signal=signal, value=value, unit=unit, count=count, subject=Subject(**subject)
    )


CTX = Context(
    [
        ev("E1", "a.size", 4.0, "GiB", gpu=0),
        ev("E2", "a.size", 12.0, "GiB", gpu=1),
        ev("E3", "env.var", "1", label="NCCL_IB_DISABLE"),
        ev("E4", "version", "2.19.3+cuda12", label="nccl"),
        ev("E5", "compare.ratio", 7.4, label="proxy|ttft|gateway|direct", count=2),
    ],
    playbook="slow-allreduce",
    limits=[Limit(what="all-reduce busbw, 2 GPUs", measured=27, limit=370, unit="GB/s", ratio=0.073, evidence=["E1"])],
    recognised={"nccl_log": True, "cut_log": False},
)


@pytest.mark.parametrize(
    ("when", "want", "used"),
    [
        ({"signal": "a.size"}, True, ["E1", "E2"]),
        ({"signal": "a.size", "below": 5}, True, ["E1"]),
        ({"signal": "a.size", "above": 50}, False, ["E1", "E2"]),
        ({"signal": "a.*", "at_least": 12}, True, ["E2"]),
        ({"signal": "absent.here"}, None, []),
        ({"signal": "env.var", "equals": "1", "where": {"label": "^NCCL_IB_DISABLE$"}}, True, ["E3"]),
        ({"signal": "env.var", "where": {"label": "UCX"}}, None, []),
        ({"no": "absent.here"}, True, []),
        ({"no": "a.size"}, False, ["E1", "E2"]),
        ({"absent": "nccl.gdr", "given": "nccl_log"}, True, []),
        ({"absent": "nccl.gdr", "given": "cut_log"}, None, []),
        ({"absent": "nccl.gdr", "given": "never"}, None, []),
        ({"version": "nccl", "range": ">=2.19,<2.20"}, True, ["E4"]),
        ({"version": "ucx", "range": ">=1"}, None, []),
        ({"limit": "all-reduce busbw", "below": 0.5}, True, ["E1"]),
        ({"limit": "RDMA", "below": 0.5}, None, []),
        ({"ratio": ["a.size", "a.size"], "at_least": 1}, True, ["E2", "E2"]),
        ({"spread": "a.size", "above": 2}, True, ["E1", "E2"]),
        ({"compare": "proxy", "metric": "ttft", "above": 2}, True, ["E5"]),
        ({"compare": ["proxy", "client"], "above": 10}, False, ["E5"]),
        ({"compare": "version"}, None, []),
        ({"playbook": ["slow-allreduce", "x"]}, True, []),
        ({"playbook": "high-ttft"}, False, []),
        ({"recognised": ["nccl_log"]}, True, []),
        ({"signal": "compare.ratio", "count_at_least": 2}, True, ["E5"]),
        ({"all": [{"signal": "a.size"}, {"signal": "absent.here"}]}, None, []),
        ({"all": [{"signal": "a.size", "above": 99}, {"signal": "absent.here"}]}, False, ["E1", "E2"]),
        ({"any": [{"signal": "absent.here"}, {"signal": "env.var"}]}, True, ["E3"]),
        ({"not": {"signal": "a.size", "above": 99}}, True, ["E1", "E2"]),
        ({"not": {"signal": "absent.here"}}, None, []),
    ],
)
def test_leaf(when: dict[str, object], want: bool | None, used: list[str]) -> None:
    got = holds(when, CTX)
    assert got.holds is want
    assert [e.id for e in got.used] == used


def test_versions_compare_to_the_length_of_the_bound() -> None:
    assert in_range(parse_version("2.19.3"), "<=2.19")
    assert not in_range(parse_version("2.20.0"), "<=2.19")
    assert in_range(parse_version("v0.9.2"), ">=0.9,<0.10")


@pytest.mark.parametrize(
    ("when", "hint"),
    [
        ({"sginal": "a.size"}, "signal"),
        ({"signal": "a.sise"}, "a.size"),
        ({"signal": "a.size", "bellow": 1}, "below"),
        ({"all": [{"any": [{"signal": "a.size"}]}]}, "named predicate"),
        ({"python": "no_such_rule"}, ""),
    ],
)
def test_a_condition_that_cannot_fire_is_refused(when: dict[str, object], hint: str) -> None:
    with pytest.raises(CatalogueError) as err:
        check(when, "f.yaml", "cause x", {"a.size": None})
    assert hint in err.value.hint


@pytest.mark.parametrize(
    ("when", "wanted"),
    [
        ({"signal": "a.b"}, ({"a.b"},)),
        ({"signal": "a.*"}, ()),
        ({"no": "a.b"}, ()),
        ({"python": "rule"}, ()),
        ({"all": [{"signal": "a"}, {"playbook": ["p", "q"]}, {"not": {"signal": "b"}}]}, ({"a"}, {"?p", "?q"})),
        ({"any": [{"signal": "a"}, {"spread": "b"}]}, ({"a", "b"},)),
        ({"any": [{"signal": "a"}, {"python": "rule"}]}, ()),
        ({"ratio": ["a", "b"]}, ({"a"}, {"b"})),
    ],
)
def test_what_a_condition_cannot_do_without(when: dict[str, object], wanted: tuple[set[str], ...]) -> None:
    assert needs(when) == wanted


def test_no_indicator_of_the_catalogue_holds_without_what_it_needs() -> None:
    """With nothing in evidence and no question asked, what has needs does not hold."""
    registered(catalogue())
    nothing = Context([])
    indicators = [i.when for c in catalogue().causes.values() for i in c.indicators]
    assert sum(bool(needs(w)) for w in indicators) > 1000
    assert not [w for w in indicators if needs(w) and holds(w, nothing).holds]


def test_what_rules_share_is_worked_out_once() -> None:
    asked: list[Context] = []

    @once
    def shared(ctx: Context) -> int:
        asked.append(ctx)
        return 7

    one, two = Context([]), Context([])
    assert [shared(one), shared(one), shared(two)] == [7, 7, 7]
    assert asked == [one, two]
