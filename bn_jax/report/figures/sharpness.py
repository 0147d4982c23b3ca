"""Draws the sharpness over training, against the edge of stability."""

import functools
import re
from collections.abc import Iterator, Sequence

import numpy as np

from bn_jax.report.drawing import over_steps, record
from bn_jax.report.figures import spectrum
from bn_jax.report.results import curves, looks, optimizers, seeds

MEASURE = 'top_eigenvalues'
# Quantity -> title of its panel, and what its axis shows.
_LABELS = {
  'sharpness': ('Largest eigenvalue', 'Eigenvalue'),
  'normalised_sharpness': (
    'Largest eigenvalue · |kernel|²', 'Eigenvalue · |kernel|²'
  ),
  'smallest_eigenvalues': ('Smallest eigenvalue', 'Eigenvalue'),
  'gradient_share': ('Share of |g|² in the top space', 'Share'),
}  # fmt: skip
_VALUES = 10  # of a row that are drawn, the first thick; the CSV has all
# Beginnings of names whose `converged` has the same one; of others it has none.
_CONVERGED_OF = ('normalised_', 'smallest_')
# Quantity of the table -> what is recorded beside a row.
_QUALITY = {
  'residual': 'residuals', 'converged': 'converged', 'products': 'products',
}  # fmt: skip


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws the largest eigenvalue of each block, and 2 / (learning rate)."""
  rows = over_steps.recorded(entry, _LABELS)
  # Of blocks the records have the share too, which has no panel.
  rows = [row for row in rows if not row.endswith('/gradient_share')]
  if not rows:
    return None
  return over_steps.figure(
    entry,
    [_panel(entry, row) for row in rows],
    name='top-eigenvalues',
    title='Sharpness and the edge of stability',
    caption=_caption(entry, rows),
  )


def edge(seed: curves.Seed, name: str) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns (steps, curvature up to which training is stable), [T] each.

  From the first to the last look of an entry, of the steps of training that
  were recorded; nan at a rate of 0. None where no such curvature is defined, or
  the entry's matrix is not of the function that training descends.
  """
  section = seed.config['measures'][name]
  product = optimizers.edge(seed.config)
  train, steps = seed.series.get('train'), looks.steps_of(seed, name)
  if (
    product is None
    or section.get('statistics') != 'batch'
    or train is None
    or 'learning_rate' not in train.values
    or not steps
  ):
    return None
  inside_T = (train.step >= steps[0]) & (train.step <= steps[-1])
  rate_T = np.asarray(train.values['learning_rate'], float)[inside_T]
  limit_T = np.full(len(rate_T), np.nan)
  np.divide(product, rate_T, out=limit_T, where=rate_T > 0)
  return train.step[inside_T], limit_T


def edges(
  entry: looks.Entry, index: int, run: curves.Run
) -> tuple[record.Lines, ...]:
  """Returns the dotted line of a run at its edge; () where it has none.

  Of the seed that has trained longest: the others have the same rates.
  """
  limits_of = [(seed.seed, edge(seed, entry.name)) for seed in run.seeds]
  limits_of = [
    (seed, *limits)
    for seed, limits in limits_of
    if limits is not None and np.isfinite(limits[1]).any()
  ]
  if not limits_of:
    return ()
  seed, step_T, limit_T = max(limits_of, key=lambda limits: limits[1][-1])
  turns_T = np.ones(len(step_T), bool)  # of a constant rate both ends suffice
  turns_T[1:-1] = np.diff(limit_T)[:-1] != np.diff(limit_T)[1:]
  curve = record.Curve(seed, step_T[turns_T], limit_T[turns_T])
  return (record.Lines(index, 'edge_of_stability', (curve,), style='thin'),)


def _caption(entry: looks.Entry, rows: Sequence[str]) -> str:
  once, has_share = looks.once(entry), 'gradient_share' in rows
  every = [_every(seed, entry, row) for seed in entry.seeds for row in rows]
  count = max(of[1].shape[1] for of in every if of is not None)
  further = min(count, _VALUES) - 1
  next_ones = f'{further} eigenvalues' if further > 1 else 'eigenvalue'
  more = f'; the CSV has all {count}' if count > _VALUES else ''
  has_penalty = any(s.get('penalised') is not False for s in entry.sections)
  adds = (
    '; weight decay that is a penalty adds itself to each direction that is '
    'decayed'
  )
  return record.caption(
    f'The largest eigenvalue of {spectrum.matrix(entry)} of '
    f'{spectrum.loss(entry)}{adds * has_penalty}.',
    further > 0 and not once
    and f'Thin: the next {next_ones} from that end{more}.',
    *_edges(entry),
    has_share
    and 'Share: |Vᵀg|² / |g|², how much of the gradient g lies in the span of '
    'the eigenvectors V of the k largest eigenvalues (Gur-Ari et al., 2018).',
    any(_open(run, entry, row) for run in entry.runs for row in rows)
    and 'Hollow: not converged'
    f'{" (of a share: some of the vectors)" * has_share} within the budget of '
    'products, at the last estimate.',
    once and looks.told(entry),
    looks.circumstances(entry),
  )  # fmt: skip


