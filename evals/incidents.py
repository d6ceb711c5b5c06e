"""Development score over incident files: ``python -m diagnose.evals.incidents PATH… [-v]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from diagnose.document import Document
from diagnose.engine import Triage, triage


def cases(path: Path) -> list[dict[str, Any]]:
    """Cases of a file: one incident as JSON, or a list of them as YAML."""
    if path.suffix == ".yaml":
        return list(yaml.safe_load(path.read_text("utf-8")) or [])
    return [json.loads(path.read_text("utf-8"))]


def documents(case: dict[str, Any]) -> list[Document]:
    """The artifacts of a case, as if each were a file."""
    return [Document.of(f"{i}-{a['kind']}.txt", a["text"].encode()) for i, a in enumerate(case["artifacts"])]


def ranking(result: Triage) -> list[str]:
    """Causes as reported: findings first, then the other hypotheses."""
    got = result.assessment
    if got.verdict == "healthy":
        lead = ["none.healthy"]
    else:
        lead = [b.cause.id for b in got.accepted]
    rest = sorted((b for b in got.beliefs.values() if b.p > 0), key=lambda b: (-b.p, b.cause.id))
    return lead + [b.cause.id for b in rest if b.cause.id not in lead]


def main(argv: list[str]) -> None:
    verbose = "-v" in argv
    paths: list[Path] = []
    for arg in argv:
        if arg != "-v":
            place = Path(arg)
            paths.extend(sorted([*place.glob("*.json"), *place.glob("*.yaml")]) if place.is_dir() else [place])
    top1 = top3 = 0
    every = [case for path in paths for case in cases(path)]
    for case in every:
        result = triage(case["symptom"], documents(case))
        root = case["root_cause"]
        verdict = case.get("verdict")
        good = ["inconclusive"] if verdict == "inconclusive" else [root["label"], *root.get("also_accept", [])]
        ranked = ranking(result)
        first = ranked[0] if ranked and result.assessment.verdict != "inconclusive" else result.assessment.verdict
        top1 += first in good
        top3 += any(r in good for r in ranked[:3])
        mark = "ok " if first in good else "3  " if any(r in good for r in ranked[:3]) else "BAD"
        print(f"{mark} {case['id']:45} want {root['label']:34} got {result.assessment.verdict} "
              f"{[(r, round(result.assessment.beliefs[r].p, 2)) if r in result.assessment.beliefs else r for r in ranked[:3]]} "
              f"[{result.playbook}]")  # fmt: skip
        if verbose:
            for item in result.evidence:
                print(f"      {item.id} {item.signal} {item.subject.label or ''} = {item.value} {item.unit or ''}")
            for rank in ranked[:4]:
                belief = result.assessment.beliefs.get(rank)
                for term in [*belief.pro, *belief.contra] if belief else []:
                    sign = "-" if term.indicator.against else "+"
                    print(f"      {rank} {sign}{term.indicator.strength} {term.indicator.when} {[e.id for e in term.used]}")
    print(f"top-1 {top1}/{len(every)}  top-3 {top3}/{len(every)}")


if __name__ == "__main__":
    main(sys.argv[1:])
