"""Second derivatives through every norm, against differences of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import analysis, norms, trees
from bn_jax.models import parts
from tests.fixtures import (
  strict,  # noqa: F401
  toys,
)

_KEYWORDS = {'lp': dict(p=3.0), 'group': dict(num_groups=2)}
_STEP = 1e-3


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class Net(nn.Module):
  norm: norms.Norm

  @nn.compact
  def __call__(self, x, *, statistics):
    dense = nn.Dense(4, use_bias=self.norm.bias_before, name='dense1')
    x = parts.normalised(self.norm, dense, x, statistics=statistics)
    return nn.Dense(2, name='logits')(jnp.tanh(x))


# One of each kind; tests/norms/norms_test.py has such differences for all.
_KINDS = ('batch', 'frn', 'iternorm', 'linf', 'weight')
# flax's spectral norm takes its singular vectors as constants.
_OTHERS = [name for name in norms.NORMS if name not in ('spectral', *_KINDS)]


class NormsTest(parameterized.TestCase):
  @parameterized.parameters(*_KINDS)
  def test_with_batch_statistics(self, name):
    self.check(name, 'batch')

  @parameterized.parameters(*_OTHERS)
  @pytest.mark.slow
  def test_so_with_the_others(self, name):
    self.check(name, 'batch')

  @parameterized.parameters(*_KINDS, *_OTHERS)
  @pytest.mark.slow  # they then hardly differ from each other
  def test_with_running_statistics(self, name):
    self.check(name, 'running')

  def test_through_spectral_normalization_they_lack_a_term(self):
    """As the page says; a product that has it would need no such word."""
    with self.assertRaisesRegex(AssertionError, 'Not equal to tolerance'):
      self.check('spectral', 'running')

  def check(self, name, statistics):
    with jax.enable_x64(True):
      generator = np.random.default_rng(0)
      x = jnp.asarray(generator.normal(size=(6, 2, 3)))
      module = Net(norms.make(name, **_KEYWORDS.get(name, {})))
      variables = module.init(jax.random.key(0), x, statistics='running')
      variables = jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.square(generator.normal(size=leaf.shape)),
        variables,
      )
      params = variables.pop('params')

      def outputs(params):
        rngs = {'noise': jax.random.key(1)}
        return module.apply(
          {'params': params, **variables}, x, statistics=statistics,
          rngs=rngs, mutable=['batch_stats'],
        )[0]  # fmt: skip

      split = analysis.Split(outputs, lambda z: jnp.sum(jnp.cosh(z)))
      direction = jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(size=leaf.shape)), params
      )
      got = toys.flat(analysis.hessian_product(split, params, direction))
      gradient = jax.jit(jax.grad(split))
      ends = [
        toys.flat(gradient(trees.add_scaled(params, n * _STEP, direction)))
        for n in (1, -1, 2, -2)
      ]
    near, far = ends[0] - ends[1], ends[2] - ends[3]
    want = (8 * near - far) / (12 * _STEP)  # right to the fourth order
    scale = np.abs(want).max()
    self.assertGreater(scale, 1e-3)
    np.testing.assert_allclose(got, want, atol=1e-6 * scale)


if __name__ == '__main__':
  absltest.main()
