"""Santurkar et al. (2018), arXiv:1805.11604, a file a figure.

`vgg.py` and `linear.py` are the two protocols, with all runs and measures of
all figures; a figure takes of them what it shows, so that its runs are theirs,
bit for bit.
"""
