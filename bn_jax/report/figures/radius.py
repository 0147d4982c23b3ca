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
# What is recorded -> how it is drawn, or that the table alone has it.
_STYLES = {
  'increase': 'line', 'loss': 'hidden', 'loss_0': 'hidden',
  'standard_error': 'hidden',
}  # fmt: skip
_RADII = record.Axis('Radius', 'radius', True)
_LABEL = 'Rise of the loss'


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws the rise against the radius at the first, middle and last look."""
  if not looks.recorded(entry, 'increase'):
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
  found = [
    curves.values(s, entry.name, 'radius', np.ravel) for s in entry.seeds
  ]
  return sorted({float(radius) for of in found if of for radius in of[1]})


def last(seed: curves.Seed, name: str) -> float:
  """Returns the rise within the largest radius at the last look, or nan."""
  found = first_last.values(seed, name, -1, 'radius', 'increase')
  if found is None:
    return np.nan
  radius, rise = map(np.atleast_1d, found)
  return float(rise[np.argmax(radius)])


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


def _curves(run, name: str, of, quantity: str) -> tuple[record.Curve, ...]:
  """Returns a quantity by radius, of these looks of each seed."""
  every = []
  pairs = first_last.of_looks(run, name, of, _RADII.name, quantity)
  for seed, step, (radius, y) in pairs:
    radius, y = np.broadcast_arrays(np.atleast_1d(radius), y)
    order = np.argsort(radius)
    x, y = radius[order].astype(float), y[order].astype(float)
    every.append(record.Curve(seed, x, y, step=step))
  return tuple(every)


def _over_radii(entry: looks.Entry) -> dict[str, Any]:
  """Returns the panels of steps, as keywords of a figure."""
  all_looks = lambda seed: range(len(looks.steps_of(seed, entry.name)))
  rises = [
    curve.y
    for run in entry.runs
    for curve in _curves(run, entry.name, all_looks, 'increase')
  ]
  is_log = over_steps.is_positive(np.concatenate(rises))
  axis = record.Axis(_LABEL, 'increase', is_log)

  def panel(step: int) -> record.Panel:
    at = lambda seed: first_last.at(seed, entry.name, step)
    marks = tuple(
      record.Lines(index, quantity, every, style)
      for index, run in entry.indexed
      for quantity, style in _STYLES.items()
      if (every := _curves(run, entry.name, at, quantity))
    )
    return record.Panel(_RADII, axis, marks, f'Step {step}')

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
    for quantity, style in _STYLES.items():
      yield from over_steps.lines(entry, index, run, quantity, style=style)

  title = f'{_LABEL}, radius {radii(entry)[0]:g}'
  axis = record.Axis(_LABEL, 'increase')
  return over_steps.panel(entry, 'increase', title, axis, marks)
