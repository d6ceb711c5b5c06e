"""Long logs in which every line has words of its own: ``python benchmarks/long_logs.py KIND MEGABYTES FILE``."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

_SYLLABLES = [c + v for c in (*"bcdfghklmnprstvwz", "ch", "st", "tr", "pl", "gr", "sh", "th") for v in "aeiou"]


class Words:
    """A source of made words, numbers and names."""

    def __init__(self) -> None:
        self.draw = random.Random(7)
        self._known = ["".join(self.draw.choices(_SYLLABLES, k=self.draw.randint(1, 4))) for _ in range(50_000)]

    def some(self, count: int) -> str:
        return " ".join(self.draw.choices(self._known, k=count))

    def name(self, digits: int = 16) -> str:
        return f"{self.draw.getrandbits(4 * digits):0{digits}x}"


def words(made: Words, n: int) -> str:
    """Words and two figures."""
    return f"{made.some(6)} {n} {made.some(6)} {made.draw.random() * 100:.2f}"


def objects(made: Words, n: int) -> str:
    """An object a line, as services log."""
    level = made.draw.choice(("info", "info", "warn", "error"))
    spent = round(made.draw.random() * 500, 2)
    return json.dumps({"ts": n, "level": level, "msg": made.some(8), "request_id": made.name(32), "spent_ms": spent})


def requests(made: Words, n: int) -> str:
    """An access log."""
    path = "/".join(made.some(2).split())
    status, size = made.draw.choice((200, 200, 304, 404, 500)), made.draw.randrange(100_000)
    return (
        f"10.0.{n % 250}.{n % 199} - - [02/Mar/2025:10:{n // 60 % 60:02d}:{n % 60:02d} +0000] "
        f'"GET /{path}?s={made.name()} HTTP/1.1" {status} {size} "-" "Mozilla/5.0 (X11; Linux x86_64)"'
    )


KINDS: dict[str, Callable[[Words, int], str]] = {"words": words, "objects": objects, "requests": requests}


def make(place: Path, kind: str, megabytes: float) -> None:
    """Write a log of about the given size."""
    made, line = Words(), KINDS[kind]
    with place.open("w") as out:
        n = 0
        while out.tell() < megabytes * 1e6:
            out.writelines(f"{line(made, n + k)}\n" for k in range(1000))
            n += 1000


if __name__ == "__main__":
    make(Path(sys.argv[3]), sys.argv[1], float(sys.argv[2]))
