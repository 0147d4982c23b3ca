"""The ImageNet configs of 2015, with small images in place of ImageNet."""

import json
import pathlib

import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax.config import files, resolve
from bn_jax.experiment import experiment
from tests.fixtures import made_sets, strict


def load(file, size='paper'):
  return files.load(f'{strict.ROOT}/configs/ioffe2015/{file}.py:{size}')


class SevenChangesTest(parameterized.TestCase):
  @parameterized.product(size=('paper', 'small'), name=('bn_x5', 'bn_x30'))
  def test_are_all_that_differs_from_bn_baseline(self, size, name):
    """Section 4.2.1: seven keys."""
    runs = resolve.experiment(load('inception', size).to_dict(), {}).runs
    base, fast = (flat(runs[run].as_json()) for run in ('bn_baseline', name))
    ratio = {'bn_x5': 5, 'bn_x30': 30}[name]
    changed = {key for key in base if base[key] != fast[key]}
    self.assertEqual(
      changed,
      {
        'schedule/learning_rate', 'schedule/decay_steps', 'model/dropout',
        'model/lrn', 'weight_decay', 'data/fixed_batches', 'data/photometric',
      },
    )  # fmt: skip
    for key, factor in (
      ('schedule/learning_rate', ratio),
      ('schedule/decay_steps', 1 / 6),
      ('weight_decay', 1 / 5),
    ):
      self.assertAlmostEqual(fast[key] / base[key], factor, msg=key)


class OneStepTest(parameterized.TestCase):
  @parameterized.parameters('inception', 'bn_x5')
  @pytest.mark.slow  # compiles the whole network
  def test_of_the_paper_s_size_on_small_images(self, name):
    folder = pathlib.Path(self.create_tempdir().full_path)
    made_sets.write(folder / 'data', train=40, test=7)
    config = load('inception')
    config.runs = {name: config.runs[name]}
    config.expected_divergence = ()
    config.seeds = (0,)
    config.data.update(name='made', resolution=32, streaming=True)
    config.data_dir = str(folder / 'data')
    config.steps = 1
    experiment.run(
      resolve.experiment(config.to_dict(), {}), str(folder / 'runs')
    )
    place = folder / 'runs' / name / 'seed0'
    manifest = json.loads((place / 'manifest.json').read_text())
    self.assertEqual((manifest['status'], manifest['step']), ('done', 1))
    rows = [
      json.loads(line)
      for line in (place / 'scalars.jsonl').read_text().splitlines()
    ]
    trained = [row['values'] for row in rows if row['name'] == 'train']
    self.assertLen(trained, 1)
    self.assertTrue(np.isfinite(trained[0]['data_loss']).all())


def flat(run):
  """'section/key' -> value, of a resolved run."""
  paths, _ = jax.tree_util.tree_flatten_with_path(
    run, is_leaf=lambda x: not isinstance(x, dict)
  )
  return {'/'.join(key.key for key in path): value for path, value in paths}


if __name__ == '__main__':
  absltest.main()
