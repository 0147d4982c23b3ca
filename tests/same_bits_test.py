"""The comparison of same bits tells apart what others take for the same."""

import collections

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)

ONES = jnp.ones(3)
PAIR = collections.namedtuple('PAIR', 'a b')
OTHER_NAN = np.array([0x7FC00001], np.uint32).view(np.float32)
# What NumPy's assert_array_equal and chex' assert_trees_all_equal pass, each
# of them or both: see test_others_pass_them.
PASSED = {
  'a scalar': (jnp.ones(()), ONES),
  'half precision': (jnp.ones(3, jnp.bfloat16), ONES),
  'integers': (jnp.ones(3, jnp.int32), ONES),
  'bools': (jnp.ones(3, bool), ONES),
  'a sign of zero': (jnp.zeros(3), -jnp.zeros(3)),
  'bits of nan': (np.array([np.nan], np.float32), OTHER_NAN),
}
TOLD_APART = {
  **PASSED,
  'a number': (1, jnp.ones((), jnp.int32)),
  'a bool for a number': (True, 1),
  'one more axis': (jnp.ones((1, 3)), ONES),
  'a last bit': (ONES, ONES + 2**-23),
  'a leaf more': ({'a': ONES}, {'a': ONES, 'b': ONES}),
  'another name': ({'a': ONES}, {'b': ONES}),
  'another tree': (PAIR(ONES, ONES), (ONES, ONES)),
  'nothing': ({'a': None}, {'a': ONES}),
  'another key': (jax.random.key(0), jax.random.key(1)),
  'a key of another generator': (
    jax.random.wrap_key_data(jnp.zeros(4, jnp.uint32), impl='rbg'),
    jax.random.wrap_key_data(jnp.zeros(4, jnp.uint32), impl='unsafe_rbg'),
  ),
  'data of a key': (jax.random.key(0), jax.random.PRNGKey(0)),
}


class SameBitsTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (name.replace(' ', '_'), *pair) for name, pair in TOLD_APART.items()
  )
  def test_tells_apart(self, got, want):
    for pair in ((got, want), (want, got)):
      with self.assertRaises(AssertionError):
        same_bits.assert_same(*pair)
      with self.assertRaises(AssertionError):
        same_bits.assert_same({'x': [pair[0]]}, {'x': [pair[1]]})

  @parameterized.named_parameters(
    (name.replace(' ', '_'), *pair) for name, pair in PASSED.items()
  )
  def test_others_pass_them(self, got, want):
    """If they do no more, this fixture may not be needed."""
    np.testing.assert_array_equal(got, want)
    chex.assert_trees_all_equal(got, want)

  def test_passes_what_is_the_same(self):
    for tree in (
      {'a': [ONES, np.float64(3)], 'b': None, 'c': 2, 'd': 'text'},
      PAIR(jnp.array([jnp.nan, -0.0, jnp.inf]), jnp.ones((2, 0))),
      jax.random.split(jax.random.key(0), 3),
      (),
    ):
      same_bits.assert_same(tree, jax.tree.map(lambda leaf: leaf, tree))
    same_bits.assert_same(ONES, np.ones(3, np.float32))
    # However the numbers lie in memory.
    same_bits.assert_same(np.ones((3, 2)).T, np.ones((2, 3)))


if __name__ == '__main__':
  absltest.main()
