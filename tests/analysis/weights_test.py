import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis
from bn_jax.analysis.weights import kernels
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


LAYERS = (('second', ('b/c',)), ('first', ('a',)))


def looked(loss, params, new, layers=LAYERS, rate=0.1):
  return analysis.weights(loss, params, new, layers, rate)


class ClosedFormTest(parameterized.TestCase):
  def test_quadratic(self):
    """Each layer has its own part of w, of the gradient and of the step."""
    with jax.enable_x64(True):
      loss, params, hessian, slope = toys.quadratic()
      new = jax.tree.map(lambda w: w + 0.3 * jnp.cos(5 * w), params)
      got = looked(loss, params, new)
    x = toys.flat(params)
    gradient, after = hessian @ x + slope, x + 0.3 * np.cos(5 * x)
    for i, part in enumerate((slice(2, 6), slice(0, 2))):
      w, g, new_w = x[part], gradient[part], after[part]
      norm, gradient_norm = np.linalg.norm(w), np.linalg.norm(g)
      want = {
        'weight_norm': norm,
        'gradient_norm': gradient_norm,
        'radial': w @ g,
        'radial_cosine': w @ g / norm / gradient_norm,
        'effective_learning_rate': 0.1 / norm**2,
        'angular_update': np.arccos(w @ new_w / norm / np.linalg.norm(new_w)),
      }
      self.assertEqual(set(got), set(want))
      for name, number in want.items():
        self.assertEqual(got[name].shape, (2,))
        np.testing.assert_allclose(
          got[name][i], number, rtol=1e-9, err_msg=name
        )

  @parameterized.parameters(
    ([2.0, 0.0], 0.0),  # longer, and not turned
    ([1.0, 1.0], np.pi / 4),
    ([0.0, -3.0], np.pi / 2),
    ([-1.0, 1.0], 3 * np.pi / 4),
    ([-2.0, 0.0], np.pi),
  )
  def test_angles(self, new, want):
    got = looked(
      lambda p: p['a'].sum() + p['b']['c'].sum(),
      {'a': jnp.ones(1), 'b': {'c': jnp.array([1.0, 0.0])}},
      {'a': jnp.ones(1), 'b': {'c': jnp.array(new)}},
    )
    np.testing.assert_allclose(got['angular_update'], [want, 0], atol=1e-6)

  def test_a_small_angle_keeps_its_digits_in_float32(self):
    """By arccos of the cosine it would be 0, or 3e-4 and more."""
    w = jax.random.normal(jax.random.key(0), (1000,))
    across = jax.random.normal(jax.random.key(1), (1000,))
    params, new = ({'a': x, 'b': {'c': x}} for x in (w, w + 1e-5 * across))
    got = looked(lambda p: p['a'].sum() + p['b']['c'].sum(), params, new)
    w, new = np.float64(w), np.float64(new['a'])
    step = new - w
    along = step @ w / (w @ w)
    want = np.arctan2(np.linalg.norm(step - along * w), np.linalg.norm(w))
    np.testing.assert_allclose(got['angular_update'], want, rtol=1e-3)

  def test_zero_weights_have_no_direction(self):
    params = {'a': jnp.zeros(2), 'b': {'c': jnp.ones(3)}}
    got = looked(
      lambda p: p['a'].sum() ** 2 + p['b']['c'].sum(), params, params
    )
    for name in ('radial_cosine', 'effective_learning_rate', 'angular_update'):
      np.testing.assert_array_equal(np.isnan(got[name]), [False, True], name)

  def test_refuses(self):
    loss, params, *_ = toys.quadratic()
    with self.assertRaisesRegex(ValueError, "the step of 'a' has shape"):
      looked(loss, params, {**params, 'a': jnp.ones(3)})
    with self.assertRaisesRegex(ValueError, "unknown path 'd'"):
      looked(loss, params, params, (('first', ('d',)),))


