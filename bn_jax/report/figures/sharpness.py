"""Draws the sharpness over training, against the edge of stability."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.figures import spectrum
from bn_jax.report.results import curves, looks, optimizers

MEASURE = 'top_eigenvalues'
_LABELS = {
  'sharpness': 'Largest eigenvalue',
  'normalised_sharpness': 'Largest eigenvalue · |kernel|²',
  'smallest_eigenvalues': 'Smallest eigenvalue',
  'gradient_share': 'Share of |g|² in the top space',
}
_VALUES = 10  # of a row that are drawn, the first thick; the CSV has all
# Beginnings of names whose `converged` has the same one; of others it has none.
_CONVERGED_OF = ('normalised_', 'smallest_')
# Panels that are drawn, and so many abreast; the CSV has all of them.
_ROWS, _COLUMNS = 6, 3


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws the largest eigenvalue of each block, and 2 / (learning rate)."""
  entry = looks.of(runs, MEASURE, name)
  rows = [] if entry is None else _rows(entry)
  if not rows:
    return None
  once = looks.once(entry)
  return canvas.Figure(
    name=f'top-eigenvalues{entry.suffix}',
    title=f'Sharpness and the edge of stability{entry.note}',
    caption=f'The largest eigenvalue of {_matrix(entry)}. '
    f'{_further(entry, rows)}{_edges(entry)}{_share(rows)}{_marks(entry, rows)}'
    f'{looks.told(entry) if once else ""}{looks.circumstances(entry)}',
    alt='Largest eigenvalue over training, one line a run. At the last '
    'measurement: ' + '; '.join(_words(run, entry, rows[0]) for run in runs),
    draw=None if once else lambda narrow: _drawn(entry, rows, narrow),
    table=_table(entry, rows),
    numbers=_numbers(entry, rows) if once else (),
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
) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns `edge` of the seed that has trained longest, or None."""
  edges = [edge(seed, name) for seed in run.seeds]
  edges = [limits for limits in edges if limits is not None]
  edges = [limits for limits in edges if np.isfinite(limits[1]).any()]
  return max(edges, key=lambda limits: limits[0][-1], default=None)


def _rows(entry: looks.Entry) -> list[str]:
  """Returns what has a panel, by the names of records, 'sharpness' first."""
  recorded = {
    value: None
    for seed in entry.seeds
    if entry.name in seed.series
    for value in seed.series[entry.name].values
  }
  shown = []
  for last in _LABELS:
    names = [value for value in recorded if value.rpartition('/')[2] == last]
    if last == 'gradient_share':  # of blocks the records have it
      names = [value for value in names if value == last]
    shown += sorted(names, key=lambda value: '/' in value)
  return shown


def _label(row: str) -> str:
  block, _, last = row.rpartition('/')
  label = _LABELS[last]
  return f'{label}, {block}' if block else label


def _matrix(entry: looks.Entry) -> str:
  """Returns 'the Hessian of the objective, with its penalty', and what adds."""
  text = f'{spectrum.matrix(entry)} of {spectrum.loss(entry)}'
  if all(s.get('penalised') is False for s in _sections(entry)):
    return text
  return (
    f'{text}; weight decay that is a penalty adds itself to each direction '
    'that is decayed'
  )


def _sections(entry: looks.Entry) -> list[dict]:
  return [
    seed.manifest['config']['measures'][entry.name] for seed in entry.seeds
  ]


def _edges(entry: looks.Entry) -> str:
  """Returns what the thin lines are; it ends with a space, or is empty."""
  with_edge = [run for run in entry.runs if edge_of_run(run, entry.name)]
  sentences = ''
  if with_edge:
    products = dict.fromkeys(optimizers.edge(run.config) for run in with_edge)
    listed = ' or '.join(f'{product:.4g}' for product in products)
    sentences = (
      f'Dotted: {listed} / (learning rate) of the step, up to which curvature '
      'an optimizer is stable on a quadratic (Cohen et al., 2021). '
    )
  without = [run for run in entry.runs if optimizers.edge(run.config) is None]
  if without:
    names = ', '.join(
      f'{run.name} ({optimizers.name(run.config)})' for run in without
    )
    sentences += f'None is defined for {names}. '
  if any(s.get('statistics') != 'batch' for s in _sections(entry)):
    sentences += (
      'With running statistics it is not the function that training descends, '
      'and no such line is drawn. '
    )
  return sentences


def _further(entry: looks.Entry, rows: Sequence[str]) -> str:
  """Returns what the thin solid lines are; it ends with a space, or empty."""
  count = max(
    (_count(seed, entry, row) for seed in entry.seeds for row in rows),
    default=1,
  )
  if count < 2 or looks.once(entry):
    return ''
  further = min(count, _VALUES) - 1
  words = (
    'Thin: the next eigenvalue'
    if further == 1
    else (f'Thin: the next {further} eigenvalues')
  )
  more = f'; the CSV has all {count}' if count > _VALUES else ''
  return f'{words} from that end{more}. '


def _share(rows: Sequence[str]) -> str:
  if 'gradient_share' not in rows:
    return ''
  return (
    'Share: |Vᵀg|² / |g|², how much of the gradient g lies in the span of the '
    'eigenvectors V of the k largest eigenvalues (Gur-Ari et al., 2018). '
  )


def _marks(entry: looks.Entry, rows: Sequence[str]) -> str:
  if any(len(_open(run, entry, row)) for run in entry.runs for row in rows):
    share = ' (of a share: some of the vectors)' * ('gradient_share' in rows)
    return (
      f'Hollow: not converged{share} within the budget of products, at the '
      'last estimate. '
    )
  return ''


def _drawn(entry, rows, narrow: bool) -> mpl.Figure:
  rows = rows[:_ROWS]
  columns = 1 if narrow else min(len(rows), _COLUMNS)
  drawing, axes = canvas.grid(-(-len(rows) // columns), columns, narrow)
  for axis in axes.flat[len(rows) :]:
    axis.set_visible(False)
  for axis, row in zip(axes.flat, rows):
    axis.set_title(_label(row))
    axis.set_xlabel('Training step')
    lines = {index: _lines(run, entry, row) for index, run in entry.indexed}
    every = [value for of in lines.values() for _, y in of for value in y]
    # Means of logarithms leave out what is not above 0.
    is_log = 'share' not in row and bool(every) and np.nanmin(every) > 0
    within = strokes.SHARE if 'share' in row else None
    for index, run in entry.indexed:
      strokes.draw_mean(axis, lines[index], index, is_log, within)
      _draw_further(axis, run, entry, row, index, is_log)
      if row == 'sharpness' and (limits := edge_of_run(run, entry.name)):
        strokes.thin(axis, *limits, index)
      _draw_open(axis, _open(run, entry, row), index)
    if is_log:
      canvas.scale_logarithmically(axis)
    if 'share' in row:
      axis.set_ylim(0, 1.05)
    strokes.divergences(axis, entry.indexed)
  strokes.legend_of(drawing, entry.indexed)
  return drawing


def _draw_further(axis, run, entry, row: str, index: int, is_log: bool) -> None:
  """Draws the second and further eigenvalues thin, means over seeds."""
  counts = [_count(seed, entry, row) for seed in run.seeds]
  for number in range(1, min(max(counts, default=1), _VALUES)):
    lines = [
      (values[0], values[1][:, number])
      for seed, count in zip(run.seeds, counts)
      if number < count and (values := _every(seed, entry, row)) is not None
    ]
    mean = strokes.mean(lines, is_log)
    strokes.line(
      axis, mean.step, mean.mean, index, linewidth=0.7, alpha=0.8, marker=None
    )


def _draw_open(axis, points: Sequence[tuple[int, float]], index: int) -> None:
  """Draws hollow circles, which hide the line below them."""
  if points:
    axis.plot(
      *np.transpose(points), marker='o', markersize=6, linestyle='none',
      markerfacecolor='white', markeredgecolor=strokes.colour(index), zorder=4,
    )  # fmt: skip


def _values(seed, entry: looks.Entry, row: str):
  """Returns (steps, values) of a row, of several numbers the first."""
  series = seed.series.get(entry.name)
  if series is None or row not in series.values:
    return None
  values_T = np.asarray(series.values[row], float)
  return series.step, values_T.reshape(len(series.step), -1)[:, 0]


def _beside(row: str, quantity: str) -> str:
  """Returns what is recorded beside a row, as 'norms/smallest_converged'."""
  block, _, last = row.rpartition('/')
  prefix = f'{block}/' if block else ''
  kind = next(filter(last.startswith, _CONVERGED_OF), '')
  return f'{prefix}{kind}{quantity}'


def _every(seed, entry: looks.Entry, row: str):
  """Returns (steps, [T, k] values) of a row with all k that are recorded."""
  series = seed.series.get(entry.name)
  if series is None or row not in series.values:
    return None
  block, _, last = row.rpartition('/')
  name = 'eigenvalues' if last == 'sharpness' else last
  name = f'{block}/{name}' if block else name
  name = name if name in series.values else row
  values_T = np.asarray(series.values[name], float)
  return series.step, values_T.reshape(len(series.step), -1)


def _count(seed, entry: looks.Entry, row: str) -> int:
  values = _every(seed, entry, row)
  return 0 if values is None else values[1].shape[1]


def _lines(run, entry, row: str) -> list:
  return list(filter(None, (_values(seed, entry, row) for seed in run.seeds)))


def _converged(seed, entry, row: str):
  """Returns whether the values of a row had converged, [T, k]; of a share, [T].

  A share is of all vectors together. None where it is not recorded.
  """
  series = seed.series.get(entry.name)
  name = _beside(row, 'converged')
  if series is None or name not in series.values:
    return None
  converged_T = np.asarray(series.values[name], float) > 0.5
  converged_Tk = converged_T.reshape(len(series.step), -1)
  if 'share' in row:
    return converged_Tk.all(axis=1, keepdims=True)
  return converged_Tk


def _open(run, entry, row: str) -> list[tuple[int, float]]:
  """Returns (step, mean over seeds) where some seed has not converged."""
  steps = set()
  for seed in run.seeds:
    converged_Tk = _converged(seed, entry, row)
    if converged_Tk is not None and _values(seed, entry, row) is not None:
      steps_T = np.asarray(looks.steps_of(seed, entry.name))
      steps |= set(steps_T[~converged_Tk[:, 0]])
  if not steps:
    return []
  lines = _lines(run, entry, row)
  is_log = 'share' not in row and min(np.nanmin(y) for _, y in lines) > 0
  mean = strokes.mean(lines, is_log)
  return [
    (int(step), float(value))
    for step, value in zip(mean.step, mean.mean)
    if step in steps and np.isfinite(value)
  ]


def _words(run, entry, row: str) -> str:
  mean = curves.mean_over(
    run.seeds, lambda seed: curves.last(seed, entry.name, row)
  )
  return f'{run.name} {mean:.3g}' if np.isfinite(mean) else f'{run.name} none'


def _table(entry, rows) -> list[Sequence]:
  """Returns a line a look and eigenvalue: residual, convergence, products."""

  def lines(seed):
    limits = edge(seed, entry.name)
    at = {} if limits is None else dict(zip(*limits))
    for row in rows:
      every = _every(seed, entry, row)
      if every is None:
        continue
      for look, (step, values) in enumerate(zip(*every)):
        for number, value in enumerate(values):
          is_edge = row == 'sharpness' and number == 0 and step in at
          yield (
            step, row, number + 1, *canvas.digits([value]),
            *_quality(seed, entry, row, look, number),
            *(canvas.digits([at[step]]) if is_edge else ['']),
          )  # fmt: skip

  columns = (
    'quantity', 'number', 'value', 'residual', 'converged', 'products',
    'edge_of_stability',
  )  # fmt: skip
  return canvas.table(entry.runs, columns, lines)


def _quality(seed, entry, row: str, look: int, number: int) -> list:
  """Returns the cells of residual, convergence and products; '' of none."""
  values = seed.series[entry.name].values
  cells = ['', '', '']
  residuals = values.get(_beside(row, 'residuals'))
  if residuals is not None and 'share' not in row:
    (cells[0],) = canvas.digits([np.ravel(residuals[look])[number]])
  converged_Tk = _converged(seed, entry, row)
  if converged_Tk is not None:
    cells[1] = int(converged_Tk[look, number])
  # Both ends share theirs.
  products = values.get(_beside(row, 'products').replace('smallest_', ''))
  if products is not None:
    (cells[2],) = canvas.digits([products[look]])
  return cells


def _numbers(entry, rows) -> list[Sequence[str]]:
  """Returns what one look has found: a line a row."""

  def of(run, row):
    values = [y[-1] for _, y in _lines(run, entry, row)]
    return curves.in_words(values, '{:.4g}'.format) or 'not measured'

  return [
    ['', *(run.name for run in entry.runs)],
    *([_label(row), *(of(run, row) for run in entry.runs)] for row in rows),
  ]
