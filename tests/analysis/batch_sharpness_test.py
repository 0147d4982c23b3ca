"""The curvature of mini-batches along their gradients, against closed forms."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis
from bn_jax.analysis import gradients
from bn_jax.data.batches import in_memory
from tests.analysis import journal_test
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def squares(batch, params):
  """|X w - y|^2 / 2b."""
  x, y = batch
  return 0.5 * jnp.mean((x @ params['w'] - y) ** 2)


def mini_batches(count=4, size=6, seed=0):
  """(losses, params, their (H, g)): least squares over mini-batches."""
  generator = np.random.default_rng(seed)
  w = generator.normal(size=3)
  made, known = [], []
  for _ in range(count):
    x = generator.normal(size=(size, 3))
    y = generator.normal(size=size)
    made.append(
      jax.tree_util.Partial(squares, (jnp.asarray(x), jnp.asarray(y)))
    )
    known.append((x.T @ x / size, x.T @ (x @ w - y) / size))
  return made, {'w': jnp.asarray(w)}, known


class ClosedFormTest(parameterized.TestCase):
  def test_least_squares(self):
    with jax.enable_x64(True):
      made, params, known = mini_batches()
      got = analysis.batch_sharpness(made, params)
    numerator = np.array([g @ hessian @ g for hessian, g in known])
    denominator = np.array([g @ g for _, g in known])
    ratio = numerator / denominator
    want = {
      'numerator': numerator,
      'denominator': denominator,
      'mean_of_ratios': ratio.mean(),
      'ratio_of_means': numerator.mean() / denominator.mean(),
      'batch_sharpness': ratio.mean(),
      'standard_error': ratio.std(ddof=1) / 2,
    }
    self.assertEqual(set(got), set(want))
    for name, value in want.items():
      np.testing.assert_allclose(got[name], value, rtol=1e-12, err_msg=name)
    # The two reductions are not the same number.
    self.assertGreater(
      abs(got['mean_of_ratios'] / got['ratio_of_means'] - 1), 0.01
    )

  def test_lies_within_the_spectrum(self):
    """Of one mini-batch: between smallest and largest eigenvalue."""
    with jax.enable_x64(True):
      made, params, known = mini_batches(count=1)
      got = analysis.batch_sharpness(made, params)
    low, *_, high = np.linalg.eigvalsh(known[0][0])
    self.assertBetween(float(got['batch_sharpness']), low, high)
    self.assertTrue(np.isnan(got['standard_error']))

  def test_along_gradient_has_the_same_term(self):
    with jax.enable_x64(True):
      made, params, _ = mini_batches(count=2)
      got = analysis.batch_sharpness(made, params)
      terms = [
        analysis.along_gradient(one, params, [0.1], curvature=True)
        for one in made
      ]
    np.testing.assert_allclose(
      got['numerator'] / got['denominator'],
      [term['curvature'] for term in terms],
      rtol=1e-12,
    )

  def test_chunks_are_the_whole(self):
    with jax.enable_x64(True):
      made, params, _ = mini_batches(count=2)
      parts = [
        analysis.chunked(squares, one.args[0], chunk_size=4, group_size=1)
        for one in made
      ]
      got = analysis.batch_sharpness(parts, params)
      want = analysis.batch_sharpness(made, params)
    for name in want:
      np.testing.assert_allclose(got[name], want[name], rtol=1e-12)

  def test_a_loss_without_a_forward_mode(self):
    """A custom_vjp has none; reverse over reverse needs none."""

    @jax.custom_vjp
    def square(x):
      return 0.5 * jnp.sum(x**2)

    square.defvjp(lambda x: (square(x), x), lambda x, dy: (dy * x,))
    # The gradient of its square takes its value, and so its own derivative.
    loss = lambda x: square(x) ** 2
    with self.assertRaisesRegex(TypeError, 'custom_vjp'):
      jax.jvp(jax.grad(loss), (jnp.ones(3),), (jnp.ones(3),))
    got = analysis.batch_sharpness([loss], jnp.ones(3))
    # |x|^4 / 4 has x'Hx / |x|^2 = 3 |x|^2.
    np.testing.assert_allclose(got['batch_sharpness'], 9.0, rtol=1e-6)

  def test_a_gradient_of_zero_has_no_direction(self):
    got = analysis.batch_sharpness(
      [lambda x: jnp.sum(x**2), lambda x: jnp.sum((x - 1) ** 2)], jnp.zeros(2)
    )
    self.assertTrue(np.isnan(got['batch_sharpness']))
    np.testing.assert_allclose(got['ratio_of_means'], 2.0)
    np.testing.assert_allclose(got['denominator'], [0, 8])

  def test_refuses(self):
    for wrong, said in (
      ([], '1 functions'), (lambda x: x.sum(), 'losses is a function'),
      ([3.0], 'losses is 1'),
    ):  # fmt: skip
      with self.assertRaisesRegex(ValueError, said):
        analysis.batch_sharpness(wrong, jnp.ones(2))
    with self.assertRaisesRegex(ValueError, 'must be a real scalar'):
      analysis.batch_sharpness([lambda x: x], jnp.ones(2))
    with self.assertRaisesRegex(ValueError, 'there are no parameters'):
      analysis.batch_sharpness([lambda x: x], {})


class MeasureTest(parameterized.TestCase):
  @parameterized.parameters('batch', 'running')
  def test_each_mini_batch_is_a_batch_of_its_own(self, statistics):
    made = toys.classifier('batch', weight_decay=0.1)
    state, batch = made.init(0), in_memory.first(toys.split(), 16)
    look = analysis.make('batch_sharpness', batch_size=8, statistics=statistics)
    got = look(made, state, [batch])
    alone = analysis.make(
      'along_gradient', curvature=True, statistics=statistics
    )
    for m in range(2):
      part = jax.tree.map(lambda leaf: leaf[8 * m : 8 * (m + 1)], batch)  # noqa: B023
      want = alone(made, state, [part])
      np.testing.assert_allclose(
        got['denominator'][m], want['gradient_norm_0'] ** 2, rtol=1e-4
      )
      np.testing.assert_allclose(
        got['numerator'][m] / got['denominator'][m],
        want['curvature'], rtol=1e-3,
      )  # fmt: skip

  def test_fewer_examples_are_one_mini_batch(self):
    made = toys.classifier('batch')
    state, batch = made.init(0), in_memory.first(toys.split(), 8)
    got = analysis.make('batch_sharpness')(made, state, [batch])
    self.assertEqual(got['numerator'].shape, (1,))

  def test_one_program_for_all_mini_batches(self):
    @chex.assert_max_traces(1)
    def traced(batch, params):
      return squares(batch, params)

    chex.clear_trace_counter()
    generator = np.random.default_rng(0)
    data = jnp.asarray(generator.normal(size=(5, 6, 3)), jnp.float32)
    made = [jax.tree_util.Partial(traced, (x, x[:, 0])) for x in data]
    analysis.batch_sharpness(made, {'w': jnp.ones(3)})
    analysis.batch_sharpness(made, {'w': jnp.zeros(3)})

  def test_goes_on_to_the_same_bits(self):
    look = functools.partial(
      analysis.make('batch_sharpness', batch_size=2), *journal_test.line()
    )
    whole = look()
    for left in range(1, 6):
      journal = journal_test.Journal()
      journal.left = left
      with self.assertRaises(journal_test.Killed):
        look(journal)
      journal.left = None
      calls = journal_test.Counted(gradients.explained)
      with absltest.mock.patch.object(gradients, 'explained', calls):
        got = look(journal)
      self.assertEqual(calls.calls, 5 - left)
      same_bits.assert_same(got, whole)


if __name__ == '__main__':
  absltest.main()
