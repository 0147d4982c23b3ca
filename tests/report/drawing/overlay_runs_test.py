"""Which curve of the paper belongs to a run, and how it is scaled."""

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report.drawing import overlay, paper_curves
from tests.fixtures import (
  paper_like,
  strict,  # noqa: F401
)

_MOMENTUM = {'optimizer': {'name': 'sgd', 'momentum': 0.9}}


class NetworkTest(parameterized.TestCase):
  @parameterized.parameters('vgg', 'small', 'linear')
  def test_of_the_papers_kind(self, kind):
    want = 'linear' if kind == 'linear' else 'vgg'
    config = paper_like.run(kind=kind, weight_decay=5e-4).config
    self.assertEqual(overlay.network(config), want)

  @parameterized.parameters(
    _MOMENTUM,
    {'optimizer': {'name': 'adam'}},
    {'schedule': {'name': 'cosine', 'learning_rate': 0.1}},
    {'data': {'name': 'digits'}},
    {'data': {'name': 'cifar10', 'flip': True}},
    {'data': {'name': 'cifar10', 'crop_padding': 4}},
    {'model': {'name': 'resnet20'}},
    {'batch_size': 64},
    {'steps': None},
  )
  def test_others_have_no_curve(self, **changes):
    run = paper_like.run(**changes)
    self.assertIsNone(overlay.of_run(0, run, 'accuracy'))

  @parameterized.parameters(
    _MOMENTUM,
    {'model': {'name': 'deep_linear', 'depth': 24}},
    {'loss': {'name': 'squared_error', 'reduction': 'mean'}},
    {'batch_size': 100},
    {'data': {'name': 'digits'}},
  )
  def test_other_linear_networks_have_none(self, **changes):
    run = paper_like.run(kind='linear', rate=1e-6, **changes)
    self.assertIsNone(overlay.of_run(0, run, 'beta'))

  def test_a_config_that_says_little(self):
    """As of made-up and old directories."""
    config = {'data': {'name': 'cifar10'}, 'model': {'name': 'vgg16'}}
    self.assertIsNone(overlay.network(config))


class StepsTest(absltest.TestCase):
  def test_of_a_network_as_large_they_are_its_own(self):
    theirs = paper_curves.find('vgg', 'batch', 0.1, 'accuracy')
    match = overlay.of_run(3, paper_like.run('b', 'batch'), 'accuracy')
    self.assertEqual((match.index, match.runs), (3, ('b',)))
    self.assertEqual((match.steps_times, match.values_times), (1, 1))
    np.testing.assert_array_equal(match.curve.step, theirs.step)
    np.testing.assert_array_equal(match.curve.low, theirs.low)

  def test_it_goes_as_far_as_ours(self):
    for kind, rate, value in (
      ('vgg', 0.1, 'accuracy'), ('linear', 1e-6, 'beta')
    ):  # fmt: skip
      run = paper_like.run(kind=kind, rate=rate, steps=2000)
      match = overlay.of_run(0, run, value)
      self.assertEqual(match.steps_times, 1)
      self.assertEqual(match.curve.step[-1], 2000)
      self.assertLen(match.curve.low, len(match.curve.step))

  def test_of_a_smaller_one_they_end_with_ours(self):
    match = overlay.of_run(0, paper_like.run(kind='small'), 'accuracy')
    self.assertAlmostEqual(match.steps_times, 0.1)
    theirs = paper_curves.find('vgg', 'none', 0.1, 'accuracy')
    np.testing.assert_allclose(10 * match.curve.step, theirs.step)
    self.assertAlmostEqual(match.curve.step[-1], 1500)

  def test_whole_networks(self):
    for name, width, want in (
      ('vgg16', 1.0, True), ('vgg13', None, True), ('vgg19', 1, True),
      ('vgg16', 0.5, False), ('vgg11', 1.0, False),
    ):  # fmt: skip
      run = paper_like.run(model={'name': name, 'width': width})
      self.assertEqual(overlay.is_whole(run), want, (name, width))


