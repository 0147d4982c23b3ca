"""The figure of the landscape: Figure 4 of Santurkar et al. (2018).

And in words, for all figures of a landscape, the line along which it was looked
at.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, overlay, strokes
from bn_jax.report.results import beta, conditions, curves, looks

KIND = 'along_gradient'
_ROWS = (
  ('loss', 'Loss'),
  ('gradient_change', 'Gradient change'),
  ('beta', 'Effective beta'),
)
_DIRECTIONS = {
  'descent': ('along the gradient', 'd = g'),
  'ascent': ('up the gradient', 'd = −g'),
  'random': (
    'along a random direction',
    'd a normal vector of the length of g, another one at each look',
  ),
  'update': (
    "along the optimizer's update",
    "d what the optimizer would subtract, for a learning rate of 1",
  ),
}  # fmt: skip
# What a caption says of the paper's levels, by network.
_LEVELS = {
  'vgg': 'Its loss holds a penalty on the weights of about 1.9 at first, of '
  'which the paper says nothing, and its gradient changes seem too large for '
  'a plain norm. Both are drawn as they are, and their levels cannot match: '
  'compare widths, and how far the columns are apart.',
  'linear': 'Its gradient change and its beta are drawn as they are.',
}


def figure(
  runs: Sequence[curves.Run], key: str | None = None
) -> canvas.Figure | None:
  """Figure 4 of Santurkar et al. (2018), one column a run.

  Of an analysis at one step there is no band over training: see `along`.
  """
  seen = looks.of(runs, KIND, key)
  if seen is None or looks.once(seen):
    return None
  papers = _papers(seen)
  matches = [match for found in papers.values() for match in found]
  in_nats = not any(curves.is_regression(run) for run in seen.runs)

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = canvas.panels(len(_ROWS), len(seen.indexed), narrow)
    for column, (index, run) in enumerate(seen.indexed):
      canvas.label_top(axes[0, column], run.name)
      for row, (value, label) in enumerate(_ROWS):
        axis = axes[row, column]
        overlay.draw(axis, papers[index, value])
        _draw(axis, run, index, seen.key, value)
        unit = ' (nats)' if value == 'loss' and in_nats else ''
        canvas.label_left(axis, label + unit)
        canvas.label_steps(axis, row == len(_ROWS) - 1)
    for row in range(len(_ROWS)):
      canvas.scale_logarithmically(axes[row, 0])
      for axis, of in zip(axes[row], seen.indexed):
        strokes.divergences(axis, [of])
    overlay.legend(drawing, matches)
    return drawing

  return canvas.Figure(
    name=f'landscape{seen.suffix}',
    title=f'Loss landscape {direction(seen)}{seen.note}',
    caption=_caption(seen) + overlay.sentence(matches, *_said_of(seen)),
    alt='Loss band, gradient-change band and effective beta over steps, one '
    'column a run: '
    + '; '.join(_words(run, seen.key) for run in seen.runs)
    + overlay.words(matches),
    draw=draw,
    table=_table(seen),
  )


def direction(seen: looks.Looks) -> str:
  """'along the gradient', for a title."""
  directions = _directions(seen)
  if len(directions) > 1:
    return 'along a line'
  return _DIRECTIONS[directions[0]][0]


def definition(seen: looks.Looks) -> str:
  """Where the points of the line lie, and on what the numbers rest."""
  directions = _directions(seen)
  d = _DIRECTIONS[directions[0]][1]
  if len(directions) > 1:
    d = f'd by direction: {seen.said("direction")}'
  return (
    f'At θ − e·d, with g the gradient on {looks.where(seen)}, {d}, and e = '
    f'{_sizes(seen)}, {looks.when(seen)}. The same examples at every point, '
    f'all parameters together, {looks.precisely(seen)}.'
  )


def _directions(seen: looks.Looks) -> Sequence[str]:
  """Those that occur; records without the word are of descent."""
  read = conditions.of(seen.kind, 'direction', seen.key)
  found = [
    said if (said := read(seed)) in _DIRECTIONS else 'descent'
    for seed in seen.seeds
  ]
  return tuple(dict.fromkeys(found))


def _sizes(seen: looks.Looks) -> str:
  """'{0.5, 1} × the learning rate', or the sizes themselves."""

  def said(name: str, *, absolute: bool) -> str:
    def of(seed: curves.Seed) -> str | None:
      found = conditions.looking(seed, seen.kind, seen.key)
      given = found.get('step_sizes') not in (None, '{}')
      return found.get(name) if given == absolute else None

    return conditions.said(seen.runs, of)

  factors = said('step_factors', absolute=False)
  sizes = said('step_sizes', absolute=True)
  factors = f'{factors} × the learning rate' if factors else ''
  return ' or '.join(filter(None, (factors, sizes)))


def _papers(seen) -> dict[tuple[int, str], list[overlay.Match]]:
  """(index of a run, quantity) -> the paper's curve, if it looked alike."""
  found = {}
  for index, run in seen.indexed:
    alike = overlay.looks_alike(run, seen.key)
    for value, _ in _ROWS:
      matches = overlay.distinct([(index, run)], value) if alike else []
      found[index, value] = matches
  return found


