"""Every keyword of every constructor, with what people give it by mistake."""

import inspect
import typing
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized

from bn_jax import analysis, checks, losses, models, norms, optim
from bn_jax.data import datasets, linear_task, selection
from bn_jax.data.batches import augment
from bn_jax.norms import kernels, lp
from bn_jax.storage import checkpoint
from tests.fixtures import strict

_NAN, _INF = float('nan'), float('inf')
_VALUES = (
  True, _NAN, _INF, -_INF, None, '1e-3', '', -1, 0, 2.5, np.float32(2), 10**18,
  10**400, (1, 2), (2.5,), ('a',), [], {}, {'a': 1}, b'a', np.float32('nan'),
  np.True_, np.int64(2), jnp.float32(0.5), np.arange(3), object,
)  # fmt: skip


def _x(axis=-1):
  x = jax.random.normal(jax.random.key(0), (4, 6))
  return x if axis == -1 else jnp.moveaxis(x, -1, axis)


def _square(params):
  return jnp.sum(params**2)


def _chunked(**keywords):
  return analysis.chunked(
    lambda batch, w: jnp.mean(batch * w), _x(), **keywords
  )


def _population(**keywords):
  module = models.make('mlp', num_classes=3, norm='batch', hidden=(2,))
  variables = module.init(jax.random.key(0), _x(), statistics='running')
  return norms.population_statistics(module, variables, [_x()], **keywords)


# Functions of the public API that take settings beside arrays, bound to those.
_ones, _zeros = jnp.ones(6), jnp.zeros(6)
FUNCTIONS = {
  'batch_norm': (
    norms.batch_norm, lambda **k: norms.batch_norm(_x(), _ones, _zeros, **k)
  ),
  'lp_norm': (
    norms.lp_norm,
    lambda **k: norms.lp_norm(_x(), _ones, _zeros, **{'p': 2.0, **k}),
  ),
  'moments': (norms.moments, lambda **k: norms.moments(_x(), **k)),
  'normalize': (
    norms.normalize,
    lambda **k: norms.normalize(_x(), _zeros, _ones, _ones, _zeros, **k),
  ),
  'standardized': (
    kernels.standardized, lambda **k: norms.standardized(_x(), **k)
  ),
  'add_noise': (
    norms.add_noise,
    lambda **k: norms.add_noise(_x(), jax.random.key(0), **k),
  ),
  'weights': (
    analysis.weights,
    lambda **k: analysis.weights(
      lambda p: _square(p['a']), {'a': _ones}, {'a': _zeros},
      (('a', ('a',)),), **{'learning_rate': 0.1, **k}
    ),
  ),
  'representations': (
    analysis.representations,
    lambda **k: analysis.representations({'h': _x()}, **k),
  ),
  'population_statistics': (norms.population_statistics, _population),
  'BatchNorm': (
    norms.BatchNorm,
    lambda **k: norms.BatchNorm(**k).init(
      jax.random.key(0), _x(), statistics='batch'
    ),
  ),
  'BatchRenorm': (
    norms.BatchRenorm,
    lambda **k: norms.BatchRenorm(**k).init(
      jax.random.key(0), _x(), statistics='batch'
    ),
  ),
  'LpNorm': (
    lp.LpNorm,
    lambda **k: norms.LpNorm(**k).init(
      jax.random.key(0), _x(), statistics='batch'
    ),
  ),
  'along_gradient': (
    analysis.along_gradient,
    lambda **k: analysis.along_gradient(
      _square, _ones, **{'step_sizes': (0.1,), **k}
    ),
  ),
  'one_step_loss': (
    analysis.one_step_loss,
    lambda **k: analysis.one_step_loss(
      _square, _ones, **{'learning_rates': (0.1,), **k}
    ),
  ),
  'batch_sharpness': (
    analysis.batch_sharpness,
    lambda **k: analysis.batch_sharpness([_square], _ones, **k),
  ),
  'gradient_noise': (
    analysis.gradient_noise,
    lambda **k: analysis.gradient_noise(
      [_square, _square], _ones, **{'batch_size': 2, **k}
    ),
  ),
  'gradient_confusion': (
    analysis.gradient_confusion,
    lambda **k: analysis.gradient_confusion([_square, _square], _ones, **k),
  ),
  'sharpness': (
    analysis.sharpness, lambda **k: analysis.sharpness(_square, _ones, **k)
  ),
  'spectral_density': (
    analysis.spectral_density,
    lambda **k: analysis.spectral_density(
      _square, _ones, **{'order': 2, 'samples': 2, **k}
    ),
  ),
  'trace': (analysis.trace, lambda **k: analysis.trace(_square, _ones, **k)),
  'covariate_shift': (
    analysis.covariate_shift,
    lambda **k: analysis.covariate_shift(
      lambda p: _square(p['a']), {'a': _ones}, {'a': _zeros},
      (('a', ('a',)),), **k
    ),
  ),
  'chunked': (
    analysis.chunked,
    lambda **k: _chunked(**{'chunk_size': 2, 'group_size': 1, **k}),
  ),
  'fitting_chunk_size': (
    analysis.fitting_chunk_size,
    lambda **k: analysis.fitting_chunk_size(
      lambda batch, w: jnp.mean(batch @ w), _ones, _x(), **{'memory': 1e9, **k}
    ),
  ),
  'check_chunks': (
    analysis.check_chunks,
    lambda **k: analysis.check_chunks(
      **{'count': 4, 'chunk_size': 2, 'group_size': 1, **k}
    ),
  ),
  'augment': (augment.make, augment.make),
  'selection': (
    selection.make, lambda **k: selection.make(**{'num_classes': 10, **k})
  ),
  'linear_task': (linear_task.make, linear_task.make),
  'within': (
    optim.within,
    lambda **k: optim.within(
      optim.sgd(optim.constant(learning_rate=0.1)), **k
    ),
  ),
  'weight_decay': (
    optim.weight_decay,
    lambda **k: optim.weight_decay(**{'weight_decay': 0.1, **k}),
  ),
  'Checkpoints': (
    checkpoint.Checkpoints,
    lambda **k: checkpoint.Checkpoints(strict.ROOT / 'nowhere', **k),
  ),
}  # fmt: skip
# Arguments that are arrays, functions or paths, of no constructor of a config.
_OTHER = (
  'x', 'scale', 'bias', 'mask', 'spread', 'mean', 'deviation', 'kernel',
  'module', 'variables', 'batches', 'loss', 'losses', 'params', 'new_params',
  'direction',
  'layers', 'key', 'devices', 'journal', 'batch', 'directory', 'about',
  'differs', 'count', 'first', 'schedule', 'name', 'parent', 'norm',
  'optimizer', 'hidden', 'block',
)  # fmt: skip

