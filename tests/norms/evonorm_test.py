"""EvoNorm B0 and S0, against their formulas in float64 and their laws."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import models, norms
from tests.fixtures import (
  models_small,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


SCALE, BIAS, V = np.random.default_rng(1).normal(size=(3, 4))
VAR = np.array([0.5, 1.0, 2.0, 4.0])
MASKS = {
  'all': np.ones((6, 3, 2), bool),
  # An example of no position, in a group of two examples with another.
  'positions': (np.random.default_rng(2).random((6, 3, 2)) < 0.6)
  & (np.arange(6) != 3)[:, None, None],
}


def data(dtype=np.float32, mean=0.3):
  x = np.random.default_rng(0).normal(mean, 1.5, size=(6, 3, 2, 4))
  return x.astype(dtype)


def apply(name, x, mask=None, v=V, statistics='batch', **keywords):
  layer = norms.make(name, **keywords).layer('norm1')
  params = {'scale': SCALE, 'bias': BIAS, 'v': v}
  params = {key: np.float32(value) for key, value in params.items()}
  variables = {'params': params}
  if name == 'evonorm_b0':
    variables['batch_stats'] = {'var': np.float32(VAR)}
  return layer.apply(variables, x, statistics=statistics, mask=mask)


def variance(x, mask, axes):
  """Over the real values along axes of x, [N, P, ...]; mask [N, P, 1, ...]."""
  mask = np.broadcast_to(mask, x.shape)
  count = np.maximum(mask.sum(axes, keepdims=True), 1)
  mean = np.where(mask, x, 0).sum(axes, keepdims=True) / count
  return np.where(mask, (x - mean) ** 2, 0).sum(axes, keepdims=True) / count


def b0(x, mask, group_size=6, var=None):
  x = np.float64(x).reshape(6, -1, 4)
  mask = mask.reshape(6, -1, 1)
  y = np.zeros_like(x)
  for first in range(0, 6, group_size):
    own = slice(first, first + group_size)
    left = variance(x[own], mask[own], (0, 1)) if var is None else var
    right = V * x[own] + np.sqrt(variance(x[own], mask[own], (1,)) + 1e-5)
    y[own] = x[own] / np.maximum(np.sqrt(left + 1e-5), right)
  return y * SCALE + BIAS


def s0(x, mask, groups=2):
  x = np.float64(x).reshape(6, -1, groups, 4 // groups)
  deviation = np.sqrt(variance(x, mask.reshape(6, -1, 1, 1), (1, 3)) + 1e-5)
  y = x / (1 + np.exp(-V.reshape(groups, -1) * x)) / deviation
  return y.reshape(6, -1, 4) * SCALE + BIAS


class EvoNormTest(parameterized.TestCase):
  def check(self, got, want, real, tolerance=1e-4):
    got, real = np.float64(got).reshape(want.shape), real.reshape(6, -1)
    np.testing.assert_allclose(
      got[real], want[real], rtol=tolerance, atol=tolerance
    )

  @parameterized.product(mask=tuple(MASKS), group_size=(6, 2))
  def test_b0_equals_its_formula(self, mask, group_size):
    x, mask = data(), MASKS[mask]
    x[~mask] = 1e6  # must not matter
    y = apply('evonorm_b0', x, mask, group_size=group_size)
    self.check(y, b0(x, mask, group_size), mask)
    y = apply('evonorm_b0', x, mask, statistics='running')
    self.check(y, b0(x, mask, var=VAR), mask)

  @parameterized.product(mask=tuple(MASKS), num_groups=(1, 2, 4))
  def test_s0_equals_its_formula(self, mask, num_groups):
    x, mask = data(), MASKS[mask]
    x[~mask] = 1e6
    y = apply('evonorm_s0', x, mask, num_groups=num_groups)
    self.check(y, s0(x, mask, num_groups), mask)

  @parameterized.product(
    name=('evonorm_b0', 'evonorm_s0'),
    kind=('dense', 'channels_first', 'bfloat16', 'far'),
  )
  def test_so_for_all_kinds_of_inputs(self, name, kind):
    x, tolerance = data(), 1e-4
    if kind == 'dense':
      x = x[:, 0, 0]
    if kind == 'far':
      x, tolerance = data(mean=1e4), 1e-3
    if kind == 'bfloat16':
      x, tolerance = jnp.bfloat16(x), 2**-7
    if kind == 'channels_first':
      y = np.moveaxis(apply(name, np.moveaxis(x, -1, 1), axis=1), 1, -1)
    else:
      y = apply(name, x)
    self.assertEqual(y.dtype, x.dtype)
    real = np.ones(x.shape[:-1], bool)
    formula = {'evonorm_b0': b0, 'evonorm_s0': s0}[name]
    self.check(y, formula(x, real), real, tolerance)

  def test_b0_does_not_see_a_scale_of_x_and_s0_does(self):
    """Above 0: both tell a sign, and a shift, which no mean takes off."""
    x = data()
    for name, is_blind in (('evonorm_b0', True), ('evonorm_s0', False)):
      y, scaled, turned, shifted = (
        apply(name, z, epsilon=0.0) for z in (x, 3 * x, -x, x + 1)
      )
      apart = float(np.abs(scaled - y).max())
      (self.assertLess if is_blind else self.assertGreater)(apart, 1e-4)
      for other in (turned, -turned, shifted):
        self.assertGreater(float(np.abs(other - y).max()), 0.1)

  def test_s0_lies_between_a_ramp_and_a_line(self):
    """For a v without end it is ReLU(x) / s, and x / 2 s for v = 0."""
    x = data()
    variances = variance(
      np.float64(x).reshape(6, 6, 2, 2), np.ones((6, 6, 1, 1), bool), (1, 3)
    )
    deviation = np.repeat(np.sqrt(variances[:, :, :, 0] + 1e-5), 2, axis=2)
    for v, unit in ((1e4, np.maximum(x, 0)), (0, x / 2)):
      want = unit.reshape(6, 6, 4) / deviation * SCALE + BIAS
      y = apply('evonorm_s0', x, v=np.full(4, v))
      self.check(y, want, np.ones((6, 6), bool), 1e-3)

  @parameterized.parameters('evonorm_b0', 'evonorm_s0')
  def test_a_residual_network_has_scale_and_bias_alone_before_a_sum(self, name):
    """And no other nonlinearity: each layer's output is what the next takes."""
    module, shape = models_small.make(
      'resnet20', name, shortcut='projection', zero_init_residual=True
    )
    params = jax.eval_shape(
      lambda x: module.init(jax.random.key(0), x, statistics='batch'),
      jax.ShapeDtypeStruct((4, *shape), jnp.float32),
    )['params']
    block = params['stage2_block1']
    whole, alone = {'scale', 'bias', 'v'}, {'scale', 'bias'}
    self.assertEqual(set(params['conv1_norm']), whole)
    self.assertEqual(set(block['conv1_norm']), whole)
    self.assertEqual(set(block['conv2_norm']), alone)
    self.assertEqual(set(block['projection_norm']), alone)
    layer = norms.make(name).zeroed('norm1')
    y, _ = layer.init_with_output(jax.random.key(0), data(), statistics='batch')
    np.testing.assert_array_equal(y, np.zeros_like(data()))

  @parameterized.parameters('layer', 'linear')
  def test_nothing_of_a_frozen_one_learns(self, field):
    """Nor of scale and bias where they stand alone."""
    for is_frozen in (False, True):
      norm = norms.make('evonorm_b0', frozen=is_frozen)
      module = getattr(norm, field)('norm1')
      variables = module.init(jax.random.key(0), data(), statistics='running')

      def loss(params, module=module, variables=variables):
        given = {**variables, 'params': params}
        return (module.apply(given, data(), statistics='batch') ** 3).sum()

      slopes = jax.grad(loss)(variables['params'])
      for slope in slopes.values():
        np.testing.assert_array_equal(slope != 0, np.full(4, not is_frozen))

  @parameterized.parameters('evonorm_b0', 'evonorm_s0')
  def test_is_the_only_nonlinearity(self, name):
    """An MLP is products and EvoNorms in turn."""
    module = models.make('mlp', num_classes=2, norm=name, hidden=(4,))
    x = data().reshape(6, -1)
    got, variables = module.init_with_output(
      jax.random.key(0), x, statistics='batch'
    )
    params = variables['params']
    hidden = x @ params['dense1']['kernel']  # the biases begin at 0
    layer = norms.make(name).layer('norm1')
    own = {
      collection: leaves['dense1_norm']
      for collection, leaves in variables.items()
    }
    hidden = layer.apply(own, hidden, statistics='batch')
    self.assertGreater(float((hidden < 0).mean()), 0.1)  # no ReLU
    want = hidden @ params['logits']['kernel']
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

  def test_refuses(self):
    for keywords, message in (
      (dict(num_groups=3), 'num_groups is 3; .*divides 4'),
      (dict(num_groups=4), 'has groups of one value, whose deviation is 0'),
    ):
      with self.assertRaisesRegex(ValueError, message):
        apply('evonorm_s0', data()[:, 0, 0], **keywords)
    network = models.make('mlp', num_classes=2, norm='batch')
    with self.assertRaisesRegex(ValueError, 'EvoNormB0 brings its own nonline'):
      models.replace_norms(network, 'evonorm_b0')
    with self.assertRaisesRegex(ValueError, 'num_groups is 0; allowed'):
      norms.make('evonorm_s0', num_groups=0)


if __name__ == '__main__':
  absltest.main()
