"""Noise and confusion of mini-batch gradients, against known gradients."""

import functools
import inspect
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis, losses, types
from bn_jax.analysis import gradients, mini_batches
from bn_jax.data.batches import in_memory
from bn_jax.training import devices
from tests.analysis import journal_test
from tests.fixtures import (
  regression,
  same_bits,
  strict,  # noqa: F401
  toys,
)

# By its name in the package it is the function.
batch_sharpness = sys.modules['bn_jax.analysis.batch_sharpness']


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def slope(gradient, params):
  """A loss whose gradient is known: <gradient, params>."""
  return sum(
    jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(gradient), params.values())
  )


def of_rows(rows):
  """(losses whose gradients are the rows, params of two arrays)."""
  made = [
    jax.tree_util.Partial(slope, (jnp.asarray(row[:1]), jnp.asarray(row[1:])))
    for row in rows
  ]
  size = len(rows[0]) - 1
  return made, {'a': jnp.ones(1), 'b': jnp.ones(size)}


def line():
  """(Problem, state, batch) of a linear regression, examples apart."""
  made = regression.made_of(
    regression.Line(), loss=losses.squared_error(reduction='mean'),
    group_size=1, image_shape=(3,),
  )  # fmt: skip
  generator = np.random.default_rng(0)
  batch = types.Batch(
    jnp.asarray(generator.normal(size=(12, 3)), jnp.float32),
    jnp.asarray(generator.normal(size=(12, 2)), jnp.float32),
  )
  return made, made.init(0), batch


def gradient_of(made, state, batch, statistics):
  """The gradient of the objective, in one vector."""
  loss = made.loss(state, batch, statistics)
  return toys.flat(analysis.value_and_gradient(loss, state.params)[1])


