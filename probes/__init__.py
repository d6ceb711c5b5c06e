"""Installed as diagnose.probes; see README."""
