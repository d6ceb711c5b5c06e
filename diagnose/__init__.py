"""`diagnose`: evidence-first triage for GPU and LLM-serving performance."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