def _said_of(seen) -> list[str]:
  """Which levels of the paper's curves cannot be ours."""
  kinds = {overlay.network(run.config) for run in seen.runs}
  return [said for kind, said in _LEVELS.items() if kind in kinds]


def _draw(axis, run, index, name, value) -> None:
  series = [
    s.series[name] for s in run.seeds if curves.recorded(s, name, value)
  ]
  if not series:
    return
  if value != 'beta':
    _draw_band(axis, series, index, value)
    return
  strokes.draw_mean(axis, _edges(series, 'beta', 1), index, logarithmic=True)
  wiped = [
    (steps, 1 / np.where(smallest_T > 0, smallest_T, np.nan))
    for steps, smallest_T in _edges(series, 'step_size', 0)
  ]
  one_over = strokes.mean(wiped, logarithmic=True)
  strokes.grey(axis, one_over.step, one_over.mean)
  at_0 = [(s.step, s.values['beta_0']) for s in series if 'beta_0' in s.values]
  if at_0:
    limit = strokes.mean(at_0, logarithmic=True)
    strokes.thin(axis, limit.step, limit.mean, index)


def _draw_band(axis, series, index, value) -> None:
  """From the mean lower edge to the mean upper one; an interval around each."""
  low, high = (
    strokes.mean(_edges(series, value, end), logarithmic=True) for end in (0, 1)
  )
  strokes.band(
    axis, low.step, low.mean, high.mean, index, alpha=0.6, linewidth=0.4
  )
  for edge in (low, high):
    strokes.shade(axis, edge, index)


def _edges(series, value, end):
  """(steps, lower (0) or upper (1) edge of a value's band), one a seed."""
  return [(one.step, curves.band(one, value)[end]) for one in series]


def _table(seen):
  values = ('loss', 'gradient_change', 'beta', 'step_size')
  columns = [f'{value}_{end}' for value in values for end in ('min', 'max')]

  def rows(seed: curves.Seed) -> Iterator[Sequence]:
    series = seed.series.get(seen.key)
    if series is not None:
      edges = [edge for value in values for edge in curves.band(series, value)]
      for step, *numbers in zip(series.step, *edges):
        yield step, *canvas.digits(numbers)

  return canvas.table(seen.runs, columns, rows)


def _caption(seen) -> str:
  return (
    f'{definition(seen)} Loss: smallest to largest value of the objective '
    'over e. Gradient change: smallest to largest |∇L(θ − e·d) − g|. Effective '
    'beta: the largest |∇L(θ − e·d) − g| / (e·|d|). '
    'Near the grey line, 1 / (smallest e), the smallest step has wiped g out '
    'already, and beta reads that step and not the curvature. '
    f'{beta.limit(seen)}Logarithmic axes, shared by the columns. '
    + strokes.seeds_sentence(seen.runs, logarithmic=True)
  )


def _words(run, name) -> str:
  widths = [curves.median_width(seed, name, 'loss') for seed in run.seeds]
  widths = [width for width in widths if np.isfinite(width)]
  if not widths:
    return f'{run.name} has no loss band'
  return f'{run.name} has a loss band of median width {np.mean(widths):.3g}'
