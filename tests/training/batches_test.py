"""Whatever is done to a batch, the numbers do not depend on where it lies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import losses, norms, optim
from bn_jax.data.batches import augment, order
from bn_jax.training import devices as devices_lib
from bn_jax.training import problem
from tests.fixtures import (
  strict,  # noqa: F401
  toys,
)

BATCH, EXAMPLES = 16, 40


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def regression():
  """The small images, and targets of three numbers instead of labels."""
  split = toys.split(EXAMPLES)
  targets = jax.nn.one_hot(split.labels, 3) - 0.1
  return split._replace(labels=targets)


def batches(split):
  """The split drawn beforehand, as a stream would hand it over."""
  index = jnp.arange(BATCH)
  return split._replace(images=split.images[index], labels=split.labels[index])


CASES = {
  'sum': dict(loss=losses.squared_error(), rate=1e-3),
  'mean': dict(loss=losses.squared_error(reduction='mean'), rate=0.05),
  'augmented': dict(
    augmentation=augment.make(crop_padding=1, flip=True, photometric=0.5)
  ),
  'stream': dict(
    sampler=order.of_batches,
    augmentation=augment.make(crop_padding=1, flip=True),
  ),
}


def trained(case, layout='jit', devices=1, micro_batches=1):
  """Parameters after three steps, and the rows of their metrics."""
  case = {
    'loss': losses.cross_entropy(), 'rate': 0.1, 'sampler': order.sampler,
    'augmentation': augment.make(), **CASES[case],
  }  # fmt: skip
  mesh = devices_lib.mesh(devices)
  spread = devices_lib.spread(layout, mesh)
  made = problem.make(
    toys.Net(norms.make('batch', group_size=2, spread=spread), dropout=0.2),
    optim.sgd(optim.constant(learning_rate=case['rate']), momentum=0.9),
    sampler=case['sampler'](
      num_examples=EXAMPLES, batch_size=BATCH,
      augmentation=case['augmentation'],
    ),
    penalty=optim.weight_decay(weight_decay=0.01),
    image_shape=(4, 4, 1),
    layers=lambda module, variables: module.layer_paths(),
    taps=(('conv1', 'norm1'),),
    loss=case['loss'],
    ring_size=3,
    spread=spread,
    micro_batches=micro_batches,
  )  # fmt: skip
  classifies = case['loss'].classifies
  split = toys.split(EXAMPLES) if classifies else regression()
  if case['sampler'] is order.of_batches:
    split = batches(split)
  state = made.init(1)
  placement = devices_lib.placement(state, mesh, shard_state=False)
  step = devices_lib.step(layout, made.step, mesh, placement)
  state = jax.device_put(state, placement)
  split = jax.device_put(split, devices_lib.whole(mesh))
  for _ in range(3):
    state = step(state, split)
  return jax.device_get((state.params, state.batch_stats, state.ring))


@functools.cache
def alone(case):
  return trained(case)


class BatchesTest(parameterized.TestCase):
  def test_a_layout_devices_and_micro_batches_agree(self):
    self.compare('stream', 'pmap', 2, 2)

  @parameterized.product(
    case=tuple(CASES),
    where=(('jit', 4, 2), ('pmap', 2, 2), ('shard_map', 8, 1)),
  )
  @pytest.mark.slow
  def test_all_of_it(self, case, where):
    self.compare(case, *where)

  def compare(self, case, *where):
    got, want = trained(case, *where), alone(case)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)

  def test_a_sum_is_the_mean_times_the_batch(self):
    _, _, total = alone('sum')
    _, _, mean = alone('mean')
    np.testing.assert_allclose(
      total['data_loss'][0], BATCH * mean['data_loss'][0], rtol=1e-5
    )
    self.assertNotIn('accuracy', total)


if __name__ == '__main__':
  absltest.main()
