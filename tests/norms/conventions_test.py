"""Conventions of other frameworks, against the installed ones.

The slow tests need them: requirements-bench.txt has their versions.
"""

import importlib.metadata
import inspect
import os

os.environ.setdefault('KERAS_BACKEND', 'jax')

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import norms
from bn_jax.norms import conventions
from tests.fixtures import strict

_DECAY = 0.8  # the share of the old average
_GENERATOR = np.random.default_rng(0)
BATCHES = [
  _GENERATOR.normal(1, 2, (8, 4, 4, 3)).astype(np.float32) for _ in range(10)
]
_PACKAGES = {
  'pytorch': ('torch', 'torch'), 'flax': ('flax', 'flax'),
  'nnx': ('flax', 'flax'), 'haiku': ('haiku', 'dm-haiku'),
  'equinox': ('equinox', 'equinox'), 'equinox_ema': ('equinox', 'equinox'),
  'keras': ('keras', 'keras'), 'tensorflow': ('tensorflow', 'tensorflow-cpu'),
  'onnx': ('onnx', 'onnx'),
}  # fmt: skip


def statistics_of_ours(framework):
  """Our mean and variance after the batches, by the framework's rule."""
  convention = conventions.CONVENTIONS[framework]
  share = _DECAY if convention.share == conventions.OLD else 1 - _DECAY
  keywords = conventions.keywords(framework, **{convention.momentum: share})
  layer = norms.make('batch', **keywords).layer(None)
  variables = layer.init(jax.random.key(0), BATCHES[0], statistics='running')
  for x in BATCHES:
    _, new = layer.apply(
      variables, x, statistics='batch', mutable=['batch_stats']
    )
    variables = {**variables, **new}
  return variables['batch_stats']['mean'], variables['batch_stats']['var']


def of_pytorch():
  import torch

  layer = torch.nn.BatchNorm2d(3, momentum=1 - _DECAY)
  for x in BATCHES:
    layer(torch.tensor(x.transpose(0, 3, 1, 2)))
  names = tuple(layer.state_dict())
  convention = conventions.CONVENTIONS['pytorch']
  assert names == (*convention.parameters, *convention.statistics), names
  return layer.running_mean, layer.running_var


def of_flax():
  layer = nn.BatchNorm(False, momentum=_DECAY)
  variables = layer.init(jax.random.key(0), BATCHES[0])
  for x in BATCHES:
    _, new = layer.apply(variables, x, mutable=['batch_stats'])
    variables = {**variables, **new}
  assert set(variables['params']) == {'scale', 'bias'}
  return variables['batch_stats']['mean'], variables['batch_stats']['var']


def of_nnx():
  from flax import nnx

  layer = nnx.BatchNorm(3, momentum=_DECAY, rngs=nnx.Rngs(0))
  for x in BATCHES:
    layer(jnp.asarray(x), use_running_average=False)
  return layer.mean[...], layer.var[...]


def of_haiku():
  import haiku as hk

  function = hk.transform_with_state(
    lambda x: hk.BatchNorm(True, True, decay_rate=_DECAY)(x, True)
  )
  params, state = function.init(jax.random.key(0), BATCHES[0])
  for x in BATCHES:
    _, state = function.apply(params, state, None, x)
  assert set(params['batch_norm']) == {'scale', 'offset'}
  return tuple(
    state[f'batch_norm/~/{name}_ema']['average'].ravel()
    for name in ('mean', 'var')
  )


def of_equinox(mode='batch'):
  import equinox

  layer, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(
    3, axis_name='batch', momentum=_DECAY, mode=mode
  )
  for x in BATCHES:
    x = jnp.asarray(x.transpose(0, 3, 1, 2))
    _, state = jax.vmap(layer, (0, None), (0, None), 'batch')(x, state)
  if mode == 'ema':
    return state.get(layer.ema_state_index)
  # As inference takes them, equinox 0.13.8: the start of the mean is 0 and is
  # taken out, and the start of the variance, 1, made larger by that (see
  # findings/equinox_batch_norm_start.sh). By the rule it would be taken out.
  mean, var = state.get(layer.batch_state_index)
  left = _DECAY ** len(BATCHES)
  return mean / (1 - left), var / (1 - left) - left / (1 - left)


def of_keras():
  import keras

  layer = keras.layers.BatchNormalization(momentum=_DECAY)
  for x in BATCHES:
    layer(x, training=True)
  names = tuple(weight.name for weight in layer.weights)
  convention = conventions.CONVENTIONS['keras']
  assert names == (*convention.parameters, *convention.statistics), names
  return np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)


