"""Experiments, one file each; `default.py` explains every key."""
