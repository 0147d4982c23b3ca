"""The loss landscape along one direction: values, gradients, smoothness.

Santurkar, Tsipras, Ilyas and Madry (2018), "How Does Batch Normalization Help
Optimization?", arXiv:1805.11604, section 3.1 and Figure 4: from a point of
training, steps of several sizes along the gradient of the loss *of one batch*;
at each end point the loss and its gradient on the same batch.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import trees, types

Loss = Callable[[Any], jax.Array]


def along_gradient(
  loss: Loss,
  params: Any,
  step_sizes: Sequence[float],
  direction: Any = None,
  *,
  devices: Sequence[jax.Device] = (),
) -> dict[str, np.ndarray]:
  """The loss and its gradient at params - e * direction, for each step size e.

  With g = grad loss(params), d the direction (g unless given) and
  g(e) = grad loss(params - e d):

    loss[e]             loss(params - e d)
    gradient_norm[e]    |g(e)|, the loss's local Lipschitz constant
    gradient_change[e]  |g(e) - g|              (gradient predictiveness)
    gradient_cosine[e]  <g(e), g> / (|g(e)| |g|)
    beta[e]             |g(e) - g| / (e |d|)    (effective beta: its maximum)
    lipschitz[e]        |loss(params - e d) - loss(params)| / (e |d|)

  norms over all parameters together. The figures' bands are the minimum and
  maximum over e; they are left to the reader, who gets the curves. It costs one
  gradient a step size and one more, and one compilation: if `loss` is a
  `jax.tree_util.Partial` of one function, one for all batches that it is given.
  Products of float32 matrices are taken in full precision.

  Args:
    loss: params -> a real scalar. Any function that JAX can differentiate.
    params: any tree of floating-point arrays; it is not changed.
    step_sizes: E sizes, each above 0, in units of the direction.
    direction: a tree like params; None is the gradient at params, so that the
      steps are those of gradient descent with these learning rates.
    devices: those that take a point each, several at once; none is one point
      after the other, wherever params lie.

  Returns:
    NumPy arrays: step_size, loss, gradient_norm, gradient_change,
    gradient_cosine, beta, lipschitz: [E]; loss_0, gradient_norm_0: []. Where
    what they divide by is zero, cosine, beta and lipschitz are nan.

  Raises:
    ValueError: no step sizes, or one that is not above 0 and finite; parameters
      that are not floating point; a direction unlike them; a loss that is not a
      real scalar.
  """
  sizes = _checked_sizes(step_sizes)
  _check_trees(params, direction)
  # A plain function is a leafless Partial; jit then keys on the function.
  if not isinstance(loss, jax.tree_util.Partial):
    loss = jax.tree_util.Partial(loss)
  with jax.default_matmul_precision('highest'):
    loss_0, gradient_0 = _value_and_gradient(loss, params)
    direction = gradient_0 if direction is None else direction
    at_0 = params, direction, loss_0, gradient_0
    # On the host: XLA's CPU convolution gradients are 12 to 30 times slower
    # inside a loop of its own (jax#12868). Nothing waits until the end.
    if devices:
      mesh = jax.sharding.Mesh(np.array(devices), ('points',))
      rounds = _rounds(sizes, len(devices))
      rows = [_points(mesh, loss, np.array(some), *at_0) for some in rounds]
    else:
      rows = [_point(loss, size, *at_0) for size in sizes]
    norm_0 = _norm(gradient_0)
  rows, loss_0, norm_0 = jax.device_get((rows, loss_0, norm_0))
  curves = {
    name: np.hstack([row[name] for row in rows])[: len(sizes)]
    for name in rows[0]
  }
  return {
    'step_size': np.asarray(sizes, curves['loss'].dtype),
    **curves,
    'loss_0': np.asarray(loss_0),
    'gradient_norm_0': np.asarray(norm_0),
  }


def measure(
  *,
  step_factors: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
  statistics: str = 'batch',
  spread: str = 'batch',
) -> types.Measure:
  """`along_gradient` of the objective on one batch, while training.

  Args:
    step_factors: step sizes in units of the current learning rate.
    statistics: 'batch' (the function that training descends) or 'running'.
    spread: what several devices divide among them: the 'batch', one point after
      the other, or the 'points', each of them over the whole batch.

  Returns:
    A measure of exactly one batch; its arrays are those of `along_gradient`,
    nan where the learning rate is 0.
  """
  factors = _checked_sizes(step_factors)
  if statistics not in ('batch', 'running'):
    raise ValueError(
      f"statistics is {statistics!r}; allowed: 'batch', 'running'"
    )
  if spread not in ('batch', 'points'):
    raise ValueError(f"spread is {spread!r}; allowed: 'batch', 'points'")

  def look(
    problem: types.Problem,
    state: types.TrainState,
    batches: Iterable[types.Batch],
  ) -> dict[str, np.ndarray]:
    (batch,) = batches
    rate = float(problem.learning_rate(state))
    loss = problem.loss(state, batch, statistics)
    if not rate:  # as a warm-up or a decay has it at its end
      return _nowhere(loss, state.params, len(factors))
    devices = _devices_of(state.step) if spread == 'points' else ()
    return along_gradient(
      loss, state.params, [f * rate for f in factors], devices=devices
    )

  return look


def _devices_of(array: jax.Array) -> tuple[jax.Device, ...]:
  """The devices that an array lies on, in the order of its mesh."""
  if isinstance(array.sharding, jax.sharding.NamedSharding):
    return tuple(array.sharding.mesh.devices.flat)
  return tuple(array.devices())


def _nowhere(loss: Loss, params: Any, count: int) -> dict[str, np.ndarray]:
  """The result without steps to take: nan but for the point itself."""
  curves = along_gradient(loss, params, [1.0])
  return {
    name: value if name.endswith('_0') else np.full(count, np.nan, value.dtype)
    for name, value in curves.items()
  } | {'step_size': np.zeros(count, curves['step_size'].dtype)}


def _rounds(sizes: Sequence[float], count: int) -> list[list[float]]:
  """The sizes, so many at a time; the last round repeats its last."""
  rounds = [list(sizes[i : i + count]) for i in range(0, len(sizes), count)]
  rounds[-1] += rounds[-1][-1:] * (count - len(rounds[-1]))
  return rounds


def _point(loss, size, params, direction, loss_0, gradient_0):
  """The quantities of one point, scalars; nothing waits for them."""
  point = _descended(params, size, direction)
  value, gradient = _value_and_gradient(loss, point)
  return _compare(value, gradient, loss_0, gradient_0, direction, size)


@functools.partial(jax.jit, static_argnums=0)
def _points(mesh, loss, sizes, params, direction, loss_0, gradient_0):
  """The same of one point on each device, [D] each."""
  whole, one_each = (
    jax.sharding.PartitionSpec(),
    jax.sharding.PartitionSpec('points'),
  )

  def of_one(size_1, *rest):
    row = _point(rest[0], size_1[0], *rest[1:])
    return {name: value[None] for name, value in row.items()}

  # Nothing is summed over devices here, so nothing needs to be checked.
  return jax.shard_map(
    of_one,
    mesh=mesh,
    in_specs=(one_each, whole, whole, whole, whole, whole),
    out_specs=one_each,
    check_vma=False,
  )(sizes, loss, params, direction, loss_0, gradient_0)


@jax.jit
def _value_and_gradient(loss: Loss, params: Any):
  def checked(params):
    value = jnp.asarray(loss(params))
    if jnp.shape(value) or not jnp.issubdtype(value.dtype, jnp.floating):
      raise ValueError(
        f'the loss is {value.dtype}{list(jnp.shape(value))}; it must be a real '
        'scalar'
      )
    return value

  return jax.value_and_grad(checked)(params)


@jax.jit
def _descended(params, size, direction):
  return trees.add_scaled(params, -size, direction)


@jax.jit
def _compare(value, gradient, loss_0, gradient_0, direction, size):
  """The quantities of one point, scalars."""
  norm, norm_0 = trees.norm(gradient), trees.norm(gradient_0)
  change = trees.norm(trees.subtract(gradient, gradient_0))
  distance = size * trees.norm(direction)
  return {
    'loss': value,
    'gradient_norm': norm,
    'gradient_change': change,
    'gradient_cosine': _ratio(trees.vdot(gradient, gradient_0), norm * norm_0),
    'beta': _ratio(change, distance),
    'lipschitz': _ratio(jnp.abs(value - loss_0), distance),
  }


_norm = jax.jit(trees.norm)


def _ratio(numerator, denominator):
  """numerator / denominator, nan where the denominator is 0."""
  return jnp.where(denominator > 0, numerator / denominator, jnp.nan)


def _checked_sizes(step_sizes: Sequence[float]) -> tuple[float, ...]:
  sizes = tuple(float(size) for size in np.atleast_1d(step_sizes))
  if not sizes or not all(0 < size < float('inf') for size in sizes):
    raise ValueError(
      f'step sizes are {sizes}; allowed: one or more, each above 0 and finite'
    )
  return sizes


def _check_trees(params: Any, direction: Any) -> None:
  for path, leaf in zip(trees.paths(params), jax.tree.leaves(params)):
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
      dtype = jnp.result_type(leaf)
      raise ValueError(
        f'parameter {path!r} is {dtype}; allowed: floating point'
      )
  if direction is None:
    return
  if jax.tree.structure(direction) != jax.tree.structure(params):
    raise ValueError('the direction is another tree than the parameters')
  for path, leaf, way in zip(
    trees.paths(params), jax.tree.leaves(params), jax.tree.leaves(direction)
  ):
    if jnp.shape(leaf) != jnp.shape(way):
      raise ValueError(
        f'the direction of {path!r} has shape {jnp.shape(way)}; the parameter '
        f'has {jnp.shape(leaf)}'
      )
