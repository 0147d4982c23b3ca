"""The average over the updates, against the sum that it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis
from bn_jax.optim import average
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)


class AverageTest(parameterized.TestCase):
  @parameterized.parameters(0.5, 0.9, 0.9999)
  def test_is_a_weighted_mean(self, decay):
    """Weights decay^(t - k) / their sum, without what training began with."""
    x_TN = np.random.default_rng(0).normal(size=(30, 4)) + 5
    add = jax.jit(average.add, static_argnums=1)
    mean = average.begin({'w': jnp.full(4, 1e6)}, {})
    for x in np.float32(x_TN):
      mean = add(mean, decay, {'w': jnp.asarray(x)}, {})
    weights = decay ** np.arange(29, -1, -1.0)
    want = weights @ x_TN / weights.sum()
    np.testing.assert_allclose(mean.params['w'], want, rtol=1e-6)
    np.testing.assert_allclose(mean.weight, weights.sum(), rtol=1e-6)

  def test_counters_are_the_newest(self):
    mean = average.begin({}, {'count': jnp.int32(3)})
    mean = average.add(mean, 0.9, {}, {'count': jnp.int32(7)})
    self.assertEqual(mean.batch_stats['count'], 7)
    self.assertEqual(mean.batch_stats['count'].dtype, jnp.int32)

  def test_in_training(self):
    """It changes nothing of it, and averages statistics too."""
    plain, averaging = (
      toys.classifier('batch'), toys.classifier('batch', ema=0.8)
    )  # fmt: skip
    split, states = toys.split(), []
    state, other = averaging.init(0), plain.init(0)
    same_bits.assert_same(state.averaged().params, state.params)
    for _ in range(5):
      state = toys.step(averaging)(state, split)
      other = toys.step(plain)(other, split)
      states.append(state)
    same_bits.assert_same(state.params, other.params)
    weights = 0.8 ** np.arange(4, -1, -1.0)
    for read in (
      lambda s: s.params['conv1']['kernel'],
      lambda s: s.batch_stats['norm1']['var'],
    ):
      values = np.stack([np.float64(read(s)) for s in states])
      want = np.tensordot(weights, values, 1) / weights.sum()
      np.testing.assert_allclose(read(state.averaged()), want, rtol=1e-5)

  def test_an_update_that_is_left_out_does_not_count(self):
    made = toys.classifier('batch', ema=0.8, max_skips=3)
    split = toys.split()
    state = toys.step(made)(made.init(0), split)
    bad = split._replace(std=jnp.full(1, jnp.nan))
    after = toys.step(made)(state, bad)
    self.assertEqual(after.skipped, 1)
    same_bits.assert_same(after.average, state.average)

  def test_is_evaluated_beside_the_parameters(self):
    made = toys.classifier('batch', ema=0.8)
    split, state = toys.split(), made.init(0)
    for _ in range(4):
      state = toys.step(made)(state, split)
    batches = [made.batch(state, split)] * 2
    look = analysis.make('evaluation')
    got = look(made, state, batches)
    without = look(made, state._replace(average=()), batches)
    of_average = look(made, state.averaged()._replace(average=()), batches)
    self.assertEqual(
      got,
      without | {f'ema_{k}': of_average[k] for k in ('loss', 'accuracy')},
    )
    self.assertNotEqual(got['loss'], got['ema_loss'])

  @parameterized.parameters(0.0, 1.0, -0.5, float('nan'), '0.9', True)
  def test_refuses(self, decay):
    with self.assertRaisesRegex(ValueError, 'ema is .*; allowed: '):
      toys.classifier.__wrapped__('batch', ema=decay)


if __name__ == '__main__':
  absltest.main()
