"""Derived facts, one module a family; see `diagnose.derive`."""
