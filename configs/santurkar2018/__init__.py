"""Santurkar et al. (2018), arXiv:1805.11604, a file a figure.

`vgg.py` and `linear.py` are the two protocols, with the runs and measures of
all figures. A figure selects from them, so that its runs are those of the
protocol, bit for bit.
"""
