"""Compares our measures of VGG-11 with those of `analysis_torch`."""

import functools
from collections.abc import Callable

import analysis_torch
import jax
import jax.numpy as jnp
import numpy as np
import torch

from bn_jax import analysis, types

_FACTORS = (0.5, 1.0, 2.0, 4.0)  # step sizes / learning rate, as in the paper
_TOLERANCE = 1e-4  # relative, in float64: far above rounding, below any mistake
_WEIGHT_DECAY = 5e-4  # above 0, so that the penalty is compared too
# Smaller values count as this: the first layer's shift is 0 but for rounding.
_ZERO = 1e-9
_STEPS = 3  # enough for momentum and weights that are no longer initial


Make = Callable[..., tuple[types.Problem, types.Split]]


def compare(make: Make, width: float) -> bool:
  """Prints the largest differences; returns whether float64's are small enough.

  Args:
    make: (norm, dtype, weight_decay) -> the Problem of VGG-11 and its images.
  """
  results = {}
  for norm in ('batch', 'none'):
    make_vgg = functools.partial(make, norm, weight_decay=_WEIGHT_DECAY)
    with jax.enable_x64(True):
      trained = _trained(*make_vgg(dtype=jnp.float64))
    for dtype in (jnp.float64, jnp.float32):
      model = analysis_torch.VGG11(batch_norm=norm == 'batch', width=width)
      model = model.to(getattr(torch, jnp.dtype(dtype).name))
      with jax.enable_x64(dtype is jnp.float64):
        results[norm, jnp.dtype(dtype).name] = _of_network(
          make_vgg(dtype=dtype)[0], *trained, dtype, model
        )
  print(
    'Largest relative difference from PyTorch over points, layers, directions '
    f'(gradient, update, random) and states (initial, after {_STEPS} steps):\n'
  )
  names = {'batch': 'with BN', 'none': 'without'}
  heads = [f'{names[norm]}, {dtype}' for norm, dtype in results]
  print(f'| quantity | {" | ".join(heads)} |')
  print('|---' * (1 + len(heads)) + '|')
  for quantity in results['batch', 'float64']:
    cells = [f'{of_all[quantity]:.1e}' for of_all in results.values()]
    print(f'| {quantity} | {" | ".join(cells)} |')
  worst = max(max(results[norm, 'float64'].values()) for norm in names)
  holds = worst <= _TOLERANCE
  print(
    f'\nfloat64, the largest of all: {worst:.1e}; limit at most '
    f'{_TOLERANCE:.0e}: {"holds" if holds else "does not hold"}\n'
  )
  return holds


def differences(ours, peer) -> dict[str, float]:
  """Returns each quantity's largest relative difference; inf for a lone nan."""
  ours = {name: value for name, value in ours.items() if name != 'step_size'}
  if set(ours) != set(peer):
    raise SystemExit(f'quantities differ: {sorted(set(ours) ^ set(peer))}')
  largest = {}
  for name, x in ours.items():
    x, y = np.float64(x), np.float64(peer[name])
    if x.shape != y.shape:
      raise SystemExit(f'{name} is {x.shape}; PyTorch has {y.shape}')
    relative = np.abs(x - y) / np.maximum(np.abs(y), _ZERO)
    relative = np.where(np.isnan(x) & np.isnan(y), 0, relative)
    largest[name] = float(np.where(np.isnan(relative), np.inf, relative).max())
  return largest


def _trained(
  problem, split
) -> tuple[list[types.TrainState], list[types.Batch]]:
  """Trains in float64; returns (states before and after each step, batches)."""
  states, batches = [_cast(problem.init(0), jnp.float64)], []
  step = jax.jit(problem.step)
  for _ in range(_STEPS + 1):
    batches.append(problem.batch(states[-1], split))
    states.append(step(states[-1], split))
  return jax.device_get((states, batches))


def _of_network(problem, states, batches, dtype, model) -> dict[str, float]:
  """Returns quantity -> largest relative difference, in one precision."""
  largest = {}
  for t in (0, _STEPS):
    before, after, batch = (
      _cast(tree, dtype) for tree in (states[t], states[t + 1], batches[t])
    )
    for name, value in _at(problem, before, after.params, batch, model):
      largest[name] = max(value, largest[name]) if name in largest else value
  name = f'change by {_STEPS + 1} steps'
  return largest | {name: _of_training(states, batches, model)}


def _at(problem, state, new, batch, model):
  """Yields (quantity, difference) of the measures of one state."""
  params = state.params
  layers, rate = problem.layers(state), float(problem.learning_rate(state))
  sizes = [rate * factor for factor in _FACTORS]
  loss = problem.loss(state, batch, 'batch')
  analysis_torch.load(model, params)
  objective = analysis_torch.Objective(
    batch.images, batch.labels, model, weight_decay=_WEIGHT_DECAY
  )
  update = jax.tree.map(lambda a, b: (a - b) / rate, params, new)
  for direction in (None, update, _random_like(params)):
    yield from differences(
      analysis.along_gradient(
        loss, params, sizes, direction, layers=layers, curvature=True
      ),
      analysis_torch.along_direction(
        model, objective, sizes, direction, per_layer=True, curvature=True
      ),
    ).items()
  loss = problem.loss(state, batch, 'batch', penalised=False)
  objective = analysis_torch.Objective(batch.images, batch.labels, model)
  names = [name for name, _ in layers]
  for name, value in differences(
    analysis.covariate_shift(loss, params, new, layers),
    analysis_torch.covariate_shift(model, objective, new, names),
  ).items():
    yield f'shift, {name}', value


def _of_training(states, batches, model) -> float:
  """Returns PyTorch's distance from our result, over the start's."""
  analysis_torch.load(model, states[0].params)
  objectives = [
    analysis_torch.Objective(
      batch.images, batch.labels, model, weight_decay=_WEIGHT_DECAY
    )
    for batch in batches
  ]
  rate = float(states[0].opt_state.hyperparams['learning_rate'])
  analysis_torch.train(model, objectives, rate)
  start, ours = (
    analysis_torch.tensors(model, states[t].params) for t in (0, -1)
  )
  params = [p.detach() for p in model.parameters()]
  distance = analysis_torch.distance
  return float(distance(params, ours) / distance(ours, start))


def _random_like(params):
  """Returns a random direction of length 1."""
  generator = np.random.default_rng(1)
  direction = jax.tree.map(lambda x: generator.normal(size=x.shape), params)
  squares = jax.tree.map(lambda x: np.sum(x**2), direction)
  length = np.sqrt(sum(jax.tree.leaves(squares)))
  return jax.tree.map(
    lambda d, x: jnp.asarray(d / length, x.dtype), direction, params
  )


def _cast(tree, dtype):
  """Casts a tree's arrays of floating point to one dtype."""
  return jax.tree.map(
    lambda x: jnp.asarray(
      x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype
    ),
    tree,
  )
