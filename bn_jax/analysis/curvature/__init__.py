"""Computes products, eigenvalues and spectra of a loss's second derivatives."""
