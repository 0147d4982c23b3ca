"""Which curve of Santurkar et al. (2018) belongs to a run, by its config."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bn_jax.report.drawing import paper_curves
from bn_jax.report.results import curves

# As large as the paper's: "VGG-like", and its figures name a layer 13.
_WHOLE = ('vgg13', 'vgg16', 'vgg19')
# What its layers are called here.
_LAYERS = {
  'vgg': {'conv5': 5, 'conv10': 10},
  'linear': {'linear9': 9, 'linear17': 17},
}
# Times the learning rate, along the gradient.
_STEP_FACTORS = {
  'vgg': (0.5, 1.0, 2.0, 4.0),
  'linear': (0.01, 0.1, 1.0, 10.0, 31.6),
}


class Match(NamedTuple):
  """A curve of the paper, made to lie behind one of ours.

  Attributes:
    curve: with its steps and values scaled.
    index: of the run, by which it is coloured.
    runs: the names of that run and of others that have the same curve.
    steps_times: by what its steps were multiplied; 1 for a network as large.
    values_times: by what its values were.
  """

  curve: paper_curves.Curve
  index: int
  runs: tuple[str, ...]
  steps_times: float
  values_times: float


def network(config: Mapping[str, Any]) -> str | None:
  """'vgg' or 'linear' if a run is of the paper's kind, else None.

  Plain SGD at one rate; a VGG on CIFAR-10 without augmentation, in batches of
  128; 25 linear layers on 1,000 examples of the linear task, with a summed
  loss. Weight decay, of which the paper does not speak, may be any.
  """
  optimizer, schedule, model, data, loss = (
    config.get(key) or {}
    for key in ('optimizer', 'schedule', 'model', 'data', 'loss')
  )
  plain = optimizer.get('name') == 'sgd' and not optimizer.get('momentum')
  if not plain or schedule.get('name') != 'constant':
    return None
  task = data['name'], config['batch_size']
  if model['name'].startswith('vgg') and task == ('cifar10', 128):
    return None if data.get('flip') or data.get('crop_padding') else 'vgg'
  deep = model['name'] == 'deep_linear' and model.get('depth') == 25
  if deep and task == ('linear_task', 1000) and loss.get('reduction') == 'sum':
    return 'linear'
  return None


def of(
  index: int, run: curves.Run, quantity: str, layer: int | None = None
) -> Match | None:
  """The curve that belongs to a run, or None.

  It goes as far as the run will. If the network is smaller than the paper's,
  the paper's steps are scaled to end where ours do. Losses of the linear
  network are scaled to ours at step 0, for the paper does not tell the scale of
  its task.

  Args:
    index: of the run.
    run: by its config it is known.
    quantity: see `paper_curves.find`.
    layer: of the paper.
  """
  kind, steps = network(run.config), run.config.get('steps')
  if kind is None or not steps:
    return None
  norm = run.config['norm']['name']
  rate = float(run.config['schedule']['learning_rate'])
  found = paper_curves.find(kind, norm, rate, quantity, layer)
  if found is None:
    return None
  steps_times = 1.0 if is_whole(run) else steps / paper_curves.STEPS[kind]
  values_times = 1.0
  if kind == 'linear' and quantity in ('loss', 'data_loss'):
    theirs = paper_curves.find(kind, norm, rate, 'data_loss').low[0]
    values_times = _first_loss(run) / theirs
  if not math.isfinite(values_times):
    return None
  step_T = found.step * steps_times
  kept_T = step_T <= steps
  low_T, high_T = (
    edge_T[kept_T] * values_times for edge_T in (found.low, found.high)
  )
  made = found._replace(step=step_T[kept_T], low=low_T, high=high_T)
  return Match(made, index, (run.name,), steps_times, values_times)


def distinct(
  indexed: Iterable[tuple[int, curves.Run]],
  quantity: str,
  layer: int | None = None,
) -> list[Match]:
  """Those of runs that share axes, each curve once, in the first one's colour.

  Runs that the paper does not tell apart have one curve, such as one with
  weight decay and one without.
  """
  found = {}
  for index, run in indexed:
    match = of(index, run, quantity, layer)
    if match is not None:
      place = match.curve.name, match.curve.label, match.steps_times
      first = found.setdefault(place, match)
      if first is not match:
        found[place] = first._replace(runs=(*first.runs, run.name))
  return list(found.values())


def of_layer(
  indexed: Iterable[tuple[int, curves.Run]],
  quantity: str,
  layer: str,
  key: str,
) -> list[Match]:
  """`distinct`, of the paper's layers that one of ours is or stands for.

  Args:
    indexed: (index, run).
    quantity: of covariate shift.
    layer: ours.
    key: of the measure.
  """
  by_number = {}
  for index, run in indexed:
    number = layer_of(run, layer, key)
    if number is not None:
      by_number.setdefault(number, []).append((index, run))
  return [
    match
    for number, runs in by_number.items()
    for match in distinct(runs, quantity, number)
  ]


def layer_of(run: curves.Run, layer: str, key: str) -> int | None:
  """The number in the paper of one of the layers that a measure looks at.

  In a network as large as the paper's it is its own. In a smaller one whose
  measure is asked for two, the first stands for 5 and the second for 10.
  """
  kind = network(run.config)
  section = run.config['measures'].get(key)
  if kind is None or section is None or section['data'] != 'current_batch':
    return None
  if is_whole(run):
    return _LAYERS[kind].get(layer)
  numbers, asked = list(_LAYERS[kind].values()), section.get('layers') or ()
  if len(asked) != len(numbers) or layer not in asked:
    return None
  return numbers[list(asked).index(layer)]


def is_whole(run: curves.Run) -> bool:
  """Whether its network is as large as the paper's."""
  model = run.config['model']
  if model['name'] == 'deep_linear':
    return True
  return model['name'] in _WHOLE and model.get('width') in (None, 1)


def along(run: curves.Run, key: str) -> bool:
  """Whether a measure looks along the line and at the steps of the paper."""
  kind = network(run.config)
  section = run.config['measures'].get(key)
  if kind is None or section is None or section.get('step_sizes'):
    return False
  factors = section.get('step_factors') or ()
  return (
    section['data'] == 'current_batch'
    and section.get('direction') in (None, 'descent')
    and section.get('statistics') in (None, 'batch')
    and len(factors) == len(_STEP_FACTORS[kind])
    and np.allclose(sorted(factors), _STEP_FACTORS[kind])
  )


def _first_loss(run: curves.Run) -> float:
  """Ours at step 0, the geometric mean over the seeds; nan where unknown."""
  trains = [s.series['train'] for s in run.seeds if 'train' in s.series]
  found = [
    float(train.values['data_loss'][0])
    for train in trains
    if 'data_loss' in train.values and train.step[0] == 0
  ]
  found = [value for value in found if math.isfinite(value) and value > 0]
  return math.exp(np.mean(np.log(found))) if found else math.nan
