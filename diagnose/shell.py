"""A command broken into lines that a shell reads as the one it was."""

from __future__ import annotations

from collections.abc import Iterator

_GOES_ON = frozenset({"|", "&&", "||", "&", "do", "then"})  # behind these a line may end


def broken(command: str, width: int) -> list[str]:
    """Lines of at most `width` columns where quotes allow it; a remark behind the command goes on lines of its own."""
    *words, remark = _words(command)
    parts: list[list[str]] = [[]]
    for word in words:
        parts[-1].append(word)
        if _ends(word):
            parts.append([])
    out: list[str] = []
    line = ""
    for part in parts:
        if line and len(line) + 1 + len(" ".join(part)) > width:  # a line of its own, where that is room enough
            out.append(line)
            line = ""
        for word in part:
            if line and len(line) + 1 + len(word) > width - 2:
                out.append(line + " \\")
                line = word
            else:
                line = f"{line} {word}" if line else word
    if line:
        out.append(line)
    rest = ""
    for word in remark.split():
        if rest and len(rest) + 1 + len(word) > width:
            out.append(rest)
            rest = "#"
        rest = f"{rest} {word}" if rest else word
    return [*out, rest] if rest else out


def _ends(word: str) -> bool:
    return word in _GOES_ON or word.endswith(";")


def _words(command: str) -> Iterator[str]:
    """Words with what is quoted or substituted in one piece, then the remark, which may be empty."""
    word, quote, depth = "", "", 0
    for at, char in enumerate(command):
        if not quote and not depth and char == "#" and not word:
            yield command[at:]
            return
        if char == " " and not quote and not depth:
            if word:
                yield word
            word = ""
            continue
        word += char
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "(" and depth + word.endswith("$("):
            depth += 1
        elif char == ")" and depth:
            depth -= 1
    if word:
        yield word
    yield ""
