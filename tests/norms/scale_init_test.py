"""Where the scale of a norm begins, and of the last one of a residual block."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from bn_jax import checks, models, norms
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)

X = jax.random.normal(jax.random.key(0), (4, 6, 6, 64))
SCALED = (
  'batch', 'batch_renorm', 'derf', 'dyt', 'evonorm_b0', 'evonorm_s0', 'frn',
  'group', 'instance', 'iternorm', 'l1', 'l2', 'layer', 'linf', 'lp', 'noisy',
  'rms', 'seednorm', 'taper',
)  # fmt: skip


# Where a scale begins by itself, if not at 1; such a norm adds x, so that a
# scale of 0 does not zero it.
OTHER = {'grn': 0}


def params(norm, x=X):
  layer = norm.layer('conv1_norm')
  return layer.init(jax.random.key(1), x, statistics='batch')['params']


class ScaleInitTest(parameterized.TestCase):
  def test_every_norm_with_a_scale_has_the_keyword(self):
    self.assertEqual(
      {
        name
        for name, make in norms.NORMS.items()
        if 'scale_init' in inspect.signature(make).parameters
      },
      {*SCALED, *OTHER},
    )
    for name in norms.NORMS:
      self.assertEqual(norms.make(name).zeroed is not None, name in SCALED)

  @parameterized.parameters(*SCALED, *OTHER)
  def test_begins_where_it_says(self, name):
    start = OTHER.get(name, 1)
    same_bits.assert_same(
      params(norms.make(name, scale_init=start)), params(norms.make(name))
    )
    for value in (0, 0.25):
      scale = params(norms.make(name, scale_init=value))['scale']
      same_bits.assert_same(scale, jnp.full(64, value, jnp.float32))
    norm = norms.make(name)
    if name in OTHER:
      return
    zeroed = params(norm._replace(layer=norm.zeroed))
    same_bits.assert_same(zeroed['scale'], jnp.zeros(64, jnp.float32))

  @parameterized.parameters('batch', 'group')
  def test_uniform_is_uniform(self, name):
    norm = norms.make(name, scale_init='uniform')
    x = jnp.ones((4, 2, 2, 4096)) * jnp.arange(4.0).reshape(4, 1, 1, 1)
    scale = np.asarray(params(norm, x)['scale'])
    self.assertBetween(scale.min(), 0, 0.01)
    self.assertBetween(scale.max(), 0.99, 1)
    self.assertGreater(stats.kstest(scale, 'uniform').pvalue, 0.01)

  def test_layers_draw_their_own(self):
    norm = norms.make('batch', scale_init='uniform')
    module = models.make('mlp', num_classes=2, norm=norm, hidden=(5, 5))
    drawn = module.init(jax.random.key(0), jnp.ones((2, 3)), statistics='batch')
    first, second = (drawn['params'][f'dense{k}_norm']['scale'] for k in (1, 2))
    self.assertGreater(jnp.abs(first - second).max(), 0.01)

  @parameterized.parameters(-1, True, 'normal', None)
  def test_refuses_others(self, value):
    for name in ('batch', 'layer', 'lp'):
      with self.assertRaisesRegex(checks.Refused, 'scale_init is'):
        norms.make(name, scale_init=value)

  def test_refuses_a_start_that_would_stay(self):
    with self.assertRaisesRegex(checks.Refused, 'allowed: 1 with affine=False'):
      norms.make('batch', scale_init=0, affine=False)


class ResidualTest(parameterized.TestCase):
  def network(self, norm='batch', **keywords):
    return models.make(
      'resnet20', num_classes=2, norm=norm, width=0.25, **keywords
    )

  def test_the_last_scale_of_each_block_alone_begins_at_zero(self):
    x = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    init = jax.jit(
      lambda x: self.network(zero_init_residual=True).init(
        jax.random.key(0), x, statistics='running'
      )
    )
    variables = init(jnp.ones(x.shape, x.dtype))['params']
    for name, block in variables.items():
      if 'block' in name:
        np.testing.assert_array_equal(block['conv1_norm']['scale'], 1)
        np.testing.assert_array_equal(block['conv2_norm']['scale'], 0)
    np.testing.assert_array_equal(variables['conv1_norm']['scale'], 1)

  @parameterized.parameters('none', 'weight')
  def test_refuses_a_norm_without_a_scale(self, norm):
    with self.assertRaisesRegex(
      checks.Refused, 'zero_init_residual is True; allowed: False for a norm'
    ):
      self.network(norm, zero_init_residual=True)

  def test_a_block_begins_as_its_shortcut(self):
    module = self.network(zero_init_residual=True)
    x = jnp.abs(jax.random.normal(jax.random.key(2), (2, 8, 8, 1)))

    @jax.jit  # of the other layers nothing is compiled
    def run(x):
      variables = module.init(jax.random.key(0), x, statistics='running')
      _, state = module.apply(
        variables, x, statistics='batch', capture_intermediates=True,
        mutable=['batch_stats', 'intermediates'],
      )  # fmt: skip
      seen = state['intermediates']
      return [seen[k]['__call__'][0] for k in ('conv1_norm', 'stage1_block3')]

    stem, block = run(x)
    same_bits.assert_same(block, jax.nn.relu(stem))


if __name__ == '__main__':
  absltest.main()
