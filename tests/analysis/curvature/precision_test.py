"""Parameters in float32 where JAX's default is float64."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis
from tests.fixtures import strict  # noqa: F401

# Of low rank, so that 20 products give the trace but for rounding.
VALUES = np.float32([10.0, 5.0, 3.0, 1.0, 0.5, -2.0] + 24 * [0.0])


def loss(params):
  return 0.5 * jnp.sum(jnp.asarray(VALUES) * params['w'] ** 2)


class PrecisionTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('top_eigenvalues', analysis.top_eigenvalues, (), 'eigenvalues', [10.0]),
    ('spectral_density', analysis.spectral_density, (10, 2), 'largest', 10.0),
    ('trace', analysis.trace, (20,), 'trace', VALUES.sum()),
  )
  def test_float32_parameters_under_x64(self, function, words, name, want):
    with jax.enable_x64(True), warnings.catch_warnings():
      warnings.simplefilter('error', FutureWarning)
      params = {'w': jnp.ones(30, jnp.float32)}
      got = function(loss, params, *words)[name]
    np.testing.assert_allclose(got, want, rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
