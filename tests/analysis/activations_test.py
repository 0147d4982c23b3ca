import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis, distributions, models, types
from bn_jax.analysis import activations
from bn_jax.data.batches import in_memory
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)


def state_and_batch(norm, count=8):
  made = toys.classifier(norm)
  state = made.init(0)
  return made, state, in_memory.first(toys.split(), count)


class TapTest(parameterized.TestCase):
  def test_is_the_input_to_the_nonlinearity(self):
    """By hand: convolution, statistics of the batch, scale and bias."""
    made, state, batch = state_and_batch('batch')
    got = made.activations(state, batch, 'batch', ('conv1',))['conv1']
    kernel = state.params['conv1']['kernel']
    x = jax.lax.conv_general_dilated(
      batch.images, kernel, (1, 1), 'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    want = (x - mean.reshape(1, 1, 1, -1)) / jnp.sqrt(
      var.reshape(1, 1, 1, -1) + 1e-5
    )
    np.testing.assert_allclose(got, want, atol=1e-5)

  def test_running_statistics(self):
    made, state, batch = state_and_batch('batch')
    seen = made.activations(state, batch, 'running', ('conv1',))['conv1']
    other = made.activations(state, batch, 'batch', ('conv1',))['conv1']
    self.assertGreater(float(jnp.abs(seen - other).max()), 0.01)

  def test_one_path_in_every_network(self):
    for norm in ('none', 'batch', 'noise', 'noisy'):
      made, state, batch = state_and_batch(norm)
      seen = made.activations(state, batch, 'batch', made.taps)
      self.assertEqual(seen['conv1'].shape, (8, 4, 4, 4), norm)

  def test_sees_the_noise_of_the_step_that_comes(self):
    """The noisy tap, its noise taken off, is the tap of the network with BN."""
    noisy, state, batch = state_and_batch('noisy')
    plain, _, _ = state_and_batch('batch')
    seen = noisy.activations(state, batch, 'batch', ('conv1',))['conv1']
    quiet = plain.activations(state, batch, 'batch', ('conv1',))['conv1']
    change = jnp.abs(seen.mean((0, 1, 2)) - quiet.mean((0, 1, 2)))
    self.assertGreater(float(change.max()), 0.05)
    self.assertLess(float(change.max()), 0.65)
    again = noisy.activations(state, batch, 'batch', ('conv1',))['conv1']
    same_bits.assert_same(seen, again)
    later = state._replace(step=state.step + 1)
    moved = noisy.activations(later, batch, 'batch', ('conv1',))['conv1']
    self.assertFalse((moved == seen).any())

  def test_layers_of_a_vgg_in_forward_order(self):
    module = models.make('vgg16', num_classes=10, norm='none', head=(8,))
    names = [name for name, _ in models.taps(module)]
    self.assertEqual(names[:2], ['conv1', 'conv2'])
    self.assertEqual(names[-2:], ['conv13', 'dense1'])
    self.assertLen(names, 14)


class MeasureTest(parameterized.TestCase):
  def look(self, batches, **keywords):
    made = toys.classifier('batch')
    return analysis.make('activations', **keywords)(made, made.init(0), batches)

  def test_batches_are_merged_as_if_seen_at_once(self):
    split = toys.split()
    whole = self.look([in_memory.first(split, 20)], statistics='running')
    parts = self.look(
      in_memory.padded_batches(split, batch_size=8), statistics='running'
    )
    self.assertEqual(whole['conv1/count'], 20 * 16)
    self.assertEqual(set(whole), set(parts))
    np.testing.assert_array_equal(
      whole['conv1/histogram'], parts['conv1/histogram']
    )
    for name in whole:
      np.testing.assert_allclose(whole[name], parts[name], rtol=1e-6, atol=1e-7)

  def test_arrays(self):
    seen = self.look([in_memory.first(toys.split(), 8)])
    shapes = {name: value.shape for name, value in seen.items()}
    self.assertEqual(
      shapes,
      {
        'levels': (3,),
        'edges': (distributions.CELLS - 1,),
        'conv1/count': (),
        'conv1/positive': (4,),
        'conv1/mean': (4,),
        'conv1/var': (4,),
        'conv1/quantiles': (3, 4),
        'conv1/histogram': (distributions.CELLS,),
      },
    )
    # With batch statistics, scale 1 and bias 0: means 0 and variances 1.
    np.testing.assert_allclose(seen['conv1/mean'], 0, atol=1e-5)
    np.testing.assert_allclose(seen['conv1/var'], 1, rtol=1e-3)
    self.assertTrue((np.diff(seen['conv1/quantiles'], axis=0) > 0).all())

  def test_a_unit_without_values_above_zero_is_dead(self):
    made, batch = toys.classifier('batch'), in_memory.first(toys.split(), 8)
    state = made.init(0)
    norm = {'scale': jnp.ones(4), 'bias': jnp.array([0.0, -1.0, -99.0, 99.0])}
    state = state._replace(params={**state.params, 'norm1': norm})
    seen = analysis.make('activations')(made, state, [batch])
    values = made.activations(state, batch, 'batch', ('conv1',))['conv1']
    want = np.mean(np.asarray(values) > 0, axis=(0, 1, 2))
    np.testing.assert_allclose(seen['conv1/positive'], want, rtol=1e-6)
    np.testing.assert_array_equal(want[2:], [0, 1])
    self.assertBetween(want[1], 0.01, 0.4)

  def test_leaves_the_state_alone(self):
    made = toys.classifier('noisy')
    state = made.init(0)
    before = jax.tree.map(np.array, state)
    analysis.make('activations')(
      made, state, [in_memory.first(toys.split(), 8)]
    )
    same_bits.assert_same(before, state)

  def test_refuses(self):
    with self.assertRaisesRegex(ValueError, "statistics is 'train'"):
      analysis.make('activations', statistics='train')
    with self.assertRaisesRegex(
      ValueError, "unknown layer 'conv9'.*feed a nonlin"
    ):
      self.look([in_memory.first(toys.split(), 8)], layers=('conv9',))

  @parameterized.parameters(
    ((), ('a', 'c', 'e')), (('d', 'b'), ('b', 'd')), (('e',), ('e',))
  )
  def test_chosen_layers(self, given, want):
    self.assertEqual(activations.chosen_layers('abcde', given), want)

  def test_few_layers_are_named_once(self):
    self.assertEqual(activations.chosen_layers('ab', ()), ('a', 'b'))
    self.assertEqual(activations.chosen_layers('a', ()), ('a',))


class DriftTest(absltest.TestCase):
  def test_of_a_channel_that_moves_and_one_that_spreads(self):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(100_000, 3))
    after = np.stack([x[:, 0], x[:, 1] + 0.5, 2 * x[:, 2]], axis=1)
    moved = analysis.drift(distributions.of(x), distributions.of(after))
    np.testing.assert_allclose(moved['mean_change'], [0, 0.5, 0], atol=0.01)
    np.testing.assert_allclose(moved['variance_change'], [0, 0, 3], atol=0.04)
    # W1 of N(0, 1) and N(0, 4) is E|z| = sqrt(2 / pi).
    want = [0, 0.5, np.sqrt(2 / np.pi)]
    np.testing.assert_allclose(moved['wasserstein'], want, atol=0.02)


class BatchTest(absltest.TestCase):
  def test_first_examples_are_those_of_the_split(self):
    split = toys.split()
    batch = in_memory.first(split, 5)
    self.assertIsInstance(batch, types.Batch)
    np.testing.assert_array_equal(batch.labels, split.labels[:5])
    self.assertIsNone(batch.mask)


if __name__ == '__main__':
  absltest.main()
