"""Draws curves of Santurkar et al. (2018) behind ours, and says so in captions.

The config of a run decides which curve belongs to it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax.report.drawing import paper_curves, record
from bn_jax.report.results import conditions, curves, optimizers

LABEL = "the paper's curve, for its network as we read it"
# The paper says "VGG-like" and names a layer 13: these have at least as many.
_WHOLE = ('vgg13', 'vgg16', 'vgg19')
# Our name of a layer -> its number in the paper.
_LAYERS = {
  'vgg': {'conv5': 5, 'conv10': 10},
  'linear': {'linear9': 9, 'linear17': 17},
}
# The paper's steps along the gradient, over the learning rate.
_STEP_FACTORS = {
  'vgg': (0.5, 1.0, 2.0, 4.0),
  'linear': (0.01, 0.1, 1.0, 10.0, 31.6),
}


Indexed = Iterable[tuple[int, curves.Run]]


class Match(NamedTuple):
  """A curve of the paper, made to lie behind one of ours."""

  curve: paper_curves.Curve  # with its steps and values scaled
  index: int  # of the run, by which it is coloured
  # The names of that run and of others that have the same curve.
  runs: tuple[str, ...]
  steps_times: float  # the factor of its steps; 1 if our network is as large
  values_times: float  # the factor of its values


def network(config: Mapping[str, Any]) -> str | None:
  """Returns 'vgg' or 'linear' if a run is of the paper's kind, else None.

  Plain SGD at one rate; a VGG on CIFAR-10 without augmentation, in batches of
  128; 25 linear layers on 1,000 examples of the linear task, with a summed
  loss. Weight decay, of which the paper does not speak, may be any.
  """
  optimizer, schedule, model, data, loss = (
    config.get(key) or {}
    for key in ('optimizer', 'schedule', 'model', 'data', 'loss')
  )
  plain = optimizer.get('name') == optimizers.name(config) == 'sgd'
  plain = plain and not optimizer.get('momentum')
  if not plain or schedule.get('name') != 'constant':
    return None
  task = data['name'], config['batch_size']
  if model['name'].startswith('vgg') and task == ('cifar10', 128):
    return None if data.get('flip') or data.get('crop_padding') else 'vgg'
  deep = model['name'] == 'deep_linear' and model.get('depth') == 25
  if deep and task == ('linear_task', 1000) and loss.get('reduction') == 'sum':
    return 'linear'
  return None


def of_run(
  index: int, run: curves.Run, quantity: str, layer: int | None = None
) -> Match | None:
  """Returns the paper's curve that belongs to a run, or None.

  It ends at the last step of the run. If the network is smaller than the
  paper's, the paper's steps are scaled to end there. Losses of the linear
  network are scaled to ours at step 0, for the paper does not tell the scale of
  its task.

  `quantity` and `layer` are those of `paper_curves.find`.
  """
  kind, steps = network(run.config), run.config.get('steps')
  if kind is None or not steps:
    return None
  norm = run.config['norm']['name']
  rate = float(run.config['schedule']['learning_rate'])
  curve = paper_curves.find(kind, norm, rate, quantity, layer)
  if curve is None:
    return None
  steps_times = 1.0 if is_whole(run) else steps / paper_curves.STEPS[kind]
  values_times = 1.0
  if kind == 'linear' and quantity in ('loss', 'data_loss'):
    first_loss = paper_curves.find(kind, norm, rate, 'data_loss').low[0]
    values_times = _first_loss(run) / first_loss
  if not math.isfinite(values_times):
    return None
  step_T = curve.step * steps_times
  within_T = step_T <= steps
  low_T, high_T = (
    edge_T[within_T] * values_times for edge_T in (curve.low, curve.high)
  )
  curve = curve._replace(step=step_T[within_T], low=low_T, high=high_T)
  return Match(curve, index, (run.name,), steps_times, values_times)


def distinct(
  indexed: Indexed, quantity: str, layer: int | None = None
) -> list[Match]:
  """Returns the paper's curves of runs that share axes, each curve once.

  A curve has the colour of its first run. Runs that the paper does not tell
  apart, such as one with weight decay and one without, share a curve.
  """
  matches = [of_run(index, run, quantity, layer) for index, run in indexed]
  alike = {}  # by curve
  for match in filter(None, matches):
    identity = match.curve.name, match.curve.label, match.steps_times
    alike.setdefault(identity, []).append(match)
  return [
    first._replace(runs=(*first.runs, *(name for m in more for name in m.runs)))
    for first, *more in alike.values()
  ]


def of_layer(
  indexed: Indexed, quantity: str, layer: str, name: str
) -> list[Match]:
  """Returns the paper's curves of the layers that one of ours stands for.

  `quantity` is 'l2' or 'cosine', `layer` our layer, `name` that of the entry.
  """
  by_number = {}
  for index, run in indexed:
    number = layer_of(run, layer, name)
    if number is not None:
      by_number.setdefault(number, []).append((index, run))
  return [
    match
    for number, runs in by_number.items()
    for match in distinct(runs, quantity, number)
  ]


def layer_of(run: curves.Run, layer: str, name: str) -> int | None:
  """Returns the number in the paper of a layer that an entry looks at, or None.

  In a network as large as the paper's, the name tells. In a smaller one whose
  entry has two layers, the first stands for 5 and the second for 10.
  """
  kind = network(run.config)
  section = run.config['measures'].get(name)
  if kind is None or section is None or section['data'] != 'current_batch':
    return None
  if is_whole(run):
    return _LAYERS[kind].get(layer)
  numbers, layers = list(_LAYERS[kind].values()), section.get('layers') or ()
  if len(layers) != len(numbers) or layer not in layers:
    return None
  return numbers[list(layers).index(layer)]


def is_whole(run: curves.Run) -> bool:
  """Returns whether the network of a run is as large as the paper's."""
  model = run.config['model']
  if model['name'] == 'deep_linear':
    return True
  return model['name'] in _WHOLE and model.get('width') in (None, 1)


