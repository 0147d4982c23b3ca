"""What steps and measures make of optimizers that want more than a gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import analysis, optim
from tests.fixtures import (
  layouts,
  same_bits,
  strict,  # noqa: F401
  toys,
)

RATE = optim.constant(learning_rate=0.05)
SAM = optim.sam(RATE, rho=0.1, momentum=0.9)


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class SharpnessTest(parameterized.TestCase):
  def test_statistics_are_those_of_the_first_forward(self):
    """Bit for bit those of SGD's only one, from the same state."""
    made = toys.classifier('batch', optimizer=optim.sam(RATE, rho=0.5))
    plain = toys.classifier('batch', optimizer=optim.sgd(RATE))
    split, state = toys.split(), plain.init(0)
    for _ in range(4):
      one, other = toys.step(plain)(state, split), toys.step(made)(state, split)
      same_bits.assert_same(other.batch_stats, one.batch_stats)
      for name in ('objective', 'accuracy', 'gradient_norm'):
        same_bits.assert_same(other.ring[name], one.ring[name])
      kernels = [s.params['conv1']['kernel'] for s in (one, other)]
      self.assertGreater(np.abs(kernels[0] - kernels[1]).max(), 1e-5)
      state = other

  def test_the_update_by_hand(self):
    with jax.enable_x64(True):
      made = toys.classifier(
        'batch', optimizer=optim.sam(RATE, rho=0.5), weight_decay=0.1
      )
      split = toys.split()
      state = layouts.widened(made.init(0))
      batch = made.batch(state, split)
      gradient_of = jax.jit(jax.grad(made.loss(state, batch, 'batch')))
      g = gradient_of(state.params)
      norm = np.linalg.norm(toys.flat(g))
      point = jax.tree.map(lambda w, g: w + 0.5 * g / norm, state.params, g)
      want = jax.tree.map(
        lambda w, g: w - 0.05 * g, state.params, gradient_of(point)
      )
      after = toys.step(made)(state, split)
      np.testing.assert_allclose(
        toys.flat(after.params), toys.flat(want), rtol=1e-12, atol=1e-14
      )

  def test_on_eight_devices(self):
    self.check_layout('shard_map')

  @parameterized.parameters('jit', 'pmap')
  @pytest.mark.slow  # compiles a step
  def test_so_in_the_other_layouts(self, layout):
    self.check_layout(layout)

  def check_layout(self, layout):
    """With noise, dropout and weight decay: the same step in each layout."""
    with jax.enable_x64(True):
      want, got = self.trained('jit', 1), self.trained(layout, 8)
    layouts.assert_equal(got, want, 1e-9)

  @staticmethod
  @functools.cache
  def trained(*where):
    step, state, split = layouts.ready(
      layouts.NORMS['noisy'], *where, dtype=jnp.dtype('float64'),
      optimizer=SAM, ema=0.9,
    )  # fmt: skip
    for _ in range(2):
      state = step(state, split)
    return jax.device_get(state)

  def test_in_micro_batches(self):
    """Without statistics, parts are the whole batch."""
    with jax.enable_x64(True):
      states = []
      for micro_batches in (1, 4):
        step, state, split = layouts.ready(
          layouts.NORMS['none'], 'jit', 1, dtype=jnp.dtype('float64'),
          optimizer=SAM, micro_batches=micro_batches,
        )  # fmt: skip
        for _ in range(2):
          state = step(state, split)
        states.append(jax.device_get(state))
    layouts.assert_equal(states[1].params, states[0].params, 1e-9)


class MeasuresTest(parameterized.TestCase):
  @parameterized.parameters(
    ('muon', {}), ('sam', {}), ('sgd', dict(trainable='*norm*')),
    ('adamw', dict(rates={'*bias': 3.0}, clip_norm=0.1)),
  )  # fmt: skip
  def test_direction_update_leads_to_the_next_parameters(self, name, changes):
    self.check_direction(name, changes)

  @parameterized.parameters(*sorted(set(optim.OPTIMIZERS) - {'muon', 'sam'}))
  @pytest.mark.slow  # compiles a step and a look
  def test_so_by_the_others(self, name):
    self.check_direction(name, {})

  def check_direction(self, name, changes):
    optimizer = optim.within(optim.make(name, RATE), **changes)
    made = toys.classifier('batch', weight_decay=0.1, optimizer=optimizer)
    split, state = toys.split(), made.init(0)
    step = toys.step(made)
    for _ in range(2):
      state = step(state, split)
    batch = made.batch(state, split)
    look = analysis.make(
      'along_gradient', direction='update', step_factors=(1.0,)
    )
    after = step(state, split)
    want = made.loss(state, batch, 'batch')(after.params)
    got = look(made, state, [batch])
    np.testing.assert_allclose(got['loss'], [want], rtol=1e-5)
    self.assertNotAlmostEqual(float(got['loss_0']), float(want), places=4)

  def test_such_an_update_needs_a_look(self):
    made = toys.classifier('batch', optimizer=SAM)
    state = made.init(0)
    with self.assertRaisesRegex(ValueError, 'wants more.*; give look'):
      made.updates(state, state.params)

  @parameterized.parameters(
    ('adamw', {}, None), ('sam', {}, None), ('sgd', {'clip_norm': 1.0}, None),
    ('sgd', {}, 1.0), ('sgd', {'rates': {'conv1/*': 0.5, '*bias': 9.0}}, 0.5),
    ('sgd', {'trainable': '*norm*'}, 0.0),
  )  # fmt: skip
  def test_effective_rates(self, name, changes, factor):
    optimizer = optim.within(optim.make(name, RATE), **changes)
    made = toys.classifier('batch', optimizer=optimizer)
    state, split = made.init(0), toys.split()
    got = analysis.make('weights')(made, state, [made.batch(state, split)])
    self.assertIn('conv1/angular_update', got)
    rate = 'conv1/effective_learning_rate'
    self.assertEqual(rate in got, factor is not None)
    if factor is not None:
      norm = np.linalg.norm(np.float64(state.params['conv1']['kernel']))
      np.testing.assert_allclose(got[rate], factor * 0.05 / norm**2, rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
