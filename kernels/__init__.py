"""Installed as diagnose.kernels; see README."""
