"""Traces: exact ones, and how often an interval holds them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import analysis, norms
from tests.analysis import journal_test
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)

KEYS = 200


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def _form(hessian, x):
  return 0.5 * x @ hessian @ x


def quadratic(hessian):
  """(a loss with this Hessian, its parameters)."""
  hessian = jnp.asarray(hessian, jnp.float32)
  return jax.tree_util.Partial(_form, hessian), jnp.zeros(len(hessian))


def rotated(values):
  """A matrix of these eigenvalues."""
  rng = np.random.default_rng(7)
  vectors = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
  return (vectors * values) @ vectors.T


def _network_loss(batch, statistics, params):
  x, labels = batch
  z = x @ params['hidden']
  if statistics is None:
    z, _ = norms.batch_norm(z, **params['norm'])
  else:
    mean, var = statistics
    z = (z - mean[None]) / jnp.sqrt(var + 1e-5)[None]
    z = z * params['norm']['scale'][None] + params['norm']['bias'][None]
  scores = jax.nn.log_softmax(jnp.tanh(z) @ params['out'])
  return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))


@functools.cache
def network(statistics='batch'):
  """(loss, params) of a network of 344 parameters after 100 steps."""
  keys = jax.random.split(jax.random.key(3), 4)
  labels = jax.random.randint(keys[3], (64,), 0, 4)
  x = jax.random.normal(keys[0], (64, 16)) + 0.6 * labels[:, None]
  params = {
    'hidden': jax.random.normal(keys[1], (16, 15)) / 4,
    'norm': {'scale': jnp.ones(15), 'bias': jnp.zeros(15)},
    'out': jax.random.normal(keys[2], (15, 4)) / 4,
  }
  loss = functools.partial(_network_loss, (x, labels))
  gradient = jax.jit(jax.grad(functools.partial(loss, None)))
  for _ in range(100):
    slope = gradient(params)
    params = jax.tree.map(lambda p, g: p - 0.5 * g, params, slope)
  z = x @ params['hidden']
  running = None if statistics == 'batch' else (1.1 * z.mean(0), 0.9 * z.var(0))
  return jax.tree_util.Partial(_network_loss, (x, labels), running), params


def hessian_of(loss, params):
  flat, unflatten = jax.flatten_util.ravel_pytree(params)
  return np.float64(jax.jit(jax.hessian(lambda x: loss(unflatten(x))))(flat))


@functools.cache
def matrices():
  """name -> an exact Hessian: of networks, and of other spectra."""
  rng = np.random.default_rng(5)
  return {
    'batch': hessian_of(*network('batch')),
    'running': hessian_of(*network('running')),
    'indefinite': rotated(np.r_[5, 3, -4, 0.3 * rng.normal(size=197)]),
    'outliers': rotated(np.r_[100, 30, 10, 0.1 * rng.normal(size=197)]),
    'signs': rotated(rng.choice([-1.0, 1], 200)),
    'geometric': rotated(0.9 ** np.arange(200)),
  }


class ExactTest(parameterized.TestCase):
  @parameterized.parameters('batch', 'running')
  def test_as_many_samples_as_parameters(self, statistics):
    loss, params = network(statistics)
    hessian = matrices()[statistics]
    before = jax.tree.map(np.array, params)
    layers = (('hidden', ('hidden', 'norm')), ('out', ('out',)))
    got = analysis.trace(loss, params, 400, squared=True, layers=layers)
    want = np.trace(hessian)
    np.testing.assert_allclose(got['trace'], want, rtol=1e-5)
    np.testing.assert_allclose(
      got['squared_trace'], (hessian**2).sum(), rtol=1e-5
    )
    blocks = np.trace(hessian[:270, :270]), np.trace(hessian[270:, 270:])
    np.testing.assert_allclose(got['layer_trace'], blocks, rtol=1e-5)
    for name in ('standard_error', 'squared_standard_error'):
      self.assertEqual(got[name], 0)
    self.assertEqual(got['low'], got['high'])
    self.assertEqual(got['products'], 330)
    same_bits.assert_same(jax.tree.map(np.array, params), before)

  def test_hutchinson_is_exact_for_a_diagonal(self):
    values = np.arange(-3.0, 17)
    got = analysis.trace(*quadratic(np.diag(values)), 5, squared=True)
    np.testing.assert_allclose(got['trace'], values.sum(), rtol=1e-6)
    np.testing.assert_allclose(
      got['squared_trace'], (values**2).sum(), rtol=1e-6
    )
    np.testing.assert_allclose(got['standard_error'], 0, atol=1e-5)

  @parameterized.parameters(np.float32, np.float64)
  def test_xtrace_is_exact_for_a_low_rank(self, dtype):
    """The basis then has the whole range, and ends before its 10 vectors."""
    with jax.enable_x64(dtype == np.float64):
      hessian = jnp.asarray(rotated(np.r_[4.0, -7, 1, np.zeros(57)]), dtype)
      loss = jax.tree_util.Partial(_form, hessian)
      got = analysis.trace(
        loss, jnp.zeros(60, dtype), 20, method='xtrace', squared=True
      )
    np.testing.assert_allclose(got['trace'], -2, rtol=1e-5)
    np.testing.assert_allclose(got['squared_trace'], 66, rtol=1e-5)
    np.testing.assert_allclose(got['standard_error'], 0, atol=1e-5)
    self.assertEqual(got['products'], 10 + 3)

  def test_xtrace_is_exact_for_the_identity(self):
    """What is left of every vector counts by its length."""
    got = analysis.trace(*quadratic(3 * np.eye(60)), 20, method='xtrace')
    np.testing.assert_allclose(got['trace'], 180, rtol=1e-5)
    np.testing.assert_allclose(got['standard_error'], 0, atol=1e-3)

  def test_zero_and_not_finite(self):
    for method in ('hutchinson', 'xtrace'):
      zero = analysis.trace(*quadratic(np.zeros((30, 30))), 10, method=method)
      self.assertEqual(zero['trace'], 0)
      self.assertEqual(zero['high'], 0)
      nan = np.full((30, 30), np.nan)
      got = analysis.trace(*quadratic(nan), 10, method=method, squared=True)
      for name in ('trace', 'low', 'squared_trace', 'squared_high'):
        self.assertTrue(np.isnan(got[name]), (method, name))


class CoverageTest(parameterized.TestCase):
  """Of 200 intervals of 95 %, 90 to 99 % hold the trace."""

  def check(self, name, method, samples, quantity='trace'):
    hessian = matrices()[name]
    want = {
      'trace': np.trace(hessian), 'squared_trace': (hessian**2).sum()
    }  # fmt: skip
    prefix = quantity.removesuffix('trace')
    loss, params = quadratic(hessian)
    inside, errors, estimates = 0, [], []
    for key in jax.random.split(jax.random.key(11), KEYS):
      got = analysis.trace(
        loss, params, samples, key, method=method, squared=bool(prefix)
      )
      low, high = got[f'{prefix}low'], got[f'{prefix}high']
      inside += low <= want[quantity] <= high
      errors.append(got[f'{prefix}standard_error'])
      estimates.append(got[quantity])
    message = f'{name} {method} {samples}: {inside} of {KEYS}'
    self.assertBetween(inside, 0.9 * KEYS, 0.99 * KEYS, message)
    # Without bias, and of the size that its error says.
    spread = np.std(estimates)
    self.assertLess(
      abs(np.mean(estimates) - want[quantity]), 4 * spread / KEYS**0.5
    )
    size = np.sqrt(np.mean(np.square(errors)))
    self.assertBetween(size / spread, 0.8, 2, message)
    return spread

  def test_30_products(self):
    xtrace = self.check('batch', 'xtrace', 30)
    hutchinson = self.check('batch', 'hutchinson', 30)
    self.assertLess(xtrace, 1.1 * hutchinson)

  @parameterized.product(
    name=('batch', 'running', 'indefinite', 'outliers', 'signs', 'geometric'),
    method=('hutchinson', 'xtrace'),
    samples=(20, 30, 60),
  )
  @pytest.mark.slow
  def test_others(self, name, method, samples):
    self.check(name, method, samples)

  @parameterized.product(
    name=('batch', 'running', 'indefinite'), method=('hutchinson', 'xtrace')
  )
  @pytest.mark.slow
  def test_of_the_square(self, name, method):
    self.check(name, method, 60, 'squared_trace')

  @pytest.mark.slow
  def test_of_layers(self):
    loss, params = network('batch')
    hessian = matrices()['batch']
    want = np.trace(hessian[:270, :270]), np.trace(hessian[270:, 270:])
    layers = (('hidden', ('hidden', 'norm')), ('out', ('out',)))
    inside = np.zeros(2)
    for key in jax.random.split(jax.random.key(11), KEYS):
      got = analysis.trace(loss, params, 20, key, layers=layers)
      inside += (got['layer_low'] <= want) & (want <= got['layer_high'])
    for count in inside:
      self.assertBetween(count, 0.9 * KEYS, 0.99 * KEYS)


class MethodTest(parameterized.TestCase):
  @parameterized.parameters((10, 'hutchinson'), (19, 'hutchinson'),
                            (20, 'xtrace'))  # fmt: skip
  def test_auto(self, samples, method):
    loss, params = quadratic(matrices()['indefinite'])
    look = functools.partial(analysis.trace, loss, params, samples)
    same_bits.assert_same(look(), look(method=method))

  def test_a_basis_that_is_too_large_is_not_kept(self):
    loss, params = quadratic(matrices()['indefinite'])
    with absltest.mock.patch.object(
      analysis._trace, '_XTRACE_NUMBERS', 15 * 200 - 1
    ):
      got = analysis.trace(loss, params, 30)
    want = analysis.trace(loss, params, 30, method='hutchinson')
    same_bits.assert_same(got, want)

  @parameterized.parameters(
    ({'samples': 1}, 'samples is 1; allowed: 2, 3, 4, '),
    ({'samples': 5, 'method': 'xtrace'}, 'samples is 5; allowed: 6, 7, 8, '),
    ({'method': 'xnystrace'}, "method is 'xnystrace'; allowed: auto"),
    ({'squared': 1}, 'squared is 1; allowed: True, False'),
    ({'layers': (('a', ('b',)),)}, "layer 'a' has no parameters"),
  )
  def test_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      analysis.trace(*quadratic(np.eye(3)), **keywords)


class MeasureTest(parameterized.TestCase):
  def test_blocks_and_layers(self):
    made = toys.classifier()
    state = made.init(0)
    batch = made.batch(state, toys.split())
    quantities = ('trace', 'standard_error', 'low', 'high')
    look = analysis.make('trace', samples=4, layers=('conv1', 'logits'))
    got = look(made, state, [batch])
    self.assertEqual(
      set(got),
      {*quantities, 'products'}
      | {f'{name}/{one}' for name in ('conv1', 'logits') for one in quantities},
    )
    # One set of vectors serves all: the parts add up to the whole.
    np.testing.assert_allclose(
      got['conv1/trace'] + got['logits/trace'], got['trace'], rtol=1e-5
    )
    self.assertEqual(got['products'], 4)
    same_bits.assert_same(look(made, state, [batch]), got)

  def test_layers_alone(self):
    made = toys.classifier()
    state = made.init(0)
    batch = made.batch(state, toys.split())
    look = analysis.make('trace', samples=4, blocks=(), layers=('logits',))
    got = look(made, state, [batch])
    self.assertIn('logits/trace', got)
    self.assertNotIn('trace', got)
    self.assertEqual(got['products'], 4)


class JournalTest(parameterized.TestCase):
  @parameterized.product(
    method=('hutchinson', 'xtrace'), left=(1, 4, 7), squared=(False, True)
  )
  def test_goes_on_to_the_same_bits(self, method, left, squared):
    def loss(params):  # with a convolution: vectors one after the other
      return (jnp.convolve(params, jnp.ones(3)) ** 4).sum()

    look = functools.partial(
      analysis.trace, loss, jnp.arange(1.0, 30), 8, method=method,
      squared=squared,
    )  # fmt: skip
    whole, journal = look(), journal_test.Journal()
    journal.left = left
    with self.assertRaises(journal_test.Killed):
      look(journal=journal)
    self.assertLen(journal, left)
    journal.left = None
    same_bits.assert_same(look(journal=journal), whole)
    self.assertLen(journal, 8)
    journal.left = 1  # what is kept is not computed again
    same_bits.assert_same(look(journal=journal), whole)


if __name__ == '__main__':
  absltest.main()
