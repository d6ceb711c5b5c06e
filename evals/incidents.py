"""Score cases from files while developing: ``python -m diagnose.evals.incidents PATH… [-v]``."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from diagnose.errors import DiagnoseError

from .case import Case
from .report import explain
from .run import run
from .scoring import Outcome


def main(argv: list[str]) -> int:
    """Print one line a case (with ``-v`` its evidence and every term of the leading beliefs), then the totals."""
    gc.set_threshold(50_000)  # as the command line does
    paths = [Path(a) for a in argv if a != "-v"]
    if not paths:
        print(__doc__, file=sys.stderr)
        return 3

    def short(case: Case, _report: object, outcome: Outcome) -> None:
        explain(case, None, outcome)
        if "-v" in argv:
            terms(case, outcome)

    try:
        result = run((), paths, watch=short)
    except DiagnoseError as err:
        print(err.message, file=sys.stderr)
        return err.exit_code
    outcomes = [o for s in result.scores for o in s.outcomes]
    n = len(outcomes)
    print(f"top-1 {sum(o.first for o in outcomes)}/{n}  top-3 {sum(o.third for o in outcomes)}/{n}")
    return 0


def terms(case: Case, outcome: Outcome) -> None:
    """Evidence, and what spoke for and against the leading causes."""
    from diagnose.engine import triage

    got = triage(case.symptom, case.documents())
    print(f"      playbook {got.playbook}")
    for item in got.evidence:
        print(f"      {item.id} {item.signal} {item.subject.label or ''} = {item.value} {item.unit or ''}")
    for limit in got.limits:
        print(f"      limit {limit.what}: {limit.measured:g} / {limit.limit} = {limit.ratio} {limit.reason or ''}")
    for cause in [c for c in outcome.ranked if c in got.assessment.beliefs][:4]:
        belief = got.assessment.beliefs[cause]
        for term in [*belief.pro, *belief.contra]:
            sign = "-" if term.indicator.against else "+"
            used = [e.id for e in term.used]
            print(f"      {cause} {sign}{term.indicator.strength} {term.indicator.when} {used}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
