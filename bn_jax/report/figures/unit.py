"""Draws one unit, as in Figure 1(b, c) of Ioffe and Szegedy (2015)."""

from typing import NamedTuple

import numpy as np

from bn_jax.report.drawing import record
from bn_jax.report.figures import activations
from bn_jax.report.results import curves, looks, reductions

MEASURE = 'activations'


class Unit(NamedTuple):
  """Percentiles of one unit over training."""

  run: str  # name of the run
  seed: int  # the first of the run that has looks
  layer: str  # the last one at which it looked
  index: int  # of the unit in its layer
  units: int  # how many the layer has
  step: np.ndarray  # [T]
  quantiles: np.ndarray  # [T, 3], the `reductions.PERCENTILES`


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws percentiles of a typical unit over training, a column a run.

  Of the runs whose config asks for it, `unit=True`; None where none of them has
  looked twice.
  """
  entry = activations.measured(entry)
  if entry is None:
    return None
  pairs = [
    ((index, run), typical(run, entry.name))
    for index, run in entry.indexed
    if curves.measures(run)[entry.name].get('unit')
  ]
  pairs = [(indexed, unit) for indexed, unit in pairs if unit is not None]
  if not pairs:
    return None
  entry = entry._replace(indexed=tuple(indexed for indexed, _ in pairs))
  units = [
    f'{unit.run}: unit {unit.index} of {unit.units} of {unit.layer}, seed '
    f'{unit.seed}'
    for _, unit in pairs
  ]
  return record.of_entry(
    entry,
    'unit',
    'Percentiles of one unit',
    'The 15th, 50th and 85th percentiles, over all positions, of what '
    'enters the nonlinearity of one unit: of the last layer measured, in the '
    'first seed of a run. The unit is the typical one: its 50th percentile '
    'moves as far from one measurement to the next (median over training) as '
    'that of the median unit. '
    f'{"; ".join(units)}. All panels have one y axis, in the '
    f'units of the activations. {looks.circumstances(entry)}',
    rows=(tuple(_panel(*indexed, unit) for indexed, unit in pairs),),
  )


def typical(run: curves.Run, name: str) -> Unit | None:
  """Returns the unit of a run that drifts as far as the median unit.

  None with fewer than two looks that have quantiles of units, or if no unit has
  finite ones.
  """
  seed = activations.first_seed(run, name)
  layer = looks.activation_layers(run, name)[-1]
  step_T, quantiles_TQC = reductions.percentiles(seed, name, layer)
  if len(step_T) < 2:
    return None
  moves_C = np.median(np.abs(np.diff(quantiles_TQC[:, 1], axis=0)), axis=0)
  order = [
    c for c in np.argsort(moves_C, kind='stable') if np.isfinite(moves_C[c])
  ]
  if not order:
    return None
  index = int(order[(len(order) - 1) // 2])
  return Unit(
    run=run.name,
    seed=seed.seed,
    layer=layer,
    index=index,
    units=len(moves_C),
    step=step_T,
    quantiles=quantiles_TQC[:, :, index],
  )


def _panel(index: int, run: curves.Run, unit: Unit) -> record.Panel:
  of = f'{unit.layer}, unit {unit.index}'
  return record.Panel(
    record.STEPS,
    record.Axis('Input of the nonlinearity', 'input'),
    tuple(
      record.Lines(
        index, quantity, (record.Curve(unit.seed, unit.step, value_T),), style
      )
      for quantity, value_T, style in zip(
        ('q15', 'q50', 'q85'), unit.quantiles.T, ('further', 'line', 'further')
      )
    ),
    title=run.name,
    note=of,
    run=run.name,
    about=of,
  )
