"""Builds the deep linear network: many dense layers and no nonlinearity.

Santurkar et al. (2018), "How Does Batch Normalization Help Optimization?",
arXiv:1805.11604, section 2 and appendix A: 25 layers, 10 x 10 each, Glorot
weights, that learn y = A x. The paper mentions no biases, so by default there
are none. It does not say whether the last layer is normalised; by default it is
not, since that would fix the scale of the output.
"""

import jax
from flax import linen as nn

from bn_jax import checks
from bn_jax.models import parts
from bn_jax.norms import norm as norm_lib


class DeepLinear(nn.Module):
  """A product of matrices; layers are linear1, linear2, ...

  Attributes:
    num_classes: size of the output, the width of the last layer.
    norm: the normalization after each layer; for the last see norm_last.
    depth: number of layers.
    features: the width of all layers but the last.
    bias: whether layers have biases, unless their norm would remove them.
    norm_last: whether the last layer has a norm too.
  """

  num_classes: int
  norm: norm_lib.Norm
  depth: int = 25
  features: int = 10
  bias: bool = False
  norm_last: bool = False

  def __post_init__(self):
    parts.check_network(self.num_classes, self.norm)
    # A network is traced layer by layer; deeper ones would take hours.
    checks.count('depth', self.depth, most=10_000)
    checks.count('features', self.features)
    checks.flag('bias', self.bias)
    checks.flag('norm_last', self.norm_last)
    super().__post_init__()

  @norm_lib.checked_call
  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    statistics: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """Returns the output of x, flattened; see `bn_jax.models.make`."""
    keywords = dict(statistics=statistics, mask=mask, first=first)
    parts.check_batch(x, mask)
    x = x.reshape(x.shape[0], -1)
    norm_count = self._norm_count()
    for name in self._names()[:norm_count]:
      use_bias = self.bias and self.norm.bias_before
      linear = self._linear(name, x.dtype, use_bias)
      x = parts.normalised(self.norm, linear, x, **keywords)
    for name in self._names()[norm_count:]:
      x = self._linear(name, x.dtype, self.bias)(x)
    return x

  def _linear(self, name, dtype, use_bias) -> nn.Dense:
    is_last = name == self._names()[-1]
    features = self.num_classes if is_last else self.features
    return parts.dense(
      name, features, dtype, use_bias=use_bias, dot_general=self.norm.product
    )

  def _names(self) -> list[str]:
    return [f'linear{i + 1}' for i in range(self.depth)]

  def _norm_count(self) -> int:
    """Returns how many of the first layers have a norm."""
    return self.depth if self.norm_last else self.depth - 1

  def layer_paths(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns (name, paths of its parameters) of each layer, in order."""
    names, norm_count = self._names(), self._norm_count()
    return (
      *((name, parts.paths(name)) for name in names[:norm_count]),
      *((name, (name,)) for name in names[norm_count:]),
    )

  def tap_paths(self) -> tuple[tuple[str, str], ...]:
    """Returns (layer, path of its norm), for each layer with a norm."""
    return tuple(map(parts.tap, self._names()[: self._norm_count()]))


def make(
  *,
  num_classes: int,
  norm: norm_lib.Norm,
  depth: int = 25,
  features: int = 10,
  bias: bool = False,
  norm_last: bool = False,
) -> DeepLinear:
  """Returns a deep linear network; keywords are those of `DeepLinear`.

  Raises:
    ValueError: a keyword out of its range.
  """
  return DeepLinear(num_classes, norm, depth, features, bias, norm_last)
