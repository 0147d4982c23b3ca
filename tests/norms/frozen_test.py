"""Frozen normalizations: fixed maps, for fine-tuning."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import models, norms
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)

KEY = jax.random.key(2)
# All with running statistics; one average that counts its updates among them.
WITH_STATISTICS = (
  ('batch', {}),
  ('batch', {'running_average': 'cumulative'}),
  ('batch', {'stop_statistics_gradient': True}),
  ('batch_renorm', {}),
  ('noisy', {}),
  ('evonorm_b0', {}),
  ('iternorm', {}),
  ('l1', {}),
  ('l2', {}),
  ('linf', {}),
  ('lp', {'p': 3}),
)
over_norms = parameterized.parameters(*WITH_STATISTICS)
over_maps = parameterized.parameters(
  *(case for case in WITH_STATISTICS if case[0] != 'evonorm_b0')
)  # which is nonlinear


def setUpModule():
  # Numbers do not matter here, compilation takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def values(shape=(6, 2, 3), seed=0):
  generator = np.random.default_rng(seed)
  return jnp.asarray(generator.normal(3, 2, size=shape), jnp.float32)


def layer(name, keywords, **more):
  return norms.make(name, **keywords, **more).layer('norm1')


def variables_of(module, x):
  """Variables that no layer begins with, so that each of them matters."""
  variables = module.init(KEY, x, statistics='running')

  def changed(path, leaf):
    if leaf.dtype == jnp.int32:
      return leaf + 7
    spread = jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape)
    return 1.5 + 0.25 * spread + 0.125 * len(path[-1].key)

  return jax.tree_util.tree_map_with_path(changed, variables)


def trained(module, variables, x, **keywords):
  """(y, batch_stats) with statistics 'batch', the collection mutable."""
  y, new = module.apply(
    variables, x, statistics='batch', mutable=['batch_stats'], **keywords
  )
  return y, new['batch_stats']


def gradients(module, variables, x, weight, statistics='batch', **keywords):
  """Of sum(weight y), for x and for the parameters."""

  def loss(x, params):
    given = {**variables, 'params': params}
    y = module.apply(given, x, statistics=statistics, **keywords)
    return (weight * y).sum()

  return jax.grad(loss, argnums=(0, 1))(x, variables['params'])


class FrozenTest(parameterized.TestCase):
  @over_norms
  def test_modes_are_alike_and_no_statistic_moves(self, name, keywords):
    """Not so in Keras once: frozen layers used the batch, and moved."""
    x = values()
    frozen = layer(name, keywords, frozen=True)
    variables = variables_of(frozen, x)
    y, stats = trained(frozen, variables, x)
    same_bits.assert_same(y, frozen.apply(variables, x, statistics='running'))
    same_bits.assert_same(stats, variables['batch_stats'])
    # What it infers with is what the layer that is not frozen would.
    free = layer(name, keywords)
    same_bits.assert_same(y, free.apply(variables, x, statistics='running'))
    self.assertTrue((trained(free, variables, x)[0] != y).any())

  @over_maps
  def test_gradients_are_those_of_a_fixed_map(self, name, keywords):
    """dL/dx = W' scale dL/dy, and none for scale and bias."""
    x, weight = values(), values(seed=1)
    frozen = layer(name, keywords, frozen=True)
    variables = variables_of(frozen, x)
    stats, scale = variables['batch_stats'], variables['params']['scale']
    if 'var' in stats:
      matrix = np.diag(1 / np.sqrt(np.float64(stats['var']) + 1e-5))
    elif 'whitening' in stats:
      matrix = np.float64(stats['whitening'][0])
    else:
      matrix = np.diag(1 / np.float64(stats['scale_p']))
    want = (np.float64(weight) * np.float64(scale)) @ matrix
    zeros = jnp.zeros(3)
    for statistics in norms.STATISTICS:
      of_x, of_params = gradients(frozen, variables, x, weight, statistics)
      np.testing.assert_allclose(of_x, want, rtol=1e-6)
      same_bits.assert_same(of_params, {'scale': zeros, 'bias': zeros})
      free = layer(name, keywords)
      _, of_params = gradients(free, variables, x, weight, statistics)
      self.assertTrue(all(g.all() for g in of_params.values()))

  @over_norms
  def test_an_example_depends_on_no_other(self, name, keywords):
    """So groups, masks and a batch of one value are no matter to it."""
    x = values()
    frozen = layer(name, keywords, group_size=4, frozen=True)
    variables = variables_of(frozen, x)
    mask = jnp.arange(6) < 2
    y, stats = trained(frozen, variables, x, mask=mask)
    same_bits.assert_same(stats, variables['batch_stats'])
    want = frozen.apply(variables, x, statistics='running')
    same_bits.assert_same(y[mask], want[mask])
    # An EvoNorm has statistics of an example's own positions.
    part = np.s_[:1] if name == 'evonorm_b0' else np.s_[:1, :1]
    alone, _ = trained(frozen, variables, x[part])
    same_bits.assert_same(alone, y[part])

  @over_norms
  def test_only_where_it_is_asked_for(self, name, keywords):
    self.assertFalse(norms.make(name, **keywords).frozen)
    self.assertTrue(norms.make(name, **keywords, frozen=True).frozen)
    keyword = inspect.signature(norms.NORMS[name]).parameters['frozen']
    self.assertIs(keyword.default, False)
    module = layer(name, keywords, axis=1)
    self.assertEqual((module.frozen, module.axis), (False, 1))

  def test_others_are_not(self):
    layers = norms.BatchNorm(), norms.BatchRenorm(), norms.LpNorm()
    self.assertFalse(any(module.frozen for module in layers))
    self.assertFalse(norms.make('group').frozen)

  def test_all_with_running_statistics_can_be(self):
    # What tapers is alike with both statistics anyhow: see taper_test.
    named = {name for name, _ in WITH_STATISTICS} | {'taper'}
    for name in norms.NORMS:
      init = functools.partial(
        norms.make(name).layer('norm1').init, statistics='running'
      )
      variables = jax.eval_shape(init, KEY, values())
      known = 'frozen' in inspect.signature(norms.NORMS[name]).parameters
      self.assertEqual('batch_stats' in variables, known, name)
      self.assertEqual(name in named, known, name)

  def test_axis_and_dtype_are_kept(self):
    x = values((4, 3, 2)).astype(jnp.bfloat16)
    frozen = layer('batch', {}, axis=1, frozen=True)
    variables = variables_of(frozen, x)
    y, _ = trained(frozen, variables, x)
    self.assertEqual((y.shape, y.dtype), (x.shape, jnp.bfloat16))
    last = layer('batch', {}, frozen=True)
    want, _ = trained(last, variables, jnp.moveaxis(x, 1, -1))
    same_bits.assert_same(y, jnp.moveaxis(want, -1, 1))

  def test_noise_is_no_statistic(self):
    x = values((40, 5, 3))
    noisy, plain = layer('noisy', {}, frozen=True), layer('batch', {})
    variables = variables_of(plain, x)
    y, stats = trained(noisy, variables, x, rngs={'noise': KEY})
    same_bits.assert_same(stats, variables['batch_stats'])
    fixed = plain.apply(variables, x, statistics='running')
    self.assertTrue((y != fixed).any())
    same_bits.assert_same(trained(noisy, variables, x)[0], fixed)
    # Given its key, y = s fixed + m, element by element.
    again, _ = trained(noisy, variables, x + 1, rngs={'noise': KEY})
    other, _ = trained(noisy, variables, x + 2, rngs={'noise': KEY})
    np.testing.assert_allclose(other - again, again - y, atol=1e-4)

  @parameterized.parameters(('batch', {}), ('lp', {'p': 3}))
  def test_tells_the_moments_of_a_batch_all_the_same(self, name, keywords):
    x = values()
    frozen = layer(name, keywords, group_size=2, frozen=True)
    variables = variables_of(frozen, x)
    found = [
      frozen.apply(variables, x, statistics=statistics, mutable=['moments'])[1]
      for statistics in norms.STATISTICS
    ]
    same_bits.assert_same(*found)
    want = norms.moments(x, group_size=2)
    moments = found[0]['moments']['batch']
    same_bits.assert_same(moments['mean'], want.mean)


