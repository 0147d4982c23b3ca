"""Multiplies second derivatives of losses by vectors, and finds spectra."""