def of_tensorflow():
  import tensorflow as tf

  mean, var = tf.zeros(3), tf.ones(3)
  for x in BATCHES:
    _, mean, var = tf.compat.v1.nn.fused_batch_norm(
      x, tf.ones(3), tf.zeros(3), mean=mean, variance=var, is_training=True,
      exponential_avg_factor=1 - _DECAY,
    )  # fmt: skip
  return mean.numpy(), var.numpy()


def of_onnx():
  import onnx
  from onnx import helper, reference

  def value(name, *shape):
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

  inputs = ('scale', 'B', 'input_mean', 'input_var')
  node = helper.make_node(
    'BatchNormalization', ['x', *inputs], ['y', 'mean', 'var'],
    training_mode=1, momentum=_DECAY,
  )  # fmt: skip
  graph = helper.make_graph(
    [node], 'one',
    [value('x', 8, 3, 4, 4), *(value(name, 3) for name in inputs)],
    [value('y', 8, 3, 4, 4), value('mean', 3), value('var', 3)],
  )  # fmt: skip
  opset = helper.make_opsetid('', 15)
  model = helper.make_model(graph, opset_imports=[opset])
  evaluator = reference.ReferenceEvaluator(model)
  ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
  mean, var = zeros, ones
  for x in BATCHES:
    values = (x.transpose(0, 3, 1, 2), ones, zeros, mean, var)
    _, mean, var = evaluator.run(None, dict(zip(('x', *inputs), values)))
  return mean, var


_PEERS = {
  'pytorch': of_pytorch, 'flax': of_flax, 'nnx': of_nnx, 'haiku': of_haiku,
  'equinox': of_equinox, 'equinox_ema': lambda: of_equinox('ema'),
  'keras': of_keras, 'tensorflow': of_tensorflow, 'onnx': of_onnx,
}  # fmt: skip


def installed(framework):
  """Skips a test whose framework is not there, or of another version."""
  module, package = _PACKAGES[framework]
  try:
    version = importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    pytest.skip(f'{package} is not installed: see requirements-bench.txt')
  want = conventions.CONVENTIONS[framework].version
  if version.partition('+')[0] != want:
    pytest.skip(f'{package} is {version}; the table is of {want}')
  return importlib.import_module(module)


def defaults(framework):
  """{argument: its default} of a framework's layer."""
  module = installed(framework)
  if framework == 'onnx':
    schema = module.defs.get_schema('BatchNormalization', 15)
    return {
      name: schema.attributes[name].default_value.f
      for name in ('momentum', 'epsilon')
    }
  if framework in ('flax', 'nnx'):
    import flax.linen
    import flax.nnx

    module = {'flax': flax.linen, 'nnx': flax.nnx}[framework]
  layer = {
    'pytorch': lambda: module.nn.BatchNorm2d,
    'equinox': lambda: module.nn.BatchNorm,
    'equinox_ema': lambda: module.nn.BatchNorm,
    'keras': lambda: module.layers.BatchNormalization,
    'tensorflow': lambda: module.compat.v1.nn.fused_batch_norm,
  }.get(framework, lambda: module.BatchNorm)()
  function = layer.__init__ if isinstance(layer, type) else layer
  return {
    name: parameter.default
    for name, parameter in inspect.signature(function).parameters.items()
  }


class TableTest(parameterized.TestCase):
  def test_the_docs_print_it(self):
    text = (strict.ROOT / 'docs' / 'norms.md').read_text()
    self.assertIn(f'\n{conventions.table()}\n', text)

  @parameterized.parameters(
    ('pytorch', {}, (0.9, 1e-5, 'unbiased', 'ema')),
    (
      'pytorch',
      {'momentum': 0.01, 'eps': 1e-3},
      (0.99, 1e-3, 'unbiased', 'ema'),
    ),
    ('pytorch', {'momentum': None}, (None, 1e-5, 'unbiased', 'cumulative')),
    ('haiku', {'decay_rate': 0.7}, (0.7, 1e-5, 'biased', 'corrected_ema')),
    ('keras', {'momentum': 0.9997}, (0.9997, 1e-3, 'biased', 'ema')),
    (
      'tensorflow',
      {'exponential_avg_factor': 0.1, 'epsilon': 0.01},
      (0.9, 0.01, 'unbiased', 'ema'),
    ),
  )
  def test_keywords_of_ours(self, framework, arguments, want):
    names = ('momentum', 'epsilon', 'running_variance', 'running_average')
    keywords = conventions.keywords(framework, **arguments)
    self.assertEqual(tuple(keywords.get(name) for name in names), want)
    norms.make('batch', **keywords)

  @parameterized.parameters(
    ('torch', {}, "unknown framework 'torch'"),
    ('pytorch', {'epsilon': 1e-3}, "'epsilon'.*allowed: momentum, eps"),
    ('haiku', {}, 'decay_rate is None; allowed: a number: 0 to 1'),
    ('flax', {'momentum': 1.5}, 'momentum is 1.5; allowed'),
  )
  def test_what_is_refused(self, framework, arguments, said):
    with self.assertRaisesRegex(ValueError, said):
      conventions.keywords(framework, **arguments)


