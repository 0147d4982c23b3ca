"""Draws the loss landscape: Figure 4 of Santurkar et al. (2018).

It also has the words for the line along which any figure of a landscape looks.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, overlay, strokes
from bn_jax.report.results import beta, conditions, curves, looks

MEASURE = 'along_gradient'
_ROWS = (
  ('loss', 'Loss'),
  ('gradient_change', 'Gradient change'),
  ('beta', 'Effective beta'),
)
# Words of a title, and what d is; along the gradient itself it needs no name.
_DIRECTIONS = {
  'descent': ('along the gradient', ''),
  'ascent': ('up the gradient', 'd = −g'),
  'random': (
    'along a random direction',
    'd a normal vector of the length of g, drawn anew at each measurement',
  ),
  'update': (
    "along the optimizer's update",
    'd what the optimizer would subtract for a learning rate of 1',
  ),
}
# What a caption says of the levels of the paper's curves, by network.
_LEVELS = {
  'vgg': "The paper's loss holds a penalty on the weights of about 1.9 at "
  'first, of which it says nothing, and its gradient changes seem too large '
  'for a plain norm. Both are drawn as they are, and their levels cannot '
  'match: compare widths, and how far the columns are apart.',
  'linear': "The paper's gradient change and beta are drawn as they are.",
}


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws Figure 4 of Santurkar et al. (2018), one column a run.

  Of an analysis of one step there is no band over training: see `along`.
  """
  entry = looks.of(runs, MEASURE, name)
  if entry is None or looks.once(entry):
    return None
  papers = _papers(entry)
  matches = [match for of_panel in papers.values() for match in of_panel]
  in_nats = not any(curves.is_regression(run) for run in entry.runs)

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = canvas.panels(len(_ROWS), len(entry.indexed), narrow)
    for column, (index, run) in enumerate(entry.indexed):
      canvas.label_top(axes[0, column], run.name)
      for row, (value, label) in enumerate(_ROWS):
        axis = axes[row, column]
        overlay.draw(axis, papers[index, value])
        _draw(axis, run, index, entry.name, value)
        unit = ' (nats)' if value == 'loss' and in_nats else ''
        canvas.label_left(axis, label + unit)
        canvas.label_steps(axis, row == len(_ROWS) - 1)
    for row in range(len(_ROWS)):
      canvas.scale_logarithmically(axes[row, 0])
      for axis, of in zip(axes[row], entry.indexed):
        strokes.divergences(axis, [of])
    overlay.legend(drawing, matches)
    return drawing

  return canvas.Figure(
    name=f'landscape{entry.suffix}',
    title=f'Loss landscape {direction(entry)}{entry.note}',
    caption=_caption(entry) + overlay.sentence(matches, *_levels(entry)),
    alt='Loss band, gradient-change band and effective beta over steps, one '
    'column a run: '
    + '; '.join(_words(run, entry.name) for run in entry.runs)
    + overlay.words(matches),
    draw=draw,
    table=_table(entry),
  )


def direction(entry: looks.Entry) -> str:
  """Returns 'along the gradient', for a title."""
  directions = _directions(entry)
  return (
    _DIRECTIONS[directions[0]][0] if len(directions) == 1 else 'along a line'
  )


def symbol(entry: looks.Entry) -> str:
  """Returns what formulas call the direction: g along the gradient, else d."""
  return 'g' if _directions(entry) == ('descent',) else 'd'


def definition(entry: looks.Entry) -> str:
  """Returns where the points of the line lie, and on what the numbers rest."""
  directions = _directions(entry)
  if len(directions) > 1:
    d = f'd by direction: {entry.condition("direction")}'
  else:
    d = _DIRECTIONS[directions[0]][1]
  return (
    'L is the training loss with its weight penalty, on the same examples at '
    'every point; θ all parameters; g = ∇L(θ). The points are θ − '
    f'e·{symbol(entry)}, with e = {_sizes(entry)}{d and ", and "}{d}. '
    f'{looks.circumstances(entry)}'
  )


