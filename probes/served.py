"""What live probes of a server write about it: engine, version and model, and which server a page of metrics is of."""

from __future__ import annotations

from collections.abc import Iterator

from diagnose.document import Document
from diagnose.lazy import regex
from diagnose.models import Fact
from diagnose.plugin import Reader

from .facts import fact

MARK = "# what is served at "
SCRAPE = "# diagnose scrape of "  # opens every page that is kept, so that pages of one server are told apart
_VERSION = regex(r"^version ([a-z][a-z.-]*) (\d\S*)$")
_WORD = regex(r"^(engine|model) (\S.*)$")
_SCRAPED = regex(r"^# diagnose scrape of (\S+) at (\d+\.\d+) ")


class ServedReader:
    """The head of such a text: engine, version and model of a server."""

    name = "served"
    needles: tuple[bytes, ...] = (MARK.encode(),)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """Facts of the lines between the mark and the first answer."""
        inside = False
        for line in doc.lines():
            if line.text.startswith(MARK):
                inside = True
            elif inside and not line.text.strip():
                return
            elif inside and (hit := _VERSION.match(line.text)):
                yield fact(doc, line, "version", hit[2], label=hit[1])
            elif inside and (hit := _WORD.match(line.text)):
                signal = "serving.engine" if hit[1] == "engine" else "serving.model"
                if hit[2] != "unknown":
                    yield fact(doc, line, signal, hit[2])


class ScrapeReader:
    """Which server a page of metrics is of, and when it was taken."""

    name = "scrape"
    needles: tuple[bytes, ...] = (SCRAPE.encode(),)

    def parse(self, doc: Document) -> Iterator[Fact]:
        """One fact: the time, with the server as its label."""
        for line in doc.lines():
            if hit := _SCRAPED.match(line.text):
                yield fact(doc, line, "serving.scraped", float(hit[2]), "s", label=hit[1])
            return


READERS: list[Reader] = [ServedReader(), ScrapeReader()]
