"""Draws the loss landscape over training: Figure 4 of Santurkar et al. (2018).

Words the direction also for `along`, the other figure of this measure.
"""

from collections.abc import Iterator

import numpy as np

from bn_jax.report.drawing import overlay, record
from bn_jax.report.results import (
  beta,
  conditions,
  curves,
  looks,
  optimizers,
  seeds,
)

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


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws Figure 4 of Santurkar et al. (2018), one column a run.

  None for one look, which has no band over steps: see `along`.
  """
  if looks.once(entry):
    return None
  matches_of = _matches_of(entry)
  matches = [match for panel in matches_of.values() for match in panel]
  networks = {overlay.network(run.config) for run in entry.runs}
  levels = [words for name, words in _LEVELS.items() if name in networks]
  labels = dict(_ROWS) | {'loss': looks.loss(entry)}

  def panel(index: int, run, name: str, label: str) -> record.Panel:
    axis = record.Axis(label, name, True, seeds.SIZE)
    papers = overlay.references(matches_of[index, name], name)
    marks = *_lines(index, run, entry.name, name), *papers
    return record.Panel(record.STEPS, axis, marks, run.name, run=run.name)

  return record.of_entry(
    entry,
    'landscape',
    f'Loss landscape {direction(entry)}',
    record.caption(*_caption(entry), overlay.sentence(matches, *levels)),
    rows=tuple(
      tuple(panel(*indexed, name, label) for indexed in entry.indexed)
      for name, label in labels.items()
    ),
    reference=overlay.told(matches),
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


def definition(entry: looks.Entry) -> tuple[str, ...]:
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
    f'{meaning and ", and "}{meaning}.',
    looks.circumstances(entry),
    *optimizers.of_edge(entry.runs),
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


def _lines(index, run, name, quantity) -> Iterator[record.Lines]:
  """Yields beta, or the band over the step sizes; in it the loss of training.

  The sizes, of which the first and the last stand in the table, are hidden.
  """
  if quantity == 'beta':
    yield from _beta(index, run, name)
    return
  yield from record.lines(index, quantity, run, _reader(name, quantity))
  if quantity == 'loss':
    objective = lambda seed: curves.trained(seed, 'objective')
    yield from record.lines(
      index, 'training_objective', run, objective, style='further'
    )
    read = _reader(name, 'step_size')
    yield from record.lines(index, 'step_size', run, read, style='hidden')


def _beta(index, run, name) -> Iterator[record.Lines]:
  """Yields beta, 1 / (smallest e), and the limit of beta as e goes to 0."""
  largest = lambda seed: curves.values(seed, name, 'beta', curves.upper)
  inverse = lambda seed: curves.values(seed, name, 'step_size', _inverse)
  yield from record.lines(index, 'beta', run, largest)
  yield from record.lines(None, 'inverse_of_smallest_step', run, inverse)
  at_0 = lambda seed: curves.values(seed, name, 'beta_0')
  yield from record.lines(index, 'beta_0', run, at_0, style='thin')


def _inverse(size_TE: np.ndarray) -> np.ndarray:
  """Returns 1 / (smallest e), [T]; nan where that is 0."""
  size_T, _ = curves.band(size_TE)
  return 1 / np.where(size_T > 0, size_T, np.nan)


def _reader(name: str, quantity: str):
  """Returns seed -> (steps, lower edge, upper edge) over the step sizes."""

  def read(seed):
    edges = curves.values(seed, name, quantity, curves.band)
    return edges and (edges[0], *edges[1])

  return read


def _caption(entry) -> tuple[str, ...]:
  d = symbol(entry)
  return (
    *definition(entry),
    'Loss: the band from the smallest to the largest L '
    'over e. Gradient change (gradient predictiveness): the band of '
    f'|∇L(θ − e·{d}) − g|; where it is low, g predicts the gradients along the '
    'line. Effective beta (effective β-smoothness): the largest '
    f'|∇L(θ − e·{d}) − g| / (e·|{d}|). Near the grey line, 1 / (smallest e), '
    'the smallest step has wiped g out already, and beta reads that step and '
    'not the curvature.',
    beta.limit(entry, d),
    'Thin in the band of the loss: that of each '
    'training batch, with its penalty. Logarithmic vertical axes, the same in '
    'all columns.',
  )
