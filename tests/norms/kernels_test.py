import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import models, norms
from bn_jax.models.lowering import conv
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class Layer(nn.Module):
  """One weighted layer, as a model has it."""

  norm: norms.Norm
  convolution: bool = True

  @nn.compact
  def __call__(self, x, *, statistics):
    bias = self.norm.bias_before
    layer = (
      conv.Conv(5, use_bias=bias, name='conv1')
      if self.convolution
      else nn.Dense(5, use_bias=bias, name='conv1')
    )
    return self.norm.weighted(layer, 'weight1')(x, statistics=statistics)


def data():
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.normal(size=(2, 4, 4, 3)), jnp.float32)


def effective(norm, variables, *, convolution=True, statistics='running'):
  """(kernel that acts, new batch_stats): the layer's answer to unit inputs."""
  module = Layer(norm, convolution=False)
  kernel = variables['params']['conv1']['kernel']
  flat = kernel.reshape(-1, 5)
  params = {**variables['params'], 'conv1': {
    **variables['params']['conv1'], 'kernel': flat, 'bias': jnp.zeros(5)
  }}  # fmt: skip
  return module.apply(
    {**variables, 'params': params}, jnp.eye(len(flat)), statistics=statistics,
    mutable=['batch_stats'],
  )  # fmt: skip


class KernelsTest(parameterized.TestCase):
  def variables(self, norm, **keywords):
    return Layer(norm, **keywords).init(
      jax.random.key(0), data(), statistics='running'
    )

  def test_weight_norm_gives_each_unit_its_length(self):
    norm = norms.make('weight')
    variables = self.variables(norm)
    path = 'conv1/kernel/scale'
    self.assertEqual(variables['params']['weight1'][path].shape, (5,))
    variables['params']['weight1'][path] = jnp.arange(1.0, 6.0)
    kernel, _ = effective(norm, variables)
    v = np.float64(variables['params']['conv1']['kernel']).reshape(-1, 5)
    want = v / np.linalg.norm(v, axis=0) * np.arange(1, 6)
    np.testing.assert_allclose(kernel, want, rtol=1e-5, atol=1e-6)

  @parameterized.parameters(True, False)
  def test_standardized_units(self, scaled):
    norm = norms.make('weight_standardization', scaled=scaled, epsilon=0.0)
    variables = self.variables(norm)
    kernel, _ = effective(norm, variables)
    np.testing.assert_allclose(kernel.mean(0), 0, atol=1e-6)
    want = 1 / np.sqrt(27) if scaled else 1.0
    np.testing.assert_allclose(kernel.std(0), want, rtol=1e-5)
    v = variables['params']['conv1']['kernel']
    np.testing.assert_allclose(
      kernel.reshape(v.shape),
      norms.standardized(v, scaled=scaled, epsilon=0.0),
      rtol=1e-5, atol=1e-6,
    )  # fmt: skip

  def test_scaled_standardization_keeps_the_variance(self):
    """Of independent inputs of variance 1, each unit has variance 1."""
    kernel = norms.standardized(
      jax.random.normal(jax.random.key(0), (3, 3, 16, 8)) + 2, epsilon=0.0
    )
    length = jnp.square(kernel).sum(axis=(0, 1, 2))
    np.testing.assert_allclose(length, 1, rtol=1e-5)

  def test_spectral_norm_converges_to_one(self):
    norm = norms.make('spectral')
    variables = self.variables(norm)
    for _ in range(300):
      kernel, new = effective(norm, variables, statistics='batch')
      variables = {**variables, **new}
    np.testing.assert_allclose(np.linalg.norm(kernel, 2), 1, rtol=1e-4)
    v = variables['params']['conv1']['kernel'].reshape(-1, 5)
    sigma = variables['batch_stats']['weight1']['conv1/kernel/sigma']
    np.testing.assert_allclose(sigma, np.linalg.norm(v, 2), rtol=1e-4)

  def test_spectral_vectors_move_in_mode_batch_alone(self):
    norm = norms.make('spectral')
    variables = self.variables(norm)
    before = variables['batch_stats']
    _, new = effective(norm, variables, statistics='running')
    same_bits.assert_same(new['batch_stats'], before)
    _, new = effective(norm, variables, statistics='batch')
    name = 'conv1/kernel/u'
    a, b = (s['weight1'][name] for s in (before, new['batch_stats']))
    self.assertTrue((a != b).any())

  @parameterized.product(
    name=('weight', 'spectral', 'weight_standardization'),
    convolution=(True, False),
  )
  def test_kernel_is_stored_as_it_is_drawn(self, name, convolution):
    drawn = self.variables(norms.make('none'), convolution=convolution)
    stored = self.variables(norms.make(name), convolution=convolution)
    same_bits.assert_same(
      stored['params']['conv1']['kernel'], drawn['params']['conv1']['kernel']
    )

  def test_scale_of_a_kernel_does_not_matter(self):
    for name in ('weight', 'spectral', 'weight_standardization'):
      keywords = dict(epsilon=1e-12)
      norm = norms.make(name, **keywords)
      variables = self.variables(norm)
      variables['params']['conv1']['bias'] = jnp.zeros(5)
      large = jax.tree.map(lambda a: a, variables)
      large['params']['conv1']['kernel'] *= 100
      y, want = (
        Layer(norm).apply(v, data(), statistics='running')
        for v in (large, variables)
      )
      np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)

  def test_standardization_may_be_followed_by_a_norm(self):
    norm = norms.make('weight_standardization', scaled=False, then='group')
    module = models.make('vgg11', num_classes=3, norm=norm, width=0.0625)
    variables = jax.eval_shape(
      lambda x: module.init(jax.random.key(0), x, statistics='running'),
      jnp.zeros((1, 8, 8, 1)),
    )
    self.assertIn('scale', variables['params']['conv1_norm'])
    self.assertFalse(
      norms.make('weight_standardization', then='batch').bias_before
    )

  @parameterized.parameters(
    ('spectral', dict(n_steps=0), 'n_steps is 0'),
    ('weight', dict(epsilon=-1.0), 'epsilon is -1'),
    ('weight_standardization', dict(then='layer'), "then is 'layer'; allowed"),
  )
  def test_refuses(self, name, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      norms.make(name, **keywords)


if __name__ == '__main__':
  absltest.main()
