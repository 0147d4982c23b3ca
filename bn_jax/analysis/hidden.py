"""Takes the hidden vectors of a batch, and their inner products in float64.

A hidden vector is all that a layer makes of one example; of a convolution all
positions and channels, flattened: [N, H, W, C] is a matrix [N, H * W * C].
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import checks, placement, trees, types
from bn_jax.analysis import activations as activations_lib
from bn_jax.analysis import kind as kind_lib


def matrix(name: str, values: Any, least: int) -> np.ndarray:
  """Returns hidden vectors as the rows of a matrix, [N, D] in float64.

  Args:
    name: of the layer, for messages.
    values: [N, ...], floating point.
    least: how many examples there must be.

  Raises:
    ValueError: values of another kind, of no units or of too few examples.
  """
  trees.check_floating(name, values)
  if np.ndim(values) < 1 or len(values) < least:
    raise ValueError(
      f'{name} has shape {np.shape(values)}; allowed: [N, ...], with N, the '
      f'number of examples, {least} or more'
    )
  if not np.size(values):
    raise ValueError(f'{name} has shape {np.shape(values)}: no units at all')
  return np.asarray(values, np.float64).reshape(len(values), -1)


def check_layers(layers: Mapping[str, Any]) -> None:
  """Raises ValueError unless it is {name: hidden vectors}, and not empty."""
  if not isinstance(layers, Mapping) or not layers:
    raise ValueError(
      f'hidden is {checks.shown(layers)}; allowed: a dict of layers, '
      '{name: [N, ...]}'
    )


def check_examples(examples: Any, least: int) -> None:
  """Checks the keyword `examples`: raises Refused below `least`."""
  checks.count('examples', examples)
  if examples < least:
    words = ', '.join(str(least + i) for i in range(3))
    raise checks.Refused('examples', examples, f'{words}, ...')


def of_problem(
  problem: types.Problem,
  state: types.TrainState,
  batch: types.Batch,
  statistics: str,
  layers: Sequence[str],
  examples: int,
) -> dict[str, np.ndarray]:
  """Returns {layer: what enters its nonlinearity, [examples, ...]}.

  The whole batch goes through the network, whose statistics may be of it; the
  first `examples` are kept.

  Args:
    layers: their names; () is all that feed a nonlinearity.

  Raises:
    ValueError: an unknown layer.
  """
  names = activations_lib.chosen_layers(problem.taps, layers or problem.taps)
  with jax.default_matmul_precision('highest'):
    values = problem.activations(state, batch, statistics, names)
  kept = {name: _first(values[name], examples) for name in names}
  # JAX sorts the keys of a dict, and 'dense10' is not the second layer.
  fetched = placement.host(kept)
  return {name: fetched[name] for name in names}


def forward(
  problem: types.Problem,
  state: types.TrainState,
  batch: types.Batch,
  section: kind_lib.Section,
) -> tuple[Callable[..., Any], Sequence[Any]]:
  """Returns the pass of `of_problem` and its arguments, as `Kind.forward`."""
  layers = tuple(section['layers']) or problem.taps
  return problem.activations, (state, batch, section['statistics'], layers)


@functools.partial(jax.jit, static_argnums=1)
def _first(values, count):
  return values[:count]
