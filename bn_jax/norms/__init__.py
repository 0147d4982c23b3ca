"""Normalization layers with explicit statistics."""

from typing import Any

from bn_jax import errors
from bn_jax.norms import batch, noisy, none
from bn_jax.norms.batch import BatchNorm, batch_norm, normalize
from bn_jax.norms.moments import Moments
from bn_jax.norms.noisy import add_noise
from bn_jax.norms.norm import MODES, Norm

NORMS = {
  'batch': batch.make,
  'noise': noisy.make_alone,
  'noisy': noisy.make,
  'none': none.make,
}

__all__ = [
  'MODES',
  'NORMS',
  'BatchNorm',
  'Moments',
  'Norm',
  'add_noise',
  'batch_norm',
  'make',
  'normalize',
]


def make(name: str, **keywords: Any) -> Norm:
  """The normalization called `name`, for the `norm` of a model.

  Args:
    name: a key of `NORMS`.
    **keywords: of that normalization, such as `group_size` of 'batch'; `spread`
      of every one, how the batch lies on devices.

  Raises:
    ValueError: an unknown name, or a keyword out of its range.
  """
  return errors.lookup('norm', NORMS, name)(**keywords)
