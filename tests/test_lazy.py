"""Regular expressions compiled on first use."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from importlib import import_module

import pytest

from diagnose.lazy import _Lazy, regex
from diagnose.plugin import readers


def test_a_lazy_pattern_behaves_as_the_compiled_one() -> None:
    lazy, made = regex(r"(?P<word>\w+) (\d+)", re.IGNORECASE), re.compile(r"(?P<word>\w+) (\d+)", re.IGNORECASE)
    assert lazy.pattern == made.pattern
    assert lazy.flags == made.flags and lazy.groups == made.groups and lazy.groupindex == made.groupindex
    for text in ("Rank 3 of 8", "nothing"):
        assert lazy.findall(text) == made.findall(text)
        assert [h.span() for h in lazy.finditer(text)] == [h.span() for h in made.finditer(text)]
        assert bool(lazy.search(text)) == bool(made.search(text))
    assert lazy.sub(r"\2", "Rank 3") == made.sub(r"\2", "Rank 3")
    assert regex(rb"a+").fullmatch(b"aa") is not None


def test_a_pattern_in_error_is_found_on_use() -> None:
    broken = regex("(")
    with pytest.raises(re.error):
        broken.search("x")


def test_every_pattern_compiles() -> None:
    readers()
    import_module("diagnose.rules")
    import_module("diagnose.derive")
    found = [o for o in gc.get_objects() if isinstance(o, _Lazy)]
    assert len(found) > 500
    for lazy in found:
        if lazy.pattern != "(":
            re.compile(lazy.pattern, lazy._flags)


def test_loading_the_readers_compiles_few_patterns() -> None:
    code = (
        "import re, re._compiler as c\n"
        "made = []\n"
        "real = c.compile\n"
        "c.compile = lambda p, flags=0: (made.append(p), real(p, flags))[1]\n"
        "import diagnose.document, diagnose.models, diagnose.catalogue, diagnose.plugin\n"
        "made.clear()\n"
        "diagnose.plugin.readers()\n"
        "import sys; assert not {'asyncio', 'ssl'} & {*sys.modules}, 'what a live run needs is imported there'\n"
        "print(len(made))\n"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(got.stdout) < 60, "module-level patterns: use `diagnose.lazy.regex`"
