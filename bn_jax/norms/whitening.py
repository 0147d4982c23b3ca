"""Whitens groups of channels by Newton's iterations (IterNorm).

Huang, Zhou, Zhu, Liu and Shao (2019), "Iterative Normalization: Beyond
Standardization towards Efficient Whitening", arXiv:1904.03441, Algorithm 1. For
d channels, over the m values of a statistics group, x_i in R^d:

  mean = 1/m sum_i x_i      S = 1/m sum_i (x_i - mean)(x_i - mean)' + epsilon I
  P_0 = I                   P_k = (3 P_{k-1} - P_{k-1}^3 S / tr S) / 2
  W = P_T / sqrt(tr S)      y_i = scale * W (x_i - mean) + bias

W tends to S^(-1/2), and the covariance of W x to the identity, from its large
eigenvalues to its small ones. With one channel a group W is 1 / sqrt(var +
epsilon) for every T, which is Batch Normalization. As in the paper, statistics
'running' take the average of W, which is not the W of an average of S.

The iterates are the paper's, but not their arithmetic: with Q_k = P_k S / tr S
beside P_k,

  P_k = (3 I - P_{k-1} Q_{k-1}) P_{k-1} / 2     Q_k = Q_{k-1} (3 I - ...) / 2

since what P_k above multiplies rounding errors by grows with the condition of S
(Higham, 2008, "Functions of Matrices", chapter 6): at 1,200 that in float32 is
off by 6 at T = 9 and nan at T = 14, where these are right.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from bn_jax import checks, placement
from bn_jax.norms import group_moments as moments_lib
from bn_jax.norms import norm, running, transform

# Channels that are whitened together, at most: those of the authors' runs on
# ImageNet. A covariance of more needs batches of more values.
_WIDEST = 64
# On GPUs and TPUs products lose digits by default.
_EXACT = lax.Precision.HIGHEST
# Each iteration is written into the program; 50 are more than float64 needs.
_MOST_ITERATIONS = 50


class IterNorm(running.RunningNorm):
  """Iterative normalization, as the formulas above.

  Collections: params {scale, bias}, [C] each; batch_stats {mean [C], whitening
  [C / d, d, d]}, averages of the groups' means and matrices W.

  Attributes, beside those of `RunningNorm`:
    num_groups: of channels; None: as few as have 64 channels at most.
    iterations: T.
  """

  num_groups: int | None = None
  iterations: int = 5

  def __post_init__(self):
    checks.count('num_groups', self.num_groups, also=(None,))
    checks.count('iterations', self.iterations, least=0, most=_MOST_ITERATIONS)
    super().__post_init__()

  @norm.checked_call
  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    statistics: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """Whitens x by its batch's statistics or by the running averages."""
    del first  # only noise depends on where x begins in its batch
    x_last = transform.channels_last(x, self.axis)
    channels = x_last.shape[-1]
    scale_C, bias_C = norm.scale_and_bias(self, channels)
    averages = self._averages(channels)
    if self.is_fixed(statistics):
      if self.wants_moments():
        self.sow_moments(*self._batch(x_last, mask)[1:])
      mean_C, W_gde, scale_C, bias_C = self.fixed()
      centred = moments_lib.exact(x_last) - transform.beside(mean_C, x_last)
      y = _product(W_gde[None], centred)
    else:
      pieces, batch, count_G = self._batch(x_last, mask)
      self.sow_moments(batch, count_G)
      self.update(averages, batch, count_G, x.shape[0])
      W_Pgde = moments_lib.to_pieces(pieces, batch['whitening'])
      y = _product(W_Pgde, pieces.x)
    scale, bias = (transform.beside(v, x_last) for v in (scale_C, bias_C))
    y = y.reshape(x_last.shape) * scale + bias
    return jnp.moveaxis(y.astype(x.dtype), -1, self.axis)

  def divisor(self) -> jax.Array:
    """Returns W of 'running', [C / d, d, d], which stands for a divisor."""
    return moments_lib.exact(self.get_variable('batch_stats', 'whitening'))

  def fixed_map(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factor, [C, C], and the shift, [C]: see `norm.Layer`."""
    mean_C, W_gde, scale_C, bias_C = (
      np.asarray(value, np.float64) for value in self.fixed()
    )
    size = W_gde.shape[-1]
    factor_CC = np.zeros((mean_C.size, mean_C.size))
    for group, W_de in enumerate(W_gde):
      own = slice(group * size, (group + 1) * size)
      factor_CC[own, own] = W_de.T * scale_C[own]
    return factor_CC, bias_C - mean_C @ factor_CC

  def _averages(self, channels: int) -> dict[str, nn.Variable]:
    """Returns the averages by name; W begins as the identity."""
    groups = self.num_groups or channels // _width(channels)
    transform.check_groups(groups, channels)
    size = channels // groups

    def identity():
      return jnp.tile(jnp.eye(size, dtype=jnp.float32), (groups, 1, 1))

    averages = self.averages(channels, mean=0.0)
    averages['whitening'] = self.variable('batch_stats', 'whitening', identity)
    return averages

  def _batch(
    self, x: jax.Array, mask: jax.Array | None
  ) -> tuple[moments_lib.Pieces, dict[str, jax.Array], jax.Array]:
    """Returns the centred pieces of x, the groups' statistics, their counts."""
    transform.check(x, self.group_size, mask, self.spread)
    pieces = moments_lib.cut(x, self.group_size, mask, self.spread)
    centre, moments = moments_lib.find(pieces)
    centred = centre.away(pieces.x)
    if pieces.mask is not None:
      centred = jnp.where(pieces.mask[..., None], centred, 0)
    pieces = pieces._replace(x=centred)
    size = self.get_variable('batch_stats', 'whitening').shape[-1]
    W_Ggde = _newton(
      _covariance(pieces, moments.count, size) + self.epsilon * _eye(size),
      moments.count,
      self.iterations,
    )
    batch = {'mean': moments.mean, 'whitening': W_Ggde}
    return pieces, batch, moments.count


def _width(channels: int) -> int:
  """Returns how many channels are whitened together: a divisor of them."""
  widths = range(min(channels, _WIDEST), 0, -1)
  return next(width for width in widths if channels % width == 0)


def _eye(size: int) -> jax.Array:
  return jnp.eye(size, dtype=jnp.float32)[None, None]


def _covariance(
  pieces: moments_lib.Pieces, count_G: jax.Array, size: int
) -> jax.Array:
  """Returns S - epsilon I of each statistics group, [G, C / d, d, d].

  Args:
    pieces: centred, with 0 where they are padding.
    size: d.
  """
  x = pieces.x.reshape(len(pieces.x), -1, pieces.x.shape[-1] // size, size)
  sums_Pgde = jnp.einsum('pngd,pnge->pgde', x, x, precision=_EXACT)
  sums = sums_Pgde.reshape(pieces.groups, -1, *sums_Pgde.shape[1:]).sum(axis=1)
  sums_Ggde = pieces.spread.sum(sums)
  return sums_Ggde / jnp.maximum(count_G, 1).reshape(-1, 1, 1, 1)


def _newton(S: jax.Array, count_G: jax.Array, iterations: int) -> jax.Array:
  """Returns W of each covariance matrix S, [G, C / d, d, d]."""
  trace = jnp.trace(S, axis1=-2, axis2=-1)[..., None, None]
  # A group of padding alone may have the trace 0.
  trace = jnp.where(count_G.reshape(-1, 1, 1, 1) > 0, trace, 1)
  Q = S / trace
  P = eye = jnp.broadcast_to(_eye(S.shape[-1]).astype(S.dtype), S.shape)
  product = functools.partial(jnp.matmul, precision=_EXACT)
  for _ in range(iterations):
    step = 1.5 * eye - 0.5 * product(P, Q)
    P, Q = product(step, P), product(Q, step)
  return P * lax.rsqrt(trace)


def _product(W_Pgde: jax.Array, x_PRKC: jax.Array) -> jax.Array:
  """Returns W x of all values of each piece."""
  piece_count, groups, size = W_Pgde.shape[:3]
  x = x_PRKC.reshape(piece_count, -1, groups, size)
  return jnp.einsum('pgde,pnge->pngd', W_Pgde, x, precision=_EXACT)


def make(
  *,
  num_groups: int | None = None,
  iterations: int = 5,
  group_size: int | None = None,
  momentum: float = 0.9,
  epsilon: float = 1e-5,
  running_average: str = 'ema',
  scale_init: float | str = 1.0,
  frozen: bool = False,
  axis: int = -1,
  spread: placement.Spread = placement.ALONE,
) -> norm.Norm:
  """Returns iterative normalization for a model; keywords are of `IterNorm`.

  Raises:
    ValueError: a keyword out of its range; in its call, channels that
      num_groups does not divide.
  """
  layer = functools.partial(
    IterNorm, num_groups=num_groups, iterations=iterations,
    group_size=group_size, momentum=momentum, epsilon=epsilon,
    running_average=running_average, scale_init=scale_init, frozen=frozen,
    axis=axis, spread=spread,
  )  # fmt: skip
  return norm.as_norm(layer, bias_before=False)
