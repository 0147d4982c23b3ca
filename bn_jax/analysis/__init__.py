"""Measures of the loss landscape, on any `loss(params)` of any JAX program."""

from typing import Any

from bn_jax import errors, types
from bn_jax.analysis import activations as _activations
from bn_jax.analysis import along_gradient as _along_gradient
from bn_jax.analysis import evaluation as _evaluation
from bn_jax.analysis import jacobian as _jacobian
from bn_jax.analysis import layer, theory
from bn_jax.analysis.activations import drift
from bn_jax.analysis.along_gradient import along_gradient
from bn_jax.analysis.jacobian import singular_values

MEASURES = {
  'activations': _activations.measure,
  'along_gradient': _along_gradient.measure,
  'evaluation': _evaluation.measure,
  'jacobian': _jacobian.measure,
}
# Those that look at exactly one batch.
ONE_BATCH = ('along_gradient', 'jacobian')
# Those whose results are arrays, kept in a file a look.
ARRAYS = ('activations', 'jacobian')

__all__ = [
  'ARRAYS',
  'MEASURES',
  'ONE_BATCH',
  'along_gradient',
  'drift',
  'layer',
  'make',
  'singular_values',
  'theory',
]


def make(name: str, **keywords: Any) -> types.Measure:
  """The measure called `name`, to be taken while training.

  Raises:
    ValueError: an unknown name, or a keyword out of its range.
  """
  return errors.lookup('measure', MEASURES, name)(**keywords)
