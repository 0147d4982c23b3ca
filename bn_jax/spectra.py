"""Reduces the nodes and weights of quadratures of a spectrum to a density.

Each probe of stochastic Lanczos quadrature gives nodes and weights. What they
say is a sum of point masses; drawn as a curve it is convolved with a Gaussian.
NumPy only: measures keep the nodes, the report reduces them.
"""

from typing import NamedTuple

import numpy as np

# The width of the Gaussian, in units of the scale of the spectrum. Nodes of 60
# to 90 steps lie about 3 to 5 % of the spectrum apart in its middle, and much
# closer at its ends: a wider Gaussian would hide where outliers lie. Beside an
# outlier of 100 times its size a bulk is one Gaussian all the same; `curve` has
# the keyword `width` for it.
WIDTH = 0.01
POINTS = 1024  # of a grid: about 9 of them to a width
_MARGIN = 5.0  # widths of grid beyond the outermost nodes


class Curve(NamedTuple):
  """The density of a spectrum: the share of eigenvalues by unit of eigenvalue.

  Attributes:
    grid: [M], eigenvalues, increasing.
    density: [M], the mean over probes; its integral is 1.
    low, high: [M], the smallest and the largest over probes.
    width: [], of the Gaussian.
  """

  grid: np.ndarray
  density: np.ndarray
  low: np.ndarray
  high: np.ndarray
  width: float


def curve(
  nodes: np.ndarray,
  weights: np.ndarray,
  grid: np.ndarray | None = None,
  width: float | None = None,
) -> Curve:
  """Returns the density that several probes give.

    density(x) = mean over probes of sum_j w_j N(x; theta_j, width^2)

  Args:
    nodes: [S, order], eigenvalues theta; nan where a probe has fewer.
    weights: [S, order], w, above 0 and with the sum 1 over each probe; 0 where
      the node is nan.
    grid: [M]; None: POINTS from the smallest to the largest node and 5 widths
      beyond.
    width: of the Gaussian; None: `width_of` these nodes, which blurs a bulk
      of 1/100 of an outlier into one bell.

  Returns:
    All nan where a probe has no nodes, as of a loss that is not finite.
  """
  nodes, weights = (np.asarray(x, np.float64) for x in (nodes, weights))
  width = width_of(nodes) if width is None else width
  grid = grid_of(nodes, width) if grid is None else np.asarray(grid, np.float64)
  is_node = np.isfinite(nodes) & (weights > 0)
  rows = [
    _of_probe(theta[there], weight[there], grid, width)
    for theta, weight, there in zip(nodes, weights, is_node)
  ]
  values = np.array(rows)
  return Curve(
    grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0), width
  )


def width_of(nodes: np.ndarray) -> float:
  """Returns the width of the Gaussian: 1 % of the scale of the spectrum.

  The scale is the distance from the smallest to the largest node of all probes,
  or the largest |node| if that is more; 1 for a spectrum of zeros.
  """
  low, high = ends(nodes)
  scale = max(high - low, abs(low), abs(high))
  return WIDTH * (scale if np.isfinite(scale) and scale > 0 else 1.0)


def grid_of(nodes: np.ndarray, width: float) -> np.ndarray:
  """Returns POINTS eigenvalues, which cover the nodes and 5 widths beyond."""
  low, high = ends(nodes)
  return np.linspace(low - _MARGIN * width, high + _MARGIN * width, POINTS)


def ends(nodes: np.ndarray) -> tuple[float, float]:
  """Returns the smallest and the largest node; nan where there is none."""
  nodes = np.asarray(nodes, np.float64)
  there = nodes[np.isfinite(nodes)]
  if not there.size:
    return float('nan'), float('nan')
  return float(there.min()), float(there.max())


def _of_probe(nodes, weights, grid, width) -> np.ndarray:
  """Returns the density [M] of one probe; nan without nodes."""
  if not nodes.size:
    return np.full(grid.shape, np.nan)
  distance = (grid[:, None] - nodes[None]) / width
  kernel = np.exp(-0.5 * np.square(distance)) / (width * np.sqrt(2 * np.pi))
  return kernel @ weights