# Registered constructors: kind -> (registry, how one is called by name).
REGISTRIES = {
  'loss': (losses.LOSSES, losses.make),
  'model': (
    models.MODELS,
    lambda name, **k: models.make(name, **{'num_classes': 10, **k}),
  ),
  'norm': (norms.NORMS, norms.make),
  'optimizer': (
    optim.OPTIMIZERS,
    lambda name, **k: optim.make(name, optim.constant(learning_rate=0.1), **k),
  ),
  'schedule': (optim.SCHEDULES, optim.make_schedule),
  'data': (
    {name: datasets.DATASETS[name] for name in ('digits', 'linear_task')},
    datasets.make,
  ),
  'measure': (analysis.MEASURES, analysis.make),
}  # fmt: skip
_NEEDED = {
  'learning_rate': 0.1, 'decay_steps': 10, 'decay_factor': 0.5, 'momentum': 0.5
}  # fmt: skip

# Numbers that fit, where the annotation says more or less. A case's own name
# comes before that of its keyword.
_RANGES = {
  **dict.fromkeys(
    ('warmup_steps', 'crop_padding', 'workers', 'max_skipped', 'classes',
     'r_steps', 'd_steps', 'seed', 'selection_seed', 'weights_learning_rate',
     'iterations', 'taper_steps'),
    lambda x: x >= 0,
  ),
  **dict.fromkeys(
    ('binarize', 'momentum', 'dropout', 'b1', 'b2', 'adam_b1', 'adam_b2',
     'beta', 'decay'),
    lambda x: 0 <= x < 1,
  ),
  **dict.fromkeys(('end_factor', 'label_noise'), lambda x: 0 <= x <= 1),
  **dict.fromkeys(('decay_factor', 'crop_area'), lambda x: 0 < x <= 1),
  **dict.fromkeys(
    ('factor', 'initial_std', 'input_scale', 'kernel_scale', 'learning_rate',
     'matrix_scale', 'width', 'crop_aspect', 'clip_norm', 'adaptive_clip',
     'extent', 'threshold', 'alpha_init'),
    lambda x: x > 0,
  ),
  **dict.fromkeys(('p', 'r_max', 'n_sigma'), lambda x: x >= 1),
  'model_vit_tiny_width': lambda x: x >= 1 and x % 4 == 0,
  'model_vit_tiny_heads': lambda x: x >= 1 and 192 % x == 0,
  'axis': lambda x: x >= -1 and x != 0,
  **{  # of x, [4, 6]
    f'{name}_axis': lambda x: x in (1, -1)
    for name in ('batch_norm', 'lp_norm', 'moments', 'normalize', 'BatchNorm',
                 'BatchRenorm', 'LpNorm')
  },
  **dict.fromkeys(  # none of `_VALUES`
    ('pool_projection',
     *(f'model_{name}_depth' for name in models.MODELS if name[-1].isdigit())),
    lambda x: False,
  ),
  'data_digits_test_share': lambda x: False,  # they have a test split
  'photometric': lambda x: 0 <= x <= 2.5,
  'measure_cka_examples': lambda x: x >= 4,
  'tolerance': lambda x: 0 < x < 1,
}  # fmt: skip
_ANY_SIZE = ('seed', 'selection_seed', 'memory')
_INFINITE = ('p',)
# A number alone is a list of one; a vector of NumPy is one, too.
_SIZES = ('step_sizes', 'step_factors', 'learning_rates', 'radii')
_EMPTY = ('measure_along_gradient_step_sizes',)  # step_factors in their place
_GLOBS = ('weight_decay_on', 'perturb', 'trainable')
_TEXTS = ('to',)  # of any kind, as a path may be any
_BLANK = ('measure_cka_to',)  # then it compares a network with itself
_SOME = ('over', 'blocks')  # a list that is not empty, or not alone
_PAIRS = ('crop_area', 'crop_aspect', 'r_steps', 'd_steps', 'taper_steps')
_BOTH = ('mean', 'std')  # not one alone
# What fits, but not to the rest of the call.
_REFUSED = {
  **{  # without a momentum
    f'optimizer_{name}_nesterov': True for name in ('sgd', 'sam', 'rmsprop')
  },
  **{  # without a norm that has a scale
    f'model_resnet{depth}_zero_init_residual': True
    for depth in (18, 20, 34, 50, 56)
  },
  'chunked_group_size': None,  # with a chunk size
  'check_chunks_group_size': None,
}


