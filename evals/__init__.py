"""Installed as diagnose.evals; see README."""
