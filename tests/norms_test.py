import jax
import jax.numpy as jnp
import numpy as np
import strict  # noqa: F401
from absl.testing import absltest, parameterized

from bn_jax import norms, spread


def images():
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.normal(size=(6, 2, 2, 3)), jnp.float32)


class RegistryTest(parameterized.TestCase):
  @parameterized.parameters(*norms.NORMS)
  def test_contract_of_every_norm(self, name):
    x = images()
    norm = norms.make(name, spread=spread.Spread(parts=2))
    layer = norm.layer('norm1')
    self.assertEqual(layer.name, 'norm1')
    variables = layer.init(jax.random.key(0), x, mode='running')
    for mode in norms.MODES:
      y, _ = layer.apply(
        variables, x, mode=mode, first=3, mutable=['batch_stats']
      )
      self.assertEqual((y.shape, y.dtype), (x.shape, jnp.float32))
    with self.assertRaisesRegex(ValueError, "mode is 'train'; allowed"):
      layer.apply(variables, x, mode='train')
    self.assertIsInstance(norm.bias_before, bool)

  def test_none_is_the_identity(self):
    x = images()
    layer = norms.make('none').layer('norm1')
    np.testing.assert_array_equal(layer.apply({}, x, mode='batch'), x)

  def test_unknown_name(self):
    with self.assertRaisesRegex(ValueError, "unknown norm 'bach'.*'batch'"):
      norms.make('bach')


if __name__ == '__main__':
  absltest.main()
