"""Rises of the loss within a radius: quadratics, and laws of invariance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis, norms
from bn_jax.data.batches import in_memory
from tests.analysis import journal_test
from tests.fixtures import (
  regression,
  same_bits,
  strict,  # noqa: F401
  toys,
)


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


RADII = (0.01, 0.3, 1.0)
KEY = np.zeros(2, np.uint32)


def largest_rise(hessian, gradient, radius):
  """max of g'd + d'Hd / 2 over |d| <= radius, H positive: the secular equation.

  (mu - H) d = g with |d| = radius, mu above the spectrum; by bisection.
  """
  values, vectors = np.linalg.eigh(hessian)
  g = vectors.T @ gradient
  low, high = values[-1], values[-1] + np.linalg.norm(g) / radius
  for _ in range(200):
    mu = (low + high) / 2
    low, high = (
      (mu, high) if np.linalg.norm(g / (mu - values)) > radius else (low, mu)
    )
  d = g / (high - values)
  return g @ d + 0.5 * d @ (values * d)


class QuadraticTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_one_step(self, adaptive):
    with jax.enable_x64(True):
      loss, params, hessian, slope = toys.quadratic()
      got = analysis.sharpness(loss, params, RADII, adaptive=adaptive)
    x = toys.flat(params)
    g, unit = hessian @ x + slope, np.abs(x) if adaptive else np.ones(6)
    step = unit**2 * g / np.linalg.norm(unit * g)
    want = [r * g @ step + 0.5 * r**2 * step @ hessian @ step for r in RADII]
    np.testing.assert_allclose(got['increase'], want, rtol=1e-9)
    np.testing.assert_allclose(got['radius'], RADII)
    np.testing.assert_allclose(got['loss'] - got['loss_0'], got['increase'])

  @parameterized.parameters(False, True)
  def test_more_steps_come_to_the_maximum(self, adaptive):
    with jax.enable_x64(True):
      loss, params, hessian, slope = toys.quadratic()
      look = functools.partial(
        analysis.sharpness, loss, params, RADII, adaptive=adaptive
      )
      got = [look(ascent_steps=n)['increase'] for n in (1, 2, 60)]
    x = toys.flat(params)
    unit = np.abs(x) if adaptive else np.ones(6)
    want = [
      largest_rise(
        unit[:, None] * hessian * unit, unit * (hessian @ x + slope), r
      )
      for r in RADII
    ]
    np.testing.assert_allclose(got[2], want, rtol=1e-6)
    self.assertTrue((got[0] <= got[1]).all() and (got[1] <= got[2]).all())
    self.assertGreater(want[-1], 1.0001 * got[0][-1])

  @parameterized.parameters(False, True)
  def test_average_of_a_diagonal(self, adaptive):
    """Its expectation is r^2 / 2 times the sum of h w^2, or of h."""
    h, w = np.array([1.0, 3.0, 10.0]), np.array([0.5, -2.0, 1.0])
    loss = lambda x: 0.5 * jnp.sum(jnp.asarray(h) * x**2) + jnp.sum(x)
    with jax.enable_x64(True):
      got = analysis.sharpness(
        loss, jnp.asarray(w), RADII, case='average', adaptive=adaptive,
        samples=200, key=KEY,
      )  # fmt: skip
    terms = h * w**2 if adaptive else h
    want = 0.5 * np.square(RADII) * terms.sum()
    # Var of h z^2 / 2: h^2 / 2; the slope is gone, so all radii are alike.
    error = np.square(RADII) * np.sqrt((terms**2).sum() / 2 / 200)
    np.testing.assert_allclose(got['standard_error'], error, rtol=0.25)
    off = (got['increase'] - want) / got['standard_error']
    self.assertLess(np.abs(off).max(), 3)
    np.testing.assert_allclose(off, off[0], rtol=1e-6)

  def test_one_sample_has_no_error(self):
    got = analysis.sharpness(
      lambda x: jnp.sum(x**2), jnp.ones(2), [0.1],
      case='average', samples=1, key=KEY,
    )  # fmt: skip
    self.assertTrue(np.isnan(got['standard_error']).all())
    self.assertTrue(np.isfinite(got['increase']).all())

  def test_weights_of_zero_stay(self):
    """In units of a weight of 0 there is no way."""
    loss = lambda w: 5.0 * w[0] + w[1]
    got = analysis.sharpness(loss, jnp.array([0.0, 2.0]), [0.5], adaptive=True)
    np.testing.assert_allclose(got['increase'], [0.5 * 2.0], rtol=1e-6)

  def test_at_a_point_without_slope_there_is_no_way_up(self):
    got = analysis.sharpness(lambda w: jnp.sum(w**2), jnp.zeros(2), [0.5])
    np.testing.assert_array_equal(got['increase'], [0])

  def test_a_rise_that_leaves_all_bounds_is_told(self):
    got = analysis.sharpness(
      lambda x: jnp.sum(jnp.exp(x**2)), jnp.ones(2), [0.1, 1e6]
    )
    self.assertTrue(np.isfinite(got['increase'][0]))
    self.assertEqual(got['increase'][1], np.inf)


def two_layers(batch, params):
  """A network that is positively homogeneous in each of its two layers."""
  x, y = batch
  made = jax.nn.relu(x @ params['w']) @ params['v']
  return jnp.mean((made - y) ** 2)


def normed(batch, params):
  x, y = batch
  x, _ = norms.batch_norm(
    x @ params['w'], params['scale'], params['bias'], epsilon=0.0
  )
  return jnp.mean((jnp.tanh(x) @ params['v'] - y) ** 2)


def data(seed=0):
  generator = np.random.default_rng(seed)
  batch = (
    jnp.asarray(generator.normal(size=(20, 3))),
    jnp.asarray(generator.normal(size=20)),
  )
  params = {
    'w': jnp.asarray(generator.normal(size=(3, 4))),
    'v': jnp.asarray(generator.normal(size=4)),
  }
  return batch, params


class InvarianceTest(parameterized.TestCase):
  """What leaves the function leaves the adaptive sharpness, and only that."""

  def rises(self, loss, params, **keywords):
    return analysis.sharpness(
      loss, params, (0.1, 0.5), key=KEY, **keywords
    )['increase']  # fmt: skip

  def test_worst_is_not_below_the_centre(self):
    """d = 0 is in the ball, also where the step goes past the top, down."""
    loss = lambda p: jnp.sin(10 * p['w']).sum()
    params = {'w': jnp.array([0.14])}
    got = analysis.sharpness(loss, params, [0.01, 0.5])
    self.assertGreater(got['increase'][0], 0)
    self.assertEqual(got['increase'][1], 0)
    self.assertEqual(got['loss'][1], got['loss_0'])
    nan = analysis.sharpness(lambda p: jnp.sqrt(-p['w']).sum(), params, [0.5])
    np.testing.assert_array_equal(nan['increase'], [np.nan])
    np.testing.assert_array_equal(nan['loss'], [np.nan])

  @parameterized.product(case=('worst', 'average'), steps=(1, 3))
  def test_of_two_layers(self, case, steps):
    with jax.enable_x64(True):
      batch, params = data()
      loss = jax.tree_util.Partial(two_layers, batch)
      # A factor for each hidden unit.
      a = jnp.array([0.1, 2.0, 5.0, 0.7])
      other = {'w': params['w'] * a[None], 'v': params['v'] / a}
      np.testing.assert_allclose(loss(params), loss(other))
      keywords = dict(case=case, ascent_steps=steps, samples=3)
      adaptive, plain = (
        [
          self.rises(loss, p, adaptive=adaptive, **keywords)
          for p in (params, other)
        ]
        for adaptive in (True, False)
      )
    np.testing.assert_allclose(*adaptive, rtol=1e-10)
    self.assertGreater(np.abs(plain[1] / plain[0] - 1).max(), 0.05)

  @parameterized.parameters('worst', 'average')
  def test_of_weights_before_a_norm(self, case):
    with jax.enable_x64(True):
      batch, params = data()
      params |= {'scale': jnp.ones(4), 'bias': jnp.full(4, 0.3)}
      loss = jax.tree_util.Partial(normed, batch)
      other = params | {'w': 7.0 * params['w']}
      adaptive, plain = (
        [self.rises(loss, p, case=case, adaptive=a) for p in (params, other)]
        for a in (True, False)
      )
    np.testing.assert_allclose(*adaptive, rtol=1e-9)
    self.assertGreater(np.abs(plain[1] / plain[0] - 1).max(), 0.05)


class MeasureTest(parameterized.TestCase):
  def test_refuses(self):
    for keywords, said in (
      (dict(radii=()), 'radii is'), (dict(radii=(0.0,)), 'each above 0'),
      (dict(case='mean'), "case is 'mean'; allowed: worst, average"),
      (dict(ascent_steps=0), 'ascent_steps is 0'),
      (dict(samples=0), 'samples is 0'), (dict(adaptive=1), 'adaptive is 1'),
    ):  # fmt: skip
      with self.assertRaisesRegex(ValueError, said):
        analysis.sharpness(jnp.sum, jnp.ones(2), **keywords)
      with self.assertRaisesRegex(ValueError, said):
        analysis.make('sharpness', **keywords)
    with self.assertRaisesRegex(ValueError, "'average'; give a key"):
      analysis.sharpness(jnp.sum, jnp.ones(2), case='average')

  @parameterized.parameters('worst', 'average')
  def test_of_a_network(self, case):
    """The data loss by default, in both statistics; another key a step."""
    made = toys.classifier('batch', weight_decay=0.1)
    state, batch = made.init(0), in_memory.first(toys.split(), 8)
    look = analysis.make('sharpness', case=case, samples=2, radii=(0.1,))
    got = look(made, state, [batch])
    np.testing.assert_allclose(
      got['loss_0'], made.loss(state, batch, 'batch', False)(state.params),
      rtol=1e-5,
    )  # fmt: skip
    later = look(made, state._replace(step=state.step + 1), [batch])
    same = bool(got['increase'] == later['increase'])
    self.assertEqual(same, case == 'worst')
    running = analysis.make(
      'sharpness', case=case, samples=2, radii=(0.1,), statistics='running'
    )(made, state, [batch])
    self.assertNotAlmostEqual(
      float(running['increase'][0]), float(got['increase'][0]), places=4
    )

  @parameterized.parameters(
    dict(case='worst', ascent_steps=2), dict(case='average', samples=2)
  )
  def test_goes_on_to_the_same_bits(self, **keywords):
    error, batch, params = regression.regression()
    loss = analysis.chunked(error, batch, chunk_size=5, group_size=1)
    look = functools.partial(
      analysis.sharpness, loss, params, (0.1, 0.5), key=KEY, **keywords
    )
    whole, journal = look(), journal_test.Journal()
    journal.left = 1000
    look(journal=journal)
    times = 1000 - journal.left
    self.assertGreater(times, 8)
    for left in range(1, times + 1, 3):
      journal = journal_test.Journal()
      journal.left = left
      with self.assertRaises(journal_test.Killed):
        look(journal=journal)
      journal.left = None
      counted, patches = journal_test.counting()
      with patches[0], patches[1], patches[2]:
        got = look(journal=journal)
      self.assertEqual(sum(one.calls for one in counted), times - left)
      same_bits.assert_same(got, whole)


if __name__ == '__main__':
  absltest.main()
