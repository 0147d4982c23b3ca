import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import losses
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)


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

  @parameterized.product(
    name=tuple(losses.LOSSES), dtype=('uint8', 'int32', 'bool', 'complex64')
  )
  def test_refuses_outputs_that_are_not_floating_point(self, name, dtype):
    """1 - 9 is 248 in bytes."""
    loss = losses.make(name)
    targets = np.zeros(2, np.int32) if loss.classifies else np.ones((2, 3))
    with self.assertRaisesRegex(ValueError, f'outputs is {dtype}; allowed'):
      losses.sums(loss, np.ones((2, 3), dtype), targets)

  def test_unknown(self):
    with self.assertRaisesRegex(ValueError, "did you mean 'cross_entropy'"):
      losses.make('cross_entropi')


class SumsTest(parameterized.TestCase):
  def made(self, name):
    """(loss, outputs, targets, mask) of 8 examples, 3 of them padding."""
    generator = np.random.default_rng(0)
    outputs = np.float32(generator.normal(size=(8, 7)))
    loss = losses.make(name)
    targets = np.float32(generator.normal(size=(8, 7)))
    if loss.classifies:
      targets = generator.integers(7, size=8).astype(np.int32)
    return loss, outputs, targets, np.arange(8) % 3 < 2

  @parameterized.parameters(*losses.LOSSES)
  def test_are_over_real_examples(self, name):
    loss, outputs, targets, mask = self.made(name)
    got = losses.sums(loss, outputs, targets, mask)
    want = losses.sums(loss, outputs[mask], targets[mask])
    self.assertEqual(got['count'], mask.sum())
    self.assertEqual(got.keys(), want.keys())
    for key, value in want.items():
      np.testing.assert_allclose(got[key], value, rtol=1e-6, err_msg=key)

  @parameterized.product(
    name=tuple(losses.LOSSES), held=(np.inf, -np.inf, np.nan, 1e30)
  )
  def test_padding_may_hold_anything(self, name, held):
    """Outputs and targets; labels that are none."""
    loss, outputs, targets, mask = self.made(name)

    @jax.jit
    def all_of(outputs, targets):
      def total(outputs):
        return losses.sums(loss, outputs, targets, mask)['loss']

      along = (jnp.ones_like(outputs),)
      gradient = jax.grad(total)
      return (
        losses.sums(loss, outputs, targets, mask),
        jax.jvp(gradient, (outputs,), along),
      )

    want = all_of(outputs, targets)
    outputs[~mask] = held
    targets[~mask] = 99 if loss.classifies else held
    got = all_of(outputs, targets)
    same_bits.assert_same(got, want)
    for leaf in got[1]:
      self.assertTrue(np.isfinite(leaf).all())
      np.testing.assert_array_equal(leaf[~mask], 0)

  def test_refuses_a_mask_of_numbers(self):
    loss, outputs, targets, mask = self.made('squared_error')
    with self.assertRaisesRegex(ValueError, 'mask is float32; allowed'):
      losses.sums(loss, outputs, targets, mask.astype('float32'))
    with self.assertRaisesRegex(ValueError, r'mask has shape \(7,\); allowed'):
      losses.sums(loss, outputs, targets, mask[:7])


if __name__ == '__main__':
  absltest.main()
