"""Installed as diagnose.playbooks; see README."""
