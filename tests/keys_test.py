import itertools

import jax
import numpy as np
from absl.testing import absltest

from bn_jax import keys, types
from tests.fixtures import (
  strict,  # noqa: F401
  toys,
)


class KeysTest(absltest.TestCase):
  def test_no_two_purposes_share_a_stream(self):
    """Neither with each other nor with the key that they come from."""
    key = jax.random.key(3)
    made = {purpose.name: keys.of(key, purpose) for purpose in types.Purpose}
    self.assertGreater(len(made), 3)
    made |= {'itself': key}
    for (_, a), (_, b) in itertools.combinations(made.items(), 2):
      self.assertFalse(np.array_equal(*map(jax.random.key_data, (a, b))))

  def test_streams_of_a_step_differ_from_each_other_and_the_next(self):
    state = toys.classifier().init(0)
    found = [
      stream
      for step in (0, 1)
      for stream in keys.streams(
        keys.of_step(state._replace(step=state.step + step))
      ).values()
    ]
    self.assertLen(found, 4)
    for a, b in itertools.combinations(found, 2):
      self.assertFalse(np.array_equal(*map(jax.random.key_data, (a, b))))


if __name__ == '__main__':
  absltest.main()
