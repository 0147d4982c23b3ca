"""Draws by how much the loss rises within a radius, a column a step."""

from typing import Any

import numpy as np

from bn_jax.report.drawing import first_last, over_steps, record
from bn_jax.report.figures import spectrum
from bn_jax.report.results import curves, looks

MEASURE = 'sharpness'
_CASES = {
  'worst': 'Largest rise of the loss within a radius',
  'average': 'Average rise of the loss at a radius',
}
_QUANTITIES = ('increase', 'loss', 'loss_0', 'standard_error')
_RADII = record.Axis('Radius', 'radius', True)
_LABEL = 'Rise of the loss'


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws the rise against the radius at the first, middle and last look."""
  if not any(_looks(seed, entry.name) for seed in entry.seeds):
    return None
  # One radius is a point of this figure, and a line over steps.
  is_one = len(radii(entry)) == 1
  words = {
    'name': 'sharpness',
    'title': title(entry),
    'caption': _caption(entry, is_one and looks.once(entry)),
  }
  if is_one:
    return over_steps.figure(entry, [_over_steps(entry)], **words)
  return record.of_entry(entry, **words, **_over_radii(entry))


def title(entry: looks.Entry) -> str:
  """Returns the title, by the cases of the runs."""
  cases = entry.values('case') or ['worst']
  return ' or '.join(_CASES[case] for case in cases)


def radii(entry: looks.Entry) -> list[float]:
  """Returns all radii at which some seed has looked, the smallest first."""
  return sorted(
    {
      float(radius)
      for seed in entry.seeds
      for look in _looks(seed, entry.name).values()
      for radius in look['radius']
    }
  )


def last(seed: curves.Seed, name: str) -> float:
  """Returns the rise within the largest radius at the last look, or nan."""
  rows = list(_looks(seed, name).values())
  return float(rows[-1]['increase'][-1]) if rows else np.nan


def _looks(seed: curves.Seed, name: str) -> dict[int, dict[str, np.ndarray]]:
  """Returns step -> quantity -> values [R], by radius."""
  if not curves.recorded(seed, name, 'increase'):
    return {}
  series = seed.series[name]
  rows = {}
  for look, step in enumerate(series.step):
    radius = np.atleast_1d(np.asarray(series.values['radius'][look], float))
    order = np.argsort(radius)
    rows[int(step)] = {
      quantity: np.broadcast_to(series.values[quantity][look], radius.shape)[
        order
      ].astype(float)
      for quantity in ('radius', *_QUANTITIES)
      if quantity in series.values
    }
  return rows


def _caption(entry: looks.Entry, once: bool) -> str:
  cases, adaptive = entry.values('case'), entry.values('adaptive')
  how = (
    ', the largest that is reached by steps along the gradient in a ball '
    'around the parameters (Foret et al., 2021; steps: '
    f'{entry.condition("ascent_steps")}): a lower bound of the maximum.'
  )
  if cases == ['average']:
    how = (
      ', the mean over pairs of Gaussian perturbations ±d (Andriushchenko et '
      f'al., 2023; {entry.condition("samples")} pairs).'
    )
  units = {
    'True': 'Adaptive: a radius is in units of the size of each weight (Kwon '
    'et al., 2021).',
    'False': 'Not adaptive: a radius is in the units of the parameters, so '
    'that the scale of weights before a norm changes the rise and not the '
    'function.',
  }
  condition = entry.condition('adaptive')
  return record.caption(
    f'The rise of {spectrum.loss(entry)}{how}',
    len(cases) > 1 and f'Case: {entry.condition("case")}.',
    units[adaptive[0]] if len(adaptive) == 1 else f'Adaptive: {condition}.',
    once and looks.told(entry),
    looks.circumstances(entry),
  )


def _over_radii(entry: looks.Entry) -> dict[str, Any]:
  """Returns the panels of steps, as keywords of a figure."""
  looks_of = {
    (index, seed.seed): _looks(seed, entry.name)
    for index, run in entry.indexed
    for seed in run.seeds
  }
  rises = [look['increase'] for of in looks_of.values() for look in of.values()]
  is_log = over_steps.is_positive(np.concatenate(rises))
  axis = record.Axis(_LABEL, 'increase', is_log)

  def panel(step: int) -> record.Panel:
    marks = []
    for index, run in entry.indexed:
      for quantity in _QUANTITIES:
        every = tuple(
          record.Curve(seed.seed, look['radius'], look[quantity], step=step)
          for seed in run.seeds
          if quantity
          in (look := {step: {}, **looks_of[index, seed.seed]}[step])
        )
        style = 'line' if quantity == 'increase' else 'hidden'
        if every:
          marks.append(record.Lines(index, quantity, every, style))
    return record.Panel(_RADII, axis, tuple(marks), f'Step {step}')

  steps = spectrum.drawn_steps(entry)
  others = [step for step in looks.steps(entry) if step not in steps]
  return {
    'rows': (tuple(map(panel, steps)),),
    'abreast': spectrum.ABREAST,
    'undrawn': tuple(record.hidden(panel(step)) for step in others),
    'frames': first_last.frames(
      entry, lambda step: ((panel(step),),), len(steps)
    ),
  }


def _over_steps(entry: looks.Entry) -> record.Panel:
  """Returns the panel of one radius over steps."""

  def marks(index: int, run: curves.Run):
    for quantity in _QUANTITIES:
      style = 'line' if quantity == 'increase' else 'hidden'
      yield from over_steps.lines(entry, index, run, quantity, style=style)

  title = f'{_LABEL}, radius {radii(entry)[0]:g}'
  axis = record.Axis(_LABEL, 'increase')
  return over_steps.panel(entry, 'increase', title, axis, marks)
