"""Measures the loss of any JAX program: its landscape, gradients and layers.

`along_gradient`, `covariate_shift`, `one_step_loss`, `path`, `weights` and
`signal` have one contract: `NAME(loss, params, ...) -> dict of arrays`. The
loss is a function of a tree of parameters (and in `signal` of perturbations). A
loss that is a `jax.tree_util.Partial` of one function is compiled once for all
batches bound to it.
Parameters are not changed; matrix products are computed in full precision.
"""

from typing import Any

from bn_jax import errors, plugins, types
from bn_jax.analysis import activations as _activations
from bn_jax.analysis import along_gradient as _along_gradient
from bn_jax.analysis import batch_sharpness as _batch_sharpness
from bn_jax.analysis import cka as _cka
from bn_jax.analysis import covariate_shift as _covariate_shift
from bn_jax.analysis import evaluation as _evaluation
from bn_jax.analysis import gradient_confusion as _gradient_confusion
from bn_jax.analysis import gradient_noise as _gradient_noise
from bn_jax.analysis import jacobian as _jacobian
from bn_jax.analysis import one_step as _one_step
from bn_jax.analysis import path as _path
from bn_jax.analysis import representations as _representations
from bn_jax.analysis import sharpness as _sharpness
from bn_jax.analysis import signal as _signal
from bn_jax.analysis import spectral_density as _spectral_density
from bn_jax.analysis import surface as _surface
from bn_jax.analysis import theory
from bn_jax.analysis import top_eigenvalues as _top_eigenvalues
from bn_jax.analysis import trace as _trace
from bn_jax.analysis import weights as _weights
from bn_jax.analysis.activations import drift
from bn_jax.analysis.along_gradient import along_gradient
from bn_jax.analysis.batch_sharpness import batch_sharpness
from bn_jax.analysis.chunks import check as check_chunks
from bn_jax.analysis.chunks import chunked
from bn_jax.analysis.cka import cka
from bn_jax.analysis.covariate_shift import covariate_shift
from bn_jax.analysis.curvature.blocks import Block
from bn_jax.analysis.curvature.operators import Split
from bn_jax.analysis.curvature.products import (
  gauss_newton_product,
  jacobian_product,
  jacobian_transpose_product,
)
from bn_jax.analysis.directions import random_directions, trajectory_plane
from bn_jax.analysis.gradient_confusion import gradient_confusion
from bn_jax.analysis.gradient_noise import gradient_noise
from bn_jax.analysis.gradients import (
  fitting_chunk_size,
  hessian_product,
  memory,
  value_and_gradient,
)
from bn_jax.analysis.jacobian import singular_values
from bn_jax.analysis.kind import Cost, Kind, kind_of_user
from bn_jax.analysis.one_step import one_step_loss
from bn_jax.analysis.path import barrier, path
from bn_jax.analysis.representations import representations
from bn_jax.analysis.sharpness import sharpness
from bn_jax.analysis.signal import signal
from bn_jax.analysis.spectral_density import spectral_density
from bn_jax.analysis.surface import surface
from bn_jax.analysis.theory import one_layer as layer
from bn_jax.analysis.top_eigenvalues import top_eigenvalues
from bn_jax.analysis.trace import trace
from bn_jax.analysis.weights import weights

MEASURES: dict[str, Kind] = {
  'activations': _activations.KIND,
  'along_gradient': _along_gradient.KIND,
  'batch_sharpness': _batch_sharpness.KIND,
  'cka': _cka.KIND,
  'covariate_shift': _covariate_shift.KIND,
  'evaluation': _evaluation.KIND,
  'gradient_confusion': _gradient_confusion.KIND,
  'gradient_noise': _gradient_noise.KIND,
  'jacobian': _jacobian.KIND,
  'one_step_loss': _one_step.KIND,
  'path': _path.KIND,
  'representations': _representations.KIND,
  'sharpness': _sharpness.KIND,
  'signal': _signal.KIND,
  'surface': _surface.KIND,
  'top_eigenvalues': _top_eigenvalues.KIND,
  'spectral_density': _spectral_density.KIND,
  'trace': _trace.KIND,
  'weights': _weights.KIND,
}

__all__ = [
  'MEASURES',
  'Block',
  'Cost',
  'Kind',
  'Split',
  'along_gradient',
  'barrier',
  'batch_sharpness',
  'check_chunks',
  'chunked',
  'cka',
  'covariate_shift',
  'drift',
  'fitting_chunk_size',
  'gauss_newton_product',
  'gradient_confusion',
  'gradient_noise',
  'hessian_product',
  'jacobian_product',
  'jacobian_transpose_product',
  'kind_of',
  'layer',
  'make',
  'memory',
  'one_step_loss',
  'path',
  'random_directions',
  'representations',
  'sharpness',
  'signal',
  'singular_values',
  'spectral_density',
  'surface',
  'theory',
  'top_eigenvalues',
  'trace',
  'trajectory_plane',
  'value_and_gradient',
  'weights',
]


def make(name: str, **keywords: Any) -> types.Measure:
  """Returns the measure called `name`: see `types.Measure`.

  Raises:
    ValueError: an unknown name, or a keyword out of its range.
  """
  return kind_of(name)(**keywords)


def kind_of(name: str) -> Kind:
  """Returns the kind of the measure called `name`.

  Args:
    name: a key of `MEASURES`, or a reference to a user's `Kind` or function,
      as 'my_module:make', which returns a measure.

  Raises:
    ValueError: an unknown name.
  """
  if plugins.is_reference(name):
    return kind_of_user(name)
  return errors.lookup('measure', MEASURES, name)
