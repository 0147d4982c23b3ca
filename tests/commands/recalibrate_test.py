import contextlib
import io
import json
import pathlib
import tempfile

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import norms
from bn_jax.commands import train
from bn_jax.config import build
from bn_jax.data import datasets
from bn_jax.experiment import run as run_lib
from bn_jax.storage import checkpoint
from tests.fixtures import (
  commanded,
  made_up,
  same_bits,
  scratch,
  strict,
  trained,
)

run = commanded.run


class WrongTest(parameterized.TestCase):
  def test_help(self):
    code, said, _ = run('recalibrate', '--help')
    self.assertEqual(code, 0)
    self.assertIn('Algorithm 2', said)

  def test_a_run_without_a_checkpoint(self):
    with tempfile.TemporaryDirectory() as folder:
      place = pathlib.Path(folder) / 'run' / 'seed0'
      place.mkdir(parents=True)
      (place / 'manifest.json').write_text('{"run": "a", "seed": 0}')
      code, _, errors = run('recalibrate', place)
      self.assertEqual(code, 6)
      self.assertIn("'status' is None", errors)

  def test_a_run_that_is_older_than_the_config(self):
    with tempfile.TemporaryDirectory() as folder:
      place = pathlib.Path(folder) / 'run' / 'seed0'
      made_up.run(place, measures=False, steps=1)
      code, _, errors = run('recalibrate', place)
      self.assertEqual(code, 2)
      self.assertIn('trained before config.loss was a key', errors)


@pytest.mark.slow  # trains for half a minute
class RecalibrateTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.enterClassContext(contextlib.chdir(strict.ROOT))
    cls.workdir = scratch.folder(cls) / 'tiny'
    with contextlib.redirect_stderr(io.StringIO()):
      code = train.main(
        [
          'train.py',
          '--config=tests/fixtures/tiny_config.py',
          f'--workdir={cls.workdir}',
        ]
      )
    assert code == 0

  def files(self):
    place = self.workdir / 'batchnorm' / 'seed0'
    names = ('manifest.json', 'scalars.jsonl')
    return [(place / name).read_bytes() for name in names]

  def test_writes_a_checkpoint_of_the_population(self):
    before = self.files()
    code, said, errors = run('recalibrate', self.workdir, '--batches=7')
    self.assertEqual(code, 0, errors)
    self.assertIn('batchnorm/seed0: test accuracy', said)
    self.assertIn('7 batches (112 examples)', said)
    self.assertIn('standard/seed0: the network keeps no batch stat', said)
    self.assertEqual(self.files(), before)
    place = self.workdir / 'batchnorm' / 'seed0'
    facts = json.loads((place / 'population.json').read_text())
    self.assertEqual((facts['step'], facts['batches']), (6, 7))

    _, config, made, state = trained.newest(place)
    saved = checkpoint.Checkpoints(place / 'population')
    new = saved.restore(6, run_lib.without_ring(state))
    saved.close()
    same_bits.assert_same(new.params, state.params)
    # The batches are those that training would see next.
    split = datasets.make('digits').load().train.split
    batches = []
    for _ in range(7):
      batches.append(made.batch(state, split).images)
      state = state._replace(order=made.following(state))
    want = norms.population_statistics(
      build.network(config),
      {'params': state.params, 'batch_stats': state.batch_stats}, batches,
    )  # fmt: skip
    same_bits.assert_same(new.batch_stats, want.batch_stats)
    distinct = {np.asarray(batch).tobytes() for batch in batches}
    self.assertLen(distinct, 7)
    # Again, otherwise: the new one takes the place of the old.
    code, _, errors = run(
      'recalibrate', place, '--batches=3', '--variance=pooled', '--layerwise'
    )
    self.assertEqual(code, 0, errors)
    facts = json.loads((place / 'population.json').read_text())
    self.assertEqual(facts['variance'], 'pooled')
    self.assertFalse((place / 'population.new').exists())

  def test_alone_without_statistics_it_is_refused(self):
    code, _, errors = run('recalibrate', self.workdir / 'standard')
    self.assertEqual(code, 2)
    self.assertIn('standard/seed0: the network keeps no batch stat', errors)


if __name__ == '__main__':
  absltest.main()
