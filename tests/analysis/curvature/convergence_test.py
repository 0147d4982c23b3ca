"""How likely an eigenvalue is missed, against start vectors of known shares."""

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.analysis.curvature import convergence

GOAL = convergence.Goal(1, ('largest',), 0.03, True)


def spaces(diagonal, start):
  """Yields (rests, values, residual of the largest) after each step."""
  basis, vector = [], start / np.linalg.norm(start)
  matrix, rests = np.zeros((len(start), len(start))), []
  for k in range(len(start)):
    basis.append(vector)
    rows = np.array(basis)
    image = diagonal * vector
    matrix[: k + 1, k] = matrix[k, : k + 1] = rows @ image
    for _ in range(2):
      image = image - rows.T @ (rows @ image)
    rests.append(np.linalg.norm(image))
    vector = image / rests[-1]
    values, vectors = np.linalg.eigh(matrix[: k + 1, : k + 1])
    yield np.array(rests), values, rests[-1] * abs(vectors[-1, -1])


class BoundTest(parameterized.TestCase):
  @parameterized.parameters(1e-8, 1e-3, 0.3)
  def test_no_eigenvalue_has_more_of_the_start(self, share):
    generator = np.random.default_rng(0)
    diagonal = np.r_[generator.uniform(-1, 1, 99), 2.0]
    start = generator.normal(size=100)
    start[-1] = share * np.linalg.norm(start[:-1])
    own = start[-1] / np.linalg.norm(start)
    for k, (rests, values, _) in enumerate(spaces(diagonal, start)):
      if values[-1] > 1.9 or k == 20:
        break
      bound = np.prod(rests) / np.prod(np.abs(2.0 - values))
      self.assertLess(own, bound * (1 + 1e-9))
      is_likely = convergence.is_likely(rests, np.abs(2.0 - values), 100, np)
      # Less often than so much, a random start has a share below the bound.
      self.assertEqual(is_likely, bound * np.sqrt(2 * 100 / np.pi) > 0.01)
    self.assertGreater(k, 0)

  def test_an_outlier_is_hardly_missed(self):
    """With a residual below the tolerance nearly from the first step on."""
    diagonal = np.r_[np.zeros(150), np.linspace(0.98, 1, 149), 1.5]
    generator = np.random.default_rng(0)
    missed, early = 0, 0
    for _ in range(200):
      for rests, values, residual in spaces(
        diagonal, generator.normal(size=300)
      ):
        largest = np.abs(values).max()
        if residual > GOAL.tolerance * largest:
          continue
        early += values[-1] < 1.4
        (far,) = convergence.beyond(GOAL, values, largest)
        if not convergence.is_likely(rests, np.abs(far - values), 300, np):
          break
      missed += values[-1] < 1.4
    self.assertGreater(early, 20)
    self.assertLessEqual(missed, 2)


if __name__ == '__main__':
  absltest.main()
