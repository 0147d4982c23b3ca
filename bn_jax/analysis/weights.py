"""Measures the norm of a layer's weights, and the angle by which they turn.

The loss does not depend on the norm |w| of weights before a normalization. So
their gradient is orthogonal to them and proportional to 1 / |w|, and the angle
of a step depends on eta / |w|^2, the effective learning rate. Van Laarhoven
(2017), arXiv:1706.05350; Hoffer et al. (2018), arXiv:1803.01814; Arora, Li and
Lyu (2019), arXiv:1812.03981.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, trees, types
from bn_jax.analysis import by_layer, chunks, gradients
from bn_jax.analysis import kind as kind_lib


def weights(
  loss: chunks.Loss,
  params: Any,
  new_params: Any,
  layers: Sequence[tuple[str, Sequence[str]]],
  learning_rate: float,
  *,
  journal: types.Journal | None = None,
) -> dict[str, np.ndarray]:
  """Computes norms and angles of each layer's weights w, and of their step.

    weight_norm              |w|
    gradient_norm            |g|, g the gradient of the loss by w
    radial                   <w, g>, 0 for scale-invariant weights
    radial_cosine            <w, g> / (|w| |g|)
    effective_learning_rate  learning_rate / |w|^2
    angular_update           the angle from w to w', radians

  It costs one gradient.

  Args:
    loss: params -> a real scalar, without penalty (whose gradient is along w);
      or what `chunked` returns.
    params: any tree of floating-point arrays.
    new_params: the same after the step.
    layers: ((name, (path, ...)), ...) in forward order, see `by_layer`. A
      layer's w is all under its paths, so give those of kernels.
    learning_rate: that of the step from params to new_params.
    journal: keeps the gradient's sum over chunks.

  Returns:
    [L] each; nan where a quantity would divide by zero.

  Raises:
    ValueError: parameters that are not floating point, new ones unlike them;
      layers without parameters, with those of another, or named twice; a loss
      that is not a real scalar or that JAX cannot differentiate.
  """
  checks.number('learning_rate', learning_rate, least=0)
  params = gradients.checked(params)
  new_params = gradients.checked_like(params, new_params, 'step')
  layers = by_layer.checked(params, layers)
  _, gradient = gradients.value_and_gradient(loss, params, journal, 'point_0')
  rows = _compare(params, new_params, gradient, learning_rate, layers)
  return {name: np.asarray(value) for name, value in rows.items()}


def measure(
  *,
  layers: Sequence[str] = (),
  statistics: str = 'batch',
  biases: bool = False,
  chunk_size: int | str | None = 'auto',
  group_size: int | None = None,
) -> types.Measure:
  """Measures norms of kernels, and by how much the step of a batch turns them.

  Args:
    layers: names such as 'conv5'; () is all that have a kernel.
    statistics: 'batch' (the function that training descends) or 'running'.
    biases: whether to record NAME/bias_norm too, |b| of the bias beside a
      kernel (not that of the norm). Ioffe and Szegedy (2015), section 2: it
      grows if the gradient leaves out the statistics.
    chunk_size: examples at a time; 'auto' is as many as fit, None is all.
    group_size: examples that share batch statistics; None: as in the network.

  Returns:
    A measure of exactly one batch: for each layer NAME and quantity of
    `weights`, NAME/quantity, []. effective_learning_rate has the rate of the
    layer's kernels, nan if they have several. It is left out where updates are
    no sums of gradients, as with Adam: |w| then acts otherwise, and
    angular_update tells how.
  """
  checks.names('layers', layers, 'layers')
  names = tuple(layers)
  checks.flag('biases', biases)
  objective = chunks.Objective(statistics, chunk_size, group_size)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal):
    loss = objective.of(problem, state, batch)
    updates = gradients.updates(problem, state, loss, journal)
    chosen = kernels(state.params, problem.layers(state))
    if names:
      chosen = by_layer.chosen(chosen, names)
    quantities = weights(
      objective.of_data(problem, state, batch),
      state.params,
      trees.add_scaled(state.params, 1.0, updates),
      chosen,
      float(problem.learning_rate(state)),
      journal=journal,
    )
    rate = quantities.pop('effective_learning_rate')
    if problem.rate_factors is not None:
      factors = problem.rate_factors(state.params)
      quantities['effective_learning_rate'] = rate * _of_layers(factors, chosen)
    arrays = {
      f'{name}/{quantity}': values_L[i]
      for i, (name, _) in enumerate(chosen)
      for quantity, values_L in quantities.items()
    }
    return arrays | (_bias_norms(state.params, chosen) if biases else {})

  return look


def kernels(params: Any, layers: by_layer.Layers) -> by_layer.Layers:
  """Returns the layers that have a kernel, with the paths of their kernels."""
  leaf_paths = trees.paths(params)
  with_kernel = []
  for name, prefixes in layers:
    kernel_paths = [
      path
      for path in leaf_paths
      if trees.lies_under(path, prefixes) and path.split('/')[-1] == 'kernel'
    ]
    if kernel_paths:
      with_kernel.append((name, tuple(kernel_paths)))
  return tuple(with_kernel)


def _of_layers(factors: Any, layers: by_layer.Layers) -> np.ndarray:
  """Returns the factor of each layer's kernels, [L]; nan where they differ."""
  of_layers = [set(trees.leaves_under(factors, paths)) for _, paths in layers]
  return np.array(
    [of.pop() if len(of) == 1 else np.nan for of in of_layers], np.float32
  )