def callables():
  """(name, its signature, its call) of all."""
  for kind, (registry, make) in REGISTRIES.items():
    for name in registry:
      parameters = inspect.signature(registry[name]).parameters

      def call(name=name, make=make, parameters=parameters, **keywords):
        needed = {
          key: value
          for key, value in _NEEDED.items()
          if key in parameters
          and parameters[key].default is inspect.Parameter.empty
        }
        return make(name, **{**needed, **keywords})

      yield f'{kind}_{name}', parameters, call
  for name, (function, call) in FUNCTIONS.items():
    yield name, inspect.signature(function).parameters, call


def cases():
  for name, parameters, call in callables():
    for keyword, parameter in parameters.items():
      is_layers = name.startswith('measure') and keyword == 'layers'
      is_bias = keyword == 'bias' and name == 'model_deep_linear'
      if keyword in _OTHER and not (is_layers or is_bias):
        continue
      if keyword == 'data_dir' or name == 'measure_evaluation':
        continue
      if name == 'selection' and keyword == 'num_classes':  # of its set
        continue
      yield f'{name}_{keyword}', keyword, parameter, call


def fits(name, keyword, annotation, value):
  """Whether the keyword's annotation and its words allow a value."""
  value = value.item() if isinstance(value, np.generic | jax.Array) else value
  if name in _REFUSED and value is _REFUSED[name]:
    return False
  kinds = typing.get_args(annotation) or (annotation,)
  if typing.get_origin(annotation) in (Sequence, tuple):
    if keyword in _SIZES and checks.is_number(value):
      return 0 < value < _INF
    least, most = (
      (1, _INF) if keyword in (*_SIZES, *_SOME) and name not in _EMPTY
      else (2, 2) if keyword in _PAIRS
      else (0, 0) if keyword in _BOTH
      else (0, _INF)
    )  # fmt: skip
    return (
      isinstance(value, list | tuple)
      and least <= len(value) <= most
      and all(fits(name, keyword, kinds[0], one) for one in value)
    )
  if value is None:
    return type(None) in kinds
  if type(value) is bool:
    return bool in kinds
  if keyword == 'rates':
    return value is None or isinstance(value, dict)
  if keyword in (*_GLOBS, *_TEXTS):
    return isinstance(value, str) and (value != '' or name in _BLANK)
  if isinstance(value, str):  # otherwise none of them is a name of anything
    return keyword in ('layers', 'at') and value == 'a'
  if type(value) is int and (int in kinds or float in kinds):
    is_size = keyword in _ANY_SIZE or abs(value) < 2**31
    is_size &= int in kinds or checks.is_number(value)
    usual = (lambda x: x >= 1) if int in kinds else (lambda x: x >= 0)
  elif type(value) is float and float in kinds:
    is_size = abs(value) < _INF or (value == _INF and keyword in _INFINITE)
    usual = lambda x: x >= 0
  else:
    return False
  fitting = _RANGES.get(name, _RANGES.get(keyword, usual))
  return is_size and fitting(value)


class SweepTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (name, name, *case) for name, *case in cases()
  )
  def test_keyword(self, name, keyword, parameter, call):
    for value in _VALUES:
      said = None
      try:
        call(**{keyword: value})
      except ValueError as refusal:
        said = str(refusal)
        self.assertNotIn('\n', said)
        self.assertLess(len(said), 300)
        self.assertIn(keyword, said)
        self.assertRegex(said, 'allowed|give')
      except Exception as error:
        raise AssertionError(f'{keyword}={value!r}: {error!r}') from error
      self.assertEqual(
        said is None,
        fits(name, keyword, parameter.annotation, value),
        f'{keyword}={value!r}: {said or "taken"}',
      )

  def test_the_sweep_is_whole(self):
    names = [name for name, *_ in cases()]
    self.assertGreater(len(names), 150)
    self.assertLen(set(names), len(names))
    swept = {name for name, *_ in callables()}
    for registry, _ in REGISTRIES.values():
      for name in registry:
        self.assertTrue(any(one.endswith(f'_{name}') for one in swept), name)
