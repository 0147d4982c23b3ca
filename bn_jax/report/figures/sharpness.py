"""Draws the sharpness over training, against the edge of stability."""

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


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws the largest eigenvalue of each block, and 2 / (learning rate)."""
  rows = _rows(entry)
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
  section = seed.manifest['config']['measures'][name]
  product = optimizers.edge(seed.manifest['config'])
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


def edge_of_run(
  run: curves.Run, name: str
) -> tuple[int, np.ndarray, np.ndarray] | None:
  """Returns (seed, *`edge`) of the seed that has trained longest, or None."""
  limits_of = [(seed.seed, edge(seed, name)) for seed in run.seeds]
  limits_of = [
    (seed, *limits)
    for seed, limits in limits_of
    if limits is not None and np.isfinite(limits[1]).any()
  ]
  return max(limits_of, key=lambda limits: limits[1][-1], default=None)


def edges(
  entry: looks.Entry, index: int, run: curves.Run
) -> tuple[record.Lines, ...]:
  """Returns the dotted line of a run at its edge; () where it has none.

  Of the seed that has trained longest: the others have the same rates.
  """
  limits = edge_of_run(run, entry.name)
  if limits is None:
    return ()
  seed, step_T, limit_T = limits
  turns_T = np.ones(len(step_T), bool)  # of a constant rate both ends suffice
  turns_T[1:-1] = np.diff(limit_T)[:-1] != np.diff(limit_T)[1:]
  curve = record.Curve(seed, step_T[turns_T], limit_T[turns_T])
  return (record.Lines(index, 'edge_of_stability', (curve,), style='thin'),)


def _rows(entry: looks.Entry) -> list[str]:
  """Returns what has a panel, by the names of records, 'sharpness' first."""
  rows = over_steps.recorded(entry, _LABELS)
  # Of blocks the records have the share too.
  return [row for row in rows if not row.endswith('/gradient_share')]


def _caption(entry: looks.Entry, rows: Sequence[str]) -> str:
  once, has_share = looks.once(entry), 'gradient_share' in rows
  count = max(
    (_count(seed, entry, row) for seed in entry.seeds for row in rows),
    default=1,
  )
  further = min(count, _VALUES) - 1
  next_ones = f'{further} eigenvalues' if further > 1 else 'eigenvalue'
  more = f'; the CSV has all {count}' if count > _VALUES else ''
  return record.caption(
    f'The largest eigenvalue of {spectrum.matrix(entry)} of '
    f'{spectrum.loss(entry)}'
    + '; weight decay that is a penalty adds itself to each direction that is '
    'decayed' * any(s.get('penalised') is not False for s in entry.sections)
    + '.',
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
  with_edge = [run for run in entry.runs if edge_of_run(run, entry.name)]
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
    for name, read in _QUALITY.items():
      yield from _columns(
        index, run, name, lambda s, read=read: read(s, entry, row), True
      )

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


def _beside(row: str, quantity: str) -> str:
  """Returns what is recorded beside a row, as 'norms/smallest_converged'."""
  block, _, last = row.rpartition('/')
  prefix = f'{block}/' if block else ''
  kind = next(filter(last.startswith, _CONVERGED_OF), '')
  return f'{prefix}{kind}{quantity}'


def _every(seed: curves.Seed, entry: looks.Entry, row: str):
  """Returns (steps, [T, k] values) of a row with all k that are recorded."""
  block, _, last = row.rpartition('/')
  name = 'eigenvalues' if last == 'sharpness' else last
  name = f'{block}/{name}' if block else name
  return _recorded(seed, entry, name) or _recorded(seed, entry, row)


def _count(seed: curves.Seed, entry: looks.Entry, row: str) -> int:
  every = _every(seed, entry, row)
  return 0 if every is None else every[1].shape[1]


def _residuals(seed: curves.Seed, entry: looks.Entry, row: str):
  if 'share' in row:
    return None
  return _recorded(seed, entry, _beside(row, 'residuals'))


def _converged(seed: curves.Seed, entry: looks.Entry, row: str):
  """Returns (steps, whether values had converged [T, k]; of a share, [T, 1]).

  A share is of all vectors together. None where it is not recorded.
  """
  converged = _recorded(seed, entry, _beside(row, 'converged'))
  if converged is None:
    return None
  converged_Tk = converged[1] > 0.5
  if 'share' in row:
    converged_Tk = converged_Tk.all(axis=1, keepdims=True)
  return converged[0], converged_Tk


def _products(seed: curves.Seed, entry: looks.Entry, row: str):
  # Both ends share theirs.
  name = _beside(row, 'products').replace('smallest_', '')
  return _recorded(seed, entry, name)


_QUALITY = {
  'residual': _residuals, 'converged': _converged, 'products': _products,
}  # fmt: skip


def _open(
  run: curves.Run, entry: looks.Entry, row: str
) -> list[tuple[int, float]]:
  """Returns (step, mean over seeds) where some seed has not converged."""
  steps = set()
  for seed in run.seeds:
    converged = _converged(seed, entry, row)
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
