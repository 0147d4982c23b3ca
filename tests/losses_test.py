import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import losses
from tests.fixtures import strict  # noqa: F401


class CrossEntropyTest(absltest.TestCase):
  def test_by_hand_in_float64(self):
    logits = np.random.default_rng(0).normal(size=(50, 8)) * 3
    labels = np.random.default_rng(1).integers(8, size=50)
    found = losses.make('cross_entropy').of_examples(
      jnp.asarray(logits, jnp.float32), jnp.asarray(labels)
    )
    own = logits[np.arange(50), labels]
    want = np.log(np.exp(logits).sum(-1)) - own
    np.testing.assert_allclose(found['loss'], want, rtol=1e-5, atol=1e-6)
    rank = (logits > own[:, None]).sum(-1)
    np.testing.assert_array_equal(found['correct'], rank == 0)
    np.testing.assert_array_equal(found['correct5'], rank < 5)

  def test_equal_outputs_count_as_a_sort_would(self):
    """A network that says nothing is right for the first classes alone."""
    found = losses.cross_entropy().of_examples(jnp.zeros((8, 8)), jnp.arange(8))
    np.testing.assert_array_equal(found['correct'], jnp.arange(8) == 0)
    np.testing.assert_array_equal(found['correct5'], jnp.arange(8) < 5)

  def test_no_top5_of_five_classes(self):
    found = losses.cross_entropy().of_examples(jnp.zeros((2, 5)), jnp.arange(2))
    self.assertNotIn('correct5', found)


class SquaredErrorTest(parameterized.TestCase):
  @parameterized.parameters(1.0, 0.5)
  def test_by_hand_with_its_gradient(self, factor):
    y, target = np.random.default_rng(0).normal(size=(2, 7, 3))
    loss = losses.make('squared_error', factor=factor)

    def total(y):
      return loss.of_examples(y, jnp.asarray(target))['loss'].sum()

    value, gradient = jax.value_and_grad(total)(jnp.asarray(y))
    np.testing.assert_allclose(
      value, factor * ((y - target) ** 2).sum(), rtol=1e-6
    )
    np.testing.assert_allclose(gradient, 2 * factor * (y - target), rtol=1e-5)

  @parameterized.parameters(
    (dict(factor=0.0), 'factor is 0.0'),
    (dict(reduction='max'), "reduction is 'max'; allowed: sum, mean"),
  )
  def test_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      losses.make('squared_error', **keywords)

  def test_unknown(self):
    with self.assertRaisesRegex(ValueError, "did you mean 'cross_entropy'"):
      losses.make('cross_entropi')


if __name__ == '__main__':
  absltest.main()
