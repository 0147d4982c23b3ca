"""Eigenvalues at the ends of a spectrum, against dense matrices."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import analysis
from bn_jax.analysis.curvature import blocks, extremes, krylov, operators
from tests.analysis import journal_test, programs_test
from tests.analysis.curvature import operators_test
from tests.fixtures import (
  curved,
  same_bits,
  strict,  # noqa: F401
)

GENERATOR = np.random.default_rng(0)
# name -> (the diagonal, k): what the method has to come through.
DIAGONALS = {
  'an_outlier': (np.r_[100, GENERATOR.uniform(0, 1, 299)], 1),
  'restarted': (np.r_[np.linspace(-1, 1, 300)], 2),
  'twice': (np.r_[5.0, 5, GENERATOR.uniform(0, 3, 198)], 3),
  'three_values': (np.r_[np.repeat([5.0, 3, 1], 33), 7], 4),
  'none_but_zero': (np.zeros(60), 3),
  'the_unit': (np.ones(60), 3),
  'of_rank_two': (np.r_[np.zeros(90), 4, 2], 4),
  'negative': (-np.arange(100.0), 2),
  'all_of_five': (np.arange(5.0) - 2, 5),
  'one': (np.array([3.0]), 1),
}


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def quadratic(diagonal):
  """(loss, params) whose Hessian is diagonal."""
  diagonal = jnp.asarray(diagonal)
  loss = lambda params: 0.5 * jnp.sum(diagonal * params['x'] ** 2)
  return loss, {'x': jnp.ones(len(diagonal))}


class DiagonalTest(parameterized.TestCase):
  @parameterized.parameters(*DIAGONALS)
  def test_both_ends(self, name):
    diagonal, k = DIAGONALS[name]
    with jax.enable_x64(True):
      loss, params = quadratic(diagonal)
      got = analysis.top_eigenvalues(
        loss, params, k, 1e-6, ends='both', most_products=500
      )
    want = np.sort(diagonal)
    scale = max(np.abs(want).max(), 1e-9)
    np.testing.assert_allclose(
      got['eigenvalues'], want[::-1][:k], atol=1e-9 * scale
    )
    np.testing.assert_allclose(
      got['smallest_eigenvalues'], want[:k], atol=1e-9 * scale
    )
    self.assertTrue(got['converged'].all() and got['smallest_converged'].all())
    self.assertLessEqual(got['residuals'].max(), 1e-6 * scale)

  def test_what_overflows_has_not_converged(self):
    """The length of a product with 1e20 is no number of float32."""
    diagonal = jnp.array([1e20, 1, 1, 1], jnp.float32)
    got = analysis.top_eigenvalues(
      lambda p: jnp.sum(diagonal * p * p) / 2, jnp.ones(4)
    )
    self.assertFalse(got['converged'].any())

  def test_products_are_few_and_counted(self):
    calls = []
    operator = operators.hessian(*quadratic(DIAGONALS['an_outlier'][0]))
    counted = operator._replace(
      product=lambda v: calls.append(v) or operator.product(v), linearise=None
    )
    pairs, steps, products = extremes.pairs(
      counted, jnp.ones(300), jax.random.key(0), is_random=True,
      count=1, ends=('largest',), tolerance=1e-3, most_products=100,
    )  # fmt: skip
    self.assertTrue(pairs['largest'].converged.all())
    self.assertEqual(products, len(calls))
    self.assertEqual(steps, products)
    self.assertLess(products, 8)

  def test_a_start_in_a_space_of_its_own_misses_nothing(self):
    loss, params = quadratic((5.0, 3.0, 1.0, -2.0))
    got = analysis.top_eigenvalues(
      loss, params, start={'x': jnp.array([0.0, 1.0, 0.0, 0.0])}
    )
    np.testing.assert_allclose(got['eigenvalues'], [5], rtol=1e-6)

  def test_few_steps_are_no_convergence(self):
    """A start with a small share of the outlier looks converged at once."""
    values = np.r_[np.zeros(500), np.ones(500), 1.5]
    operator = operators.hessian(*quadratic(values))
    pairs, *_ = extremes.pairs(
      operator._replace(linearise=None), jnp.ones(1001), jax.random.key(0),
      is_random=True, count=1, ends=('largest',), tolerance=0.03,
      most_products=100,
    )  # fmt: skip
    np.testing.assert_allclose(pairs['largest'].values, [1.5], rtol=0.03)

  def test_a_double_value_does_not_spend_the_budget(self):
    """In a space that does not end; both copies come out."""
    first = [2.05, 1.95, 1.85, 1.81, 1.68, 1.68]
    loss, params = quadratic(np.r_[first, 1.55 * 0.96 ** np.arange(300)])
    got = analysis.top_eigenvalues(loss, params, 6, 1e-3)
    np.testing.assert_allclose(got['eigenvalues'], first, 1e-4)
    self.assertLess(got['products'], 100)

  def test_a_journal_has_every_step(self):
    """Broken off after any product, it goes on to the same bits."""
    with jax.enable_x64(True):
      loss, params = quadratic(DIAGONALS['restarted'][0])
      operator = operators.hessian(loss, params)
      calls = []
      counted = operator._replace(
        product=lambda v: calls.append(v) or operator.product(v), linearise=None
      )
      look = functools.partial(
        extremes.pairs, counted, krylov.random(operator, jax.random.key(1), 0),
        jax.random.key(0), is_random=True, count=2, ends=('largest',),
        tolerance=1e-4, most_products=70,
      )  # fmt: skip
      whole, steps, products = look()
      self.assertEqual(len(calls), products)
      self.assertGreater(steps, 40)  # so that the basis was restarted
      for stores_last, left in ((True, 3), (False, steps - 2)):
        journal = journal_test.Journal()
        journal.left, journal.stores_last = left, stores_last
        with self.assertRaises(journal_test.Killed):
          look(journal=journal)
        calls.clear()
        journal.left = None
        got, *_ = look(journal=journal)
        same_bits.assert_same(got, whole)
        self.assertLen(calls, products - left + (not stores_last))

  def test_what_a_disk_should_not_hold_is_not_kept(self):
    loss, params = quadratic(np.arange(50.0))
    operator = operators.hessian(loss, params)._replace(linearise=None)
    journal = journal_test.Journal()
    with mock.patch.object(krylov, '_KEPT', 4 * 50 * 4):
      extremes.pairs(
        operator, jnp.ones(50), jax.random.key(0), is_random=True, count=1,
        ends=('largest',), tolerance=1e-4, most_products=70, journal=journal,
      )  # fmt: skip
    self.assertEqual(set(journal), {f'step_{k}' for k in range(4)})

  @parameterized.parameters(True, False)
  def test_residuals_are_those_of_products(self, is_small):
    """Without a product of their own, but for rounding; with one else."""
    loss, params = quadratic(GENERATOR.uniform(-1, 1, 400))
    operator = operators.hessian(loss, params)
    if not is_small:
      operator = operator._replace(linearise=None)
    look = functools.partial(
      extremes.pairs, start=jnp.cos(jnp.arange(400.0)), key=jax.random.key(0),
      is_random=True, count=1, ends=('largest', 'smallest'), tolerance=1e-2,
      most_products=70,
    )  # fmt: skip
    got, steps, products = look(operator)
    self.assertEqual(steps, products)
    want, steps, products = look(operator._replace(is_exact=False))
    self.assertEqual(products, steps + 2)
    for end in got:
      for name in ('values', 'residuals'):
        np.testing.assert_allclose(
          getattr(got[end], name), getattr(want[end], name), rtol=0, atol=1e-6
        )
      same_bits.assert_same(got[end].vectors, want[end].vectors)
      self.assertGreater(got[end].residuals[0], 1e-4)

  def test_a_network_in_bfloat16_is_not_exact(self):
    half = lambda p: jnp.sum(jnp.square(p['x'].astype(jnp.bfloat16)))
    params = {'x': jnp.ones(5)}
    whole, _ = quadratic(np.ones(5))
    self.assertTrue(operators.hessian(whole, params).is_exact)
    self.assertFalse(
      operators.hessian(lambda p: half(p).astype(jnp.float32), params).is_exact
    )

  def test_memory_is_that_of_the_basis(self):
    """With its restarts, and with pairs of both ends in the end."""
    size = 2**17
    diagonal = np.linspace(-1, 1, size)
    operator = operators.hessian(*quadratic(diagonal))
    live = []

    def product(v):
      arrays = {id(x): x.nbytes for x in jax.live_arrays()}
      live.append(sum(arrays.values()))
      return operator.product(v)

    before = sum(x.nbytes for x in jax.live_arrays())
    extremes.pairs(
      operator._replace(product=product, linearise=None),
      jnp.ones(size), jax.random.key(0), is_random=True, count=1,
      ends=('largest', 'smallest'), tolerance=1e-5, most_products=50,
    )  # fmt: skip
    vectors = (max(live) - before) / (4 * size)
    self.assertLen(live, 50)
    # Beside 40 rows: a start, the next row, what a product needs.
    self.assertBetween(vectors, 40, 46)
    blocks = tuple(
      jax.ShapeDtypeStruct((8, size), jnp.float32) for _ in '12345'
    )
    rows = jax.ShapeDtypeStruct((20, 40), jnp.float32)
    memory = krylov._replaced.lower(blocks, rows).compile().memory_analysis()
    self.assertEqual(memory.alias_size_in_bytes, 40 * 4 * size)
    self.assertLess(memory.temp_size_in_bytes, 6 * 40 * 4 * krylov._COLUMNS)

  def test_a_spent_budget_is_told(self):
    with jax.enable_x64(True):
      loss, params = quadratic(DIAGONALS['restarted'][0])
      got = analysis.top_eigenvalues(
        loss, params, 2, eigenvectors=True, most_products=12
      )
    self.assertEqual(got['products'], 12)
    self.assertFalse(got['converged'].any())
    # The residuals are true, and the bound that they give holds.
    for value, residual, vector in zip(
      got['eigenvalues'], got['residuals'], got['eigenvectors']
    ):
      diagonal, v = DIAGONALS['restarted'][0], np.asarray(vector['x'])
      np.testing.assert_allclose(np.linalg.norm(v), 1)
      np.testing.assert_allclose(
        np.linalg.norm(diagonal * v - value * v), residual
      )
      self.assertLess(np.abs(diagonal - value).min(), residual)

  def test_a_matrix_that_is_not_finite_is_nan(self):
    got = analysis.top_eigenvalues(lambda p: jnp.nan * p['x'] @ p['x'],
                                   {'x': jnp.ones(30)}, 2)  # fmt: skip
    self.assertTrue(np.isnan(got['eigenvalues']).all())
    self.assertFalse(got['converged'].any())

  def test_one_key_gives_one_result(self):
    loss, params = quadratic(DIAGONALS['restarted'][0])
    look = functools.partial(
      analysis.top_eigenvalues, loss, params, most_products=9
    )
    one, same, other = (look(key=jax.random.key(i)) for i in (0, 0, 1))
    same_bits.assert_same(one, same)
    self.assertNotEqual(one['residuals'], other['residuals'])
    start = {'x': jnp.zeros(300).at[-1].set(2.0)}
    exact = look(start=start)
    np.testing.assert_allclose(exact['eigenvalues'], 1, rtol=1e-6)
    self.assertLess(exact['residuals'], 1e-6)

  def test_share_of_the_gradient(self):
    """Of |g|^2 in the span: here along the axes of the largest values."""
    with jax.enable_x64(True):
      loss, params = quadratic([4.0, 3.0, 2.0, 1.0])
      got = analysis.top_eigenvalues(loss, params, 2, 1e-9)
    np.testing.assert_allclose(got['gradient_share'], 25 / 30)


class NetworkTest(parameterized.TestCase):
  @parameterized.product(
    statistics=curved.STATISTICS, matrix=('hessian', 'gauss_newton')
  )
  def test_equals_the_dense_one(self, statistics, matrix):
    with jax.enable_x64(True):
      exact = curved.exact(statistics)
      dense = getattr(exact, matrix)
      before = jax.device_get(exact.state)
      got = analysis.top_eigenvalues(
        exact.split, exact.state.params, 3, 1e-9,
        ends='both', matrix=matrix, eigenvectors=True, most_products=999,
      )  # fmt: skip
      same_bits.assert_same(jax.device_get(exact.state), before)
      values = np.linalg.eigvalsh(dense)
      np.testing.assert_allclose(got['eigenvalues'], values[::-1][:3], 1e-5)
      np.testing.assert_allclose(
        got['smallest_eigenvalues'], values[:3], 1e-5, 1e-8 * values[-1]
      )
      operator = operators.hessian(exact.loss, exact.state.params)
      vectors = np.array([operator.flatten(v) for v in got['eigenvectors']])
      np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-8)
      residuals = vectors @ dense - got['eigenvalues'][:, None] * vectors
      self.assertLess(np.abs(residuals).max(), 1e-6 * values[-1])
      along = vectors @ exact.gradient
      share = along @ along / (exact.gradient @ exact.gradient)
      np.testing.assert_allclose(got['gradient_share'], share, rtol=1e-6)

  def test_a_record_of_blocks(self):
    look = analysis.make(
      'top_eigenvalues', k=2, blocks=('norms',), layers=('logits',),
      ends='both', tolerance=1e-9, most_products=999,
    )  # fmt: skip
    with jax.enable_x64(True):
      exact = curved.exact('batch')
      before = jax.device_get((exact.state, exact.batch))
      got = look(exact.problem, exact.state, [exact.batch])
      same_bits.assert_same(jax.device_get((exact.state, exact.batch)), before)
      operator = operators.hessian(exact.loss, exact.state.params)
      numbers = np.asarray(
        operator.flatten(
          jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full(
              leaf.shape,
              'norm' in str(path) or 2 * ('logits' in str(path)),
              jnp.float64,
            ),
            exact.state.params,
          )
        )
      )
    for prefix, rows in (
      ('norms/', numbers == 1), ('logits/', numbers == 2),
    ):  # fmt: skip
      values = np.linalg.eigvalsh(exact.hessian[np.ix_(rows, rows)])
      np.testing.assert_allclose(
        got[f'{prefix}eigenvalues'], values[::-1][:2], 1e-5
      )
      np.testing.assert_allclose(got[f'{prefix}sharpness'], values[-1], 1e-5)
      np.testing.assert_allclose(
        got[f'{prefix}smallest_eigenvalues'],
        values[:2],
        1e-5,
        1e-8 * values[-1],
      )
      self.assertEqual(got[f'{prefix}converged'].tolist(), [1.0, 1.0])

  def test_sharpness_of_normalised_kernels(self):
    """A kernel before a norm, three times as long: the same function."""
    look = analysis.make(
      'top_eigenvalues', blocks=(), layers=('logits', 'conv1'),
      normalised=True, penalised=False, tolerance=1e-9, most_products=999,
    )  # fmt: skip
    with jax.enable_x64(True):
      exact = curved.exact('batch')
      state, params = exact.state, exact.state.params
      longer = {
        **params,
        'conv1': {**params['conv1'], 'kernel': 3 * params['conv1']['kernel']},
      }
      one, other = (
        look(exact.problem, state._replace(params=p), [exact.batch])
        for p in (params, longer)
      )
      operator = operators.hessian(exact.loss, params)
      numbers = operator.unflatten(jnp.arange(float(operator.size)))
    for layer in ('conv1', 'logits'):
      rows = np.ravel(numbers[layer]['kernel']).astype(int)
      values = np.linalg.eigvalsh(exact.hessian[np.ix_(rows, rows)])
      length = np.linalg.norm(params[layer]['kernel'])
      # Weight decay of 0.1 adds itself to each direction.
      want = (values[-1] - 0.1) * length**2
      got = one[f'{layer}/normalised_sharpness']
      np.testing.assert_allclose(got, want, 1e-6)
      self.assertEqual(one[f'{layer}/normalised_converged'], 1)
    name = 'conv1/normalised_sharpness'
    # The norm's epsilon is what is left.
    np.testing.assert_allclose(other[name], one[name], 1e-3)
    self.assertGreater(one['conv1/sharpness'] / other['conv1/sharpness'], 1.5)

  @pytest.mark.slow  # compiles two networks; the products are tested fast
  def test_of_eight_devices_as_of_one(self):
    look = analysis.make('top_eigenvalues', k=2, tolerance=1e-6)
    with jax.enable_x64(True):
      one, eight = (
        look(problem, state, [batch])
        for problem, state, batch in map(operators_test.laid, (1, 8))
      )
    np.testing.assert_allclose(one['eigenvalues'], eight['eigenvalues'], 1e-8)
    self.assertEqual(one['products'], eight['products'])

  def test_what_a_journal_has_is_not_computed_again(self):
    exact = curved.exact('running')
    look = analysis.make(
      'top_eigenvalues', blocks=('all', 'others'), statistics='running'
    )
    journal = journal_test.Journal()
    with jax.enable_x64(True):
      got = look(exact.problem, exact.state, [exact.batch], journal)
      self.assertEqual(set(journal), {'all', 'others'})
      del journal['others']
      journal['all']['eigenvalues'] = np.array([-1.0])
      again = look(exact.problem, exact.state, [exact.batch], journal)
    self.assertEqual(again['sharpness'], -1)
    same_bits.assert_same(again['others/sharpness'], got['others/sharpness'])


@functools.cache
def of_plain():
  program = programs_test.plain()
  loss = jax.tree_util.Partial(
    program.loss_of, program.kept, programs_test.batch(0)
  )
  return analysis.top_eigenvalues(loss, program.params)


class ProgramsTest(parameterized.TestCase):
  @parameterized.parameters('linen', 'flax_nnx', 'equinox')
  def test_of_any_library(self, name):
    program = getattr(programs_test, name)()
    loss = jax.tree_util.Partial(
      program.loss_of, program.kept, programs_test.batch(0)
    )
    before = programs_test.bits(program.owned)
    got = analysis.top_eigenvalues(loss, program.params)
    self.assertTrue(got['converged'].all())
    want = of_plain()
    np.testing.assert_allclose(got['eigenvalues'], want['eigenvalues'], 1e-3)
    same_bits.assert_same(programs_test.bits(program.owned), before)


def callback_in_its_gradient():
  @jax.custom_vjp
  def total(w):
    return w @ w

  def backwards(w, g):
    double = jax.pure_callback(lambda w: 2 * w, jax.typeof(w), w)
    return (g * double,)

  total.defvjp(lambda w: (w @ w, w), backwards)
  return lambda params: total(params['x'])


def loop(params):
  return jax.lax.while_loop(
    lambda carry: carry[1] < params['x'].max(),
    lambda carry: (2 * carry[0], carry[1] + 1),
    (params['x'].sum(), 0.0),
  )[0]


class RefusedTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(k=4), 'k is 4; allowed: 1 to 3, the number of parameters$'),
    (dict(k=0), 'k is 0; allowed: '),
    (
      dict(k=2, block=analysis.Block('b', ('x/0',))),
      "k is 2; .*1 to 1, .* of block 'b'",
    ),
    (dict(k=500), 'k is 500; allowed: 1 to 3'),  # before most_products
    (dict(block='x'), "block is 'x'; allowed: None, for all, or a Block"),
    (dict(start=[jnp.zeros(())] * 3), 'the start has norm 0; allowed: above 0'),
    (dict(start=[jnp.ones(2)] * 3), 'the start of .* has shape'),
    (
      dict(tolerance=1e-7),
      'tolerance is 1e-07; allowed: at least 8e-06.*float32',
    ),
    (dict(tolerance=0), 'tolerance is 0; allowed: '),
    (dict(ends='top'), 'ends is .top.; allowed: largest, smallest, both'),
    (dict(k=3, most_products=5), 'most_products is 5; allowed: at least 6'),
    (dict(matrix='gauss_newton'), 'gauss_newton needs a Split'),
  )
  def test_keywords(self, keywords, said):
    loss = lambda params: sum(x**2 for x in params['x'])
    params = {'x': [jnp.ones(())] * 3}
    if 'start' in keywords:
      keywords = keywords | {'start': {'x': keywords['start']}}
    with self.assertRaisesRegex(ValueError, said) as caught:
      analysis.top_eigenvalues(loss, params, **keywords)
    self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters(
    (loop, 'cannot be differentiated.*while_loop'),
    (callback_in_its_gradient(), 'cannot be differentiated.*callback'),
  )
  def test_a_loss_without_second_derivative(self, loss, said):
    with self.assertRaisesRegex(ValueError, said) as caught:
      analysis.top_eigenvalues(loss, {'x': jnp.arange(3.0)})
    self.assertNotIn('\n', str(caught.exception))

  def test_a_measure_of_nothing(self):
    with self.assertRaisesRegex(ValueError, r'blocks is \(\); allowed: one or'):
      analysis.make('top_eigenvalues', blocks=())
    params = {'logits': {'scale': jnp.ones(2)}}
    with self.assertRaisesRegex(ValueError, 'no kernel in logits; give layers'):
      blocks.kernels(params, (('logits', ('logits',)),))

  def test_more_values_than_a_block_has(self):
    look = analysis.make('top_eigenvalues', k=9, blocks=('all', 'norms'))
    exact = curved.exact('batch')
    with self.assertRaisesRegex(ValueError, "to 8, .* of block 'norms'"):
      look(exact.problem, exact.state, [exact.batch])


if __name__ == '__main__':
  absltest.main()
