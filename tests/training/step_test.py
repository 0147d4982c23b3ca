"""What is not finite enters no state, and is left out as often as it may be."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import norms, optim
from bn_jax.training import problem
from tests.fixtures import (
  faults,
  same_bits,
  strict,  # noqa: F401
  toys,
)

LAYOUTS = (('jit', 8), ('pmap', 8), ('shard_map', 8))


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


LEARNED = ('params', 'batch_stats', 'opt_state')


def learned(state):
  return [getattr(state, name) for name in LEARNED]


def trace_of(state):
  """The momentum of a state of `fragile`."""
  leaves = jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
  (found,) = (leaf for path, leaf in leaves if 'trace' in str(path))
  return found


def is_finite(state):
  kept = jax.tree.leaves(learned(state))
  return all(np.isfinite(leaf).all() for leaf in kept)


class FaultsTest(parameterized.TestCase):
  """One bad example in an epoch of three batches."""

  def setUp(self):
    super().setUp()
    self.bad = faults.bad_steps(9)
    self.assertLen(self.bad, 3)
    self.assertGreater(self.bad[0], 0)

  @parameterized.parameters(*faults.FAULTS)
  def test_stops_at_once(self, fault):
    step, state = faults.ready()
    first = self.bad[0]
    states = faults.run(step, state, faults.split(fault), first + 3)
    for t, now in enumerate(states):
      self.assertTrue(is_finite(now))
      self.assertEqual(now.step, min(t, first))
      self.assertEqual(now.finite, t <= first)
      self.assertEqual(now.skipped, 0)
    for later in states[first + 1 :]:
      same_bits.assert_same(learned(later), learned(states[first]))
      same_bits.assert_same(later.order, states[first].order)
    same_bits.assert_same(states[-1], states[first + 1])
    # A stream goes on; neither state nor row becomes that of another batch.
    same_bits.assert_same(
      step(states[-1], faults.split(faults.GOOD)), states[-1]
    )
    w, _, mean = faults.oracle(first, ())
    np.testing.assert_allclose(states[-1].params['w'], w, 1e-5)
    np.testing.assert_allclose(states[-1].batch_stats['mean'], mean, 1e-5)

  @parameterized.product(fault=faults.FAULTS, where=LAYOUTS)
  def test_leaves_out_what_it_may_and_no_more(self, fault, where):
    step, state = faults.ready(*where, max_skips=2)
    first, second, third = self.bad
    states = faults.run(step, state, faults.split(fault), third + 2)
    for t in (first, second):
      same_bits.assert_same(learned(states[t + 1]), learned(states[t]))
      same_bits.assert_same(states[t + 1].order, faults.batches(9)[1][t + 1])
    for t, now in enumerate(states):
      self.assertTrue(is_finite(now))
      self.assertEqual(now.step, min(t, third))
      self.assertEqual(now.finite, t <= third)
      self.assertEqual(now.skipped, (t > first) + (t > second))
    want = faults.oracle(third, self.bad)
    last = states[-1]
    got = last.params['w'], trace_of(last), last.batch_stats['mean']
    for a, b in zip(got, want, strict=True):
      np.testing.assert_allclose(a, b, 1e-5)

  def test_after_it_as_if_the_batch_had_not_been_seen(self):
    """Bit for bit: the state before it, one batch further on."""
    step, state = faults.ready(max_skips=2)
    _, bad, following = self.bad
    self.assertGreater(following, bad + 2)
    states = faults.run(step, state, faults.split(faults.GRADIENT), following)
    unseen = states[bad]._replace(
      step=states[bad].step + 1,
      order=faults.batches(9)[1][bad + 1],
      skipped=np.int32(2),
    )
    for t in range(bad + 1, following):
      unseen = step(unseen, faults.split(faults.GOOD))
      same_bits.assert_same(learned(states[t + 1]), learned(unseen))
      self.assertFalse(
        np.array_equal(states[t + 1].params['w'], states[t].params['w'])
      )

  @parameterized.parameters(*faults.FAULTS)
  def test_in_one_micro_batch(self, fault):
    first, second, _ = self.bad
    step, state = faults.ready(max_skips=1, micro_batches=4)
    states = faults.run(step, state, faults.split(fault), second + 1)
    for t in (first, second):
      same_bits.assert_same(learned(states[t + 1]), learned(states[t]))
      self.assertTrue(is_finite(states[t + 1]))
      self.assertEqual(states[t + 1].skipped, 1)
      self.assertEqual(states[t + 1].finite, t == first)

  def test_nothing_is_changed_where_all_is_finite(self):
    plain, skipping = (
      faults.run(
        *faults.ready(max_skips=max_skips), faults.split(faults.GOOD), 6
      )
      for max_skips in (None, 2)
    )
    for a, b in zip(plain, skipping):
      ring = dict(b.ring)
      np.testing.assert_array_equal(ring.pop('skipped'), 0)
      same_bits.assert_same(a, b._replace(ring=ring))
    np.testing.assert_allclose(
      plain[-1].params['w'], faults.oracle(6, ())[0], 1e-5
    )

  @parameterized.parameters(*faults.FAULTS)
  def test_all_devices_agree(self, fault):
    """Though the bad example lies on one of them."""
    step, state = faults.on_each_device()
    for _ in range(self.bad[1] + 1):
      there = step(state, faults.split(fault))
      for leaf in jax.tree.leaves(jax.device_get(there)):
        same_bits.assert_same(leaf, np.repeat(leaf[:1], 8, axis=0))
      state = jax.tree.map(lambda x: x[0], there)
    self.assertFalse(state.finite)
    self.assertEqual(state.skipped, 1)


class RowTest(absltest.TestCase):
  def test_it_counts_up_to_the_step_only_where_some_may_be_left_out(self):
    first, second, third = faults.bad_steps(9)
    step, state = faults.ready(max_skips=2)
    split = faults.split(faults.LOSS)
    ring = faults.run(step, state, split, third + 1)[-1].ring
    want = [(t >= first) + (t >= second) for t in range(third + 1)]
    np.testing.assert_array_equal(ring['skipped'][: third + 1], want)
    bad_T = np.isnan(ring['objective'][: third + 1])
    np.testing.assert_array_equal(
      np.flatnonzero(bad_T), faults.bad_steps(third + 1)
    )
    self.assertNotIn('skipped', faults.ready()[1].ring)

  def test_the_rate_is_that_of_the_update(self):
    """A schedule goes by what was updated; |dw| = rate |trace| says which."""
    step, state = faults.ready(max_skips=2)
    states = faults.run(step, state, faults.split(faults.LOSS), 7)
    applied = [t for t in range(7) if t not in faults.bad_steps(9)]
    for made, t in enumerate(applied):
      moved = states[t + 1].params['w'] - states[t].params['w']
      rate = states[-1].ring['learning_rate'][t]
      np.testing.assert_allclose(rate, faults.RATE * 0.5**made, 1e-6)
      np.testing.assert_allclose(-moved, rate * trace_of(states[t + 1]), 1e-3)


class NetworkTest(absltest.TestCase):
  def test_a_network_with_batch_norm(self):
    """A label beyond the classes: the loss is nan, statistics are finite."""
    made = problem.make(
      toys.Net(norms.make('batch')),
      optim.sgd(
        optim.constant(learning_rate=faults.RATE), momentum=faults.MOMENTUM
      ),
      sampler=faults.SAMPLER,
      penalty=optim.weight_decay(weight_decay=0.0),
      image_shape=(4, 4, 1),
      layers=lambda module, variables: module.layer_paths(),
      taps=(('conv1', 'norm1'),),
      ring_size=4,
      max_skips=1,
    )
    good = toys.split(faults.EXAMPLES)
    bad = good._replace(labels=jnp.full_like(good.labels, 3))
    step, state = jax.jit(made.step), made.init(0)
    for t, given in enumerate((good, bad, good, bad)):
      new = step(state, given)
      self.assertTrue(is_finite(new))
      self.assertEqual(int(new.skipped), t > 0)
      self.assertEqual(bool(new.finite), t < 3)
      moved = [
        bool((a != b).any())
        for name in LEARNED
        for a, b in zip(
          jax.tree.leaves(getattr(new, name)),
          jax.tree.leaves(getattr(state, name)),
        )
      ]
      self.assertEqual(any(moved), given is good)
      state = new
    self.assertEqual(float(made.learning_rate(state)), np.float32(faults.RATE))


if __name__ == '__main__':
  absltest.main()
