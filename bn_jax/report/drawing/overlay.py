"""Curves of Santurkar et al. (2018) behind ours: which, how, what is said.

Which of them belongs to a run is known by its config.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colors, lines
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, paper_curves, strokes
from bn_jax.report.results import curves

LABEL = "the paper's curve; our reading of its network"
_GREY = '#8C8C8C'
_SHARE = 0.45  # of grey in a run's colour
_BESIDE = 60  # points of a legend beside its text
_LINE = {'linestyle': (0, (2.5, 1.2)), 'linewidth': 0.9}
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


def of_run(
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
  indexed: strokes.Indexed, quantity: str, layer: int | None = None
) -> list[Match]:
  """Those of runs that share axes, each curve once, in the first one's colour.

  Runs that the paper does not tell apart have one curve, such as one with
  weight decay and one without.
  """
  found = {}
  for index, run in indexed:
    theirs = of_run(index, run, quantity, layer)
    if theirs is not None:
      curve = theirs.curve
      place = curve.name, curve.label, theirs.steps_times
      first = found.setdefault(place, theirs)
      if first is not theirs:
        found[place] = first._replace(runs=(*first.runs, run.name))
  return list(found.values())


def of_layer(
  indexed: strokes.Indexed, quantity: str, layer: str, key: str
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
    theirs
    for number, runs in by_number.items()
    for theirs in distinct(runs, quantity, number)
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


def looks_alike(run: curves.Run, key: str) -> bool:
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


def draw(axis, matches: Iterable[Match]) -> None:
  """Lines and bands below ours, in a run's colour mixed with grey.

  The edges of a band lie above: ours would hide them.
  """
  for match in matches:
    curve, look = match.curve, {'color': _tint(match.index), **_LINE}
    if np.array_equal(curve.low, curve.high):
      axis.plot(curve.step, curve.low, zorder=1.8, **look)
      continue
    axis.fill_between(
      curve.step, curve.low, curve.high, color=look['color'], alpha=0.2,
      linewidth=0, zorder=0.8,
    )  # fmt: skip
    for edge_T in (curve.low, curve.high):
      axis.plot(curve.step, edge_T, zorder=2.5, **look)


def legend(drawing: mpl.Figure, matches: Sequence[Match]) -> None:
  """Says once, above all axes, what these lines are; the drawing grows."""
  if not matches:
    return
  times = _times(matches)
  text = LABEL + (f' (its steps × {times})' if times else '')
  made = drawing.legend(
    [lines.Line2D([], [], color=_GREY, **_LINE)],
    [_wrapped(text, 72 * drawing.get_figwidth() - _BESIDE)],
    loc='outside upper center',
  )
  canvas.grow(drawing, made)


def sentence(matches: Sequence[Match], *notes: str) -> str:
  """What a caption says of them, with a space in front; '' for none.

  Args:
    matches: all that the figure shows.
    *notes: further sentences.
  """
  if not matches:
    return ''
  names = {match.curve.name for match in matches}
  shown = sorted(names, key=paper_curves.NAMES.index)
  plural = 's' if len(shown) > 1 else ''
  said = [
    f'Thin, dashed and greyed: {LABEL} (Santurkar et al., 2018, '
    f'Figure{plural} {_listed(shown)}), read off its vector figures to within '
    '1 % of a linear axis and a few percent of a value on a logarithmic one.'
  ]
  if times := _times(matches):
    said.append(
      "Our network is smaller than the paper's and trains for fewer steps: the "
      f"paper's steps are multiplied by {times}, so that both end together."
    )
  if any(match.values_times != 1 for match in matches):
    said.append(
      'Its losses are multiplied so that its first is ours: the paper does not '
      'tell the scale of its task.'
    )
  shared = dict.fromkeys(match.runs for match in matches)
  said += [
    f'For {_listed(runs)} it has one curve, in the colour of the first.'
    for runs in shared
    if len(runs) > 1
  ]
  return ' '.join(['', *said, *filter(None, notes)])


def words(matches: Sequence[Match]) -> str:
  """What the text that stands for a figure says of them; '' for none."""
  if not matches:
    return ''
  return f". Behind them, {len(matches)} of the paper's curves"


def _tint(index: int) -> tuple[float, ...]:
  of_run, grey = (
    np.array(colors.to_rgb(colour)) for colour in (strokes.colour(index), _GREY)
  )
  return tuple((1 - _SHARE) * of_run + _SHARE * grey)


def _wrapped(text: str, points: float) -> str:
  """In lines of so many points, broken between words."""
  rows = ['']
  for word in text.split():
    longer = f'{rows[-1]} {word}'.lstrip()
    if rows[-1] and canvas.width(longer) > points:
      rows.append(word)
    else:
      rows[-1] = longer
  return '\n'.join(rows)


def _times(matches: Sequence[Match]) -> str:
  """'0.08', by what steps were multiplied; '' where they were not."""
  found = sorted({match.steps_times for match in matches} - {1.0})
  return ' or '.join(f'{times:.3g}' for times in found)


def _listed(said: Sequence[str]) -> str:
  *first, last = said
  return f'{", ".join(first)} and {last}' if first else last


def _first_loss(run: curves.Run) -> float:
  """Ours at step 0, the geometric mean over the seeds; nan where unknown."""
  trains = [
    seed.series['train']
    for seed in run.seeds
    if curves.recorded(seed, 'train', 'data_loss')
  ]
  found = [float(t.values['data_loss'][0]) for t in trains if t.step[0] == 0]
  found = [value for value in found if math.isfinite(value) and value > 0]
  return math.exp(np.mean(np.log(found))) if found else math.nan
