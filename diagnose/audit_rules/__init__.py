"""Named rules of the audit: conditions that hold several readings of one machine together.

Each is a function ``(Context) -> Outcome``: True is a finding, False is in order, None cannot be decided.
They stand apart from `diagnose.rules`, whose families would be loaded for nothing on every audit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..predicates import Context, Outcome
from . import gpu, host

RULES: Mapping[str, Callable[[Context], Outcome]] = {**gpu.RULES, **host.RULES}
