"""What hidden vectors of many layers take of memory."""

import functools
import tracemalloc
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis, models, optim, types
from bn_jax.analysis import hidden
from bn_jax.training import problem
from tests.analysis import journal_test
from tests.fixtures import (
  strict,  # noqa: F401
  toys,
)

LAYERS, UNITS, EXAMPLES = 6, 256, 16
LAYER = 4 * UNITS * EXAMPLES  # bytes of one


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


@functools.cache
def network():
  """(a network of six equal layers, its state, twice the examples)."""
  module = models.make(
    'mlp', num_classes=3, norm='batch', hidden=(UNITS,) * LAYERS
  )
  made = problem.make(
    module, optim.sgd(optim.constant(learning_rate=0.1)), sampler=None,
    penalty=optim.weight_decay(weight_decay=0.0), image_shape=(8,),
    layers=models.layers, taps=models.taps(module),
  )  # fmt: skip
  x = np.random.default_rng(0).normal(size=(2 * EXAMPLES, 8))
  batch = types.Batch(np.float32(x), np.zeros(2 * EXAMPLES, np.int32))
  variables = module.init(jax.random.key(0), batch.images, statistics='running')
  state = (
    toys.classifier()
    .init(0)
    ._replace(params=variables['params'], batch_stats=variables['batch_stats'])
  )
  return made, state, batch


def with_room_for(layers):
  return mock.patch.object(hidden, '_ROOM', layers * LAYER + 1)


class MemoryTest(parameterized.TestCase):
  @parameterized.parameters((6, 1), (4, 2), (0.5, 6))
  def test_passes(self, room, passes):
    """Layers that have no room go through by themselves, to the same."""
    made, state, batch = network()
    whole = dict(hidden.of_problem(made, state, batch, 'batch', (), EXAMPLES))
    counted = journal_test.Counted(hidden._pass)
    counted.eval_shape = hidden._pass.eval_shape
    with mock.patch.object(hidden, '_pass', counted), with_room_for(room):
      got = dict(hidden.of_problem(made, state, batch, 'batch', (), EXAMPLES))
    self.assertEqual(counted.calls, passes)
    self.assertEqual(list(got), [f'dense{i + 1}' for i in range(LAYERS)])
    for name, value in whole.items():
      np.testing.assert_allclose(got[name], value, rtol=1e-6, atol=1e-6)

  def test_bytes_of_a_pass(self):
    """Of the examples that are kept, and of the layers that have room."""
    made, state, batch = network()
    section = dict(statistics='batch', layers=(), examples=EXAMPLES)
    with with_room_for(2):
      function, arguments = hidden.forward(made, state, batch, section)
    sizes = function.lower(*arguments).compile().memory_analysis()
    # Beside the arrays the bytes of a table of them.
    more = sizes.output_size_in_bytes - 2 * LAYER
    self.assertBetween(more, 0, 0.1 * LAYER)

  @parameterized.parameters('representations', 'cka')
  def test_float64_is_taken_in_blocks(self, name):
    function = getattr(analysis, name)
    x = np.random.default_rng(0).normal(size=(8, 50_000)) + 3
    layers = {'x': np.float32(x), 'y': np.float32(x**2)}
    want = function(layers)
    with mock.patch.object(hidden, '_BLOCK', 2**12):
      tracemalloc.start()
      self.addCleanup(tracemalloc.stop)
      got = function(layers)
      _, peak = tracemalloc.get_traced_memory()
    self.assertLess(peak, 0.1 * x.nbytes)
    for quantity, value in want.items():
      np.testing.assert_allclose(got[quantity], value, rtol=1e-10)


if __name__ == '__main__':
  absltest.main()