def _directions(entry: looks.Entry) -> tuple[str, ...]:
  """Returns those that occur; records without the word are of descent."""
  read = conditions.of(entry.measure, 'direction', entry.name)
  directions = map(read, entry.seeds)
  return tuple(
    dict.fromkeys(d if d in _DIRECTIONS else 'descent' for d in directions)
  )


def _sizes(entry: looks.Entry) -> str:
  """Returns '{0.5, 1} × the learning rate', or the sizes themselves."""

  def listed(key: str, *, absolute: bool) -> str:
    def read(seed: curves.Seed) -> str | None:
      texts = conditions.measuring(seed, entry.measure, entry.name)
      has_sizes = texts.get('step_sizes') not in (None, '{}')
      return texts.get(key) if has_sizes == absolute else None

    return conditions.by_run(entry.runs, read)

  factors = listed('step_factors', absolute=False)
  sizes = listed('step_sizes', absolute=True)
  factors = f'{factors} × the learning rate' if factors else ''
  return ' or '.join(filter(None, (factors, sizes)))


def _papers(entry) -> dict[tuple[int, str], list[overlay.Match]]:
  """Returns (index of a run, quantity) -> the paper's curves, if alike."""
  matches_of = {}
  for index, run in entry.indexed:
    alike = overlay.looks_alike(run, entry.name)
    for value, _ in _ROWS:
      matches = overlay.distinct([(index, run)], value) if alike else []
      matches_of[index, value] = matches
  return matches_of


def _levels(entry) -> list[str]:
  """Returns which levels of the paper's curves cannot be ours."""
  networks = {overlay.network(run.config) for run in entry.runs}
  return [words for network, words in _LEVELS.items() if network in networks]


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
  """Fills from the mean lower edge to the mean upper one, with intervals."""
  low, high = (
    strokes.mean(_edges(series, value, end), logarithmic=True) for end in (0, 1)
  )
  strokes.band(
    axis, low.step, low.mean, high.mean, index, alpha=0.6, linewidth=0.4
  )
  for edge in (low, high):
    strokes.shade(axis, edge, index)


def _edges(series, value, end):
  """Returns steps and lower (0) or upper (1) edges of a band, a pair a seed."""
  return [(one.step, curves.band(one, value)[end]) for one in series]


def _table(entry):
  values = ('loss', 'gradient_change', 'beta', 'step_size')
  columns = [f'{value}_{end}' for value in values for end in ('min', 'max')]

  def rows(seed: curves.Seed) -> Iterator[Sequence]:
    series = seed.series.get(entry.name)
    if series is not None:
      edges = [edge for value in values for edge in curves.band(series, value)]
      for step, *numbers in zip(series.step, *edges):
        yield step, *canvas.digits(numbers)

  return canvas.table(entry.runs, columns, rows)


def _caption(entry) -> str:
  d = symbol(entry)
  return (
    f'{definition(entry)} Loss: the band from the smallest to the largest L '
    'over e. Gradient change (gradient predictiveness): the band of '
    f'|∇L(θ − e·{d}) − g|; where it is low, g predicts the gradients along the '
    'line. Effective beta (effective β-smoothness): the largest '
    f'|∇L(θ − e·{d}) − g| / (e·|{d}|). Near the grey line, 1 / (smallest e), '
    'the smallest step has wiped g out already, and beta reads that step and '
    'not the curvature. '
    f'{beta.limit(entry, d)}Logarithmic axes, the same in all columns.'
  )


def _words(run, name) -> str:
  read = functools.partial(curves.median_width, name=name, value='loss')
  width = curves.mean_over(run.seeds, read)
  if np.isnan(width):
    return f'{run.name} has no loss band'
  return f'{run.name} has a loss band of median width {width:.3g}'