def _bias_norms(params: Any, layers: by_layer.Layers) -> dict[str, np.ndarray]:
  """Returns {NAME/bias_norm: []} of the layers with a bias beside a kernel."""
  leaf_paths, bias_norms = trees.paths(params), {}
  for name, kernel_paths in layers:
    paths = [path.removesuffix('kernel') + 'bias' for path in kernel_paths]
    bias_paths = [path for path in paths if path in leaf_paths]
    if bias_paths:
      norm = trees.norm(by_layer.own(params, bias_paths))
      bias_norms[f'{name}/bias_norm'] = np.asarray(norm)
  return bias_norms


@functools.partial(jax.jit, static_argnums=4)
def _compare(params, new_params, gradient, rate, layers):
  trees_of = params, new_params, gradient
  rows = []
  for _, prefixes in layers:
    old, new, slope = (by_layer.own(tree, prefixes) for tree in trees_of)
    rows.append(_of_layer(old, new, slope, rate))
  return {name: jnp.stack([row[name] for row in rows]) for name in rows[0]}


def _of_layer(w, new_w, gradient, rate):
  step = trees.subtract(new_w, w)
  square = trees.vdot(w, w)
  norm, gradient_norm = jnp.sqrt(square), trees.norm(gradient)
  radial = trees.vdot(w, gradient)
  # From the step's parts along w and across it: the cosine between w and w'
  # would lose the digits of a small angle.
  along = trees.ratio(trees.vdot(w, step), square)
  across = trees.norm(trees.add_scaled(step, -along, w))
  return {
    'weight_norm': norm,
    'gradient_norm': gradient_norm,
    'radial': radial,
    'radial_cosine': trees.cosine(radial, norm * gradient_norm),
    'effective_learning_rate': trees.ratio(rate, square),
    'angular_update': jnp.arctan2(across, norm * (1 + along)),
  }


KIND = kind_lib.Kind(
  make=measure,
  title='Weights',
  quantities={
    'weight_norm': '|W|',
    'gradient_norm': '|∇L| by W',
    'radial': '<W, ∇L>',
    'radial_cosine': 'Cosine of W and ∇L',
    'effective_learning_rate': 'Learning rate / |W|²',
    'angular_update': 'Angle of a step, in radians',
    'bias_norm': '|b|',
  },
  layers='all',
  cost=lambda section, layers: kind_lib.Cost(2),
)
