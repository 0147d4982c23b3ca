"""A trained network, loaded to be used."""

import contextlib
import json
import pathlib
import shutil
import tempfile

import numpy as np
from absl.testing import absltest

import bn_jax
from bn_jax import errors
from bn_jax.config import build
from tests.fixtures import commanded, same_bits, strict, trained


class LoadTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.enterClassContext(contextlib.chdir(strict.ROOT))
    place = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.workdir = pathlib.Path(place) / 'work'
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

  def test_a_damaged_checkpoint_is_refused(self):
    with tempfile.TemporaryDirectory() as folder:
      place = pathlib.Path(folder) / 'batchnorm' / 'seed0'
      shutil.copytree(self.place, place)
      for file in place.glob('checkpoints/*/**/d/*'):
        file.write_bytes(file.read_bytes()[:-1] + b'x')
      with self.assertRaises(errors.CheckpointError):
        bn_jax.load(place)


if __name__ == '__main__':
  absltest.main()
