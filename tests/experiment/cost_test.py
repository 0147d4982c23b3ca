"""What a step costs: counted from its program, compared with arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from jax import lax

from bn_jax import analysis, norms, optim
from bn_jax.experiment import cost
from bn_jax.training import devices as devices_lib
from bn_jax.training import step as step_lib
from tests.fixtures import (
  faults,
  layouts,
  strict,  # noqa: F401
)

_HLO = """
HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%inner (arg: (s32[], f32[4])) -> (s32[], f32[4]) {
  %r = f32[4]{0} all-reduce(%x), channel_id=1, to_apply=%add
}

%body (arg: (s32[], f32[4])) -> (s32[], f32[4]) {
  %w = (s32[], f32[4]) while(%t), condition=%c, body=%inner, \
backend_config={"known_trip_count":{"n":"3"}}
}

%c (arg: (s32[], f32[4])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%never (arg: f32[4]) -> f32[4] {
  %lost = f32[9]{0} all-gather(%x), dimensions={0}
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %a = (f32[4,9]{1,0}, bf16[3]{0}, /*index=2*/s32[]) all-reduce(%p, %q, %r), \
to_apply=%add
  %g = (f32[2]{0}, f32[16]{0}) all-gather-start(%p), dimensions={0}
  %h = f32[16]{0} all-gather-done(%g)
  %w = (s32[], f32[4]) while(%t), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"2"}}
}
"""


def setUpModule():
  # What is counted is what the optimizations of XLA leave of a program.
  jax.config.update('jax_disable_most_optimizations', False)


class CollectivesTest(parameterized.TestCase):
  def test_kinds_sizes_and_how_often(self):
    found = {c.kind + str(c.times): c for c in cost.collectives(_HLO)}
    self.assertEqual(
      found,
      {
        'all-reduce1': cost.Collective('all-reduce', (36, 3, 1), 154, 1),
        'all-gather1': cost.Collective('all-gather', (16,), 64, 1),
        'all-reduce6': cost.Collective('all-reduce', (4,), 16, 6),
      },
    )

  def test_gradients_and_two_numbers_a_channel_in_each_direction(self):
    self.check_collectives('jit')

  @parameterized.parameters('pmap', 'shard_map')
  @pytest.mark.slow
  def test_so_in_the_other_layouts(self, layout):
    self.check_collectives(layout)

  def check_collectives(self, layout):
    """The network has one norm over 4 channels; noise costs nothing."""
    norm = layouts.NORMS['noisy']
    step, state, split = layouts.ready(norm, layout, 8)
    found = cost.of(step.trace(state, split), state.params, 8)
    numbers = sum(sum(c.sizes) * c.times for c in found.collectives)
    scalars = sum(c.sizes.count(1) for c in found.collectives)
    self.assertEqual({c.kind for c in found.collectives}, {'all-reduce'})
    self.assertLessEqual(scalars, 6)
    # 8 of them are gradients too: the scale's and the bias's, which need not be
    # told twice.
    self.assertGreaterEqual(numbers - scalars, found.parameters + 2 * 4)
    self.assertLessEqual(numbers - scalars, found.parameters + 4 * 4)

  def test_groups_within_devices_tell_only_their_running_averages(self):
    norm = layouts.NORMS['groups']
    step, state, split = layouts.ready(norm, 'jit', 8)
    found = cost.of(step.trace(state, split), state.params, 8)
    numbers = sum(sum(c.sizes) for c in found.collectives)
    self.assertLessEqual(numbers, found.parameters + 2 * 4 + 6)

  def test_one_device_tells_nobody(self):
    step, state, split = layouts.ready({'name': 'batch'}, 'jit', 1)
    found = cost.of(step.trace(state, split), state.params, 1)
    self.assertEqual(found.collectives, ())
    self.assertEqual(found.parameters, 4 * 9 + 8 + 64 * 3 + 3)
    self.assertGreater(found.memory['arguments'], 4 * found.parameters)
    self.assertGreater(found.memory['temporaries'], 0)


class FlopsTest(parameterized.TestCase):
  @parameterized.product(
    layout=tuple(devices_lib.LAYOUTS), micro_batches=(1, 2)
  )
  def test_of_a_step(self, layout, micro_batches):
    """Forward, and twice that backward, but for the first layer's input."""
    forward = 9 * 4 * 16, 64 * 3  # multiplications of an example
    want = 2 * layouts.BATCH * (2 * forward[0] + 3 * forward[1])
    step, state, split = layouts.ready(
      {'name': 'batch'}, layout, 8, micro_batches=micro_batches
    )
    jaxpr = step.trace(state, split).jaxpr.jaxpr
    devices = 8 if cost.is_mapped(jaxpr) else 1
    self.assertEqual(cost.is_mapped(jaxpr), layout != 'jit')
    self.assertEqual(devices * cost.flops_of_products(jaxpr), want)

  def of(self, function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return cost.flops_of_products(jax.make_jaxpr(function)(*arrays).jaxpr)

  def test_products(self):
    product = lambda a, b: jnp.einsum('gij,gjk->gik', a, b)
    self.assertEqual(self.of(product, (5, 2, 3), (5, 3, 4)), 2 * 5 * 2 * 3 * 4)
    self.assertEqual(self.of(jnp.sin, (5, 2)), 0)

  @parameterized.parameters((1, 'SAME', 8 * 8), (2, 'VALID', 3 * 3))
  def test_convolutions(self, stride, padding, places):
    convolve = lambda x, kernel: lax.conv_general_dilated(
      x, kernel, (stride, stride), padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip
    got = self.of(convolve, (2, 8, 8, 5), (3, 3, 5, 7))
    self.assertEqual(got, 2 * 2 * places * 9 * 5 * 7)

  def test_loops_and_conditions(self):
    def loop(x):
      return lax.scan(lambda x, _: (x @ x, None), x, None, length=10)[0]

    def either(x):
      return lax.cond(x[0, 0] > 0, lambda: x, lambda: x @ x)

    self.assertEqual(self.of(loop, (4, 4)), 10 * 2 * 64)
    self.assertEqual(self.of(either, (4, 4)), 2 * 64)
    self.assertEqual(self.of(jax.jit(loop), (4, 4)), 10 * 2 * 64)


class BoundsTest(parameterized.TestCase):
  """What needs no clock: transfers, compilations, gradients, bytes."""

  def test_steps_speak_to_no_host_and_are_compiled_once(self):
    step, state, split = layouts.ready({'name': 'batch'}, 'jit', 1)
    state = step(state, split)
    with jax.transfer_guard('disallow'):
      for _ in range(3):
        state = step(state, split)
      self.assertEqual(step._cache_size(), 1)
      with self.assertRaisesRegex(jax.errors.JaxRuntimeError, 'Disallowed'):
        step(state._replace(step=np.int32(4)), split)

  @parameterized.parameters(4, 16, 64)
  def test_a_look_at_points_takes_a_gradient_each_and_one_more(self, points):
    forward = []

    def loss(params):
      jax.debug.callback(lambda: forward.append(1))
      return jnp.sum(jnp.tanh(params['w'] @ params['w']))

    params = {'w': jnp.eye(3) / 3}
    analysis.along_gradient(loss, params, np.linspace(0.1, 1, points))
    jax.effects_barrier()
    self.assertLen(forward, points + 1)

  def test_a_norm_reads_and_writes_its_maps_15_times(self):
    # Forward and backward; 9 if each pass did all that it can at once. On the
    # CPU 14.1 by XLA's own count, in which a fusion reads each operand once,
    # and 24.0 without a derivative of its own.
    x, scale, bias = jnp.zeros((64, 8, 8, 32)), jnp.ones(32), jnp.zeros(32)

    def passes(normalise):
      def both(x, scale, bias, dy):
        y, back = jax.vjp(normalise, x, scale, bias)
        return y, back(dy)

      program = jax.jit(both).lower(x, scale, bias, x).compile()
      return program.cost_analysis()['bytes accessed'] / x.nbytes

    def by_autodiff(x, scale, bias):
      mean = x.mean((0, 1, 2), keepdims=True)
      y = (x - mean) * lax.rsqrt(x.var((0, 1, 2), keepdims=True) + 1e-5)
      return y * scale[None, None, None] + bias[None, None, None]

    self.assertLessEqual(passes(lambda *a: norms.batch_norm(*a)[0]), 15)
    self.assertGreater(passes(by_autodiff), 20)

  def test_a_program_grows_with_its_arrays_and_not_with_their_square(self):
    # Whether all are finite was once part of the program of each: the step of
    # BN-Inception, which has 560 arrays, took 4 GB to compile.
    def lines(count):
      params = {f'w{i}': jnp.ones(3) for i in range(count)}
      optimizer = optim.sgd(optim.constant(learning_rate=0.1), momentum=0.9)

      def objective(params, stats, batch, key, first):
        loss = sum(jnp.square(batch.images @ w).sum() for w in params.values())
        return loss, {'data_loss': loss, 'penalty': 0.0, 'batch_stats': stats}

      step = step_lib.make(objective, optimizer, faults.SAMPLER)
      state = faults.begin(optim.sgd(lambda t: 0.1), None)._replace(
        params=params, batch_stats={}, opt_state=optimizer.init(params)
      )
      program = jax.jit(step).lower(state, faults.split(faults.GOOD)).compile()
      return len(program.as_text().splitlines())

    self.assertLess(lines(20), 1.6 * lines(10))


if __name__ == '__main__':
  absltest.main()
