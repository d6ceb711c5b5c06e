"""Is the same question answered the same way twice? Two processes with other hash seeds print a digest a case."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence

from .case import Case, own_cases, sample


def chosen() -> list[Case]:
    """A fixed sample of our own cases."""
    return sample(own_cases())


def digest(case: Case) -> str:
    """Of the whole report, without the time it took."""
    from diagnose.engine import report

    told = report(case.symptom, case.documents(), (), ("en", "zh")).model_dump_json(exclude={"stats"}, by_alias=True)
    return hashlib.sha256(told.encode()).hexdigest()


def differing(seeds: Sequence[int] = (1, 2)) -> tuple[list[str], int]:
    """Ids of the cases whose reports differ between two runs, and how many were asked.

    Raises:
        RuntimeError: a run failed.
    """
    runs = []
    for seed in seeds:
        env = {**os.environ, "PYTHONHASHSEED": str(seed)}
        done = subprocess.run(
            [sys.executable, "-m", "diagnose.evals.repeat"], capture_output=True, text=True, env=env, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the run failed")
        runs.append(dict(line.split("\t") for line in done.stdout.splitlines()))
    ids = sorted(set().union(*runs))
    return [i for i in ids if len({run.get(i) for run in runs}) > 1], len(ids)


if __name__ == "__main__":
    for one in chosen():
        print(f"{one.id}\t{digest(one)}")
