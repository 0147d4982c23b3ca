import collections

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import trees
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)


def tree(seed=0, dtype=np.float32):
  generator = np.random.default_rng(seed)
  return {
    'b': {'kernel': jnp.asarray(generator.normal(size=(7, 300)), dtype)},
    'a': jnp.asarray(generator.normal(size=5), dtype),
    'c': jnp.asarray(generator.normal(), dtype),
  }


class TreesTest(parameterized.TestCase):
  def test_vdot_and_norm(self):
    x, y = tree(0), tree(1)
    want = toys.flat(x) @ toys.flat(y)
    np.testing.assert_allclose(trees.vdot(x, y), want, rtol=1e-5)
    want = np.linalg.norm(toys.flat(x))
    np.testing.assert_allclose(trees.norm(x), want, rtol=1e-6)

  def test_norm_of_millions_keeps_its_digits(self):
    """One running float32 sum of 2^24 + ... ones stops growing."""
    x = jnp.full(30_000_000, 0.1, jnp.float32)
    want = np.sqrt(30_000_000) * np.float64(np.float32(0.1))
    np.testing.assert_allclose(trees.norm(x), want, rtol=3e-7)

  def test_norm_of_bfloat16_is_float32(self):
    x = jnp.full(4096, 1.0, jnp.bfloat16)
    self.assertEqual(trees.norm(x).dtype, jnp.float32)
    self.assertEqual(float(trees.norm(x)), 64.0)

  def test_sums_of_float32_are_float32_under_x64(self):
    with jax.enable_x64(True):
      x = tree()
      for got in (trees.norm(x), trees.vdot(x, x), trees.norm({})):
        self.assertEqual(got.dtype, jnp.float32)
      double = trees.vdot(x, tree(1, np.float64))
    self.assertEqual(double.dtype, jnp.float64)

  def test_add_scaled_and_subtract(self):
    x, y = tree(0), tree(1)
    got = toys.flat(trees.add_scaled(x, -0.5, y))
    np.testing.assert_allclose(
      got, toys.flat(x) - 0.5 * toys.flat(y), atol=1e-6
    )
    np.testing.assert_allclose(
      toys.flat(trees.subtract(x, y)), toys.flat(x) - toys.flat(y), atol=1e-6
    )
    half = tree(0, jnp.bfloat16)
    moved = trees.add_scaled(half, jnp.float32(0.5), half)
    self.assertEqual(jax.tree.leaves(moved)[0].dtype, jnp.bfloat16)

  def test_paths_follow_the_leaves(self):
    self.assertEqual(trees.paths(tree()), ('a', 'b/kernel', 'c'))
    self.assertEqual(trees.paths([1.0, {'x': 2.0}]), ('0', '1/x'))

  def test_paths_of_attributes_indices_and_keys(self):
    pair = collections.namedtuple('Pair', ('first', 'second'))
    found = pair({1: 0.0, 2: 0.0}, [pair(0.0, None), (0.0, 0.0)])
    self.assertEqual(
      trees.paths({'net': found}),
      (
        'net/first/1',
        'net/first/2',
        'net/second/0/first',
        'net/second/1/0',
        'net/second/1/1',
      ),
    )
    self.assertEqual(trees.paths(1.0), ('',))

  @parameterized.parameters(
    ('conv1/kernel', ('conv1',), True),
    ('conv1', ('conv1',), True),
    ('conv10/kernel', ('conv1',), False),
    ('conv1_norm/scale', ('conv1',), False),
    ('conv1/kernel', ('conv1/kernel',), True),
    ('conv1/kernel', ('conv1/kern',), False),
    ('conv1', ('conv1/kernel',), False),
    ('a/conv1', ('conv1',), False),
    ('conv1/kernel', ('conv2', 'conv1'), True),
    ('conv1/kernel', (), False),
    ('', ('',), True),
    ('conv1', ('',), False),
  )
  def test_prefixes_are_whole_words(self, path, prefixes, want):
    self.assertEqual(trees.lies_under(path, prefixes), want)

  def test_leaves_under_prefixes_in_the_order_of_the_tree(self):
    found = trees.leaves_under(
      {'b': [1, 2], 'a': {'x': 3, 'y': 4}, 'a2': 5}, ('b/1', 'a')
    )
    self.assertEqual(found, [3, 4, 2])

  @parameterized.parameters((6.0, 3.0, 2.0), (-6.0, 3.0, -2.0), (0.0, 3.0, 0.0))
  def test_ratio(self, x, y, want):
    self.assertEqual(float(trees.ratio(jnp.float32(x), jnp.float32(y))), want)

  @parameterized.parameters(0.0, -1.0, float('nan'))
  def test_ratio_to_nothing(self, y):
    got = trees.ratio(jnp.float32([1.0, 0.0]), jnp.full(2, y))
    self.assertTrue(np.isnan(got).all())

  @parameterized.parameters(1, 1023, 1024, 1025, 4096, 5000)
  def test_sums_in_two_stages_leave_nothing_out(self, count):
    x = jnp.arange(count, dtype=jnp.float32)
    want = (count - 1) * count / 2
    np.testing.assert_allclose(trees.vdot(x, jnp.ones(count)), want, rtol=1e-6)

  @parameterized.parameters(True, False)
  def test_select(self, condition):
    x, y = tree(0), tree(1)
    got = trees.select(jnp.asarray(condition), x, y)
    want = x if condition else y
    same_bits.assert_same(got, want)

  def test_empty_tree(self):
    self.assertEqual(float(trees.norm({})), 0.0)


if __name__ == '__main__':
  absltest.main()
