"""Generated cases: stable for a seed, different for another, and each state told from its counterpart."""

from __future__ import annotations

from diagnose.evals.generate import generated, templates
from diagnose.evals.scoring import HEALTHY

from diagnose.catalogue import catalogue


def test_a_seed_gives_the_same_cases_and_another_gives_others() -> None:
    one, again, other = (list(generated(s, each=1)) for s in (7, 7, 8))
    assert one == again
    assert sum(a.texts == b.texts for a, b in zip(one, other, strict=True)) <= len(one) // 10


def test_every_mechanism_is_a_cause_of_the_catalogue_and_changes_its_text() -> None:
    known = catalogue().causes
    assert len(templates()) >= 40
    for template in templates():
        assert {template.label, *template.also} <= set(known), template.name
        sick, well = template.case(3), template.case(3, sick=False)
        assert sick.texts != well.texts and well.key.label == HEALTHY, template.name
        assert all(text.strip() for _, text in sick.texts)
        assert template.label not in sick.text
    families = {t.label.split(".")[0] for t in templates()}
    assert families >= {"nccl", "ucx", "nixl", "net", "serving", "gpu", "host", "train", "cuda", "env"}
