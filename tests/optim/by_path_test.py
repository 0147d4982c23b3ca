import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import optim
from bn_jax.optim import by_path
from tests.fixtures import strict  # noqa: F401

PARAMS = {
  'conv1': {'kernel': jnp.full((2, 2), 2.0), 'bias': jnp.ones(3)},
  'kernel': jnp.ones(2),
  'norm1': {'scale': jnp.ones(3)},
}


class ChosenTest(parameterized.TestCase):
  @parameterized.parameters(
    ('all', 'abcd'),
    ('*', 'abcd'),
    ('kernels', 'bc'),
    ('*norm*', 'd'),
    ('norm', ''),
    ('conv1/*', 'ab'),
    ('*/bias, kernel', 'ac'),
    ('kernels,*scale', 'bcd'),
    ('conv[0-9]/k*', 'b'),
    ('Conv1/*', ''),
  )
  def test_paths(self, globs, want):
    """Arrays in the order of their paths are called a, b, c, d."""
    leaves = jax.tree.leaves(by_path.chosen(PARAMS, globs))
    self.assertEqual(
      ''.join(n for n, fits in zip('abcd', leaves) if fits), want
    )

  def test_factors_are_multiplied(self):
    rates = {'*bias': 2.0, 'conv1/*': 0.25, 'kernels': 3.0}
    self.assertEqual(
      jax.tree.leaves(by_path.factors(PARAMS, rates)), [0.5, 0.75, 3.0, 1.0]
    )

  def test_a_glob_that_names_nothing(self):
    for name, globs in (('rates', '*bais'), ('trainable', 'all,*bais')):
      with self.assertRaisesRegex(
        ValueError,
        f"{name}: '.bais' names no parameter; allowed: globs of conv1/",
      ):
        by_path.check_found(name, PARAMS, globs)
    by_path.check_found('trainable', PARAMS, 'kernels,*bias')


class WeightDecayTest(parameterized.TestCase):
  @parameterized.parameters(
    ('kernels', 18.0), ('all', 24.0), ('norm*,*/bias', 6.0)
  )
  def test_half_the_decay_times_the_squares(self, on, squares):
    penalty = optim.weight_decay(weight_decay=0.1, weight_decay_on=on)
    np.testing.assert_allclose(penalty(PARAMS), 0.05 * squares, rtol=1e-6)
    gradient = jax.grad(penalty)(PARAMS)
    decayed = 0.0 if on.startswith('norm') else 0.2
    np.testing.assert_allclose(gradient['conv1']['kernel'], decayed, rtol=1e-6)
    want = 0.0 if on == 'kernels' else 0.1
    np.testing.assert_allclose(gradient['conv1']['bias'], want, rtol=1e-6)

  def test_none(self):
    self.assertEqual(optim.weight_decay(weight_decay=0.0)(PARAMS), 0)

  @parameterized.parameters(
    dict(weight_decay=-1.0),
    dict(weight_decay=float('nan')),
    dict(weight_decay=0.1, weight_decay_on=''),
    dict(weight_decay=0.1, weight_decay_on='*bias,'),
    dict(weight_decay=0.1, weight_decay_on=('kernels',)),
  )
  def test_refuses(self, **keywords):
    with self.assertRaises(ValueError):
      optim.weight_decay(**keywords)


if __name__ == '__main__':
  absltest.main()
