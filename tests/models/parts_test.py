import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from bn_jax import models
from bn_jax.models import parts
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)

KEY = jax.random.key(3)


def setUpModule():
  # Numbers do not matter here, compilation takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def dropped(x, rate=0.25, **keywords):
  layer = parts.Dropout(rate)
  return layer.apply({}, x, rngs={'dropout': KEY}, **keywords)


class LocalResponseNormTest(absltest.TestCase):
  def test_refuses_what_is_not_floating_point(self):
    for dtype in ('uint8', 'int32', 'bool', 'complex64'):
      with self.assertRaisesRegex(ValueError, f'x is {dtype}; allowed'):
        parts.local_response_norm(np.ones((2, 6), dtype))


class AdaptiveAverageTest(absltest.TestCase):
  def test_each_pixel_is_the_mean_of_its_rows_and_columns(self):
    """By torch.nn.functional.adaptive_avg_pool2d's definition, in NumPy."""
    x = np.random.default_rng(0).normal(size=(2, 9, 4, 3)).astype(np.float32)
    y = parts.adaptive_average(jnp.asarray(x), 7)
    self.assertEqual(y.shape, (2, 7, 7, 3))
    rows = [(0, 2), (1, 3), (2, 4), (3, 6), (5, 7), (6, 8), (7, 9)]
    columns = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4)]
    for i, (top, bottom) in enumerate(rows):
      for j, (left, right) in enumerate(columns):
        want = x[:, top:bottom, left:right].mean((1, 2))
        np.testing.assert_allclose(y[:, i, j], want, atol=1e-6)
    same = jnp.asarray(x[:, :7, :, :])
    same_bits.assert_same(parts.adaptive_average(same[:, :4], 4), same[:, :4])


class DropoutTest(absltest.TestCase):
  def test_drops_that_share_and_keeps_the_mean(self):
    y = dropped(jnp.ones((100, 400)))
    values, counts = np.unique(y, return_counts=True)
    np.testing.assert_allclose(values, [0, 1 / 0.75])
    # 40,000 draws: the share's standard deviation is 0.0022.
    np.testing.assert_allclose(counts[0] / 40_000, 0.25, atol=0.01)

  def test_examples_draw_apart(self):
    y = dropped(jnp.ones((2, 400)))
    self.assertGreater((y[0] != y[1]).sum(), 100)

  def test_an_example_depends_on_its_index_alone(self):
    x = jax.random.normal(KEY, (6, 50))
    whole = dropped(x)
    same_bits.assert_same(dropped(x[4:], first=4), whole[4:])
    self.assertTrue((dropped(x[4:]) != whole[4:]).any())

  def test_acts_if_and_only_if_its_rng_is_passed(self):
    x = jax.random.normal(KEY, (6, 50))
    same_bits.assert_same(parts.Dropout(0.5).apply({}, x), x)
    same_bits.assert_same(dropped(x, rate=0.0), x)

  def test_in_the_head_of_a_network(self):
    module = models.make(
      'vgg11', num_classes=3, width=0.02, head=(9,), dropout=0.5
    )
    x = jax.random.normal(KEY, (4, 8, 8, 1))
    init = jax.jit(module.init, static_argnames='statistics')
    apply = jax.jit(module.apply, static_argnames='statistics')
    variables = init(KEY, x, statistics='running')
    plain = apply(variables, x, statistics='batch')
    noisy = apply(variables, x, statistics='batch', rngs={'dropout': KEY})
    self.assertTrue((plain != noisy).any())
    with self.assertRaisesRegex(ValueError, 'dropout is 1; allowed: 0 <='):
      models.make('vgg11', num_classes=3, dropout=1)


if __name__ == '__main__':
  absltest.main()
