"""The arithmetic of belief: groups, gates, chains, health."""

from __future__ import annotations

from types import SimpleNamespace

from diagnose.assess import ACCEPT, SURE, assess
from diagnose.entries import Cause
from diagnose.models import Evidence, Subject
from diagnose.predicates import Context


def cause(ident: str, *indicators: tuple[str, str], against: tuple[tuple[str, str], ...] = (), **more: object) -> Cause:
    made = [{"when": {"signal": s}, "strength": w, "because": s} for s, w in indicators]
    made += [{"when": {"signal": s}, "strength": w, "against": True, "because": s} for s, w in against]
    return Cause.model_validate(
        {
            "id": ident, "layer": "x", "title": ident, "definition": "d", "mechanism": "m",
            "fix": {"text": "f"}, "verify": "v", "indicators": made, **more,
        }
    )  # fmt: skip


def run(causes: list[Cause], signals: list[str], symptom: str = "", playbook: str = "p") -> object:
    ctx = Context(
        [
            Evidence(id=f"E{i}", kind="observed", signal=s, value="x", subject=Subject())
            for i, s in enumerate(signals, 1)
        ],
        playbook,
        symptom,
    )
    return assess(SimpleNamespace(causes={c.id: c for c in causes}, signals={}), ctx)  # type: ignore[arg-type]


def test_one_decisive_is_sure_one_strong_is_not_enough() -> None:
    sure = run([cause("a.x", ("s1", "decisive"))], ["s1"])
    assert sure.verdict == "cause" and sure.confidence >= SURE
    single = run([cause("a.x", ("s1", "strong"))], ["s1"])
    assert single.verdict == "inconclusive" and single.beliefs["a.x"].p < ACCEPT


def test_two_independent_strong_are_sure_two_of_one_group_are_not() -> None:
    two = run([cause("a.x", ("s1", "strong"), ("s2", "strong"))], ["s1", "s2"])
    assert two.confidence >= SURE
    same = cause("a.x")
    same = same.model_copy(
        update={
            "indicators": tuple(
                i.model_copy(update={"group": "g"}) for i in cause("a.x", ("s1", "strong"), ("s2", "strong")).indicators
            )
        }
    )
    assert run([same], ["s1", "s2"]).verdict == "inconclusive"


def test_weak_signs_and_the_symptoms_words_never_suffice() -> None:
    got = run([cause("a.x", ("s1", "weak"), ("s2", "weak"), cues=("slow",))], ["s1", "s2"], "it is slow")
    assert got.verdict == "inconclusive"


def test_decisive_against_outweighs_decisive_for() -> None:
    got = run([cause("a.x", ("s1", "decisive"), against=(("s2", "decisive"),))], ["s1", "s2"])
    assert got.verdict == "inconclusive"


def test_the_root_of_a_chain_leads() -> None:
    root = cause("a.root", ("s1", "decisive"), produces=("a.effect",))
    effect = cause("a.effect", ("s2", "decisive"), ("s3", "strong"))
    got = run([effect, root], ["s1", "s2", "s3"])
    assert [b.cause.id for b in got.accepted] == ["a.root", "a.effect"]
    assert got.links == [("a.root", "a.effect")]


def test_a_produced_cause_with_some_evidence_of_its_own_joins_the_chain() -> None:
    root = cause("a.root", ("s1", "decisive"), produces=("a.effect",))
    got = run([root, cause("a.effect", ("s2", "strong"))], ["s1", "s2"])
    assert [b.cause.id for b in got.accepted] == ["a.root", "a.effect"]


def test_health_needs_its_own_measurement_and_yields_to_a_surer_cause() -> None:
    healthy = cause("none.healthy", ("ok", "decisive"))
    assert run([healthy], ["ok"]).verdict == "healthy"
    assert run([healthy], ["other"]).verdict == "inconclusive"
    both = [healthy, cause("a.x", ("s1", "decisive"), ("s2", "strong"))]
    assert run(both, ["ok", "s1", "s2"]).verdict == "cause"


def test_nothing_known_is_inconclusive() -> None:
    got = run([cause("a.x", ("s1", "decisive"))], [])
    assert got.verdict == "inconclusive" and got.accepted == []
