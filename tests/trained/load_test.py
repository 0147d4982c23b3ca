"""A trained network, loaded to be used."""

import contextlib
import json
import pathlib
import shutil
import tempfile
from unittest import mock

import numpy as np
import pytest
from absl.testing import absltest, parameterized

import bn_jax
from bn_jax import errors
from bn_jax.config import build
from bn_jax.trained import statistics
from tests.fixtures import commanded, same_bits, strict, trained

_CONFIG = """
from bn_jax.config import defaults

def get_config():
  config = defaults.get_config()
  config.data.name = 'made.npz'
  config.model = dict(name='mlp', hidden=(4,))
  config.runs = defaults.runs(batch={})
  config.steps, config.batch_size, config.measures = 1, 16, {}
  return config
"""

# Dtype of a set -> others that leave open what is white, what is allowed.
_REFUSED = {
  'uint8': (('float32', 'int64'), 'bool, uint8, uint16, since'),
  'float32': (('int32',), 'float64, since'),
  'int16': (('uint8', 'float32'), 'allowed: int8, int16'),
}


class LoadTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.enterClassContext(contextlib.chdir(strict.ROOT))
    place = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.workdir = pathlib.Path(place) / 'work'
    cls.enterClassContext(commanded.without_page())
    code, _, wrong = commanded.run(
      'train', '--config=tests/fixtures/small_config.py',
      f'--workdir={cls.workdir}', '--config.checkpoint.every_steps=2',
      '--config.checkpoint.keep=3', '--config.data.classes=[3, 1, 8]',
      '--config.ema=0.5',
    )  # fmt: skip
    assert code == 0, wrong
    cls.place = cls.workdir / 'batchnorm' / 'seed0'
    _, config, cls.problem, cls.state = trained.newest(cls.place)
    cls.test = build.source(config).load().test

  def images(self):
    return np.asarray(self.test.split.images)

  def test_predicts_what_evaluation_counts(self):
    network = bn_jax.load(self.place)
    labels = np.asarray(self.test.split.labels)
    self.assertEqual(network.classes, (3, 1, 8))
    predicted = network.predict(self.images())
    right = np.sum(predicted == np.array([3, 1, 8])[labels])
    (batch,) = self.test.batches(len(labels))
    sums = self.problem.evaluate(self.state, batch)
    self.assertEqual(right, sums['correct'])

  def test_its_inputs_are_those_of_training(self):
    network = bn_jax.load(self.place)
    self.assertEqual(network.shape, (8, 8, 1))
    batch = self.test.first(9)
    same_bits.assert_same(network.normalised(self.images()[:9]), batch.images)
    same_bits.assert_same(network.mean, np.asarray(self.test.split.mean))
    np.testing.assert_allclose(
      network.outputs(self.images()[:9]),
      self.problem.outputs(self.state, batch, statistics='running'),
      rtol=1e-5,
      atol=1e-6,
    )

  def test_of_an_older_run_they_are_measured(self):
    with tempfile.TemporaryDirectory() as folder:
      place = pathlib.Path(folder) / 'batchnorm' / 'seed0'
      shutil.copytree(self.place, place)
      file = place / 'manifest.json'
      manifest = json.loads(file.read_text())
      for key in ('input', 'format', 'digest'):
        del manifest[key]
      file.write_text(json.dumps(manifest))
      old, new = bn_jax.load(place), bn_jax.load(self.place)
    same_bits.assert_same((old.mean, old.std), (new.mean, new.std))

  def test_of_an_earlier_step(self):
    network = bn_jax.load(self.place, step=2)
    self.assertEqual((network.step, bn_jax.load(self.place).step), (2, 4))
    old, new = (
      one.variables['params']['logits']['kernel']
      for one in (network, bn_jax.load(self.place))
    )
    self.assertGreater(np.abs(old - new).max(), 1e-4)

  def test_the_average(self):
    average = bn_jax.load(self.place, averaged=True)
    same_bits.assert_same(
      average.variables['params'], self.state.average.params
    )

  def test_refuses(self):
    for said, path, keywords in (
      ('holds 2 trained networks; give one', self.workdir, {}),
      ('holds no population statistics; make them', self.place,
       dict(statistics='population')),
      ("'population' with averaged=True; allowed: 'running'; recalibrate est",
       self.place, dict(statistics='population', averaged=True)),
      ("statistics is 'batch'; allowed: running, population", self.place,
       dict(statistics='batch')),
      ('there are: 0, 2, 4', self.place, dict(step=3)),
      ('holds no run', self.workdir / 'nowhere', {}),
    ):  # fmt: skip
      with self.subTest(said):
        with self.assertRaises((errors.Failure, ValueError)) as raised:
          bn_jax.load(path, **keywords)
        self.assertIn(said, str(raised.exception))
        self.assertNotIn('\n', str(raised.exception))
    with self.assertRaisesRegex(ValueError, 'allowed: .N, 8, 8, 1., which'):
      bn_jax.load(self.place).predict(self.images()[:, :4])

  def test_norms_without_statistics_have_none_of_the_population(self):
    said = (
      "statistics is 'population'; batchnorm/seed0 keeps no statistics; "
      'allowed: running$'
    )
    with (
      mock.patch.object(statistics, 'keeps', return_value=False),
      self.assertRaisesRegex(errors.ConfigError, said),
    ):
      bn_jax.load(self.place, statistics='population')

  def test_a_damaged_checkpoint_is_refused(self):
    with tempfile.TemporaryDirectory() as folder:
      place = pathlib.Path(folder) / 'batchnorm' / 'seed0'
      shutil.copytree(self.place, place)
      for file in place.glob('checkpoints/*/**/d/*'):
        file.write_bytes(file.read_bytes()[:-1] + b'x')
      with self.assertRaises(errors.CheckpointError):
        bn_jax.load(place)