class NoiseTest(parameterized.TestCase):
  def test_exactly_unbiased(self):
    """Over all draws of two mini-batches of two, from three examples."""
    examples = np.random.default_rng(0).normal(size=(3, 4))
    mean = examples.mean(0)
    trace = ((examples - mean) ** 2).sum(1).mean()  # of one drawn example
    sums = {'squared_gradient': [], 'covariance_trace': []}
    with jax.enable_x64(True):
      for draw in itertools.product(range(3), repeat=4):
        rows = examples[list(draw)].reshape(2, 2, 4).mean(1)
        got = analysis.gradient_noise(*of_rows(rows), batch_size=2)
        for name, values in sums.items():
          values.append(got[name])
    np.testing.assert_allclose(
      np.mean(sums['squared_gradient']), mean @ mean, rtol=1e-10
    )
    np.testing.assert_allclose(
      np.mean(sums['covariance_trace']), trace, rtol=1e-10
    )

  def test_is_the_formula_of_the_paper(self):
    rows, b = np.random.default_rng(1).normal(size=(5, 4)) + 1, 3
    with jax.enable_x64(True):
      got = analysis.gradient_noise(*of_rows(rows), batch_size=b)
    small, big = (rows**2).sum(1).mean(), (rows.mean(0) ** 2).sum()
    squared = (5 * b * big - b * small) / (5 * b - b)
    trace = (small - big) / (1 / b - 1 / (5 * b))
    for name, want in (
      ('small', small), ('big', big), ('squared_gradient', squared),
      ('covariance_trace', trace), ('noise_scale', trace / squared),
    ):  # fmt: skip
      np.testing.assert_allclose(got[name], want, rtol=1e-12, err_msg=name)
    # Mini-batches of one example: the covariance of the sample, divided by M-1.
    with jax.enable_x64(True):
      got = analysis.gradient_noise(*of_rows(rows), batch_size=1)
    np.testing.assert_allclose(
      got['covariance_trace'], np.trace(np.cov(rows.T)), rtol=1e-12
    )

  def test_jackknife(self):
    """By hand: the estimates of all but one mini-batch, again and again."""
    rows = np.random.default_rng(2).normal(size=(4, 3)) + 1
    with jax.enable_x64(True):
      got = analysis.gradient_noise(*of_rows(rows), batch_size=2)
      left = [
        analysis.gradient_noise(*of_rows(np.delete(rows, m, 0)), batch_size=2)
        for m in range(4)
      ]
    for name in ('squared_gradient', 'covariance_trace', 'noise_scale'):
      estimates = np.array([one[name] for one in left])
      want = np.sqrt(3 / 4 * ((estimates - estimates.mean()) ** 2).sum())
      np.testing.assert_allclose(
        got[f'{name}_standard_error'], want, rtol=1e-10, err_msg=name
      )

  def test_what_cannot_be_told_is_told(self):
    """Two opposite gradients: all noise, and no error of two."""
    got = analysis.gradient_noise(
      *of_rows(np.array([[1.0, 0], [-1, 0]])), batch_size=1
    )
    self.assertEqual(got['squared_gradient'], -1)
    self.assertEqual(got['noise_scale'], -2)
    for name in ('squared_gradient', 'covariance_trace', 'noise_scale'):
      self.assertTrue(np.isnan(got[f'{name}_standard_error']), name)
    got = analysis.gradient_noise(
      *of_rows(np.array([[np.nan, 0], [1, 0], [1, 1]])), batch_size=1
    )
    self.assertTrue(all(np.isnan(value) for value in got.values()))
    got = analysis.gradient_noise(*of_rows(np.zeros((3, 2))), batch_size=1)
    self.assertTrue(np.isnan(got['noise_scale']))
    self.assertEqual(got['covariance_trace'], 0)

  @parameterized.parameters(1, 3)
  def test_of_a_regression_by_its_examples(self, size):
    """Mini-batches in order; per-example gradients by hand."""
    made, state, batch = line()
    look = analysis.make('gradient_noise', batch_size=size, penalised=False)
    got = look(made, state, [batch])
    w = np.float64(state.params['line']['kernel'])
    x, y = np.float64(batch.images), np.float64(batch.labels)
    # The loss of an example: the mean, or the sum, of two squares.
    error = x @ w - y
    rows = np.einsum('ni,no->nio', x, error).reshape(12, 6)
    value = made.loss(state, batch, 'running', False)(state.params)
    rows *= 2 * float(value) / (error**2).sum(1).mean()
    pieces = rows.reshape(12 // size, size, 6).mean(1)
    with jax.enable_x64(True):
      want = analysis.gradient_noise(*of_rows(pieces), batch_size=size)
    for name in want:
      np.testing.assert_allclose(got[name], want[name], rtol=2e-4, err_msg=name)

  def test_a_sum_over_examples_has_the_same_scale(self):
    """A loss that is a sum: batches of any size are of one function."""
    keywords = dict(group_size=1, image_shape=(3,))
    mean, total = (
      regression.made_of(
        regression.Line(), loss=losses.squared_error(reduction=kind), **keywords
      )
      for kind in ('mean', 'sum')
    )
    _, state, batch = line()
    got, want = (
      [
        analysis.make('gradient_noise', batch_size=size, penalised=False)(
          made, state, [batch]
        )
        for size in (2, 6)
      ]
      for made in (total, mean)
    )
    for one, other in zip(got, want, strict=True):
      np.testing.assert_allclose(
        one['noise_scale'], other['noise_scale'], rtol=1e-4
      )
    np.testing.assert_allclose(got[0]['big'], got[1]['big'], rtol=1e-5)

  def test_batch_statistics_are_of_the_mini_batch(self):
    """big is the mean of the mini-batches' gradients, not one of all."""
    made = toys.classifier('batch')
    state, batch = made.init(0), in_memory.first(toys.split(), 16)
    got = {}
    for statistics in ('batch', 'running'):
      look = analysis.make(
        'gradient_noise', batch_size=8, statistics=statistics
      )
      got[statistics] = look(made, state, [batch])
    parts = [
      jax.tree.map(lambda leaf: leaf[first : first + 8], batch)  # noqa: B023
      for first in (0, 8)
    ]
    norms = {}
    for statistics in ('batch', 'running'):
      of_parts = [gradient_of(made, state, part, statistics) for part in parts]
      norms[statistics] = np.sum(np.mean(of_parts, axis=0) ** 2)
      whole = gradient_of(made, state, batch, statistics)
      norms[f'{statistics} whole'] = whole @ whole
    for statistics in ('batch', 'running'):
      np.testing.assert_allclose(
        got[statistics]['big'], norms[statistics], rtol=1e-4
      )
    np.testing.assert_allclose(
      norms['running whole'], norms['running'], rtol=1e-4
    )
    self.assertGreater(abs(norms['batch whole'] / norms['batch'] - 1), 1e-2)


class ConfusionTest(parameterized.TestCase):
  def test_known_gradients(self):
    rows = np.array([[1.0, 0, 0], [3, 4, 0], [-1, 2, 2]])
    got = analysis.gradient_confusion(*of_rows(rows))
    np.testing.assert_allclose(got['inner_products'], rows @ rows.T)
    np.testing.assert_allclose(got['gradient_norm'], [1, 5, 3])
    self.assertEqual(got['smallest_product'], -1)
    self.assertEqual(got['confusion'], 1)
    cosines = [3 / 5, -1 / 3, 5 / 15]
    np.testing.assert_allclose(got['smallest_cosine'], -1 / 3)
    np.testing.assert_allclose(got['mean_cosine'], np.mean(cosines))

  def test_without_confusion(self):
    got = analysis.gradient_confusion(*of_rows(np.ones((2, 3))))
    self.assertEqual(got['smallest_product'], 3)
    self.assertEqual(got['confusion'], 0)
    np.testing.assert_allclose(got['smallest_cosine'], 1)

  def test_a_gradient_of_zero_has_no_cosine(self):
    rows = np.array([[0.0, 0], [1, 0], [1, 1]])
    got = analysis.gradient_confusion(*of_rows(rows))
    np.testing.assert_allclose(got['smallest_cosine'], np.sqrt(0.5))
    self.assertEqual(got['smallest_product'], 0)
    got = analysis.gradient_confusion(*of_rows(np.zeros((2, 2))))
    self.assertTrue(np.isnan(got['mean_cosine']))

  def test_a_gradient_that_is_not_finite(self):
    for wrong in (np.nan, np.inf):
      rows = np.array([[wrong, 0], [1, 0], [1, 1]])
      got = analysis.gradient_confusion(*of_rows(rows))
      self.assertTrue(np.isnan(got['smallest_cosine']))

  @parameterized.parameters(0, 17, 40, 1e9)
  def test_memory_does_not_matter(self, memory):
    """Gradients of 16 bytes: one, one, two and all five side by side."""
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    made, params = of_rows(rows)
    calls = journal_test.Counted(gradients.value_and_gradient)
    with absltest.mock.patch.object(gradients, 'value_and_gradient', calls):
      got = analysis.gradient_confusion(made, params, memory=memory)
    np.testing.assert_allclose(
      got['inner_products'], np.float64(rows) @ np.float64(rows.T), rtol=1e-12
    )
    self.assertEqual(calls.calls, {0: 15, 17: 15, 40: 9, 1e9: 5}[memory])

  def test_columns_are_summed(self):
    rows = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    with absltest.mock.patch.object(mini_batches, '_COLUMNS', 7):
      got = analysis.gradient_confusion(*of_rows(rows))
    np.testing.assert_allclose(
      got['inner_products'], np.float64(rows) @ np.float64(rows.T), rtol=1e-12
    )

  def test_is_not_lost_in_rounding(self):
    """Inner products of long gradients that nearly cancel, in float64."""
    with absltest.mock.patch.object(mini_batches, '_COLUMNS', 2**12):
      ones = np.ones(2**14, np.float32)
      rows = np.stack([ones, np.where(np.arange(2**14) % 2, 1, -1)])
      rows[:, 0] = 3000.0, 1.0
      got = analysis.gradient_confusion(*of_rows(rows.astype(np.float32)))
    self.assertEqual(got['smallest_product'], 3001)


class MeasureTest(parameterized.TestCase):
  @parameterized.parameters('gradient_noise', 'gradient_confusion')
  def test_goes_on_to_the_same_bits(self, name):
    made, state, batch = line()
    look = functools.partial(
      analysis.make(name, batch_size=3), made, state, [batch]
    )
    whole = look()
    for left in range(1, 5):
      journal = journal_test.Journal()
      journal.left = left
      with self.assertRaises(journal_test.Killed):
        look(journal)
      journal.left = None
      counted, patches = journal_test.counting()
      with patches[0], patches[1], patches[2]:
        got = look(journal)
      self.assertEqual(sum(one.calls for one in counted), 4 - left)
      same_bits.assert_same(got, whole)

  @parameterized.parameters(
    ('gradient_noise', 12, r'batch_size is 12 of 12 .*, such as 6$'),
    ('gradient_noise', 5, 'batch_size is 5 of 12 examples'),
    ('gradient_confusion', None, r'None \(an eighth\) of 12 .* as 1 or 2$'),
    ('gradient_confusion', 24, 'batch_size is 24 of 12 examples'),
    ('batch_sharpness', 7, 'batch_size is 7 of 12 examples'),
  )
  def test_refuses_mini_batches(self, name, size, said):
    made, state, batch = line()
    with self.assertRaisesRegex(ValueError, said):
      analysis.make(name, batch_size=size)(made, state, [batch])

  @parameterized.parameters(
    ('batch_sharpness', dict(batch_size=8)),
    ('gradient_noise', dict(batch_size=8)),
    ('gradient_confusion', dict(batch_size=4)),  # does not divide: whole on all
  )
  def test_eight_devices_see_what_one_sees(self, name, keywords):
    made = toys.classifier('batch', weight_decay=0.1)
    state, batch = made.init(0), in_memory.first(toys.split(), 16)
    mesh = devices.mesh(8)
    spread = jax.device_put(batch, devices.cut(mesh))
    looked_at = []
    seen = made._replace(
      loss=lambda state, part, *rest, **more: (
        looked_at.append(part.images.sharding)
        or made.loss(state, part, *rest, **more)
      )
    )
    look = analysis.make(name, **keywords)
    got = look(seen, jax.device_put(state, devices.whole(mesh)), [spread])
    want = look(made, state, [batch])
    for key in want:
      self.assertLess(want[key].ndim, 2, key)  # it is a line of records
      np.testing.assert_allclose(
        got[key], want[key], rtol=2e-4, atol=1e-6, err_msg=key
      )
    is_cut = keywords['batch_size'] == 8
    self.assertNotEmpty(looked_at)
    for sharding in looked_at:
      self.assertLen(sharding.device_set, 8)
      self.assertEqual(sharding.is_fully_replicated, not is_cut)

  @parameterized.parameters(
    ('gradient_noise', dict(batch_size=None), 24),
    ('gradient_confusion', dict(batch_size=6), 24),
    ('batch_sharpness', dict(batch_size=12), 24),
    ('sharpness', dict(radii=(0.1, 0.2), ascent_steps=3), 12),
    ('sharpness', dict(radii=(0.1, 0.2), case='average', samples=3), 12),
  )
  def test_the_plan_counts_what_is_done(self, name, keywords, count):
    made, state, batch = line()
    batch = jax.tree.map(lambda x: jnp.concatenate([x, x])[:count], batch)
    kind = analysis.MEASURES[name]
    defaults = {
      key: parameter.default
      for key, parameter in inspect.signature(kind).parameters.items()
    }
    section = {**defaults, **keywords, 'data': 'current_batch'}
    section = kind.fitted(section, count, 1)
    pieces = count // section.get('batch_size', count)
    cost = kind.cost(section, 1)
    counted, patches = journal_test.counting()
    products = journal_test.Counted(batch_sharpness._of_one)
    patches.append(
      absltest.mock.patch.object(batch_sharpness, '_of_one', products)
    )
    with patches[0], patches[1], patches[2], patches[3]:
      analysis.make(name, **keywords)(made, state, [batch])
    values, of_value_and_gradient, _ = (one.calls for one in counted)
    self.assertEqual(values, pieces * cost.values)
    self.assertEqual(products.calls, pieces * cost.products)
    self.assertEqual(
      of_value_and_gradient + products.calls, pieces * cost.gradients
    )

  def test_records_say_the_size_of_the_mini_batches(self):
    fitted = {
      name: analysis.MEASURES[name].fitted({'batch_size': size}, 64, None)
      for name, size in (
        ('gradient_noise', None), ('batch_sharpness', 32),
        ('gradient_confusion', 16),
      )
    }  # fmt: skip
    self.assertEqual(
      [section['batch_size'] for section in fitted.values()], [8, 32, 16]
    )

  def test_refuses_half_groups(self):
    made, state, batch = line()
    made = made._replace(group_size=4)
    for name in ('gradient_noise', 'batch_sharpness'):
      with self.assertRaisesRegex(ValueError, 'allowed: multiples of 4'):
        analysis.make(name, batch_size=6)(made, state, [batch])
    analysis.make('gradient_noise', batch_size=6, statistics='running')(
      made, state, [batch]
    )

  def test_noise_goes_by_the_index_in_the_batch(self):
    """Two mini-batches of the same examples, with other noise each."""
    batch = in_memory.first(toys.split(), 4)
    batch = jax.tree.map(lambda x: jnp.concatenate([x, x]), batch)
    for norm, same in (('batch', True), ('noisy', False)):
      made = toys.classifier(norm)
      got = analysis.make('gradient_confusion', batch_size=4)(
        made, made.init(0), [batch]
      )
      self.assertEqual(got['smallest_cosine'] > 1 - 1e-6, same)

  def test_refuses_padding(self):
    made, state, batch = line()
    batch = batch._replace(mask=jnp.arange(12) < 10)
    with self.assertRaisesRegex(ValueError, '2 of the 12 .* are padding'):
      analysis.make('gradient_noise', batch_size=6)(made, state, [batch])

  def test_refuses_one_mini_batch(self):
    made, params = of_rows(np.ones((1, 2)))
    for function in (
      analysis.gradient_confusion,
      functools.partial(analysis.gradient_noise, batch_size=2),
    ):
      with self.assertRaisesRegex(ValueError, 'losses is 1; allowed: .* 2 f'):
        function(made, params)


if __name__ == '__main__':
  absltest.main()