class ScaleInvarianceTest(absltest.TestCase):
  def test_gradient_is_orthogonal_and_falls_with_the_length(self):
    """f(w / |w|): <w, g> = 0 and g(a w) = g(w) / a."""
    with jax.enable_x64(True):
      w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))
      far = jnp.arange(12.0).reshape(3, 4)

      def loss(params):
        unit = params['w'] / jnp.sqrt(jnp.sum(params['w'] ** 2))
        return jnp.sum(jnp.sin(unit * far))

      one, three = (
        looked(loss, {'w': a * w}, {'w': a * w}, (('w', ('w',)),))
        for a in (1.0, 3.0)
      )
    self.assertGreater(one['gradient_norm'][0], 0.1)
    np.testing.assert_allclose(one['radial'], 0, atol=1e-14)
    np.testing.assert_allclose(
      three['gradient_norm'], one['gradient_norm'] / 3, rtol=1e-12
    )
    np.testing.assert_allclose(
      three['effective_learning_rate'],
      one['effective_learning_rate'] / 9,
      rtol=1e-12,
    )

  def test_of_a_network(self):
    """A norm rescales what the convolution makes, and not the logits."""
    made = toys.classifier('batch', weight_decay=0.1)
    split = toys.split()
    state = made.init(0)
    batch = made.batch(state, split)
    got = analysis.make('weights')(made, state, [batch])
    self.assertLess(abs(got['conv1/radial_cosine']), 1e-3)
    self.assertGreater(abs(got['logits/radial_cosine']), 1e-2)

    after = toys.step(made)(state, split).params
    for layer in ('conv1', 'logits'):
      w, new = (
        np.float64(p[layer]['kernel']).ravel() for p in (state.params, after)
      )
      norm = np.linalg.norm(w)
      angle = np.arccos(w @ new / norm / np.linalg.norm(new))
      want = {
        'weight_norm': norm,
        'effective_learning_rate': 0.1 / norm**2,
        'angular_update': angle,
      }
      for name, number in want.items():
        np.testing.assert_allclose(
          got[f'{layer}/{name}'], number, rtol=1e-3, err_msg=name
        )

  def test_layers_of_a_network(self):
    made = toys.classifier('batch', weight_decay=0.1)
    state, batch = made.init(0), in_memory.first(toys.split(), 8)
    look = lambda layers: analysis.make('weights', layers=layers)(
      made, state, [batch]
    )
    self.assertEqual(
      {name.split('/')[0] for name in look(['logits'])}, {'logits'}
    )
    with self.assertRaisesRegex(ValueError, "unknown layer 'logit'; did you"):
      look(['logit'])

  def test_biases(self):
    made = toys.classifier('none')
    state, batch = made.init(0), in_memory.first(toys.split(), 8)
    params = jax.tree.map(lambda p: p + 0.1, state.params)
    state = state._replace(params=params)
    without = analysis.make('weights')(made, state, [batch])
    got = analysis.make('weights', biases=True)(made, state, [batch])
    for layer in ('conv1', 'logits'):
      bias = np.float64(params[layer]['bias'])
      norm = np.linalg.norm(bias)
      np.testing.assert_allclose(got.pop(f'{layer}/bias_norm'), norm, rtol=1e-6)
    self.assertEqual(set(got), set(without))
    with self.assertRaisesRegex(
      ValueError, 'biases is 2; allowed: True, False'
    ):
      analysis.make('weights', biases=2)

  def test_kernels_are_found_in_the_layers(self):
    params = {
      'block': {'conv': {'kernel': 1.0, 'bias': 2.0}, 'gate': {'kernel': 3.0}},
      'norm': {'scale': 4.0},
      'block2': {'kernel': 5.0},
    }
    layers = (('one', ('block', 'norm')), ('norm', ('norm',)))
    self.assertEqual(
      kernels(params, layers),
      (('one', ('block/conv/kernel', 'block/gate/kernel')),),
    )


if __name__ == '__main__':
  absltest.main()