class DtypeTest(parameterized.TestCase):
  """Images are read by their dtype, in training and afterwards."""

  def setUp(self):
    super().setUp()
    place = self.enterContext(tempfile.TemporaryDirectory())
    self.enterContext(contextlib.chdir(place))
    rng = np.random.default_rng(0)
    self.share = rng.uniform(size=(48, 4, 4, 1))  # of white
    self.labels = np.arange(48) % 3

  def trained(self, inputs, *flags, labels=None):
    """Returns the network, and the examples that evaluation sees."""
    labels = self.labels if labels is None else labels
    np.savez('made.npz', x=inputs, y=labels, x_test=inputs, y_test=labels)
    pathlib.Path('made_config.py').write_text(_CONFIG)
    with commanded.without_page():
      code, _, wrong = commanded.run(
        'train', '--config=made_config.py', '--workdir=work', *flags
      )
    self.assertEqual(code, 0, wrong)
    network = bn_jax.load('work')
    return network, build.source(network.config).load().test

  @parameterized.parameters(
    ('float32', 1, ()),
    ('uint16', 65_535, ()),
    ('int16', 900, ()),
    ('float32', 1, ('--config.data.binarize=0.4',)),
  )
  def test_pixels(self, dtype, white, flags):
    self.check_pixels(dtype, white, flags)

  @parameterized.parameters('float16', 'bool')
  @pytest.mark.slow  # trains a network
  def test_other_pixels_from_0_to_1(self, dtype):
    self.check_pixels(dtype, 1, ())

  def check_pixels(self, dtype, white, flags):
    inputs = (self.share * white).round(0 if dtype[0] in 'bui' else 9)
    inputs = inputs.astype(dtype)
    network, test = self.trained(inputs, *flags)
    (batch,) = test.batches(48)
    same_bits.assert_same(network.normalised(inputs), batch.images)
    _, _, problem, state = trained.newest(pathlib.Path('work'))
    right = np.sum(np.array(network.predict(inputs)) == self.labels.astype(str))
    self.assertEqual(right, problem.evaluate(state, batch)['correct'])
    self.assertEqual(network.dtype, dtype)
    self.assert_refuses(network, dtype)
    if (dtype, flags) == ('float32', ()):
      levels = np.uint8(255 * self.share)
      np.testing.assert_allclose(
        network.normalised(levels), network.normalised(levels / 255), rtol=1e-6
      )

  def test_vectors_stand_for_themselves(self):
    vectors = np.float64(self.share.reshape(48, 16))
    network, test = self.trained(vectors)
    same_bits.assert_same(network.normalised(vectors), test.first(48).images)
    whole = np.int64(900 * vectors)
    same_bits.assert_same(
      network.normalised(whole), network.normalised(np.float32(whole))
    )

  def test_a_byte_leaves_open_what_white_is_in_other_dtypes(self):
    network, _ = self.trained((100 * self.share).astype('uint8'))
    self.assert_refuses(network, 'uint8')

  def assert_refuses(self, network, own):
    """Inputs of dtypes of which nobody knows what is white."""
    others, allowed = _REFUSED.get(own, ((), ''))
    for other in others:
      with self.assertRaises(ValueError) as raised:
        network.predict((100 * self.share).astype(other))
      text = str(raised.exception)
      self.assertNotIn('\n', text)
      self.assertIn(f'inputs are {other}; allowed: ', text)
      self.assertIn(allowed, text)
      self.assertIn(f'made.npz are {own}', text)

  def test_names_of_some_classes_are_numbers_of_all(self):
    names = np.array([f'class {k}' for k in range(1001)])
    inputs = np.zeros((1001, 2, 2, 1), np.uint8)
    inputs[::2] = 9
    network, _ = self.trained(inputs, labels=names)
    self.assertEqual(network.classes, tuple(range(1001)))


if __name__ == '__main__':
  absltest.main()
