"""Draws the loss landscape over training: Figure 4 of Santurkar et al. (2018).

Words the direction also for `along`, the other figure of this measure.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, overlay, strokes
from bn_jax.report.results import beta, conditions, curves, looks, optimizers

MEASURE = 'along_gradient'
_ROWS = (
  ('loss', 'Loss'),
  ('gradient_change', 'Gradient change'),
  ('beta', 'Effective beta'),
)
# Direction -> (words of a title, what d is); '' for g, which needs no d.
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
# Network -> what a caption says of the levels of the paper's curves. Those of
# Figure 4(a) begin at 4.2 to 4.3; the loss of ten equal classes is ln 10 = 2.3.
_LEVELS = {
  'vgg': "The paper's loss holds a penalty on the weights of about 1.9 at "
  'first, which the paper does not mention, and its gradient changes seem too '
  'large for a plain norm. Both are drawn as they are, and their levels cannot '
  'match: compare widths, and how far the columns are apart.',
  'linear': "The paper's gradient change and beta are drawn as they are.",
}


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws Figure 4 of Santurkar et al. (2018), one column a run.

  None for one look, which has no band over steps: see `along`.
  """
  entry = looks.of(runs, MEASURE, name)
  if entry is None or looks.once(entry):
    return None
  matches_of = _matches_of(entry)
  matches = [match for panel in matches_of.values() for match in panel]
  in_nats = not any(curves.is_regression(run) for run in entry.runs)

  def draw(narrow: bool) -> mpl.Figure:
    drawing, axes = canvas.panels(len(_ROWS), len(entry.indexed), narrow)
    for column, (index, run) in enumerate(entry.indexed):
      canvas.label_top(axes[0, column], run.name)
      for row, (quantity, label) in enumerate(_ROWS):
        axis = axes[row, column]
        overlay.draw(axis, matches_of[index, quantity])
        _draw(axis, run, index, entry.name, quantity)
        unit = ' (nats)' if quantity == 'loss' and in_nats else ''
        canvas.label_left(axis, label + unit)
        canvas.label_steps(axis, row == len(_ROWS) - 1)
    for row in range(len(_ROWS)):
      canvas.scale_logarithmically(axes[row, 0])
      for axis, indexed_run in zip(axes[row], entry.indexed):
        strokes.divergences(axis, [indexed_run])
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
    meaning = f'd by direction: {entry.condition("direction")}'
  else:
    meaning = _DIRECTIONS[directions[0]][1]
  return (
    'L is the training loss with its weight penalty, on the same examples at '
    'every point; θ all parameters; g = ∇L(θ). The points are θ − '
    f'e·{symbol(entry)}, with e = {_sizes(entry)}'
    f'{meaning and ", and "}{meaning}. {looks.circumstances(entry)}'
    f'{optimizers.of_edge(entry.runs)}'
  )


def _directions(entry: looks.Entry) -> tuple[str, ...]:
  """Returns each direction once; 'descent' if not recorded or unknown."""
  read = conditions.of(entry.measure, 'direction', entry.name)
  directions = map(read, entry.seeds)
  return tuple(
    dict.fromkeys(
      name if name in _DIRECTIONS else 'descent' for name in directions
    )
  )


def _sizes(entry: looks.Entry) -> str:
  """Returns '{0.5, 1} × the learning rate', or the sizes themselves."""

  def listed(key: str, *, absolute: bool) -> str:
    def read(seed: curves.Seed) -> str | None:
      texts = conditions.measuring(seed, entry.measure, entry.name)
      has_sizes = texts.get('step_sizes') not in (None, '{}')  # '{}': of none
      return texts.get(key) if has_sizes == absolute else None

    return conditions.by_run(entry.runs, read)

  factors = listed('step_factors', absolute=False)
  sizes = listed('step_sizes', absolute=True)
  factors = f'{factors} × the learning rate' if factors else ''
  return ' or '.join(filter(None, (factors, sizes)))


def _matches_of(entry) -> dict[tuple[int, str], list[overlay.Match]]:
  """Returns (index of a run, quantity) -> the paper's curves.

  [] if the entry looks at other points than the paper.
  """
  matches_of = {}
  for index, run in entry.indexed:
    alike = overlay.looks_alike(run, entry.name)
    for quantity, _ in _ROWS:
      matches = overlay.distinct([(index, run)], quantity) if alike else []
      matches_of[index, quantity] = matches
  return matches_of


def _levels(entry) -> list[str]:
  """Returns what the caption says of the paper's levels, one text a network."""
  networks = {overlay.network(run.config) for run in entry.runs}
  return [words for network, words in _LEVELS.items() if network in networks]


def _draw(axis, run, index, name, quantity) -> None:
  """Draws a band; or beta, with 1 / (smallest e) and beta_0."""
  series = [
    seed.series[name]
    for seed in run.seeds
    if curves.recorded(seed, name, quantity)
  ]
  if not series:
    return
  if quantity != 'beta':
    _draw_band(axis, series, index, quantity)
    return
  strokes.draw_mean(axis, _edges(series, 'beta', 1), index, logarithmic=True)
  inverse_steps = [
    (steps, 1 / np.where(smallest_T > 0, smallest_T, np.nan))
    for steps, smallest_T in _edges(series, 'step_size', 0)
  ]
  inverse_step = strokes.mean(inverse_steps, logarithmic=True)
  strokes.grey(axis, inverse_step.step, inverse_step.mean)
  at_0 = [(s.step, s.values['beta_0']) for s in series if 'beta_0' in s.values]
  if at_0:
    limit = strokes.mean(at_0, logarithmic=True)
    strokes.thin(axis, limit.step, limit.mean, index)


def _draw_band(axis, series, index, quantity) -> None:
  """Fills from the mean lower edge to the mean upper one, with intervals."""
  low, high = (
    strokes.mean(_edges(series, quantity, end), logarithmic=True)
    for end in (0, 1)
  )
  strokes.band(
    axis, low.step, low.mean, high.mean, index, alpha=0.6, linewidth=0.4
  )
  for edge in (low, high):
    strokes.shade(axis, edge, index)


def _edges(series, quantity, end):
  """Returns (steps, edge) of each seed, of the lower (0) or upper (1) edge."""
  return [(s.step, curves.band(s, quantity)[end]) for s in series]


def _table(entry):
  names = ('loss', 'gradient_change', 'beta', 'step_size')
  columns = [f'{name}_{end}' for name in names for end in ('min', 'max')]

  def rows(seed: curves.Seed) -> Iterator[Sequence]:
    series = seed.series.get(entry.name)
    if series is not None:
      edges = [edge for name in names for edge in curves.band(series, name)]
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
    f'{beta.limit(entry, d)}Logarithmic vertical axes, the same in all columns.'
  )


def _words(run, name) -> str:
  read = functools.partial(curves.median_width, name=name, value='loss')
  width = curves.mean_over(run.seeds, read)
  if np.isnan(width):
    return f'{run.name} has no loss band'
  return f'{run.name} has a loss band of median width {width:.3g}'