def looks_alike(run: curves.Run, name: str) -> bool:
  """Returns whether an entry looks along the paper's line at its step sizes."""
  kind = network(run.config)
  section = run.config['measures'].get(name)
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


def references(
  matches: Iterable[Match], quantity: str
) -> tuple[record.Reference, ...]:
  """Returns the marks of these curves."""
  return tuple(
    record.Reference(
      match.index, quantity, match.curve.step, match.curve.low, match.curve.high
    )
    for match in matches
  )


def told(matches: Sequence[Match]) -> str:
  """Returns what a legend says of these curves; '' for none."""
  if not matches:
    return ''
  times = _times(matches)
  return LABEL + (f' (its steps × {times})' if times else '')


def sentence(matches: Sequence[Match], *notes: str) -> str:
  """Returns what a caption says of these curves; '' for none.

  `notes` are further sentences, of which '' are left out.
  """
  if not matches:
    return ''
  figures = {match.curve.name for match in matches}
  figures = sorted(figures, key=paper_curves.NAMES.index)
  plural = 's' if len(figures) > 1 else ''
  sentences = [
    f'Thin, dashed and greyed: {LABEL} (Santurkar et al., 2018, '
    f'Figure{plural} {conditions.listed(figures)}), read off its vector '
    'figures to within 1 % of a linear axis and a few percent of a value on a '
    'logarithmic one.'
  ]
  if times := _times(matches):
    sentences.append(
      "Our network is smaller than the paper's and trains for fewer steps: the "
      f"paper's steps are multiplied by {times}, so that both end together."
    )
  if any(match.values_times != 1 for match in matches):
    sentences.append(
      "The paper's losses are multiplied so that the first one is ours: the "
      'paper does not tell the scale of its task.'
    )
  shared = dict.fromkeys(match.runs for match in matches)
  sentences += [
    f'{conditions.listed(runs)} share one curve of the paper, in the colour '
    'of the first.'
    for runs in shared
    if len(runs) > 1
  ]
  return record.caption(*sentences, *notes)


def _times(matches: Sequence[Match]) -> str:
  """Returns the factor of the steps, '0.08'; '' where it is 1."""
  factors = sorted({match.steps_times for match in matches} - {1.0})
  return ' or '.join(f'{times:.3g}' for times in factors)


def _first_loss(run: curves.Run) -> float:
  """Returns our loss at step 0, the geometric mean of seeds; nan if unknown."""
  found = [curves.values(seed, 'train', 'data_loss') for seed in run.seeds]
  losses = [of_T[0] for step_T, of_T in filter(None, found) if step_T[0] == 0]
  losses = [value for value in losses if math.isfinite(value) and value > 0]
  return math.exp(np.mean(np.log(losses))) if losses else math.nan
