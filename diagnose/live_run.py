"""Set a live run up from the command line: the host, the cassette, what may run; and say where it was recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .cassette import Cassette, reopen
from .catalogue import catalogue
from .collect import collectors
from .endpoint import Endpoint, seconds
from .errors import EXIT_OK, UsageError
from .host import Host
from .live import BUDGET, FOOTPRINTS, Live, allowed, run_folder
from .masking import Mapper
from .route import asked

if TYPE_CHECKING:
    from .triage import Reach

ENDPOINT_BUDGET = 60.0  # a server needs a window of time, also where only reading is allowed


def host_of(reach: Reach) -> Host:
    """The machine that a run looks at.

    Raises:
        UsageError: the recorded tree is no folder.
    """
    root = Path(reach.sysfs_root or "/")
    if not root.is_dir():
        raise UsageError(f"--sysfs-root {root} is no folder", "give the folder that holds the recorded sys/ and proc/")
    for name in {"endpoint", "prometheus"} & set(reach.params):
        Endpoint.of(reach.params, name)  # a wrong address is said at once
    return Host.at(dict(reach.params), root)


def level(reach: Reach) -> str:
    """The heaviest footprint that needs no question.

    Raises:
        UsageError: there is no such footprint.
    """
    chosen = reach.allow or "read"
    if chosen not in FOOTPRINTS:
        raise UsageError(f"--allow takes {', '.join(FOOTPRINTS)}, not {chosen!r}")
    return chosen


def budget(reach: Reach) -> float:
    """Seconds that probes may take together."""
    if reach.budget is not None:
        return reach.budget
    named = {"endpoint", "prometheus"} & set(reach.params)
    watched = seconds(reach.params.get("window", ""), 0.0) if "endpoint" in named else 0.0
    least = ENDPOINT_BUDGET + watched if named else 0.0
    return max(BUDGET[level(reach)], least)


def prepare(symptom: str, reach: Reach, asks: bool) -> Live:
    """A live run that is ready to start."""
    playbook = asked(catalogue(), symptom, [])[0] if symptom else "audit"
    folder = run_folder(playbook)
    host = host_of(reach)
    cassette = Cassette.create(folder, symptom, host.taint)
    return Live(host, cassette, allowed(level(reach)), budget(reach), asks)


def resumed(path: Path, reach: Reach, asks: bool) -> tuple[str, Live]:
    """An earlier run, to go on with: its symptom, and a live run that knows what was captured already."""
    cassette = reopen(path)
    cassette.mapper = Mapper.load(names_file(path))
    return cassette.symptom, Live(host_of(reach), cassette, allowed(level(reach)), budget(reach), asks)


def names_file(folder: Path) -> Path:
    """Where the mapping of masked names is kept: beside the cassette, never in it."""
    return folder.with_suffix(".names.json")


def finish(live: Live, complete: bool) -> None:
    """Keep the mapping, and say where the run lies."""
    live.cassette.mapper.save(names_file(live.cassette.path))
    more = "" if complete else f"; go on with: diagnose resume {live.cassette.path}"
    print(f"recorded in {live.cassette.path}{more}", file=sys.stderr)


def dry_run(symptom: str, reach: Reach) -> int:
    """Print every command that this run could start, in order, by footprint; run nothing."""
    host, may = host_of(reach), allowed(level(reach))
    names = asked(catalogue(), symptom, []) if symptom else ["environment"]
    live = Live(host, Cassette(Path("dry-run")), may, budget(reach))
    first = live.first(names, symptom)
    later = [c for n, c in sorted(collectors().items()) if c not in first]
    for title, group in (("first, side by side", first), ("then, where they would decide", later)):
        print(f"# {title}")
        for item in group:
            why = item.ready(host)
            if why is None and item.spec.footprint not in may:
                why = f"needs --allow {item.spec.footprint}"
            head = f"{item.probe} ({item.spec.footprint}, about {item.cost(host):g} s)"
            print(head if why is None else f"{head}: not here: {why}")
            for line in item.shown(host) if why is None else ():
                print(f"  $ {line}")
    return EXIT_OK
