"""Lists of hosts, ``node[001-064,070]``, as names. A name is checked before anything is done with it."""

from __future__ import annotations

import re
from itertools import product

from .errors import UsageError

MOST = 10_000
HINT = "node[001-064,070],login1: letters, digits, dots, dashes and underscores, ranges in brackets"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_SPAN = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_PART = re.compile(r"(?:[^\[\],\s]|\[[^\[\]]*\])+")


def valid(name: str) -> bool:
    """Is it a plain host name: nothing that a program could take for an option, a path or a shell's business?"""
    return _NAME.fullmatch(name) is not None and ".." not in name


def expand(text: str, most: int = MOST) -> list[str]:
    """The names of a list, in order, each once.

    Raises:
        UsageError: it is malformed, holds no name, or more than `most`.
    """
    out: dict[str, None] = {}
    rest = text
    while rest := rest.lstrip(", \t\r\n+"):
        hit = _PART.match(rest)
        if hit is None:
            raise UsageError(f"cannot read the list of hosts {text[:80]!r}", HINT)
        for one in hit.group().split("+"):
            for name in _part(one, text, most):
                out[name] = None
                if len(out) > most:
                    raise UsageError(f"more than {most} hosts in {text[:80]!r}", "give a shorter list")
        rest = rest[hit.end() :]
    if not out:
        raise UsageError("an empty list of hosts", HINT)
    return list(out)


def _part(part: str, text: str, most: int) -> list[str]:
    """One entry: literal pieces and brackets in turn."""
    choices: list[list[str]] = []
    size = 1
    for literal, ranges in re.findall(r"([^\[\]]+)|\[([^\[\]]*)\]", part):
        found = [literal] if literal else _ranges(ranges, text, most)
        size *= len(found)
        if size > most:
            raise UsageError(f"more than {most} hosts in {text[:80]!r}", "give a shorter list")
        choices.append(found)
    names = ["".join(words) for words in product(*choices)]
    for name in names:
        if not valid(name):
            raise UsageError(f"{name[:80]!r} is no host name", HINT)
    return names


def _ranges(text: str, whole: str, most: int) -> list[str]:
    out: list[str] = []
    for span in text.split(","):
        hit = _SPAN.fullmatch(span.strip())
        low, high = (hit[1], hit[2] or hit[1]) if hit else ("", "")
        if not low or int(high) < int(low):
            raise UsageError(f"cannot read [{text[:40]}] in the list of hosts {whole[:80]!r}", HINT)
        if int(high) - int(low) >= most or len(out) > most:
            raise UsageError(f"more than {most} hosts in {whole[:80]!r}", "give a shorter list")
        out += [f"{n:0{len(low)}d}" for n in range(int(low), int(high) + 1)]
    return out
