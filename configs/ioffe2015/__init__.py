"""Ioffe and Szegedy (2015), arXiv:1502.03167, a file a figure."""
