"""Seeds that are trained together are what each is alone."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax.data.batches import order
from bn_jax.experiment import cost
from bn_jax.training import devices as devices_lib
from bn_jax.training import seeds
from tests.fixtures import (
  layouts,
  same_bits,
  strict,  # noqa: F401
  toys,
)

NORMS = {
  **layouts.NORMS,
  'lp': dict(name='l1'),
  'group': dict(name='group', num_groups=2),
  **layouts.OTHER_STATISTICS,
}
SEEDS = (0, 3, 7)
ALONE = devices_lib.mesh(1)


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


@functools.cache
def problem_of(norm, dtype='float32', **keywords):
  spread = devices_lib.spread('jit', ALONE)
  return layouts.make(NORMS[norm], spread, jnp.dtype(dtype), **keywords)


@functools.cache
def programs_of(norm, dtype='float32'):
  """(the problem, the step of one seed, (state, split, number) of several)."""
  problem = problem_of(norm, dtype)
  return problem, jax.jit(problem.step), seeds.steps(problem.step, ALONE)


def states_of(problem, numbers=SEEDS):
  return [layouts.widened(problem.init(seed)) for seed in numbers]


def trained(step, state, steps):
  split = toys.split(layouts.EXAMPLES)
  for _ in range(steps):
    state = step(state, split)
  return jax.device_get(state)


def trained_together(steps_of, states, *numbers):
  """The state of all after calls of so many steps each."""
  joined, split = seeds.joined(states, ALONE), toys.split(layouts.EXAMPLES)
  for number in numbers:
    joined = steps_of(joined, split, number)
  return jax.device_get(joined)


def of(states, number):
  return jax.tree.map(lambda leaf: leaf[number], states)


class SeedsTest(parameterized.TestCase):
  def compare(self, norm, steps, dtype='float64', tolerance=1e-9):
    with jax.enable_x64(dtype == 'float64'):
      problem, alone, together = programs_of(norm, dtype)
      got = trained_together(together, states_of(problem), steps)
      for i, state in enumerate(states_of(problem)):
        want = trained(alone, state, steps)
        layouts.assert_equal(of(got, i), want, tolerance)
        for exact in ('step', 'key', 'order', 'finite', 'skipped'):
          same_bits.assert_same(
            getattr(of(got, i), exact), getattr(want, exact)
          )

  def test_seven_steps(self):
    # More than two epochs of 40 examples in batches of 16, with dropout.
    self.compare('noisy', 7)

  @parameterized.parameters(*NORMS)
  @pytest.mark.slow
  def test_a_hundred_steps(self, norm):
    self.compare(norm, 100)

  def test_seeds_at_other_steps(self):
    """As after a kill: one goes on from step 5, the others from 2 and 0."""
    problem, alone, together = programs_of('batch')
    states = [
      trained(alone, state, steps)
      for state, steps in zip(states_of(problem), (5, 2, 0))
    ]
    got = trained_together(together, states, 4)
    for i, state in enumerate(states):
      want = trained(alone, state, 4)
      layouts.assert_equal(of(got, i), want, 1e-4)
      same_bits.assert_same(of(got, i).order, want.order)

  def test_one_that_diverges_harms_no_other(self):
    problem, _, together = programs_of('batch')
    states = states_of(problem)
    want = trained_together(together, states, 6)
    broken = states[1]._replace(
      params=jax.tree.map(lambda x: x * jnp.nan, states[1].params)
    )
    with jax.debug_nans(False):
      got = trained_together(together, [states[0], broken, states[2]], 6)
    same_bits.assert_same(got.finite, np.array([True, False, True]))
    same_bits.assert_same(got.step, np.array([6, 0, 6], np.int32))
    for i in (0, 2):
      same_bits.assert_same(of(got, i), of(want, i))
    same_bits.assert_same(of(got, 1).params, jax.device_get(broken.params))

  def test_neighbours_and_place_change_no_bit(self):
    problem, _, together = programs_of('batch')
    got = [
      trained_together(together, states_of(problem, numbers), 6)
      for numbers in (range(9), (8, 7, 9, 2, 3, 6, 10, 0, 4))  # three blocks
    ]
    for i, j in ((0, 7), (2, 3), (8, 0)):
      same_bits.assert_same(of(got[0], i), of(got[1], j))

  @parameterized.parameters(
    (3, 1, 3), (4, 1, 4), (5, 1, 6), (17, 1, 20), (32, 1, 32), (9, 8, 16),
    (40, 8, 48), (40, 8, 40, 'gpu'),
  )  # fmt: skip
  def test_all_blocks_are_as_large(self, count, devices, want, platform='cpu'):
    self.assertEqual(seeds.places(count, devices, platform), want)

  def test_the_division_into_calls_changes_no_bit(self):
    problem, _, together = programs_of('batch')
    got, want = (
      trained_together(together, states_of(problem), *numbers)
      for numbers in ((1, 3, 2), (6,))
    )
    same_bits.assert_same(got, want)

  def test_spread_over_devices(self, count=8):
    """Each device has whole seeds, and tells the others nothing."""
    problem, alone, _ = programs_of('batch')
    mesh = devices_lib.mesh(count)
    states = states_of(problem, range(count))
    steps = seeds.steps(problem.step, mesh)
    split = jax.device_put(
      toys.split(layouts.EXAMPLES), devices_lib.whole(mesh)
    )
    joined = seeds.joined(states, mesh)
    text = jax.jit(steps, static_argnums=2).lower(joined, split, 3)
    self.assertEmpty(list(cost.collectives(text.compile().as_text())))
    joined = steps(joined, split, 3)
    part = seeds.part(devices_lib.placement(states[0], mesh, shard_state=False))
    for i in (0, count - 1):
      want = trained(alone, states[i], 3)
      layouts.assert_equal(jax.device_get(part(joined, i)), want, 1e-4)

  def test_an_epoch_s_end_stays_a_condition(self):
    """No step but the last of an epoch permutes, however many the seeds."""
    # Without the choice by platform, which is a condition too.
    plain = mock.patch.object(
      order, '_permutation', lambda count, key, _: order.permutation(count, key)
    )
    with plain:
      sampler = order.sampler(num_examples=40, batch_size=16)
    keys = jax.random.split(jax.random.key(0), 3)
    orders = jax.vmap(sampler.init)(keys)
    jaxpr = jax.make_jaxpr(jax.vmap(sampler.draw))(orders, keys)
    self.assertIn('sort', str(jaxpr))
    names = list(_outside_conditions(jaxpr.jaxpr))
    self.assertIn('cond', names)
    self.assertNotIn('sort', names)


def _outside_conditions(jaxpr):
  """Yields the names of operations, and of those in jitted functions."""
  for equation in jaxpr.eqns:
    yield equation.primitive.name
    if equation.primitive.name == 'jit':
      yield from _outside_conditions(equation.params['jaxpr'].jaxpr)


if __name__ == '__main__':
  absltest.main()
