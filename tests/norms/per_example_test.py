import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import norms
from bn_jax.norms import per_example
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)


def data(channels=8):
  generator = np.random.default_rng(0)
  return generator.normal(300, 1.5, size=(4, 3, 2, channels)).astype(np.float32)


def apply(name, x, scale, bias, **keywords):
  layer = norms.make(name, **keywords).layer('norm1')
  params = {'scale': scale} if name == 'rms' else dict(scale=scale, bias=bias)
  variables = layer.init(jax.random.key(0), x, statistics='running')
  assert variables.keys() == {'params'}
  assert variables['params'].keys() == params.keys()
  return layer.apply({'params': params}, x, statistics='batch')


def grouped(x, groups):
  return x.reshape(*x.shape[:-1], groups, -1)


class PerExampleTest(parameterized.TestCase):
  @parameterized.parameters(
    ('layer', {}, lambda x: (x, (1, 2, 3))),
    ('layer', dict(per='position'), lambda x: (x, (3,))),
    ('instance', {}, lambda x: (x, (1, 2))),
    ('group', dict(num_groups=2), lambda x: (grouped(x, 2), (1, 2, 4))),
    ('group', {}, lambda x: (grouped(x, 4), (1, 2, 4))),
  )  # fmt: skip
  def test_equals_its_formula(self, name, keywords, units):
    """(x - mean) / sqrt(var + epsilon), far from zero too."""
    x = data()
    scale, bias = np.random.default_rng(1).normal(size=(2, 8))
    y = apply(name, x, np.float32(scale), np.float32(bias), **keywords)
    part, axes = units(np.float64(x))
    mean, var = part.mean(axes, keepdims=True), part.var(axes, keepdims=True)
    want = ((part - mean) / np.sqrt(var + 1e-5)).reshape(x.shape) * scale + bias
    np.testing.assert_allclose(y, want, rtol=1e-3, atol=1e-3)

  def test_rms(self):
    x, scale = data(), np.float32(np.random.default_rng(1).normal(size=8))
    y = apply('rms', x, scale, None)
    square = np.square(np.float64(x)).mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, x / np.sqrt(square + 1e-5) * scale, rtol=1e-5)

  @parameterized.parameters('layer', 'group', 'instance', 'rms')
  def test_an_example_does_not_see_the_others(self, name):
    x = data()
    x[2] = np.nan  # padding, say
    layer = norms.make(name).layer('norm1')
    variables = layer.init(jax.random.key(0), x, statistics='running')
    mask = np.array([True, True, False, True])
    y = layer.apply(variables, x, statistics='batch', mask=mask)
    alone = layer.apply(variables, x[:1], statistics='running')
    same_bits.assert_same(y[:1], alone)
    self.assertTrue(np.isfinite(y[mask]).all())

  def test_usual_groups(self):
    """32 as in the paper; groups of two at least."""
    for channels in (1, 2, 3, 4, 5, 6, 10, 24, 32, 48, 63, 64, 65, 96, 512):
      groups = per_example.usual_groups(channels)
      self.assertEqual(channels % groups, 0)
      if channels > 1 and groups > 1:
        self.assertGreaterEqual(channels // groups, 2)
    self.assertEqual(per_example.usual_groups(64), 32)
    self.assertEqual(per_example.usual_groups(512), 32)
    self.assertEqual(per_example.usual_groups(4), 2)

  @parameterized.parameters(
    ('layer', dict(per='batch'), "per is 'batch'; allowed: example"),
    ('rms', dict(per='x'), "per is 'x'"),
    ('group', dict(num_groups=0), 'num_groups is 0'),
    ('instance', dict(epsilon=-1.0), 'epsilon is -1'),
  )
  def test_make_refuses(self, name, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      norms.make(name, **keywords)

  def test_refuses_groups_that_do_not_divide(self):
    with self.assertRaisesRegex(ValueError, 'num_groups is 3; .*divides 8'):
      apply('group', data(), jnp.ones(8), jnp.zeros(8), num_groups=3)


if __name__ == '__main__':
  absltest.main()
