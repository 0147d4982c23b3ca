"""Holds experiments, one a file; `default.py` explains every key."""
