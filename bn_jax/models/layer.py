"""A weight layer and its norm, under the names that records and figures use.

A layer NAME is up to three modules beside each other: NAME itself, which has
the kernel, NAME_weight, the norm of that kernel where there is one, and
NAME_norm, the norm of what the layer makes.
"""

from typing import Any

import jax
from flax import linen as nn

from bn_jax.norms import norm as norm_lib


def normalised(
  norm: norm_lib.Norm,
  layer: nn.Module,
  x: jax.Array,
  *,
  per_activation: bool = False,
  mode: str,
  **examples: Any,
) -> jax.Array:
  """norm(layer(x)): what enters the nonlinearity.

  Args:
    norm: of the network.
    layer: a named module with a parameter 'kernel'.
    x: [N, ..., C].
    per_activation: whether each activation of a feature map has statistics,
      scale and bias of its own, as in a dense layer.
    mode: which statistics.
    **examples: mask and first, as the norm takes them.
  """
  y = norm.weighted(layer, f'{layer.name}_weight')(x, mode=mode)
  norm_layer = norm.layer(f'{layer.name}_norm')
  if not per_activation:
    return norm_layer(y, mode=mode, **examples)
  flat = y.reshape(y.shape[0], -1)
  return norm_layer(flat, mode=mode, **examples).reshape(y.shape)


def dense(
  name: str, features: int, dtype: Any, *, use_bias: bool, **keywords: Any
) -> nn.Dense:
  """A dense layer with Glorot uniform weights, its product in a dtype."""
  keywords = {
    'kernel_init': nn.initializers.glorot_uniform(),
    **keywords,
  }
  return nn.Dense(
    features, dtype=dtype, use_bias=use_bias, name=name, **keywords
  )


def paths(name: str) -> tuple[str, ...]:
  """Where the parameters of a layer are."""
  return name, f'{name}_weight', f'{name}_norm'


def tap(name: str) -> tuple[str, str]:
  """(layer, path of the module whose output enters its nonlinearity)."""
  return name, f'{name}_norm'
