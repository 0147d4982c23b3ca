import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis
from bn_jax.data.batches import in_memory
from tests.fixtures import (
  strict,  # noqa: F401
  toys,
)


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


RATES = (0.001, 0.01, 0.1, 1.0)


class ClosedFormTest(parameterized.TestCase):
  @parameterized.parameters('gradient', 'tree', 'function')
  def test_quadratic(self, kind):
    with jax.enable_x64(True):
      loss, params, hessian, slope = toys.quadratic()
      x = toys.flat(params)
      gradient = hessian @ x + slope
      direction, d = {
        'gradient': (None, gradient),
        'tree': (jax.tree.map(jnp.cos, params), np.cos(x)),
        'function': (
          lambda g: jax.tree.map(lambda a: a**3, g),
          gradient**3,
        ),
      }[kind]
      got = analysis.one_step_loss(loss, params, RATES, direction)
    value = lambda x: 0.5 * x @ hessian @ x + slope @ x
    want = [value(x - rate * d) for rate in RATES]
    np.testing.assert_array_equal(got['learning_rate'], RATES)
    np.testing.assert_allclose(got['loss'], want, rtol=1e-12)
    np.testing.assert_allclose(got['loss_0'], value(x), rtol=1e-12)
    self.assertEqual({k: v.shape for k, v in got.items()}, {
      'learning_rate': (4,), 'loss': (4,), 'loss_0': (),
    })  # fmt: skip

  def test_descends_up_to_two_over_the_curvature(self):
    """A parabola with curvature h: down for rates below 2 / h, up above."""
    loss = lambda x: 0.5 * 8.0 * jnp.sum(x**2)
    got = analysis.one_step_loss(loss, jnp.ones(3), [0.2, 0.25, 0.3])
    self.assertLess(got['loss'][0], got['loss_0'])
    np.testing.assert_allclose(got['loss'][1], got['loss_0'], rtol=1e-6)
    self.assertGreater(got['loss'][2], got['loss_0'])

  def test_is_the_loss_along_the_gradient(self):
    loss, params, *_ = toys.quadratic()
    along = analysis.along_gradient(loss, params, RATES)
    got = analysis.one_step_loss(loss, params, RATES)
    np.testing.assert_allclose(got['loss'], along['loss'], rtol=1e-5)
    np.testing.assert_allclose(got['loss_0'], along['loss_0'], rtol=1e-6)

  def test_a_step_that_leaves_all_bounds_is_told(self):
    got = analysis.one_step_loss(
      lambda x: jnp.sum(jnp.exp(x**2)), jnp.ones(2), [0.1, 1e6]
    )
    self.assertTrue(np.isfinite(got['loss'][0]))
    self.assertEqual(got['loss'][1], np.inf)

  @parameterized.parameters(((),), ((0.0,),), ((1.0, -1.0),), ((np.inf,),))
  def test_refuses_rates(self, rates):
    with self.assertRaisesRegex(ValueError, 'learning_rates is.*each above 0'):
      analysis.one_step_loss(lambda x: x.sum(), jnp.ones(2), rates)
    with self.assertRaisesRegex(ValueError, 'learning_rates is.*each above 0'):
      analysis.make('one_step_loss', learning_rates=rates)

  def test_refuses_directions(self):
    loss, params, *_ = toys.quadratic()
    for direction in ({'a': params['a']}, lambda g: {'a': g['a']}):
      with self.assertRaisesRegex(ValueError, 'the direction is another tree'):
        analysis.one_step_loss(loss, params, RATES, direction)


class MeasureTest(absltest.TestCase):
  def test_of_a_network(self):
    """Its objective, penalty included, one step of plain descent away."""
    made = toys.classifier('batch', weight_decay=0.1)
    state, batch = made.init(0), in_memory.first(toys.split(), 8)
    look = analysis.make('one_step_loss', learning_rates=[0.1, 1.0])
    got = look(made, state, [batch])
    along = analysis.make('along_gradient', step_sizes=[0.1, 1.0])
    want = along(made, state, [batch])
    np.testing.assert_allclose(got['loss'], want['loss'], rtol=1e-5)
    np.testing.assert_array_equal(got['learning_rate'], want['step_size'])
    bare = made.loss(state, batch, 'batch', False)(state.params)
    kernels = [state.params[n]['kernel'] for n in ('conv1', 'logits')]
    penalty = 0.05 * sum(float((k**2).sum()) for k in kernels)
    self.assertAlmostEqual(
      float(got['loss_0']), float(bare) + penalty, places=5
    )


if __name__ == '__main__':
  absltest.main()
