"""Tells from its config what the optimizer of a run makes of a gradient.

Gradient descent at the rate eta is stable along a direction of curvature up to
2 / eta. Heavy-ball momentum m allows 2 (1 + m) / eta, Nesterov's (2 + 2m) /
((1 + 2m) eta): Cohen et al. (2021), arXiv:2103.00065, section 2. Of an adaptive
optimizer the curvature after its preconditioning counts (Cohen et al., 2022,
arXiv:2207.14484), which no measure here computes: not defined.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bn_jax.report.results import curves

# Keys that change what an optimizer does -> values that leave it as it is; runs
# older than a key lack it.
_CHANGES = {
  'clip_norm': (None,),
  'adaptive_clip': (None,),
  'rates': (None, {}),
  'trainable': (None, 'all', '*'),
}


def edge(config: Mapping[str, Any]) -> float | None:
  """Returns the curvature up to which training is stable, times the rate.

  None where it is not defined: for other optimizers than SGD, with clipping,
  and where not all parameters are trained at one rate.
  """
  if name(config) != 'sgd':
    return None
  optimizer = config.get('optimizer') or {}
  m = optimizer.get('momentum') or 0.0
  return (2 + 2 * m) / (1 + 2 * m if optimizer.get('nesterov') else 1)


def name(config: Mapping[str, Any]) -> str:
  """Returns 'adamw', or 'sgd with clip_norm 1.0, trainable *norm*'."""
  optimizer = (config.get('optimizer') or {}).get('name') or 'sgd'
  changes = [
    f'{key} {config.get(key)}'
    for key, usual in _CHANGES.items()
    if config.get(key) not in usual
  ]
  return f'{optimizer} with {", ".join(changes)}' if changes else optimizer


def rate(config: Mapping[str, Any]) -> float | None:
  """Returns the learning rate of a config: of a schedule, its peak.

  None where a user's schedule has no number of that name.
  """
  number = config['schedule'].get('learning_rate')
  if isinstance(number, bool) or not isinstance(number, int | float):
    return None
  return float(number)


def of_edge(runs: Sequence[curves.Run]) -> list[str]:
  """Returns sentences on 2 / (learning rate) of runs that are no plain SGD."""
  sentences = {}
  for run in runs:
    product = edge(run.config)
    if product is None:
      text = (
        f'trained by {name(run.config)}, for which 2 / (learning rate) is no '
        'edge of stability, and none is defined'
      )
    elif product != 2:
      text = (
        f'trained with momentum, stable up to a curvature of {product:.4g} / '
        '(learning rate), not of 2 / (learning rate)'
      )
    else:
      continue
    sentences.setdefault(text, []).append(run.name)
  return [f'{", ".join(names)}: {text}.' for text, names in sentences.items()]


def of_rates(runs: Sequence[curves.Run]) -> str:
  """Returns for which runs no effective learning rate is defined; '': none."""
  others = [run for run in runs if not _has_effective_rate(run)]
  if not others:
    return ''
  names = ', '.join(f'{run.name} ({name(run.config)})' for run in others)
  return (
    f'The effective learning rate is not defined for {names}, whose updates '
    'are no sums of gradients times the rate: the angle tells.'
  )


def _has_effective_rate(run: curves.Run) -> bool:
  """Returns whether updates are sums of gradients, at rates that may differ.

  The records tell: a user's function may return an optimizer of ours.
  """
  quantities = {
    value.rpartition('/')[2]
    for seed in run.seeds
    for series in seed.series.values()
    for value in series.values
  }
  if 'weight_norm' in quantities:
    return 'effective_learning_rate' in quantities
  return name({**run.config, 'rates': None, 'trainable': None}) == 'sgd'
