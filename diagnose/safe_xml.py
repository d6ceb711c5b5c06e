"""XML from strangers: no entities, no DTD of its own, bounded size and depth, and byte spans.

A `DOCTYPE` that only names an external file is accepted and ignored: ``nvidia-smi -q -x`` prints one.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from .errors import ParseError

MAX_BYTES = 64 << 20
MAX_DEPTH = 200

Place = tuple[int, int, int]  # first byte, byte after the last, 1-based line


def parse(data: bytes, tool: str = "xml", max_bytes: int = MAX_BYTES) -> Element:
    """The root element of a document.

    Args:
        data: the whole document.
        tool: name of the reader, for the error.
        max_bytes: larger documents are refused.

    Raises:
        ParseError: not well formed, too big, too deep, or it declares entities.
    """
    return parse_spans(data, tool, max_bytes)[0]


def parse_spans(data: bytes, tool: str = "xml", max_bytes: int = MAX_BYTES) -> tuple[Element, dict[Element, Place]]:
    """As `parse`, with the place of every element: ``data[start:end]`` is its text, tags included."""
    if len(data) > max_bytes:
        raise ParseError(tool, f"XML of {len(data)} bytes is over the limit of {max_bytes}")
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    open_: list[tuple[Element, int, int]] = []
    places: dict[Element, Place] = {}

    def refuse(what: str) -> None:
        raise ParseError(tool, f"XML that declares {what} is refused", parser.CurrentLineNumber)

    def doctype(_name: str, _system: str | None, _public: str | None, internal: bool) -> None:
        if internal:
            refuse("a DTD of its own")

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(open_) >= MAX_DEPTH:
            raise ParseError(tool, f"XML nested deeper than {MAX_DEPTH} levels", parser.CurrentLineNumber)
        open_.append((builder.start(tag, attributes), parser.CurrentByteIndex, parser.CurrentLineNumber))

    def end(tag: str) -> None:
        builder.end(tag)
        element, first, line = open_.pop()
        at = parser.CurrentByteIndex  # of `</tag>`, or just behind the `/>` of an empty element
        if not (len(element) == 0 and not element.text and data[at - 2 : at] == b"/>"):
            at = data.find(b">", at) + 1 or len(data)
        places[element] = (first, at, line)

    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = lambda *_: refuse("entities")
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except expat.ExpatError as err:
        raise ParseError(tool, f"not well-formed XML ({expat.ErrorString(err.code)})", err.lineno) from err
    except (ValueError, LookupError) as err:  # an encoding that Python or expat cannot decode
        raise ParseError(tool, f"XML cannot be decoded ({err})") from err
    return builder.close(), places
