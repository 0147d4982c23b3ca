"""Computes statistics of curvature, depth and surfaces of one run and seed.

What it recorded is compared with itself: with the edge of stability of its own
optimizer, one layer with the next, one eigenvalue or quantity with another, a
surface with its middle. `name`, `value`, `reduce` and `after` are as in
`statistics`.
"""

import math

import numpy as np

from bn_jax.report.results import curves, optimizers, reductions

OfLooks = reductions.OfLooks


def of_edge(
  seed: curves.Seed, *, name: str, value: str, reduce: str, after: int = 0
) -> float:
  """Returns a curvature, reduced, over that at which training turns unstable.

  1 is the edge of stability: of gradient descent a curvature of 2 / (learning
  rate), with momentum a larger one, see `optimizers.edge`; nan where it is not
  defined.
  """
  found = curves.values(seed, name, value)
  if found is None:
    return math.nan
  return by_edge(seed, reductions.over(*found, reduce, after))


def by_edge(seed: curves.Seed, curvature: float) -> float:
  """Returns it times the learning rate over `optimizers.edge`; nan: none."""
  edge = optimizers.edge(seed.config)
  rate = optimizers.rate(seed.config)
  return math.nan if None in (edge, rate) else curvature * rate / edge


@reductions.reduced
def layer_growth(
  seed: curves.Seed,
  *,
  name: str,
  value: str,
  toward: str,
  without_first: int = 0,
  without_last: int = 0,
) -> OfLooks:
  """Returns by which factor a quantity grows from a layer to the next, reduced.

  exp of the slope of a line by least squares through the logarithms of the
  layers' values against their number, in forward order, or, toward the 'input',
  in the order of the backward pass.

  Args:
    without_first, without_last: how many layers are left out of the fit, where
      the first and the last ones differ from those between.

  Returns:
    nan with fewer than two layers; a look with a value that is not above 0 and
    finite does not count.
  """
  series = seed.series.get(name)
  names = [] if series is None else layers(series, value)
  names = names[without_first : len(names) - without_last]
  if len(names) < 2:
    return None
  values_TL = np.stack([series.values[key] for key in names], axis=1)
  usable_T = (np.isfinite(values_TL) & (values_TL > 0)).all(axis=1)
  logs_TL = np.log(np.where(usable_T[:, None], values_TL, 1.0))
  number_L = np.arange(len(names)) - (len(names) - 1) / 2
  slope_T = logs_TL @ number_L / (number_L @ number_L)
  growth_T = np.exp(-slope_T if toward == 'input' else slope_T)
  return series.step, np.where(usable_T, growth_T, np.nan)


def layers(series: curves.Series, value: str) -> list[str]:
  """Returns the names LAYER/value of a quantity, in the order recorded."""
  return [key for key in series.values if key.rpartition('/')[2] == value]


@reductions.reduced
def at_place(
  seed: curves.Seed, *, name: str, value: str, place: int
) -> OfLooks:
  """Returns one of several numbers of a look, by its place from 1, reduced.

  Of the 21 points of a `path`, 6 is t = 0.25 and 11 is t = 0.5.
  """
  return curves.values(seed, name, value, lambda v_TK: _column(v_TK, place))


@reductions.reduced
def place_ratio(
  seed: curves.Seed, *, name: str, value: str, first: int, last: int
) -> OfLooks:
  """Returns one number of a look over another one of it, reduced.

  Of eigenvalues, the largest first, first=1 and last=10 give lambda_1 /
  lambda_10 (Ghorbani et al., 2019, arXiv:1901.10159, section 3.2).
  """
  return curves.values(
    seed, name, value, lambda v_TK: _column(v_TK, first) / _column(v_TK, last)
  )


def _column(values_TK: np.ndarray, place: int) -> np.ndarray:
  """Returns the numbers at a place from 1, [T]; nan where there are fewer."""
  if values_TK.ndim != 2 or values_TK.shape[1] < place:
    return np.full(len(values_TK), np.nan)
  return values_TK[:, place - 1]


@reductions.reduced
def quotient(
  seed: curves.Seed, *, name: str, value: str, by_name: str, by_value: str
) -> OfLooks:
  """Returns a quantity over another one of the same step, reduced.

  The other may be another entry's: `by_value` of `by_name`. Steps at which one
  of the two did not look are left out.
  """
  both = (
    curves.values(seed, name, value),
    curves.values(seed, by_name, by_value),
  )
  if None in both:
    return None
  (step_T, values_T), (by_step_T, by_T) = both
  step_T, above, under = np.intersect1d(step_T, by_step_T, return_indices=True)
  return step_T, values_T[above] / by_T[under]


@reductions.reduced
def surface_height(seed: curves.Seed, *, name: str) -> OfLooks:
  """Returns by how much a surface lies above its middle, reduced over looks.

  The median over all cells of the grid of loss - loss_0; a cell that is not
  finite lies above all others.
  """
  looks = _surfaces(seed, name)
  return list(looks), [
    np.median(np.where(np.isnan(loss), math.inf, loss) - look['loss_0'])
    for look, loss in ((look, look['loss']) for look in looks.values())
  ]


@reductions.reduced
def surface_concavity(seed: curves.Seed, *, name: str) -> OfLooks:
  """Returns how far a plane's surface is from convex, in [0, 1], reduced.

  The mean over cells of max(0, -low) / max(|low|, |high|), with low and high
  the eigenvalues of the plane's Hessian, by central differences over a cell's
  eight neighbours: Li et al. (2018), section 6, draw the ratio of the extreme
  eigenvalues of the whole Hessian, of which these two are averages. Cells next
  to one that is not finite are left out.
  """
  looks = _surfaces(seed, name)
  planes = {k: of['loss'] for k, of in looks.items() if of['loss'].ndim == 2}
  return list(planes), list(map(_concavity, planes.values()))


@reductions.reduced
def plane_share(seed: curves.Seed, *, name: str) -> OfLooks:
  """Returns the share of a trajectory's variance that its plane holds, reduced.

  Of a `surface` in directions='trajectory': the sum of `variance`.
  """
  looks = _surfaces(seed, name)
  shares = {
    step: np.sum(of['variance'])
    for step, of in looks.items()
    if 'variance' in of
  }
  return list(shares), list(shares.values())


def _surfaces(seed: curves.Seed, name: str) -> dict[int, dict]:
  """Returns step -> values of each look at a surface; none if there is none."""
  return {
    record.step: record.values
    for record in seed.arrays.get(name, ())
    if 'loss' in record.values and 'loss_0' in record.values
  }


def _concavity(loss_XY: np.ndarray) -> float:
  """Returns `surface_concavity` of one grid, of one spacing in both axes."""
  f = np.asarray(loss_XY, float)
  if min(f.shape) < 3:
    return math.nan
  middle = f[1:-1, 1:-1]
  xx = f[2:, 1:-1] - 2 * middle + f[:-2, 1:-1]
  yy = f[1:-1, 2:] - 2 * middle + f[1:-1, :-2]
  xy = (f[2:, 2:] - f[2:, :-2] - f[:-2, 2:] + f[:-2, :-2]) / 4
  root = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
  low, high = (xx + yy) / 2 - root, (xx + yy) / 2 + root
  share = np.maximum(-low, 0) / np.maximum(abs(low), abs(high))
  share = share[np.isfinite(share)]
  return float(share.mean()) if share.size else math.nan
