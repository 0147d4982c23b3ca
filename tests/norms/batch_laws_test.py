import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import norms
from tests.fixtures import strict  # noqa: F401


class LawsTest(parameterized.TestCase):
  """Ioffe and Szegedy (2015), sections 3.2 and 3.3, for eps = 0."""

  def setUp(self):
    super().setUp()
    with jax.enable_x64(True):
      generator = np.random.default_rng(3)
      self.u = jnp.asarray(generator.normal(size=(9, 4)))
      self.w = jnp.asarray(generator.normal(size=(4, 3)))
      self.target = jnp.asarray(generator.normal(size=(9, 3)))
      self.ones, self.zeros = jnp.ones(3), jnp.zeros(3)

  def loss(self, w, b, epsilon=0.0):
    x = self.u @ w + b[None]
    y, _ = norms.batch_norm(x, self.ones, self.zeros, epsilon=epsilon)
    return jnp.sum(jnp.tanh(y) * self.target)

  def test_scale_of_the_weight_does_not_matter(self):
    with jax.enable_x64(True):
      value = self.loss(self.w, self.zeros)
      scaled = self.loss(7.0 * self.w, self.zeros)
      np.testing.assert_allclose(scaled, value, rtol=1e-12)

  def test_epsilon_is_scaled_instead(self):
    with jax.enable_x64(True):
      scaled = self.loss(0.1 * self.w, self.zeros, epsilon=1e-3)
      value = self.loss(self.w, self.zeros, epsilon=1e-3 / 0.1**2)
      np.testing.assert_allclose(scaled, value, rtol=1e-12)

  def test_gradient_is_divided_by_the_scale(self):
    with jax.enable_x64(True):
      gradient = jax.grad(self.loss)
      g = gradient(self.w, self.zeros)
      np.testing.assert_allclose(
        gradient(5.0 * self.w, self.zeros), g / 5, rtol=1e-10
      )

  def test_gradient_is_orthogonal_to_the_weight_of_each_unit(self):
    with jax.enable_x64(True):
      g = jax.grad(self.loss)(self.w, self.zeros)
      np.testing.assert_allclose((g * self.w).sum(0), 0, atol=1e-12)
      self.assertGreater(float(jnp.abs(g).max()), 0.01)

  def test_bias_before_it_gets_no_gradient(self):
    with jax.enable_x64(True):
      g = jax.grad(functools.partial(self.loss, epsilon=1e-3), 1)
      np.testing.assert_allclose(g(self.w, self.zeros), 0, atol=1e-12)


if __name__ == '__main__':
  absltest.main()
