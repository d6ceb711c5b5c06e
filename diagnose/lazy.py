"""Regular expressions that are compiled when first used: most readers and rules meet no line of theirs in a run.

Compiling all of them costs more than reading a short capture does.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast


class _Lazy:
    """Stands in for a compiled pattern; takes over its methods on first use, so that later calls cost the same."""

    def __init__(self, source: str | bytes, flags: int) -> None:
        self.pattern, self._flags = source, flags

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = re.compile(self.pattern, self._flags)
        self.__dict__.update((n, getattr(made, n)) for n in dir(made) if not n.startswith("_"))
        return getattr(made, name)


def regex(source: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Like `re.compile`, on first use. A pattern in error is found then, and by a test that uses them all."""
    return cast("re.Pattern[AnyStr]", _Lazy(source, flags))
