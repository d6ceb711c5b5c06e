"""Reader of what `diagnose microbench --format json` writes: this GPU's measured ceilings, and its twins.

The pathological kernels in it are ours, so none of their readings may look like the user's: every signal is
`bench.*`. `profile` says what a profiler shows of such a kernel by construction (32 sectors a request …), which
lets a user's kernel be placed between the twins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diagnose.document import Document
from diagnose.errors import ParseError
from diagnose.models import Fact, Subject
from diagnose.safe_json import Place, loads, locate_all

SCHEMA = b"diagnose.microbench/v1"
_SIGNALS = {"GB/s": "bench.bandwidth", "TFLOP/s": "bench.compute", "us": "bench.latency", "fraction": "bench.fraction"}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


class MicrobenchJson:
    """Rows of a microbenchmark run."""

    name = "microbench"
    needles: tuple[bytes, ...] = (SCHEMA,)

    def owns(self, doc: Document) -> bool:
        """A document of ours from end to end: no other reader may take a twin for the user's kernel."""
        return doc.head.lstrip()[:1] == b"{" and SCHEMA in doc.head[:4096]

    def parse(self, doc: Document) -> Iterator[Fact]:
        """The GPU, then of every row its figure, its share of the limit, and how much slower it is than its twin.

        Raises:
            ParseError: there are no rows.
        """
        if not self.owns(doc):
            return
        found = loads(doc.data, self.name)
        rows = found.get("rows") if isinstance(found, dict) else None
        if not isinstance(rows, list):
            raise ParseError(self.name, "no rows")
        wanted: list[tuple[str | int, ...]] = [("gpu", "name")]
        for n, row in enumerate(rows):
            wanted += [("rows", n, key) for key in ("value", "ratio", "slower", "limit")]
            profile = row.get("params", {}).get("profile") if isinstance(row, dict) else None
            wanted += [("rows", n, "params", "profile", signal) for signal in profile or ()]
        places = locate_all(doc.data, wanted, tool=self.name)
        gpu = found.get("gpu")
        if isinstance(gpu, dict) and isinstance(gpu.get("name"), str) and ("gpu", "name") in places:
            index = gpu.get("index")
            subject = Subject(gpu=index if isinstance(index, int) else None)
            yield self._fact(doc, "gpu.name", gpu["name"], None, subject, places["gpu", "name"])
        for n, row in enumerate(rows):
            if isinstance(row, dict) and isinstance(row.get("name"), str):
                yield from self._row(doc, n, row, places)

    def _row(
        self, doc: Document, n: int, row: dict[str, Any], places: dict[tuple[str | int, ...], Place]
    ) -> Iterator[Fact]:
        def at(*path: str) -> Place:
            return places["rows", n, *path]

        unit, name = str(row.get("unit")), row["name"]
        value = _number(row.get("value"))
        if unit not in _SIGNALS or value is None:
            if unit != "Gop/s":  # no canonical unit: only the twins' ratio says something
                doc.lines_skipped += 1
                return
        else:
            yield self._fact(doc, _SIGNALS[unit], value, unit, Subject(label=name), at("value"))
        if (limit := _number(row.get("limit"))) is not None and unit in ("GB/s", "TFLOP/s"):
            signal = "bench.limit.bandwidth" if unit == "GB/s" else "bench.limit.compute"
            yield self._fact(doc, signal, limit, unit, Subject(label=name), at("limit"))
        if (ratio := _number(row.get("ratio"))) is not None:
            yield self._fact(doc, "bench.ratio", ratio, "fraction", Subject(label=name), at("ratio"))
        twin, slower = row.get("twin"), _number(row.get("slower"))
        if isinstance(twin, str) and slower is not None:
            yield self._fact(doc, "bench.slower", slower, "count", Subject(label=f"{name}|{twin}"), at("slower"))
        profile = row.get("params", {}).get("profile") if isinstance(row.get("params"), dict) else None
        for signal, reading in (profile or {}).items():
            if (figure := _number(reading)) is not None:
                place = at("params", "profile", signal)
                yield self._fact(doc, "bench.profile", figure, None, Subject(label=f"{name}|{signal}"), place)

    @staticmethod
    def _fact(doc: Document, signal: str, value: str | float, unit: str | None, subject: Subject, place: Place) -> Fact:
        return Fact(signal, value, unit, subject, (doc.bytes_span(*place),), status=doc.status)


READERS = [MicrobenchJson()]
