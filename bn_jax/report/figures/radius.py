"""Draws by how much the loss rises within a radius, a column a step."""

from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.figures import spectrum
from bn_jax.report.results import conditions, curves, looks

MEASURE = 'sharpness'
_CASES = {
  'worst': 'Largest rise of the loss within a radius',
  'average': 'Average rise of the loss at a radius',
}
_COLUMNS = ('radius', 'increase', 'loss', 'loss_0', 'standard_error')


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws the rise against the radius at the first, middle and last look."""
  entry = looks.of(runs, MEASURE, name)
  if entry is None or not any(_looks(seed, entry.name) for seed in entry.seeds):
    return None
  # One radius is a point of this figure, and a line over steps.
  is_one = len(radii(entry)) == 1
  once = is_one and looks.once(entry)
  draw = _over_steps if is_one else _over_radii
  return canvas.Figure(
    name=f'sharpness{entry.suffix}',
    title=f'{title(entry)}{entry.note}',
    caption=_caption(entry, once),
    alt='Rise of the loss within a radius, one line a run. Within '
    f'{radii(entry)[-1]:g} at the last measurement: '
    + '; '.join(_words(run, entry) for run in entry.runs),
    draw=None if once else lambda narrow: draw(entry, narrow),
    table=_table(entry),
    numbers=_numbers(entry) if once else (),
  )


def title(entry: looks.Entry) -> str:
  """Returns the title, by the cases of the runs."""
  cases = _recorded(entry, 'case') or ['worst']
  return ' or '.join(_CASES[case] for case in cases)


def radii(entry: looks.Entry) -> list[float]:
  """Returns all radii at which some seed has looked, the smallest first."""
  return sorted(
    {
      float(radius)
      for seed in entry.seeds
      for sizes, _ in _looks(seed, entry.name).values()
      for radius in sizes
    }
  )


def last(seed: curves.Seed, name: str) -> float:
  """Returns the rise within the largest radius at the last look, or nan."""
  rows = list(_looks(seed, name).values())
  return float(rows[-1][1][-1]) if rows else np.nan


def _recorded(entry: looks.Entry, key: str) -> list[str]:
  """Returns the values of a condition among the runs."""
  read = conditions.of(entry.measure, key, entry.name)
  return list(conditions.by_value(entry.runs, read))


def _looks(seed: curves.Seed, name: str) -> dict[int, tuple]:
  """Returns step -> (radii, rises), by radius."""
  series = seed.series.get(name)
  if series is None or 'increase' not in series.values:
    return {}
  rows = {}
  for look, step in enumerate(series.step):
    radius, rise = (
      np.atleast_1d(np.asarray(series.values[key][look], float))
      for key in ('radius', 'increase')
    )
    order = np.argsort(radius)
    rows[int(step)] = radius[order], rise[order]
  return rows


def _caption(entry: looks.Entry, once: bool) -> str:
  cases, adaptive = (_recorded(entry, key) for key in ('case', 'adaptive'))
  sentences = f'The rise of {spectrum.loss(entry)}'
  if cases == ['average']:
    sentences += (
      ', the mean over pairs of Gaussian perturbations ±d (Andriushchenko et '
      f'al., 2023; {entry.condition("samples")} pairs). '
    )
  else:
    sentences += (
      ', the largest that is reached by steps along the gradient in a ball '
      f'around the parameters (Foret et al., 2021; steps: '
      f'{entry.condition("ascent_steps")}): a lower bound of the maximum. '
    )
    if len(cases) > 1:
      sentences += f'Case: {entry.condition("case")}. '
  if adaptive == ['True']:
    sentences += (
      'Adaptive: a radius is in units of the size of each weight (Kwon et al., '
      '2021). '
    )
  elif adaptive == ['False']:
    sentences += (
      'Not adaptive: a radius is in the units of the parameters, so that the '
      'scale of weights before a norm changes the rise and not the function. '
    )
  else:
    sentences += f'Adaptive: {entry.condition("adaptive")}. '
  if once:
    sentences += looks.told(entry)
  elif max(len(run.seeds) for run in entry.runs) > 1:
    sentences += 'Means over seeds with their 95 % intervals. '
  return f'{sentences}{looks.circumstances(entry)}'


def _over_radii(entry: looks.Entry, narrow: bool) -> mpl.Figure:
  steps = spectrum.drawn_steps(entry)
  drawing, axes = canvas.panels(1, len(steps), narrow, abreast=spectrum.ABREAST)
  lines = {
    (step, index): [
      of_seed[step]
      for seed in run.seeds
      if step in (of_seed := _looks(seed, entry.name))
    ]
    for step in steps
    for index, run in entry.indexed
  }
  rises = [rise for of in lines.values() for _, rise in of]
  # Means of logarithms leave out what is not above 0.
  is_log = min(map(np.min, rises)) > 0
  for axis, step in zip(axes[0], steps):
    for index, _ in entry.indexed:
      _draw(axis, lines[step, index], index, is_log)
    canvas.label_top(axis, f'Step {step}')
    canvas.label_left(axis, 'Rise of the loss')
    axis.set_xlabel('Radius')
  canvas.scale_logarithmically(axes[0, 0], 'x', canvas.ticks_below(narrow))
  if is_log:
    canvas.scale_logarithmically(axes[0, 0])
  strokes.legend_of(drawing, entry.indexed)
  return drawing


def _draw(axis, lines: Sequence, index: int, is_log: bool) -> None:
  """Draws the mean over the seeds that have the radii of the first."""
  if not lines:
    return
  first = lines[0][0]
  alike = [rise for sizes, rise in lines if np.array_equal(sizes, first)]
  mean = strokes.mean([(range(len(first)), rise) for rise in alike], is_log)
  strokes.line(axis, first, mean.mean, index)
  strokes.shade(axis, mean._replace(step=first), index)


def _over_steps(entry: looks.Entry, narrow: bool) -> mpl.Figure:
  drawing, axes = canvas.grid(1, 1, narrow)
  axis = axes[0, 0]
  axis.set_title(f'Rise of the loss, radius {radii(entry)[0]:g}')
  axis.set_xlabel('Training step')
  for index, run in entry.indexed:
    strokes.draw_mean(axis, _one_radius(run, entry), index)
  strokes.divergences(axis, entry.indexed)
  strokes.legend_of(drawing, entry.indexed)
  return drawing


def _one_radius(run, entry) -> list:
  """Returns (steps, rises within the largest radius) of each seed."""
  return [
    (list(rows), np.array([rise[-1] for _, rise in rows.values()]))
    for seed in run.seeds
    if (rows := _looks(seed, entry.name))
  ]


def _words(run, entry) -> str:
  values = [last(seed, entry.name) for seed in run.seeds]
  return f'{run.name} {curves.in_words(values, "{:.3g}".format)}'


def _numbers(entry) -> list[Sequence[str]]:
  """Returns what one look has found within its one radius."""
  texts = [
    curves.in_words(
      [last(seed, entry.name) for seed in run.seeds], '{:.4g}'.format
    )
    for run in entry.runs
  ]
  return [
    ['', *(run.name for run in entry.runs)],
    [f'Rise of the loss, radius {radii(entry)[0]:g}', *texts],
  ]


def _table(entry) -> list[Sequence]:
  """Returns a row a look and radius."""

  def rows(seed):
    series = seed.series.get(entry.name)
    for look, step in enumerate(() if series is None else series.step):
      columns = [
        np.atleast_1d(np.asarray(series.values[key][look], float))
        if key in series.values else [np.nan]
        for key in _COLUMNS
      ]  # fmt: skip
      count = len(columns[0])
      for row in zip(*(np.broadcast_to(column, count) for column in columns)):
        cells = canvas.digits(row)
        yield step, *('' if cell == 'nan' else cell for cell in cells)

  return canvas.table(entry.runs, _COLUMNS, rows)
