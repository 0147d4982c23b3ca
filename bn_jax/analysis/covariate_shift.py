"""Measures by how much the steps of earlier layers change a layer's gradient.

This is internal covariate shift as Santurkar et al. (2018), arXiv:1805.11604,
define it for optimization (Definition 2.1 and Figure 3). The 2015 paper defines
it by distributions.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import checks, trees, types
from bn_jax.analysis import by_layer, chunks, gradients
from bn_jax.analysis import kind as kind_lib

QUANTITIES = ('l2', 'relative_l2', 'cosine')


def covariate_shift(
  loss: chunks.Loss,
  params: Any,
  new_params: Any,
  layers: Sequence[tuple[str, Sequence[str]]],
  *,
  at: Sequence[str] = (),
  journal: types.Journal | None = None,
) -> dict[str, np.ndarray]:
  """Computes how each layer's gradient changes when those before it step.

  For layer i of layers 1 to k, with W(t) in params and W(t+1) in new_params,

    G_i  = grad_{W_i} loss(W_1(t), ..., W_k(t))
    G'_i = grad_{W_i} loss(W_1(t+1), ..., W_{i-1}(t+1), W_i(t), ..., W_k(t))

    l2           |G_i - G'_i|            (the paper's internal covariate shift)
    relative_l2  |G_i - G'_i| / |G_i|
    cosine       <G_i, G'_i> / (|G_i| |G'_i|)

  Both losses are of the same batch. They should have no penalty: its gradient
  at W_i is in both, so it cancels in the difference, but it would raise the
  cosine towards 1. For scale-invariant weights |G_i| is proportional to
  1 / |W_i|, so compare networks by relative_l2 and the cosine. The first layer
  has no layer before it, so l2 and relative_l2 are 0 and the cosine is 1.

  It costs one gradient, and one more for each layer of `at`, compiled once.

  Args:
    loss: params -> a real scalar, without penalty; or what `chunked` returns.
    params: any tree of floating-point arrays.
    new_params: the same after the step.
    layers: ((name, (path, ...)), ...) in forward order, see `by_layer`. W_i are
      the parameters under the paths of layer i, with those of its norm or
      without; parameters in no layer do not change.
    at: names of the layers to look at; () is all of them.
    journal: keeps each layer as soon as it is computed.

  Returns:
    l2, relative_l2, cosine: [L], of the layers of `at`, in forward order; nan
    where they would divide by zero.

  Raises:
    ValueError: parameters that are not floating point, new ones unlike them; a
      layer that is unknown or named twice, without parameters or with those of
      another; a loss that is not a real scalar or that JAX cannot
      differentiate.
  """
  params = gradients.checked(params)
  new_params = gradients.checked_like(params, new_params, 'step')
  layers = by_layer.checked(params, layers)
  checks.names('at', at, 'layers')
  chosen = by_layer.chosen(layers, at) if at else layers
  rows = []
  _, gradient = gradients.value_and_gradient(loss, params, journal, 'point_0')
  for name, prefixes in chosen:
    layers_before = layers[: [layer for layer, _ in layers].index(name)]
    row = None if journal is None else journal.kept(f'{name}_row')
    if row is None:
      if len(rows) > 1:  # else Python runs ahead, with many gradients at once
        jax.block_until_ready(rows[-2])
      point = by_layer.moved(params, new_params, layers_before)
      row = _row(loss, point, gradient, prefixes, journal, name)
      if journal is not None:
        journal.keep(f'{name}_row', jax.device_get(row))
        journal.drop(name)
    rows.append(row)
  rows = jax.device_get(rows)
  return {name: np.array([row[name] for row in rows]) for name in QUANTITIES}


def measure(
  *,
  layers: Sequence[str] = (),
  statistics: str = 'batch',
  norm_parameters: bool = True,
  chunk_size: int | str | None = 'auto',
  group_size: int | None = None,
) -> types.Measure:
  """Measures how the step of one batch changes the gradients of later layers.

  The step is the optimizer's, for the gradient of the objective with its
  penalty; the gradients compared are those of the data loss.

  Args:
    layers: names such as 'conv5'; () is the layers a third and two thirds of
      the way (the 9th and 17th of 25, as in the paper).
    statistics: 'batch' (the function that training descends) or 'running'.
    norm_parameters: whether a layer's parameters include the scale and bias of
      its norm, both in what moves and in the gradients compared.
    chunk_size: examples at a time; 'auto' is as many as fit, None is all.
    group_size: examples that share batch statistics; None: as in the network.

  Returns:
    A measure of exactly one batch; for each layer NAME: NAME/l2,
    NAME/relative_l2, NAME/cosine, [].
  """
  checks.names('layers', layers, 'layers')
  checks.flag('norm_parameters', norm_parameters)
  chosen = tuple(layers)
  objective = chunks.Objective(statistics, chunk_size, group_size)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal):
    loss = objective.of(problem, state, batch)
    updates = gradients.updates(problem, state, loss, journal)
    own_layers = _own_layers(problem, state, norm_parameters)
    names = chosen or default_layers([name for name, _ in own_layers])
    shift = covariate_shift(
      objective.of_data(problem, state, batch),
      state.params,
      trees.add_scaled(state.params, 1.0, updates),
      own_layers,
      at=names,
      journal=journal,
    )
    return {
      f'{name}/{quantity}': shift[quantity][i]
      for i, (name, _) in enumerate(by_layer.chosen(own_layers, names))
      for quantity in QUANTITIES
    }

  return look


def of_seeds(
  *,
  layers: Sequence[str],
  statistics: str,
  norm_parameters: bool,
  chunk_size: int | None,
  group_size: int | None,
) -> Callable[..., Any] | None:
  """Returns `measure` for several seeds: all layers of all in one program."""
  if chunk_size is not None or group_size is not None:
    return None

  def bind(problem: types.Problem, mapped: Callable[..., Any], batch_of):
    @mapped
    def rows_of(state, shared):
      batch = batch_of(state, shared)
      loss, of_data = (
        chunks.argument(
          problem.loss(state, batch, statistics, penalised=is_penalised)
        )
        for is_penalised in (True, False)
      )
      updates = gradients.updates(problem, state, loss, None)
      new_params = trees.add_scaled(state.params, 1.0, updates)
      own_layers = _own_layers(problem, state, norm_parameters)
      names = layers or default_layers([name for name, _ in own_layers])
      _, gradient = gradients.value_and_gradient(of_data, state.params)
      rows = {}
      for name, prefixes in by_layer.chosen(own_layers, names):
        before = own_layers[: [layer for layer, _ in own_layers].index(name)]
        point = by_layer.moved(state.params, new_params, before)
        rows[name] = _row(of_data, point, gradient, prefixes)
      return rows

    def look(states: types.TrainState, shared: Iterable[Any]) -> list[dict]:
      (shared,) = shared
      with jax.default_matmul_precision('highest'):
        rows = jax.device_get(rows_of(states, shared))
      return [
        {
          f'{name}/{quantity}': rows[name][quantity][seed]
          for name, _ in problem.layers(states)
          if name in rows
          for quantity in QUANTITIES
        }
        for seed in range(len(states.step))
      ]

    return look

  return bind


def _own_layers(problem, state, norm_parameters):
  """Returns the layers with the paths of the parameters that are compared."""
  # The first path of a layer is that of its weights and bias.
  return tuple(
    (name, paths if norm_parameters else paths[:1])
    for name, paths in problem.layers(state)
  )


def default_layers(names: Sequence[str]) -> tuple[str, ...]:
  """Returns the layers a third and two thirds of the way, [9, 17] of 25."""
  if not names:
    return ()
  indices = {-(-k * len(names) // 3) - 1 for k in (1, 2)}
  return tuple(names[index] for index in sorted(indices))


def _row(loss, point, gradient, prefixes, journal=None, name='gradient'):
  """Returns the quantities of a layer whose earlier layers are at a point."""
  _, new_gradient = gradients.value_and_gradient(loss, point, journal, name)
  return _compare(
    *(by_layer.own(tree, prefixes) for tree in (gradient, new_gradient))
  )


@jax.jit
def _compare(gradient, new_gradient):
  """Returns the quantities of one layer, scalars, from its two gradients."""
  norm, new_norm = trees.norm(gradient), trees.norm(new_gradient)
  change = trees.norm(trees.subtract(gradient, new_gradient))
  return {
    'l2': change,
    'relative_l2': trees.ratio(change, norm),
    'cosine': trees.cosine(trees.vdot(gradient, new_gradient), norm * new_norm),
  }


def _cost(section: kind_lib.Section, layers: int) -> kind_lib.Cost:
  names = tuple(map(str, range(layers)))
  chosen = set(section['layers'] or default_layers(names))
  return kind_lib.Cost(2 + len(chosen))


KIND = kind_lib.Kind(
  make=measure,
  title='Internal covariate shift',
  quantities={
    'l2': "|G - G'|",
    'relative_l2': "|G - G'| / |G|",
    'cosine': "Cosine of G and G'",
  },
  layers='all',
  cost=_cost,
  of_seeds=of_seeds,
)
