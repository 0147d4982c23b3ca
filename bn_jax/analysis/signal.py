"""Measures the sizes of activations, and of gradients by them, at each depth.

Yang et al. (2019), "A Mean Field Theory of Batch Normalization",
arXiv:1902.08129: at initialisation Batch Normalization makes gradients explode
with depth; Bjorck et al. (2018), arXiv:1806.02375: without it, activations
grow.

The measure also checks the condition under which Santurkar et al. (2018),
Theorem 4.2, promise a smaller quadratic form: <yhat_j, g_j> >= 0 for unit j of
scale above 0, with yhat_j its normalised outputs over the batch and g_j the
gradient of the loss by the outputs of the norm.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, errors, types
from bn_jax.analysis import activations as activations_lib
from bn_jax.analysis import gradients
from bn_jax.analysis import kind as kind_lib

Perturbed = Callable[[Any, Mapping[str, jax.Array]], tuple[jax.Array, dict]]


def signal(
  loss: Perturbed, params: Any, perturbations: Mapping[str, jax.Array]
) -> dict[str, np.ndarray]:
  """Computes the size of each layer's activations h, and of d loss / d h.

    activation_rms            sqrt(mean of h^2), over examples and units
    activation_gradient_norm  |d loss / d h|, over all examples together

  All come from one gradient: the gradient by a perturbation that is added to
  the activations is the gradient by the activations.

  Args:
    loss: (params, perturbations) -> (a real scalar, activations), where
      perturbations are added to the activations; both by the name of a layer.
      `Problem.perturbed` returns one; in flax, `Module.perturb` makes one.
    params: any tree of floating-point arrays.
    perturbations: zeros of the activations' shapes, in forward order.

  Returns:
    [L] each, in the order of the layers in perturbations.

  Raises:
    ValueError: parameters that are not floating point, no layers, or one that
      the loss does not have; a loss that is not a real scalar, or cannot be
      differentiated.
  """
  params = gradients.checked(params)
  if not perturbations:
    raise ValueError('no layers; give {name: zeros of its activations}')
  activations, gradient = _signals(loss, params, dict(perturbations))
  for name in perturbations:
    if name not in activations:
      raise ValueError(errors.unknown('layer', name, activations))
  rows = [_sizes(activations[name], gradient[name]) for name in perturbations]
  rows = jax.device_get(rows)
  return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def measure(
  *, layers: Sequence[str] = (), statistics: str = 'batch'
) -> types.Measure:
  """Measures sizes of activations and gradients, and the signs of <yhat, g>.

  Args:
    layers: names such as 'conv5'; () is all that feed a nonlinearity.
    statistics: 'batch' (the function that training descends) or 'running'.

  Returns:
    A measure of exactly one batch without padding; for each layer NAME:
    NAME/activation_rms, NAME/activation_gradient_norm, and NAME/positive,
    NAME/negative: the shares of its units with <yhat, g> above and below 0
    (units of scale 0 are in neither); all []. The shares are nan where yhat is
    unknown: for a layer whose norm has no running statistics, or adds noise.
  """
  checks.names('layers', layers, 'layers')
  layer_names = tuple(layers)
  checks.one_of('statistics', statistics, kind_lib.STATISTICS)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal):
    del journal  # one gradient is all, so there is nothing to resume
    kind_lib.check_unpadded(batch)
    names = activations_lib.chosen_layers(
      problem.taps, layer_names or problem.taps
    )
    shapes = jax.eval_shape(
      lambda s, b: problem.activations(s, b, statistics, names), state, batch
    )
    zeros = {
      name: jnp.zeros(shapes[name].shape, shapes[name].dtype) for name in names
    }
    loss = problem.perturbed(state, batch, statistics)
    activations, gradient = _signals(loss, state.params, zeros)
    affine = problem.affine(state)
    values = {}
    for name in names:
      row = _sizes(activations[name], gradient[name])
      if name in affine:
        row |= _signs(activations[name], gradient[name], *affine[name])
      else:
        row |= {'positive': np.float32(np.nan), 'negative': np.float32(np.nan)}
      values |= {f'{name}/{quantity}': value for quantity, value in row.items()}
    # JAX sorts the keys of a dict, and 'dense10' is not the second layer.
    fetched = jax.device_get(values)
    return {name: np.asarray(fetched[name]) for name in values}

  return look


def _signals(loss, params, perturbations):
  """Returns (activations, gradients by them), both by the name of a layer."""
  # A Partial of a Partial would be a new function at each call.
  if not isinstance(loss, jax.tree_util.Partial):
    loss = jax.tree_util.Partial(loss)
  loss_at_params = jax.tree_util.Partial(_called, loss, params)
  with jax.default_matmul_precision('highest'):
    return gradients.explained(
      _activations_and_gradient, loss_at_params, perturbations
    )


def _called(loss, params, perturbations):
  return loss(params, perturbations)


@jax.jit
def _activations_and_gradient(loss, perturbations):
  def checked(perturbations):
    value, activations = loss(perturbations)
    return gradients.real_scalar(value), activations

  gradient, activations = jax.grad(checked, has_aux=True)(perturbations)
  return activations, gradient


@jax.jit
def _sizes(values, gradient):
  values, gradient = (
    x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for x in (values, gradient)
  )
  return {
    'activation_rms': jnp.sqrt(jnp.mean(jnp.square(values))),
    'activation_gradient_norm': jnp.sqrt(jnp.sum(jnp.square(gradient))),
  }


@jax.jit
def _signs(values, gradient, scale_C, bias_C):
  """Returns the shares of units by the sign of <yhat, g>.

  yhat is (z - bias) / scale, with z the output of the norm.
  """
  channels = values.shape[-1]
  values_MC, gradient_MC = (x.reshape(-1, channels) for x in (values, gradient))
  normalised_MC = (values_MC - bias_C[None]) / scale_C[None]
  inner_C = (normalised_MC * gradient_MC).sum(0)
  return {
    'positive': jnp.mean(inner_C > 0, dtype=jnp.float32),
    'negative': jnp.mean(inner_C < 0, dtype=jnp.float32),
  }


KIND = kind_lib.Kind(
  make=measure,
  title='Activations and gradients by layer',
  quantities={
    'activation_rms': 'Root mean square of activations',
    'activation_gradient_norm': 'Norm of the gradient by them',
    'positive': 'Share of units with <ŷ, g> > 0',
    'negative': 'Share of units with <ŷ, g> < 0',
  },
  cost=lambda section, layers: kind_lib.Cost(1),
  replaces=lambda section, taps: section['layers'] or taps,
)
