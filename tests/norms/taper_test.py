"""A normalization that tapers to a fixed map, against its formulas."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.sharding import PartitionSpec

from bn_jax import models, norms
from bn_jax.placement import Spread
from bn_jax.training import devices as devices_lib
from tests.fixtures import (
  models_small,
  same_bits,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


SCALE, GAIN, START = np.random.default_rng(1).normal(1, 0.3, size=(3, 5))
STEPS = (2, 6)


def data(seed=0):
  x = np.random.default_rng(seed).normal(1, 2, size=(4, 3, 2, 5))
  return x.astype(np.float32)


def layer_of(**keywords):
  return norms.make('taper', **{'taper_steps': STEPS, **keywords}).layer('a')


def variables_of(count, c=0.4):
  stats = {'start': START, 'numerator': 2 * c, 'denominator': 2.0}
  return {
    'params': {'scale': np.float32(SCALE), 'gain': np.float32(GAIN)},
    'batch_stats': {
      'count': jnp.int32(count),
      **{name: np.float32(value) for name, value in stats.items()},
    },
  }


def apply(x, count, mask=None, statistics='running', **keywords):
  layer = layer_of(**keywords)
  return layer.apply(variables_of(count), x, statistics=statistics, mask=mask)


def deviation(x, per='example', mask=True):
  """r(x) of each example or position, in float64."""
  axes = (1, 2, 3) if per == 'example' else (3,)
  real = np.broadcast_to(mask, x.shape)
  square = np.where(real, np.float64(x) ** 2, 0).sum(axes, keepdims=True)
  count = np.maximum(real.sum(axes, keepdims=True), 1)
  return np.sqrt(square / count + 1e-5)


class TaperNormTest(parameterized.TestCase):
  @parameterized.product(
    count=(0, 2, 3, 4, 5, 6, 9),
    per=('example', 'position'),
    statistics=norms.STATISTICS,
  )
  def test_is_norm_and_map_in_the_gates_shares(self, count, per, statistics):
    """1 up to the first update, 0 from the last on, a cosine between."""
    gate = {3: (2 + 2**0.5) / 4, 4: 0.5, 5: (2 - 2**0.5) / 4}.get(
      count, float(count < 3)
    )
    x = data()
    y = apply(x, count, per=per, statistics=statistics)
    want = gate * SCALE * x / deviation(x, per)
    want += (1 - gate) * 0.4 * (START + GAIN) * x
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)

  @parameterized.parameters('example', 'position')
  def test_begins_as_rms(self, per):
    x = data()
    want = norms.make('rms', per=per).layer('a')
    y = want.apply(
      {'params': {'scale': np.float32(SCALE)}}, x, statistics='batch'
    )
    np.testing.assert_allclose(apply(x, 0, per=per), y, rtol=1e-5, atol=1e-6)

  def test_ends_as_a_fixed_map_of_each_example(self):
    """Of no norm is anything left: not of x, nor of the parameter scale."""
    x = data()
    y = apply(x, 6)
    np.testing.assert_allclose(apply(3 * x, 6), 3 * y, rtol=1e-5)
    layer, variables = layer_of(), variables_of(6)

    def loss(params):
      given = {**variables, 'params': params}
      return (layer.apply(given, x, statistics='batch') ** 3).sum()

    slopes = jax.grad(loss)(variables['params'])
    self.assertFalse(slopes['scale'].any())
    self.assertTrue(slopes['gain'].all())

  @parameterized.parameters('channels_first', 'bfloat16', 'positions')
  def test_so_for_all_kinds_of_inputs(self, kind):
    x, mask, tolerance = data(), None, 1e-5
    want = 0.5 * SCALE * x / deviation(x) + 0.2 * (START + GAIN) * x
    if kind == 'channels_first':
      y = np.moveaxis(apply(np.moveaxis(x, -1, 1), 4, axis=1), 1, -1)
    elif kind == 'bfloat16':
      y, tolerance = np.float64(apply(jnp.bfloat16(x), 4)), 2**-6
    else:
      mask = np.random.default_rng(2).random((4, 3, 2)) < 0.6
      r = deviation(x, mask=mask[..., None])
      want = (0.5 * SCALE * x / r + 0.2 * (START + GAIN) * x)[mask]
      x[~mask] = 1e6
      y = apply(x, 4, mask=mask)[mask]
    np.testing.assert_allclose(y, want, rtol=tolerance, atol=tolerance)

  @parameterized.parameters('example', 'position')
  def test_what_it_learns_before_it_tapers(self, per):
    """c is the least-squares factor, of averages; then only gain moves."""
    layer = layer_of(per=per, momentum=0.5)
    mask = np.array([True, True, True, False])
    variables = layer.init(jax.random.key(0), data(), statistics='running')
    params = {'scale': np.float32(SCALE), 'gain': np.zeros(5, np.float32)}
    stats, sums = variables['batch_stats'], []
    for step in range(5):
      x = data(step)
      real = np.float64(x[:3])
      square = (real * SCALE) ** 2
      axes = (1, 2, 3) if per == 'example' else (3,)
      square = square.sum(axes, keepdims=True)
      sums.append(((square / deviation(real, per)).mean(), square.mean()))
      x[3] = np.nan
      _, new = layer.apply(
        {'params': params, 'batch_stats': stats}, x, statistics='batch',
        mask=mask, mutable=['batch_stats'],
      )  # fmt: skip
      stats = new['batch_stats']
      self.assertEqual(int(stats['count']), step + 1)
      # Three updates: those of count 0, 1 and 2. Scale moves after them.
      if step == 2:
        kept = stats
        params = {**params, 'scale': params['scale'] + 1}
    weights = np.array([1, 2, 4]) / 7
    for name, column in (('numerator', 0), ('denominator', 1)):
      want = sum(w * s[column] for w, s in zip(weights, sums))
      np.testing.assert_allclose(stats[name], want, rtol=1e-5)
      same_bits.assert_same(stats[name], kept[name])
    np.testing.assert_array_equal(stats['start'], np.float32(SCALE))
    # c of one batch, by least squares.
    x, r = np.float64(data()), deviation(data(), per)
    left, right = (SCALE * x).ravel(), (SCALE * x / r).ravel()
    want = np.linalg.lstsq(left[:, None], right, rcond=None)[0][0]
    layer = layer_of(per=per, taper_steps=(0, 1))
    given = {'params': params | {'scale': np.float32(SCALE)}}
    _, new = layer.apply(
      given | {'batch_stats': variables['batch_stats']}, data(),
      statistics='batch', mutable=['batch_stats'],
    )  # fmt: skip
    y = layer.apply(given | new, data(), statistics='running')
    np.testing.assert_allclose(y, want * SCALE * x, rtol=1e-4, atol=1e-5)

  def test_a_frozen_layer_stays_where_it_is(self):
    layer, variables, x = layer_of(frozen=True), variables_of(4), data()

    def loss(params):
      y, new = layer.apply(
        {**variables, 'params': params}, x, statistics='batch',
        mutable=['batch_stats'],
      )  # fmt: skip
      return (y**2).sum(), (y, new)

    slopes, (y, new) = jax.grad(loss, has_aux=True)(variables['params'])
    same_bits.assert_same(y, apply(x, 4))
    same_bits.assert_same(
      new['batch_stats'], jax.tree.map(jnp.asarray, variables['batch_stats'])
    )
    self.assertFalse(any(leaf.any() for leaf in slopes.values()))

  def test_a_scale_of_zero_has_a_ratio(self):
    """A block's last scale may begin there: no mean of x tells c."""
    layer = layer_of(scale_init=0.0, taper_steps=(0, 1), momentum=0.0)
    variables = layer.init(jax.random.key(0), data(), statistics='running')
    for _ in range(2):
      y, new = layer.apply(
        variables, data(), statistics='batch', mutable=['batch_stats']
      )
      np.testing.assert_array_equal(y, np.zeros_like(data()))
      variables = {**variables, **new}

  def test_same_averages_on_four_devices(self):
    mask = np.array([1, 0, 1, 1], bool)
    cut = PartitionSpec(devices_lib.AXIS)

    def program(spread):
      layer = layer_of(spread=spread)

      def averages(x, mask):
        _, new = layer.apply(
          variables_of(0), x, statistics='batch', mask=mask,
          mutable=['batch_stats'],
        )  # fmt: skip
        return jax.tree.map(lambda a: a[None], new)

      return averages

    want = program(Spread())(data(), mask)
    got = jax.jit(
      jax.shard_map(
        program(Spread(4, devices_lib.AXIS)), mesh=devices_lib.mesh(4),
        in_specs=cut, out_specs=cut, check_vma=False,
      )
    )(data(), mask)  # fmt: skip
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
        a, np.broadcast_to(b, a.shape), rtol=1e-6
      ),
      got,
      want,
    )

  @parameterized.parameters('mlp', 'resnet20')
  def test_a_tapered_network_folds(self, name):
    norm = norms.make('taper', taper_steps=STEPS)
    module, shape = models_small.make(name, norm)
    x = models_small.inputs(shape)
    variables = models_small.variables(module, shape)

    def at(count):
      stats = jax.tree.map(
        lambda leaf: (
          jnp.int32(count) if leaf.dtype == jnp.int32 else 1 + jnp.abs(leaf)
        ),
        variables['batch_stats'],
      )
      return {**variables, 'batch_stats': stats}

    with self.assertRaisesRegex(
      ValueError, 'still normalises, with a gate of 0.5 .*from update 6 on, so'
    ):
      norms.fold(module, at(4), x)
    folded, plain = norms.fold(module, at(6), x)
    self.assertEqual(set(plain), {'params'})
    other = models_small.inputs(shape, seed=2)
    want = module.apply(at(6), other, statistics='running')
    got = folded.apply(plain, other, statistics='running')
    np.testing.assert_allclose(
      got, want, atol=1e-4 * float(jnp.abs(want).max())
    )

  def test_replaces_other_norms(self):
    network = models.make('mlp', num_classes=2, norm='batch', hidden=(4,))
    swapped = models.replace_norms(network, 'taper')
    variables = swapped.init(jax.random.key(0), data(), statistics='batch')
    self.assertIn('gain', variables['params']['dense1_norm'])

  @parameterized.parameters(
    (dict(per='batch'), "per is 'batch'; allowed: example, position"),
    (dict(taper_steps=(3, 2)), r'taper_steps is \(3, 2\); allowed: .first, l'),
    (dict(taper_steps=3), 'taper_steps is 3; allowed'),
    (dict(momentum=1.0), 'momentum is 1'),
  )
  def test_make_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      norms.make('taper', **keywords)


if __name__ == '__main__':
  absltest.main()
