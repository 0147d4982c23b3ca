"""Networks whose norms are replaced, against those that were made with them."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import models, norms, placement
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)
from tests.models import adapted_test

IMAGES = adapted_test.IMAGES
KEY = jax.random.key(2)


def network(norm):
  norm = norms.make(norm) if isinstance(norm, str) else norm
  return models.make('mlp', num_classes=3, norm=norm, hidden=(6, 6, 4))


def run(module):
  """(variables, outputs of both kinds, new statistics) of a network."""

  @jax.jit
  def called(x):
    variables = module.init(KEY, x, statistics='running')
    batch, new = module.apply(
      variables, x, statistics='batch', mutable=['batch_stats']
    )
    variables_after = {**variables, **new}
    running = module.apply(variables_after, x, statistics='running')
    return variables, batch, running, new

  return called(IMAGES)


class OursTest(parameterized.TestCase):
  @parameterized.parameters(
    ('group', 'layer'), ('none', 'rms'), ('batch', 'l2'), ('l2', 'batch'),
  )  # fmt: skip
  def test_is_the_network_made_with_the_norm(self, old, new):
    swapped = models.replace_norms(network(old), new)
    same_bits.assert_same(run(swapped), run(network(new)))

  def test_the_bias_before_the_norm_stays_as_it_was(self):
    swapped = models.replace_norms(network('batch'), 'group')
    group = norms.make('group')
    without = network(group._replace(bias_before=False))
    same_bits.assert_same(run(swapped), run(without))
    self.assertIn('bias', run(network(group))[0]['params']['dense1'])

  def test_layers_and_taps_are_the_networks(self):
    swapped = models.replace_norms(network('batch'), 'group')
    variables = jax.eval_shape(
      lambda: swapped.init(KEY, IMAGES, statistics='running')
    )
    self.assertEqual(models.taps(swapped), models.taps(network('batch')))
    self.assertEqual(
      models.layers(swapped, variables),
      models.layers(network('batch'), variables),
    )

  def test_only_where_it_matches(self):
    swapped = models.replace_norms(network('batch'), 'layer', 'dense[12]_norm')
    variables = run(swapped)[0]
    self.assertEqual(set(variables['batch_stats']), {'dense3_norm'})

  def test_refuses_a_norm_with_a_nonlinearity_of_its_own(self):
    """The network's own would follow it; a user's network may call it."""
    said = 'FilterResponseNorm brings its own nonlinearity, ThresholdedUnit'
    with self.assertRaisesRegex(ValueError, said):
      models.replace_norms(network('batch'), 'frn')
    traits = models.traits(network('batch'), IMAGES.shape[1:])
    with self.assertRaisesRegex(ValueError, 'the network does not call it'):
      models.with_norm(traits, norms.make('frn'), placement.ALONE)
    self.assertTrue(models.traits(network('frn'), IMAGES.shape[1:]).has_units)

  def test_the_later_of_two_wins(self):
    once = models.replace_norms(network('batch'), 'layer')
    twice = models.replace_norms(once, 'l2', 'dense[12]_norm')
    stats = run(twice)[0]['batch_stats']
    self.assertEqual(set(stats), {'dense1_norm', 'dense2_norm'})
    self.assertIn('scale_p', stats['dense1_norm'])

  def test_padding_and_noise_reach_the_new_norm(self):
    module = models.replace_norms(network('layer'), 'noisy')
    made = network('noisy')
    mask = jnp.arange(6) < 4
    keywords = dict(
      statistics='batch', mask=mask, first=3, rngs={'noise': KEY},
      mutable=['batch_stats'],
    )  # fmt: skip
    variables = jax.jit(made.init, static_argnames='statistics')(
      KEY, IMAGES, statistics='running'
    )
    biases = jax.jit(module.init, static_argnames='statistics')(
      KEY, IMAGES, statistics='running'
    )
    call = lambda module: jax.jit(
      lambda variables: module.apply(variables, IMAGES, **keywords)
    )
    got = call(module)(biases)
    # The biases of 'layer' are zero still.
    want = call(made)(variables)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      got,
      want,
    )


class Group(nn.Module):
  """A network whose norms know of no training."""

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(4, (3, 3), name='conv1')(x)
    x = nn.relu(nn.GroupNorm(2, name='norm')(x))
    return nn.Dense(3)(x.mean((1, 2)))


class Zeroed(nn.Module):
  """Norms whose scale begins at 0, and one whose scale does not."""

  ours: str | None = None

  @nn.compact
  def __call__(self, x, train=False):
    zeros = nn.initializers.zeros_init()
    x = nn.BatchNorm(not train, scale_init=zeros, name='last')(x)
    x = nn.LayerNorm(scale_init=nn.initializers.constant(0.0), name='other')(x)
    if self.ours:
      x = norms.make(self.ours).zeroed('ours')(x, statistics='running')
    return nn.GroupNorm(1, name='first')(x)


class ZeroedTest(parameterized.TestCase):
  @parameterized.product(new=('batch', 'rms'), ours=('l2', 'group'))
  def test_a_scale_that_began_at_0_begins_there(self, new, ours):
    module = models.replace_norms(Zeroed(ours), new)
    params = module.init(KEY, IMAGES)['params']
    for name in ('last', 'other', 'ours', 'first'):
      scale = params[name]['scale']
      np.testing.assert_array_equal(scale, float(name == 'first'))

  def test_a_norm_without_a_scale_to_learn_has_none_that_is_0(self):
    for new in ('none', norms.make('batch', affine=False)):
      module = models.replace_norms(Zeroed(), new)
      params = module.init(KEY, IMAGES).get('params', {})
      for arrays in params.values():
        self.assertEqual(arrays['scale'], 1)


class TheirsTest(parameterized.TestCase):
  def test_trains_as_before(self):
    theirs = adapted_test.Theirs()
    norm = norms.make('batch', momentum=0.8, epsilon=1e-4)
    swapped = models.replace_norms(theirs, norm)
    variables = swapped.init(KEY, IMAGES, train=False)
    same_bits.assert_same(variables, theirs.init(KEY, IMAGES, train=False))
    for train in (True, False):
      got, want = (
        module.apply(variables, IMAGES, train, mutable=['batch_stats'])
        for module in (swapped, theirs)
      )
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        got,
        want,
      )

  @parameterized.parameters(True, False)
  def test_adapts_before_and_after(self, first):
    grouped = norms.make('batch', group_size=3, momentum=0.8, epsilon=1e-4)
    theirs = adapted_test.Theirs()
    if first:
      module = models.replace_norms(
        models.adapt(theirs, shape=adapted_test.SHAPE), grouped
      )
    else:
      module = models.adapt(
        models.replace_norms(theirs, grouped), shape=adapted_test.SHAPE
      )
    variables = module.init(KEY, IMAGES, statistics='running')
    apply = jax.jit(module.apply, static_argnames='statistics')
    together = apply(variables, IMAGES, statistics='batch')
    apart = apply(variables, IMAGES[:3], statistics='batch')
    np.testing.assert_allclose(together[:3], apart, rtol=1e-5, atol=1e-6)
    # The mask and the moments reach the new norm.
    mask = jnp.arange(6) < 2
    masked = apply(variables, IMAGES, statistics='batch', mask=mask)
    alone = apply(variables, IMAGES[:3], statistics='batch', mask=mask[:3])
    np.testing.assert_allclose(masked[:2], alone[:2], rtol=1e-5, atol=1e-6)
    population = norms.population_statistics(module, variables, [IMAGES])
    self.assertEqual(population.examples, 6)
    self.assertEqual(
      models.taps(module),
      models.taps(models.adapt(theirs, shape=adapted_test.SHAPE)),
    )

  def test_a_norm_that_has_to_know_of_training(self):
    self.assertRaisesRegex(
      ValueError, 'the call of Group does not say whether it trains',
      models.replace_norms(Group(), 'batch').init, KEY, IMAGES,
    )  # fmt: skip
    variables = models.replace_norms(Group(), 'rms').init(KEY, IMAGES)
    self.assertEqual(set(variables['params']['norm']), {'scale'})


if __name__ == '__main__':
  absltest.main()
