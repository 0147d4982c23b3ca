"""Measures the loss along one direction: values, gradients, smoothness.

Santurkar, Tsipras, Ilyas and Madry (2018), "How Does Batch Normalization Help
Optimization?", arXiv:1805.11604, section 3.1 and Figures 4 and 11: from a point
of training, steps of several sizes along the gradient of the loss *of one
batch*; at each end point the loss and its gradient on the same batch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import checks, keys, placement, types
from bn_jax.analysis import (
  along_gradient_of_seeds,
  by_layer,
  chunks,
  gradients,
)
from bn_jax.analysis import along_steps as steps_lib
from bn_jax.analysis import kind as kind_lib
from bn_jax.analysis import points as points_lib

Loss = chunks.Loss


def along_gradient(
  loss: Loss,
  params: Any,
  step_sizes: Sequence[float],
  direction: Any = None,
  *,
  layers: Sequence[tuple[str, Sequence[str]]] = (),
  curvature: bool = False,
  key: jax.Array | None = None,
  devices: Sequence[jax.Device] = (),  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no types
  journal: types.Journal | None = None,
) -> dict[str, np.ndarray]:
  """Computes the loss and its gradient at params - e * direction, for each e.

  With g = grad loss(params), d the direction (g unless given) and
  g(e) = grad loss(params - e d):

    loss[e]             loss(params - e d)
    gradient_norm[e]    |g(e)|, the loss's local Lipschitz constant
    gradient_change[e]  |g(e) - g|              (gradient predictiveness)
    gradient_cosine[e]  <g(e), g> / (|g(e)| |g|)
    beta[e]             |g(e) - g| / (e |d|)    (effective beta: its maximum)
    lipschitz[e]        |loss(params - e d) - loss(params)| / (e |d|)

  Norms are over all parameters together. The bands of the paper's figures are
  the minimum and maximum over e of these curves. E step sizes cost E + 1
  gradients, compiled once (with `devices` twice); if `loss` is a
  `jax.tree_util.Partial` of one function, that serves all batches. Products of
  float32 matrices are computed in full precision.

  With layers, the same for each layer, with its part of g and of d instead of
  the whole (all layers move): layer_gradient_norm, layer_gradient_change,
  layer_gradient_cosine, layer_beta. With curvature, which costs a Hessian
  product (as much as two gradients), H being the Hessian at params:

    curvature   d'H d / |d|^2   the second derivative along d
    beta_0      |H d| / |d|     the limit of beta as e goes to 0

  If beta is much below beta_0, and near 1 / (smallest e), the smallest step has
  already removed the gradient: beta then shows that step, not the curvature.

  Args:
    loss: params -> a real scalar. Any function that JAX can differentiate, or
      what `chunked` returns.
    params: any tree of floating-point arrays.
    step_sizes: E sizes, each above 0, in units of the direction.
    direction: a tree like params, or a function of the gradient that returns
      one. None or 'descent' is the gradient at params, so that the steps are
      those of gradient descent with these learning rates; 'ascent' is its
      negative; 'random' a normal vector of the gradient's length.
    layers: ((name, (path, ...)), ...), see `by_layer`.
    curvature: whether to compute curvature and beta_0.
    key: a random key, which direction 'random' needs.
    devices: devices that compute one point each at a time; () computes one
      point after the other where params lie.
    journal: keeps each point as soon as it is computed.

  Returns:
    NumPy arrays: step_size, loss, gradient_norm, gradient_change,
    gradient_cosine, beta, lipschitz: [E]; layer_...: [E, L]; loss_0,
    gradient_norm_0, curvature, beta_0: []; layer_gradient_norm_0: [L]. All are
    nan where they would divide by zero; beta (also of layers) and lipschitz
    also where a step is too small to change any parameter.

  Raises:
    ValueError: no step sizes, or one that is not above 0 and finite; parameters
      that are not floating point; a direction unlike them or unknown, or random
      without a key; layers without parameters, with those of another, or named
      twice; a loss that is not a real scalar or that JAX cannot differentiate.
  """
  sizes = kind_lib.checked_sizes('step_sizes', step_sizes)
  checks.flag('curvature', curvature)
  params = gradients.checked(params)
  direction_of = steps_lib.direct(params, direction, key)
  layers = by_layer.checked(params, layers) if layers else ()
  return _along(
    loss, params, sizes, direction_of, layers, curvature, devices, journal
  )


def _along(
  loss, params, sizes, direction_of, layers, curvature, devices, journal
):
  """Computes the arrays of `along_gradient` from checked arguments."""
  if not isinstance(loss, chunks.Chunks):
    loss = chunks.argument(loss)
  row_maker = _Rows(journal)
  with jax.default_matmul_precision('highest'):
    loss_0, gradient_0 = gradients.value_and_gradient(
      loss, params, journal, 'point_0'
    )
    direction = direction_of(gradient_0)
    gradients.check_like(params, direction, 'direction')
    lengths = steps_lib.lengths(gradient_0, direction, layers)
    origin = params, direction, loss_0, gradient_0, lengths, layers
    if devices:
      mesh = jax.sharding.Mesh(np.array(devices), ('points',))
      rows = row_maker.of(
        points_lib.rounds(sizes, len(devices)),
        lambda group, _: _points_on(mesh, loss, group, *origin),
      )
    else:
      rows = row_maker.of(
        sizes, lambda size, name: _point(loss, size, *origin, journal, name)
      )
    at_start = {'gradient_norm_0': lengths['gradient']}
    if layers:
      at_start['layer_gradient_norm_0'] = lengths['layer_gradient']
    if curvature:
      product = gradients.hessian_product(loss, params, direction, journal)
      at_start |= steps_lib.curvature(product, direction)
  rows, loss_0, at_start = placement.host((rows, loss_0, at_start))
  curves = {
    name: np.concatenate([_with_axis(name, row[name]) for row in rows])
    for name in rows[0]
  }
  curves = {
    'step_size': np.asarray(sizes, curves['loss'].dtype),
    **{name: curve[: len(sizes)] for name, curve in curves.items()},
  }
  return {
    **_without_digits(curves, loss_0, params, direction),
    'loss_0': np.asarray(loss_0),
    **{name: np.asarray(value) for name, value in at_start.items()},
  }


def measure(
  *,
  step_factors: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
  step_sizes: Sequence[float] = (),
  direction: str = 'descent',
  statistics: str = 'batch',
  spread: str = 'batch',
  per_layer: bool = False,
  curvature: bool = False,
  chunk_size: int | str | None = 'auto',
  group_size: int | None = None,
) -> types.Measure:
  """Measures the objective of one batch, and its gradient, along a direction.

  Args:
    step_factors: step sizes in units of the current learning rate; the paper
      has these four for its VGG.
    step_sizes: the sizes themselves, instead of factors.
    direction: 'descent', 'ascent', 'random' (of the gradient's length, another
      one at each step of training), or 'update', that of the optimizer for this
      gradient, at a learning rate of 1.
    statistics: 'batch' (the function that training descends) or 'running'.
    spread: what is divided among devices: the 'batch', for one point after the
      other, or the 'points', with the whole batch on each device.
    per_layer: whether each layer has its curves too.
    curvature: whether to compute curvature and beta_0, by a Hessian product.
    chunk_size: examples at a time; 'auto' is as many as fit, None is all.
    group_size: examples that share batch statistics; None: as in the network.

  Returns:
    A measure of exactly one batch; its arrays are those of `along_gradient`. If
    the learning rate is 0, and the step sizes or the direction depend on it,
    all but those of params itself are nan, with step sizes 0.
  """
  factors = kind_lib.checked_sizes('step_factors', step_factors)
  steps = kind_lib.checked_sizes('step_sizes', step_sizes, least=0)
  checks.flag('per_layer', per_layer)
  checks.flag('curvature', curvature)
  checks.one_of('direction', direction, (*steps_lib.DIRECTIONS, 'update'))
  objective = chunks.Objective(statistics, chunk_size, group_size)
  points_lib.check_spread(spread, objective.chunk_size)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal):
    rate = float(problem.learning_rate(state))
    loss = objective.of(problem, state, batch)
    step_direction = direction
    if direction == 'update' and rate:
      step_direction = lambda gradient: jax.tree.map(
        lambda update: -update / rate,
        problem.updates(
          state, gradient, functools.partial(gradients.value_and_gradient, loss)
        ),
      )
    curves_of = functools.partial(
      along_gradient,
      loss,
      state.params,
      layers=problem.layers(state) if per_layer else (),
      curvature=curvature,
      key=keys.of(keys.of_step(state), types.Purpose.MEASURE),
      journal=journal,
    )
    # A schedule's rate may be 0 at its start or end.
    if not rate and (not steps or direction == 'update'):
      return steps_lib.without_steps(
        curves_of([1.0], 'descent'), len(steps or factors)
      )
    devices = points_lib.devices_of(state.step) if spread == 'points' else ()
    sizes = steps or [factor * rate for factor in factors]
    return curves_of(sizes, step_direction, devices=devices)

  return look


class _Rows:
  """Computes a row for each point, in order; a journal keeps each of them."""

  def __init__(self, journal: types.Journal | None):
    self._journal = journal

  def of(self, points: Sequence, row_of: Callable) -> list[dict[str, Any]]:
    """Returns row_of(point, its gradient's name in the journal) for each."""
    rows = []
    for i, point in enumerate(points):
      if len(rows) > 1:  # else Python runs ahead, with many gradients at once
        jax.block_until_ready(rows[-2])
      rows.append(self._row(f'point_{i + 1}', point, row_of))
    return rows

  def _row(self, name, point, row_of):
    if self._journal is None:
      return row_of(point, name)
    row = self._journal.kept(f'{name}_row')
    if row is None:
      row = placement.host(row_of(point, name))
      self._journal.keep(f'{name}_row', row)
      self._journal.drop(name)
    return row


def _point(
  loss, size, params, direction, loss_0, gradient_0, lengths, layers,
  journal=None, name='',
):  # fmt: skip
  """Starts to compute the quantities of one point, scalars and [L]."""
  point = steps_lib.descended(params, size, direction)
  value, gradient = gradients.value_and_gradient(loss, point, journal, name)
  return steps_lib.compared(
    value, gradient, loss_0, gradient_0, lengths, size, layers
  )


@functools.partial(jax.jit, static_argnums=(0, 8))
def _points_on(
  mesh, loss, sizes, params, direction, loss_0, gradient_0, lengths, layers
):
  """Computes the quantities of a point on each device, [D] and [D, L]."""
  replicated, by_point = (
    jax.sharding.PartitionSpec(),
    jax.sharding.PartitionSpec('points'),
  )

  def on_device(size_1, loss, *rest):
    row = _point(loss, size_1[0], *rest, layers=layers)
    return {name: value[None] for name, value in row.items()}

  # No sums over devices, so the check of replicated values is not needed.
  return jax.shard_map(
    on_device,
    mesh=mesh,
    in_specs=(by_point, *(replicated,) * 6),
    out_specs=by_point,
    check_vma=False,
  )(sizes, loss, params, direction, loss_0, gradient_0, lengths)


def _with_axis(name: str, value: np.ndarray) -> np.ndarray:
  """Adds the axis of points, [1] or [1, L], to a value of one point."""
  lacks_axis = np.ndim(value) == (1 if name.startswith('layer_') else 0)
  return np.asarray(value)[None] if lacks_axis else np.asarray(value)


def _without_digits(curves, loss_0, params, direction):
  """Sets each beta and lipschitz to nan where a step changes no parameter.

  Such a step is too small for the digits of the parameters, so that loss and
  gradient are exactly those at params.
  """
  unchanged = (curves['gradient_change'] == 0) & (curves['loss'] == loss_0)
  for i in np.flatnonzero(unchanged):
    size = curves['step_size'][i]
    if not any(
      np.any(new != old)
      for new, old in zip(
        jax.tree.leaves(steps_lib.descended(params, size, direction)),
        jax.tree.leaves(params),
      )
    ):
      for name in {'beta', 'lipschitz', 'layer_beta'} & curves.keys():
        curves[name][i] = np.nan
  return curves


def _cost(section: kind_lib.Section, layers: int) -> kind_lib.Cost:
  del layers  # curves of layers come from the same gradients
  points = len(section['step_sizes'] or section['step_factors'])
  return kind_lib.Cost(1 + points, products=int(section['curvature']))


KIND = kind_lib.Kind(
  make=measure,
  title='Loss landscape along a direction',
  quantities={
    'loss': 'Loss at θ - e·d',
    'gradient_norm': 'Norm of the gradient there',
    'gradient_change': 'Change of the gradient',
    'gradient_cosine': 'Cosine between the gradients',
    'beta': 'Effective beta',
    'lipschitz': 'Change of the loss by distance',
    'curvature': "d'Hd / |d|²",
    'beta_0': '|Hd| / |d|',
  },
  cost=_cost,
  of_seeds=along_gradient_of_seeds.of_seeds,
)
