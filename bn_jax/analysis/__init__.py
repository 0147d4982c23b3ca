"""Measures of the loss landscape, on any `loss(params)` of any JAX program."""

from typing import Any

from bn_jax import errors, types
from bn_jax.analysis import activations as _activations
from bn_jax.analysis import along_gradient as _along_gradient
from bn_jax.analysis import evaluation as _evaluation
from bn_jax.analysis.activations import drift
from bn_jax.analysis.along_gradient import along_gradient

MEASURES = {
  'activations': _activations.measure,
  'along_gradient': _along_gradient.measure,
  'evaluation': _evaluation.measure,
}
# Those that look at exactly one batch.
ONE_BATCH = ('along_gradient',)
# Those whose results are arrays, kept in a file a look.
ARRAYS = ('activations',)

__all__ = ['ARRAYS', 'MEASURES', 'ONE_BATCH', 'along_gradient', 'drift', 'make']


def make(name: str, **keywords: Any) -> types.Measure:
  """The measure called `name`, to be taken while training.

  Raises:
    ValueError: an unknown name, or a keyword out of its range.
  """
  return errors.lookup('measure', MEASURES, name)(**keywords)
