"""Small, safe arithmetic: formulas of derived evidence, and numerals in text that must be backed."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Sequence

from .units import canonical

TOLERANCE = 1e-6  # relative, of recomputed figures
_MAX_FORMULA = 1000
_FUNCTIONS: dict[str, Callable[[Iterable[float]], float]] = {"min": min, "max": max, "sum": math.fsum}

Backing = tuple[float, str | None]


def close(got: float, said: float, absolute: float = 0.0) -> bool:
    """Equal up to rounding of floating point, or within `absolute`."""
    return math.isclose(got, said, rel_tol=TOLERANCE, abs_tol=max(absolute * (1 + 1e-9), 1e-12))


def evaluate(formula: str, values: Sequence[float]) -> float:
    """Value of a formula over ``a, b, c …`` with ``+ - * / ( ) min max sum`` and plain numbers.

    Raises:
        ValueError: anything else in it, a letter without a value, or a division by zero.
    """
    if len(formula) > _MAX_FORMULA:
        raise ValueError("too long")
    try:
        tree = ast.parse(formula, mode="eval").body
    except (SyntaxError, MemoryError, RecursionError) as err:
        raise ValueError("not arithmetic") from err
    try:
        return _value(tree, values)
    except ZeroDivisionError as err:
        raise ValueError("division by zero") from err


def _value(node: ast.expr, values: Sequence[float]) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return float(node.value)
    if isinstance(node, ast.Name) and len(node.id) == 1 and "a" <= node.id <= "z":
        index = ord(node.id) - ord("a")
        if index >= len(values):
            raise ValueError(f"no input for {node.id}")
        return values[index]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, values)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, values), _value(node.right, values)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            return left / right
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args and not node.keywords:
        function = _FUNCTIONS.get(node.func.id)
        if function is not None:
            return function([_value(a, values) for a in node.args])
    raise ValueError("not arithmetic")


_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
# The fixed list of numerals that need no backing.
_EXEMPT = re.compile(
    r"""
      \b[A-Za-z][\w.]*-?\d[\w.-]*            # names of models and parts, ids: H100, Llama-3.1-8B, E12, GPT-2, fp8
    | \b(?:RTX|GTX|Tesla|Quadro|GeForce|Radeon|Xeon|EPYC|Llama|Qwen|Mixtral|Gemma|ConnectX|Gen|PCIe|GPT)[ -]?\d[\w.-]*
    | \b(?:v|versions?|NCCL|CUDA|cuDNN|UCX|NIXL|vLLM|SGLang|PyTorch|torch|driver|Python|Linux|kernel)\s?\d+(?:\.\d+)*
    | \b\d+\.\d+\.\d+(?:[.+-]\w+)*           # versions, addresses
    | \b\d+(?:st|nd|rd|th)\b | 第\s?\d+        # ordinals
    | \b(?:[Rr]ank|GPU|gpu|node|host|[Ss]tep|stage|level|lines?|Xid|port|channel|status|error|block)\s\#?\d+\b
    | (?m:^\s*\d+[.)]\s)                     # list markers
    | \b0x[0-9a-fA-F]+ | \b[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[\w.]+
    | \b\d+(?:\.\d+)?[BM]\b(?=[ -](?:model|param|dense|MoE))
    """,
    re.VERBOSE,
)
_NUMERAL = re.compile(
    r"(?<![\w.])(?P<n>[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
    r"(?:\s?(?P<u>%|[A-Za-zµμ°]+(?:/[A-Za-z]+)?|毫秒|微秒|秒|分钟|倍))?"
)


def check_numerals(text: str, values: Iterable[Backing]) -> list[str]:
    """Numerals of a text, outside code, that no value backs at their printed precision and unit.

    Args:
        text: what a model wrote.
        values: ``(figure, canonical unit or None)`` of evidence, limits, references and derived figures.
    """
    known = list(values)
    text = _EXEMPT.sub(lambda m: " " * len(m.group()), _CODE.sub(" ", text))
    return [hit.group().strip() for hit in _NUMERAL.finditer(text) if not _backed(hit, known)]


def _backed(hit: re.Match[str], known: list[Backing]) -> bool:
    digits = hit.group("n").replace(",", "")
    number = float(digits)
    mantissa, _, exponent = digits.lower().partition("e")
    half = 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    word = hit.group("u") or ""
    unit = canonical(1.0, word) if word and word != "倍" else (1.0, "count")
    readings: list[tuple[float, tuple[str | None, ...]]] = [(1.0, ("count", None))]  # a word, not a unit
    if unit is not None and word:
        readings = [(unit[0], ("count", "fraction", None) if unit[1] == "count" else (unit[1],))]
    for factor, allowed in readings:
        for value, of in known:
            if of in allowed and abs(value - number * factor) <= half * factor * (1 + 1e-9):
                return True
            other = _convert(value, of)
            if any(u in allowed and abs(v - number * factor) <= half * factor * (1 + 1e-9) for v, u in other):
                return True
    return False


_SAME = {"us": 1e-6, "ms": 1e-3, "s": 1.0}, {"B": 1.0, "GiB": 2.0**30}, {"GB/s": 1.0, "Gb/s": 0.125}


def _convert(value: float, unit: str | None) -> list[Backing]:
    """The same figure in the other units of its family."""
    return [
        (value * family[unit] / scale, other)
        for family in _SAME
        if unit in family
        for other, scale in family.items()
        if other != unit
    ]