class LossTest(absltest.TestCase):
  def test_first_values_agree(self):
    """Geometric mean of 1000 and 4000: 2000."""
    run = paper_like.run(kind='linear', rate=1e-6, seeds=2, first_loss=1000)
    match = overlay.of_run(0, run, 'data_loss')
    self.assertAlmostEqual(match.curve.low[0], 2000)
    theirs = paper_curves.find('linear', 'none', 1e-6, 'data_loss')
    times = 2000 / theirs.low[0]
    self.assertAlmostEqual(match.values_times, times)
    np.testing.assert_allclose(match.curve.low, theirs.low * times)
    # The band of the same network, by the same number.
    band = overlay.of_run(0, run, 'loss')
    theirs = paper_curves.find('linear', 'none', 1e-6, 'loss')
    np.testing.assert_allclose(band.curve.low, theirs.low * times)
    np.testing.assert_allclose(band.curve.high, theirs.high * times)

  def test_nothing_else_is_scaled(self):
    run = paper_like.run(kind='linear', rate=1e-6)
    for value in ('gradient_change', 'beta'):
      self.assertEqual(overlay.of_run(0, run, value).values_times, 1)
    self.assertEqual(
      overlay.of_run(0, paper_like.run(), 'loss').values_times, 1
    )

  def test_without_a_first_value_there_is_none(self):
    for change in ('series', 'step', 'value'):
      run = paper_like.run(kind='linear', rate=1e-6)
      series = run.seeds[0].series
      if change == 'series':
        del series['train']
      elif change == 'step':
        series['train'].step[:] += 50
      else:
        series['train'].values['data_loss'][0] = np.inf
      self.assertIsNone(overlay.of_run(0, run, 'data_loss'), change)
      self.assertIsNotNone(overlay.of_run(0, run, 'beta'))


class DistinctTest(absltest.TestCase):
  def test_one_curve_for_runs_that_the_paper_does_not_tell_apart(self):
    runs = [
      paper_like.run('a'),
      paper_like.run('b', 'batch'),
      paper_like.run('c', weight_decay=5e-4),
      paper_like.run('d', 'noise'),
    ]
    found = overlay.distinct(enumerate(runs), 'accuracy')
    self.assertEqual([match.index for match in found], [0, 1])
    self.assertEqual([match.runs for match in found], [('a', 'c'), ('b',)])

  def test_of_both_sizes_there_are_two(self):
    runs = [paper_like.run('a'), paper_like.run('b', kind='small')]
    found = overlay.distinct(enumerate(runs), 'accuracy')
    self.assertEqual([match.index for match in found], [0, 1])


class LayersTest(parameterized.TestCase):
  @parameterized.parameters(
    ('vgg', 'conv5', 5),
    ('vgg', 'conv10', 10),
    ('vgg', 'conv3', None),
    ('small', 'conv3', 5),
    ('small', 'conv6', 10),
    ('small', 'conv5', None),
    ('linear', 'linear9', 9),
    ('linear', 'linear17', 17),
    ('linear', 'linear5', None),
  )
  def test_numbers_in_the_paper(self, kind, layer, want):
    run = paper_like.run(kind=kind)
    self.assertEqual(overlay.layer_of(run, layer, 'shift'), want)

  def test_another_choice_of_layers_or_data(self):
    for key, value in (
      ('layers', ['conv3']), ('layers', []), ('data', 'test:256')
    ):  # fmt: skip
      run = paper_like.run(kind='small')
      run.config['measures']['shift'][key] = value
      self.assertIsNone(overlay.layer_of(run, 'conv3', 'shift'), key)
    self.assertIsNone(overlay.layer_of(run, 'conv3', 'no such key'))

  def test_the_second_has_no_l2(self):
    indexed = [(0, paper_like.run())]
    for value, layer, want in (
      ('l2', 'conv5', 1), ('l2', 'conv10', 0), ('cosine', 'conv10', 1),
      ('relative_l2', 'conv5', 0),
    ):  # fmt: skip
      found = overlay.of_layer(indexed, value, layer, 'shift')
      self.assertLen(found, want, (value, layer))


class AlongTest(parameterized.TestCase):
  @parameterized.parameters('vgg', 'small', 'linear')
  def test_the_papers_line(self, kind):
    self.assertTrue(overlay.looks_alike(paper_like.run(kind=kind), 'landscape'))

  @parameterized.parameters(
    ('direction', 'random'),
    ('step_factors', [1 / 32, 1 / 8, 0.5, 1, 2, 4]),
    ('step_factors', [0.5, 1, 2, 8]),
    ('step_sizes', [0.1]),
    ('data', 'train:4096'),
    ('statistics', 'running'),
  )
  def test_another_line(self, key, value):
    run = paper_like.run()
    run.config['measures']['landscape'][key] = value
    self.assertFalse(overlay.looks_alike(run, 'landscape'))


if __name__ == '__main__':
  absltest.main()