def _edges(entry: looks.Entry) -> Iterator[str]:
  """Yields sentences on the dotted lines, and on runs without one."""
  with_edge = [run for i, run in entry.indexed if edges(entry, i, run)]
  if with_edge:
    products = dict.fromkeys(optimizers.edge(run.config) for run in with_edge)
    listed = ' or '.join(f'{product:.4g}' for product in products)
    yield (
      f'Dotted: {listed} / (learning rate) of the step, up to which curvature '
      'an optimizer is stable on a quadratic (Cohen et al., 2021).'
    )
  without = [
    f'{run.name} ({optimizers.name(run.config)})'
    for run in entry.runs
    if optimizers.edge(run.config) is None
  ]
  if without:
    yield f'None is defined for {", ".join(without)}.'
  if any(s.get('statistics') != 'batch' for s in entry.sections):
    yield (
      'With running statistics it is not the function that training descends, '
      'and no such line is drawn.'
    )


def _panel(entry: looks.Entry, row: str) -> record.Panel:
  """Returns eigenvalues with their edge; in the table also their quality."""
  last = row.rpartition('/')[2]
  title, label = _LABELS[last]
  is_share = last == 'gradient_share'
  values = over_steps.values(entry, row)
  is_log = not is_share and over_steps.is_positive(values)
  axis = record.Axis(label, last, is_log)
  if is_share:
    axis = axis._replace(within=seeds.SHARE, limits=(0, 1.05), fixed=True)

  def marks(index: int, run: curves.Run) -> Iterator[record.Mark]:
    yield from _columns(index, run, last, lambda s: _every(s, entry, row))
    if row == 'sharpness':
      yield from edges(entry, index, run)
    if points := _open(run, entry, row):
      yield record.Points(index, 'hollow', *zip(*points))
    for name, recorded in _QUALITY.items():
      read = functools.partial(_beside, entry=entry, row=row, name=recorded)
      yield from _columns(index, run, name, read, True)

  return over_steps.panel(entry, row, title, axis, marks)


def _columns(
  index: int, run: curves.Run, quantity: str, read, is_hidden: bool = False
) -> Iterator[record.Lines]:
  """Yields a line a column of [T, k]: the first thick, after ten hidden."""
  tables = {seed.seed: read(seed) for seed in run.seeds}
  tables = {seed: of for seed, of in tables.items() if of is not None}
  count = max((of[1].shape[1] for of in tables.values()), default=0)
  for number in range(count):

    def column(seed: curves.Seed, number=number):
      of = tables.get(seed.seed)
      if of is None or of[1].shape[1] <= number:
        return None
      return of[0], of[1][:, number].astype(float)

    style = 'further' if number else 'line'
    yield from record.lines(
      index, f'{quantity}_{number + 1}' if number else quantity, run, column,
      style='hidden' if is_hidden or number >= _VALUES else style,
    )  # fmt: skip


def _recorded(seed: curves.Seed, entry: looks.Entry, value: str):
  """Returns (steps, values [T, k]) of a record; None where there is none."""
  return curves.values(
    seed, entry.name, value,
    lambda of_T: np.asarray(of_T, float).reshape(len(of_T), -1),
  )  # fmt: skip


def _every(seed: curves.Seed, entry: looks.Entry, row: str):
  """Returns (steps, [T, k] values) of a row with all k that are recorded."""
  name = re.sub('(^|/)sharpness$', r'\1eigenvalues', row)
  return _recorded(seed, entry, name) or _recorded(seed, entry, row)


def _beside(seed: curves.Seed, entry: looks.Entry, row: str, name: str):
  """Returns (steps, [T, k]) of what tells the quality of a row, or None.

  A share has one number a look: it is of all vectors together, which have
  converged or not, and have no residual of theirs.
  """
  block, slash, last = row.rpartition('/')
  kind = next(filter(last.startswith, _CONVERGED_OF), '')
  if name == 'products':  # of which both ends share theirs
    kind = kind.removeprefix('smallest_')
  is_share = 'share' in row
  found = _recorded(seed, entry, f'{block}{slash}{kind}{name}')
  if found is None or (is_share and name == 'residuals'):
    return None
  step_T, values_Tk = found
  if name == 'converged':
    values_Tk = values_Tk > 0.5
    values_Tk = values_Tk.all(axis=1, keepdims=True) if is_share else values_Tk
  return step_T, values_Tk


def _open(
  run: curves.Run, entry: looks.Entry, row: str
) -> list[tuple[int, float]]:
  """Returns (step, mean over seeds) where some seed has not converged."""
  steps = set()
  for seed in run.seeds:
    converged = _beside(seed, entry, row, 'converged')
    if converged is not None:
      steps |= set(converged[0][~converged[1][:, 0]])
  lines = [curves.line(seed, entry.name, row) for seed in run.seeds]
  lines = [line for line in lines if line is not None]
  if not steps or not lines:
    return []
  is_log = 'share' not in row and min(np.nanmin(y) for _, y in lines) > 0
  mean = seeds.mean(lines, is_log)
  return [
    (int(step), float(value))
    for step, value in zip(mean.x, mean.mean)
    if step in steps and np.isfinite(value)
  ]
