"""Takes the hidden vectors of a batch, and their inner products in float64.

A hidden vector is all that a layer makes of one example; of a convolution all
positions and channels, flattened: [N, H, W, C] is a matrix [N, H * W * C].
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import checks, placement, trees, types
from bn_jax.analysis import activations as activations_lib
from bn_jax.analysis import kind as kind_lib

# Bytes of hidden vectors that one pass through the network hands over: further
# layers are taken by further passes, as many as it takes.
_ROOM = 2**30
_BLOCK = 2**24  # numbers of a layer that are converted to float64 at a time


def matrix(name: str, values: Any, least: int) -> np.ndarray:
  """Returns hidden vectors as the rows of a matrix, [N, D] in their dtype.

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
  return np.asarray(values).reshape(len(values), -1)


def blocks(vectors_ND: np.ndarray) -> Iterator[np.ndarray]:
  """Yields the columns of a matrix in blocks, [N, d] each in float64."""
  examples, units = vectors_ND.shape
  size = max(1, _BLOCK // examples)
  for first in range(0, units, size):
    yield vectors_ND[:, first : first + size].astype(np.float64)


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
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (layer, what enters its nonlinearity, [examples, ...]) in order.

  The whole batch goes through the network, whose statistics may be of it; the
  first `examples` are kept. So many layers as have room go through it together.

  Args:
    layers: their names; () is all that feed a nonlinearity.

  Raises:
    ValueError: an unknown layer.
  """
  for group in _groups(problem, state, batch, statistics, layers, examples):
    arguments = problem.activations, state, batch, statistics, group, examples
    with jax.default_matmul_precision('highest'):
      values = placement.host(_pass(*arguments))
    # JAX sorts the keys of a dict, and 'dense10' is not the second layer.
    for name in group:
      yield name, values.pop(name)


def _groups(
  problem, state, batch, statistics, layers, examples
) -> list[tuple[str, ...]]:
  """Returns the layers in order, in groups whose hidden vectors have room."""
  names = activations_lib.chosen_layers(problem.taps, layers or problem.taps)
  shapes = _pass.eval_shape(
    problem.activations, state, batch, statistics, names, examples
  )
  groups, left = [], -1
  for name in dict.fromkeys(names):
    size = math.prod(shapes[name].shape) * shapes[name].dtype.itemsize
    if size > left:
      groups.append([])
      left = _ROOM
    groups[-1].append(name)
    left -= size
  return list(map(tuple, groups))


def forward(
  problem: types.Problem,
  state: types.TrainState,
  batch: types.Batch,
  section: kind_lib.Section,
) -> tuple[Callable[..., Any], Sequence[Any]]:
  """Returns a pass of `of_problem` and its arguments, as `Kind.forward`.

  It is the last one, which goes through all of the network.
  """
  statistics, examples = section['statistics'], section['examples']
  *_, last = _groups(
    problem, state, batch, statistics, section['layers'], examples
  )
  return _pass, (problem.activations, state, batch, statistics, last, examples)


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _pass(activations, state, batch, statistics, names, examples):
  """Returns {layer: the first examples of what enters its nonlinearity}.

  In one program, so that the other examples are given back at once.
  """
  values = activations(state, batch, statistics, names)
  return {name: values[name][:examples] for name in names}
