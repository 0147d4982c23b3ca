import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import norms
from tests.fixtures import strict  # noqa: F401


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def data(shape=(8, 3, 4)):
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.normal(2, 1.5, size=shape), jnp.float32)


def variables(mean=1.0, var=4.0, count=0):
  stats = {'mean': jnp.full(4, mean), 'var': jnp.full(4, var)}
  return {
    'params': {'scale': jnp.arange(1.0, 5.0), 'bias': jnp.arange(4.0)},
    'batch_stats': {**stats, 'count': jnp.asarray(count, jnp.int32)},
  }


def renorm(**keywords):
  at_once = dict(r_steps=(0, 0), d_steps=(0, 0))
  return norms.make('batch_renorm', **{**at_once, **keywords}).layer('norm1')


class BatchRenormTest(parameterized.TestCase):
  """Ioffe (2017), arXiv:1702.03275, algorithm 1."""

  @parameterized.parameters(None, 4)
  def test_equals_its_formulas(self, group_size):
    x, r_max, d_max = data(), 1.2, 0.3
    layer = renorm(r_max=r_max, d_max=d_max, group_size=group_size)
    y = layer.apply(variables(), x, statistics='batch')
    for rows in np.split(np.arange(8), 8 // (group_size or 8)):
      part = np.float64(x[rows])
      mean, s = part.mean((0, 1)), np.sqrt(part.var((0, 1)) + 1e-5)
      running_s = np.sqrt(4 + 1e-5)
      r = np.clip(s / running_s, 1 / r_max, r_max)
      d = np.clip((mean - 1) / running_s, -d_max, d_max)
      want = ((part - mean) / s * r + d) * np.arange(1, 5) + np.arange(4)
      np.testing.assert_allclose(y[rows], want, rtol=1e-5, atol=1e-5)

  def test_without_freedom_it_is_batch_norm(self):
    x = data()
    y = renorm(r_max=1.0, d_max=0.0).apply(variables(), x, statistics='batch')
    want, _ = norms.batch_norm(x, *variables()['params'].values())
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)

  def test_without_limits_it_normalises_by_the_running_averages(self):
    x = data()
    layer = renorm(r_max=math.inf, d_max=math.inf)
    y = layer.apply(variables(), x, statistics='batch')
    want = layer.apply(variables(), x, statistics='running')
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)

  def test_its_corrections_are_constants_to_the_derivative(self):
    """dL/dx is that of batch norm with gamma r in place of gamma."""
    x = data()
    layer = renorm(r_max=1e6, d_max=1e6)
    r = np.sqrt((np.var(x, axis=(0, 1)) + 1e-5) / (4 + 1e-5))
    dy = data().at[:].multiply(jnp.sin(data()))

    def ours(x):
      return jnp.sum(dy * layer.apply(variables(), x, statistics='batch'))

    def theirs(x):
      scale = variables()['params']['scale'] * r
      return jnp.sum(dy * norms.batch_norm(x, scale, jnp.zeros(4))[0])

    np.testing.assert_allclose(
      jax.grad(ours)(x), jax.grad(theirs)(x), rtol=1e-4, atol=1e-5
    )

  def test_limits_grow_on_a_line(self):
    """At the middle of 100 to 200, r_max is 2 of 3 and d_max 2.5 of 5."""
    x = 1000 * data()
    layer = renorm(r_steps=(100, 200), d_steps=(100, 200))

    def spread_of(count):
      y = layer.apply(variables(count=count), x, statistics='batch')
      y = (y - jnp.arange(4.0).reshape(1, 1, -1)) / jnp.arange(
        1.0, 5.0
      ).reshape(1, 1, -1)
      return float(y.std(axis=(0, 1)).mean()), float(y.mean())

    for count, r, d in ((0, 1, 0), (100, 1, 0), (150, 2, 2.5), (500, 3, 5)):
      np.testing.assert_allclose(spread_of(count), (r, d), rtol=1e-3, atol=1e-3)

  def test_a_step_counts(self):
    _, new = renorm().apply(
      variables(count=7), data(), statistics='batch', mutable=['batch_stats']
    )
    self.assertEqual(int(new['batch_stats']['count']), 8)

  @parameterized.parameters(
    (dict(r_max=0.5), 'r_max is 0.5'),
    (dict(d_max=-1.0), 'd_max is -1'),
    (dict(r_steps=(5, 4)), r'r_steps is \(5, 4\); allowed'),
    (dict(d_steps=(5,)), 'd_steps'),
    (dict(momentum=1.5), 'momentum is 1.5'),
  )
  def test_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      norms.make('batch_renorm', **keywords)


if __name__ == '__main__':
  absltest.main()
