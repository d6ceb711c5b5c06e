"""What practice remembers, in one local SQLite file: weak spots, and drills that were left before the end.

Where the user's data folder cannot be written the store lives in memory, and `note` says so.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

FILE = "practice.sqlite"
_TABLES = """
create table if not exists weak (concept text primary key, score real not null, times integer not null);
create table if not exists open_drill (drill text primary key, lines text not null);
"""


def default_path() -> Path:
    """In the user's data folder, or where DIAGNOSE_PRACTICE says."""
    from platformdirs import user_data_path

    named = os.environ.get("DIAGNOSE_PRACTICE")
    return Path(named) if named else user_data_path("diagnose") / FILE


class Store:
    """One connection a call, so that Ctrl-C at any moment leaves a whole file."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = str(path or default_path())
        self.note = ""
        self._memory: sqlite3.Connection | None = None
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=2)) as db, db:
                db.executescript(_TABLES)
        except (OSError, sqlite3.Error) as err:
            self.note = f"{self.path}: {getattr(err, 'strerror', None) or err}"
            self._memory = sqlite3.connect(":memory:")
            self._memory.executescript(_TABLES)

    def close(self) -> None:
        """Let go of a store in memory."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _run(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        if self._memory is not None:
            with self._memory as db:
                return db.execute(sql, values).fetchall()
        with closing(sqlite3.connect(self.path, timeout=2)) as db, db:
            return db.execute(sql, values).fetchall()

    def weak(self) -> dict[str, float]:
        """The last score of each concept that was asked."""
        return {str(c): float(str(s)) for c, s in self._run("select concept, score from weak order by concept")}

    def remember(self, concept: str, score: float) -> None:
        """Keep a concept's score."""
        self._run(
            "insert into weak values (?, ?, 1) on conflict (concept) do update set score = excluded.score, "
            "times = times + 1",
            concept, round(score, 4),
        )  # fmt: skip

    def lines(self, drill: str) -> list[str]:
        """What was typed in a drill that was left, or nothing."""
        found = self._run("select lines from open_drill where drill = ?", drill)
        try:
            got = json.loads(str(found[0][0])) if found else []
        except ValueError:
            return []
        return [str(line) for line in got] if isinstance(got, list) else []

    def keep(self, drill: str, lines: list[str]) -> None:
        """Keep what was typed so far; nothing ends the drill."""
        if not lines:
            self._run("delete from open_drill where drill = ?", drill)
            return
        self._run("insert or replace into open_drill values (?, ?)", drill, json.dumps(lines, ensure_ascii=False))