class Small(nn.Module):
  """One layer with its norm, as `norms.fold` takes it."""

  norm: norms.Norm

  @nn.compact
  def __call__(self, x, *, statistics, mask=None):
    x = nn.Dense(5, use_bias=self.norm.bias_before)(x)
    return self.norm.layer('norm1')(x, statistics=statistics, mask=mask)


class NetworkTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    make = functools.partial(models.make, 'vgg11', num_classes=3, width=0.02)
    self.module = make(norm=norms.make('batch', frozen=True))
    self.x = values((4, 8, 8, 1))
    self.variables = jax.jit(self.module.init, static_argnames='statistics')(
      KEY, self.x, statistics='running'
    )

  def test_learns_with_what_is_not_frozen(self):
    @jax.jit
    def gradients(variables, x):
      def loss(params):
        given = {**variables, 'params': params}
        y, stats = trained(self.module, given, x)
        return (y * values(y.shape)).sum(), stats

      return jax.grad(loss, has_aux=True)(variables['params'])

    found, stats = gradients(self.variables, self.x)
    same_bits.assert_same(stats, self.variables['batch_stats'])
    for name, leaves in found.items():
      for leaf in leaves.values():
        self.assertEqual(bool(leaf.any()), not name.endswith('_norm'), name)

  def test_folds_and_takes_the_statistics_of_a_population(self):
    module = Small(norms.make('batch', frozen=True))
    variables = variables_of(module, self.x)
    population = norms.population_statistics(module, variables, [self.x])
    variables = {**variables, 'batch_stats': population.batch_stats}
    # One layer sees the same, frozen or not.
    free = module.clone(norm=norms.make('batch'))
    want = norms.population_statistics(free, variables, [self.x])
    same_bits.assert_same(population, want)
    folded, plain = norms.fold(module, variables, self.x)
    np.testing.assert_allclose(
      folded.apply(plain, self.x, statistics='running'),
      module.apply(variables, self.x, statistics='batch'),
      rtol=1e-4, atol=1e-4,
    )  # fmt: skip


if __name__ == '__main__':
  absltest.main()
