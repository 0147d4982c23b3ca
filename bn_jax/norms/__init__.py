"""Provides normalizations as functions, as layers and, by name, for models."""

import functools
import inspect
import math
from typing import Any

from bn_jax import errors, placement, plugins
from bn_jax.norms import (
  batch,
  evonorm,
  filter_response,
  global_response,
  kernels,
  lp,
  noisy,
  per_example,
  pointwise,
  self_rescaled,
  taper,
  whitening,
)
from bn_jax.norms import norm as norm_lib
from bn_jax.norms.batch import BatchNorm, BatchRenorm
from bn_jax.norms.evonorm import EvoNormB0, EvoNormS0
from bn_jax.norms.filter_response import FilterResponseNorm, ThresholdedUnit
from bn_jax.norms.fold import fold
from bn_jax.norms.global_response import GlobalResponseNorm
from bn_jax.norms.group_moments import Moments
from bn_jax.norms.kernels import standardized
from bn_jax.norms.lp import LpMoments, LpNorm, lp_norm
from bn_jax.norms.mixture import adapted
from bn_jax.norms.noisy import add_noise
from bn_jax.norms.norm import STATISTICS, Norm
from bn_jax.norms.pointwise import DynamicErf, DynamicTanh
from bn_jax.norms.population import (
  Population,
  keeps_statistics,
  population_statistics,
)
from bn_jax.norms.self_rescaled import SelfRescaledNorm
from bn_jax.norms.taper import TaperNorm
from bn_jax.norms.transform import Misfit, batch_norm, moments, normalize
from bn_jax.norms.whitening import IterNorm

# Name in a config -> a constructor of a Norm, which has the keyword `spread`.
NORMS = {
  'batch': batch.make,
  'batch_renorm': batch.make_renorm,
  'derf': pointwise.make_erf,
  'dyt': pointwise.make_tanh,
  'evonorm_b0': evonorm.make_b0,
  'evonorm_s0': evonorm.make_s0,
  'frn': filter_response.make,
  'grn': global_response.make,
  'group': per_example.make_group,
  'instance': per_example.make_instance,
  'iternorm': whitening.make,
  'l1': functools.partial(lp.make, p=1),
  'l2': functools.partial(lp.make, p=2),
  'layer': per_example.make_layer,
  'linf': functools.partial(lp.make, p=math.inf),
  'lp': lp.make,
  'noise': noisy.make_alone,
  'noisy': noisy.make,
  'none': norm_lib.none,
  'rms': per_example.make_rms,
  'seednorm': self_rescaled.make,
  'spectral': kernels.make_spectral,
  'taper': taper.make,
  'weight': kernels.make_weight,
  'weight_standardization': kernels.make_standardization,
}

__all__ = [
  'NORMS',
  'STATISTICS',
  'BatchNorm',
  'BatchRenorm',
  'DynamicErf',
  'DynamicTanh',
  'EvoNormB0',
  'EvoNormS0',
  'FilterResponseNorm',
  'GlobalResponseNorm',
  'IterNorm',
  'LpMoments',
  'LpNorm',
  'Misfit',
  'Moments',
  'Norm',
  'Population',
  'SelfRescaledNorm',
  'TaperNorm',
  'ThresholdedUnit',
  'adapted',
  'add_noise',
  'batch_norm',
  'fold',
  'keeps_statistics',
  'lp_norm',
  'make',
  'moments',
  'normalize',
  'population_statistics',
  'standardized',
]


def make(name: str, **keywords: Any) -> Norm:
  """Returns the normalization called `name`, for `models.make(norm=...)`.

  Args:
    name: a key of `NORMS`, or a reference to a user's function, as
      'my_module:make', which returns a `Norm`.
    **keywords: of its constructor, such as `group_size` of 'batch'; all have
      `spread`, how the batch lies on devices.

  Raises:
    ValueError: an unknown name, or a keyword out of its range.
  """
  if plugins.is_reference(name):
    norm = plugins.made(
      name,
      {'spread': placement.ALONE, **keywords},
      lambda norm: isinstance(norm, Norm),
      'a bn_jax.norms.Norm',
      optional=('axis', 'spread'),
    )
    _check_call(name, norm)
    return norm
  return errors.lookup('norm', NORMS, name)(**keywords)


def _check_call(name: str, norm: Norm) -> None:
  """Raises ValueError for a user's norm that a network cannot call."""
  for field in ('layer', 'linear', 'unit'):
    if (make := getattr(norm, field)) is None:
      continue
    call = plugins.call(name, make, 'norm').__call__
    lacking = [
      keyword
      for keyword in ('statistics', 'mask', 'first')
      if not plugins.takes(call, keyword)
    ]
    if lacking:
      raise ValueError(
        f'{name}: {plugins.defined(call)}, the call of its {field}, takes '
        f'{", ".join(inspect.signature(call).parameters)}; it must take x and '
        'the keywords statistics, mask, first'
      )
