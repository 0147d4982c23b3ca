"""Builds the network of dense layers that the 2015 paper trains on MNIST.

Ioffe and Szegedy (2015), "Batch Normalization", arXiv:1502.03167, section 4.1:
three hidden layers of 100 sigmoid units each, a norm before each nonlinearity,
then the logits, without one. On 28 x 28 pixels and 10 classes it has 99,710
parameters, with Batch Normalization 100,010.
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from bn_jax import checks
from bn_jax.models import parts
from bn_jax.norms import norm as norm_lib

ACTIVATIONS = {'sigmoid': nn.sigmoid, 'relu': nn.relu, 'tanh': nn.tanh}


class MLP(nn.Module):
  """A multilayer perceptron; layers are dense1, dense2, ..., logits.

  Attributes:
    num_classes: size of the output.
    norm: the normalization before each nonlinearity.
    hidden: widths of the hidden layers.
    activation: 'sigmoid', 'relu' or 'tanh'.
    initial_std: standard deviation of the Gaussian initial weights. The paper
      says "small" without a number; 0.1 is our choice. None: Glorot uniform.
  """

  num_classes: int
  norm: norm_lib.Norm
  hidden: Sequence[int] = (100, 100, 100)
  activation: str = 'sigmoid'
  initial_std: float | None = 0.1

  def __post_init__(self):
    parts.check_network(self.num_classes, self.norm)
    checks.sizes('hidden', self.hidden)
    checks.one_of('activation', self.activation, tuple(ACTIVATIONS))
    checks.number('initial_std', self.initial_std, above=0, also=(None,))
    self.hidden = tuple(self.hidden)  # a list has no hash
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
    """Returns the logits of x, flattened; see `bn_jax.models.make`."""
    keywords: dict[str, Any] = dict(
      statistics=statistics, mask=mask, first=first
    )
    parts.check_batch(x, mask)
    x = x.reshape(x.shape[0], -1)
    for name, features in zip(self._hidden(), self.hidden):
      dense = self._dense(name, features, x.dtype, self.norm.bias_before)
      nonlinearity = ACTIVATIONS[self.activation]
      x = parts.activated(self.norm, dense, x, nonlinearity, **keywords)
    return self._dense('logits', self.num_classes, x.dtype, True)(x)

  def _dense(self, name, features, dtype, use_bias) -> nn.Dense:
    keywords = {'dot_general': self.norm.product}
    if self.initial_std is not None:
      keywords['kernel_init'] = nn.initializers.normal(self.initial_std)
    return parts.dense(name, features, dtype, use_bias=use_bias, **keywords)

  def _hidden(self) -> Sequence[str]:
    return [f'dense{i + 1}' for i in range(len(self.hidden))]

  def layer_paths(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns (name, paths of its parameters) of each layer, in order."""
    hidden = [(name, parts.paths(name)) for name in self._hidden()]
    return (*hidden, ('logits', ('logits',)))

  def tap_paths(self) -> tuple[tuple[str, str], ...]:
    """Returns (layer, path of its norm) of what enters nonlinearities."""
    return tuple(map(parts.tap, self._hidden()))


def make(
  *,
  num_classes: int,
  norm: norm_lib.Norm,
  hidden: Sequence[int] = (100, 100, 100),
  activation: str = 'sigmoid',
  initial_std: float | None = 0.1,
) -> MLP:
  """Returns a multilayer perceptron; keywords are the attributes of `MLP`.

  Raises:
    ValueError: a keyword out of its range.
  """
  return MLP(num_classes, norm, hidden, activation, initial_std)