@pytest.mark.slow
class PeersTest(parameterized.TestCase):
  @parameterized.parameters(*conventions.CONVENTIONS)
  def test_running_statistics_after_ten_steps(self, framework):
    installed(framework)
    mean, var = (np.asarray(x) for x in _PEERS[framework]())
    want_mean, want_var = statistics_of_ours(framework)
    if framework == 'equinox_ema':
      # It starts with the first batch, where ours starts at 0 and 1.
      first = BATCHES[0]
      weight = _DECAY ** len(BATCHES)
      want_mean = want_mean + weight * first.mean((0, 1, 2))
      want_var = want_var + weight * (first.var((0, 1, 2)) - 1)
    np.testing.assert_allclose(mean, want_mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(var, want_var, rtol=1e-5, atol=1e-6)

  @parameterized.parameters(*conventions.CONVENTIONS)
  def test_arguments_and_their_defaults(self, framework):
    convention, values = (
      conventions.CONVENTIONS[framework], defaults(framework),
    )  # fmt: skip
    epsilon = values[convention.epsilon]
    self.assertAlmostEqual(epsilon, convention.default_epsilon, places=9)
    momentum = values[convention.momentum]
    if convention.default_momentum is None:
      self.assertIs(momentum, inspect.Parameter.empty)
    else:
      self.assertAlmostEqual(momentum, convention.default_momentum, places=6)

  def test_haiku_computes_variances_that_are_negative(self):
    """dm-haiku 0.0.17: E[x^2] - E[x]^2 without a bound, so its root is nan."""
    hk = installed('haiku')
    function = hk.transform_with_state(
      lambda x: hk.BatchNorm(True, True, decay_rate=_DECAY)(x, True)
    )
    x = np.random.default_rng(0).normal(100, 0.01, (256, 8)).astype(np.float32)
    params, state = function.init(jax.random.key(0), x)
    y, state = function.apply(params, state, None, x)
    self.assertLess(state['batch_norm/~/var_ema']['average'].min(), 0)
    self.assertTrue(np.isnan(y).any())
    ours, _ = norms.batch_norm(x, jnp.ones(8), jnp.zeros(8))
    np.testing.assert_allclose(ours.std(0), 0.95, atol=0.02)  # of its epsilon

  def test_haiku_keeps_statistics_in_the_dtype_of_its_input(self):
    hk = installed('haiku')
    function = hk.transform_with_state(
      lambda x: hk.BatchNorm(True, True, decay_rate=_DECAY)(x, True)
    )
    x = jnp.asarray(BATCHES[0], jnp.bfloat16)
    _, state = function.init(jax.random.key(0), x)
    average = state['batch_norm/~/mean_ema']['average']
    self.assertEqual(average.dtype, jnp.bfloat16)

  def test_keras_moves_its_averages_by_a_batch_of_padding(self):
    """Keras 3.15.1 divides by n + 1e-7, which is no error, and takes 0 of 0."""
    keras = installed('keras')
    layer = keras.layers.BatchNormalization(momentum=_DECAY)
    mask = np.zeros(BATCHES[0].shape[:-1], bool)
    layer(BATCHES[0], training=True, mask=mask)
    np.testing.assert_allclose(np.asarray(layer.moving_variance), _DECAY)

  def test_flax_keeps_nan_of_a_batch_of_padding(self):
    """flax 0.12.8, linen; ours leaves the averages as they are."""
    installed('flax')
    layer = nn.BatchNorm(False, momentum=_DECAY)
    variables = layer.init(jax.random.key(0), BATCHES[0])
    mask = np.zeros((*BATCHES[0].shape[:-1], 1), bool)
    _, new = layer.apply(
      variables, BATCHES[0], mask=mask, mutable=['batch_stats']
    )
    self.assertTrue(np.isnan(new['batch_stats']['mean']).all())


if __name__ == '__main__':
  absltest.main()
