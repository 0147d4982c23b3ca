import math
import sys
from unittest import mock

import numpy as np
from absl.testing import absltest

import bn_jax
from bn_jax import errors
from bn_jax.report.results import curves, flat
from tests.fixtures import (
  hand_made,
  made_up,
  scratch,
  strict,  # noqa: F401
)


class FlatTest(absltest.TestCase):
  def test_the_last_of_everything(self):
    seed = hand_made.seed(
      3,
      train=((0, 1), {'loss': [2.0, 1.0]}),
      look=((0, 5), {'beta': [[1, 2], [math.nan, 3]]}),
      arrays={'map': [(7, {'height': np.float32(4), 'grid': np.ones(2)})]},
    )
    self.assertEqual(
      flat.last([curves.Run('a', (seed,))])[1:],
      [
        ('a', 3, 'train/loss', '1'),
        ('a', 3, 'look/beta/min', '3'), ('a', 3, 'look/beta/max', '3'),
        ('a', 3, 'map/height', '4'),
      ],
    )  # fmt: skip


class FrameTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    measures = {'landscape': made_up.CONFIG['measures']['landscape']}
    keywords = {'steps': 11, 'reaches': 5, 'measures': measures}
    folder = scratch.folder(self)
    self.workdir = made_up.workdir(
      folder / 'a',
      (0, 4),
      standard=keywords,
      batchnorm={**keywords, 'scale': 2},
    )
    self.other = made_up.workdir(folder / 'b', standard=keywords)

  def test_every_step_of_every_seed(self):
    frame = bn_jax.frame(str(self.workdir))
    self.assertEqual(frame.index.names, ['run', 'seed', 'step'])
    self.assertEqual(
      set(frame.index), {
        (run, seed, step)
        for run in ('standard', 'batchnorm')
        for seed in (0, 4)
        for step in range(11)
      },
    )  # fmt: skip
    accuracy = frame['train/accuracy']
    self.assertEqual(accuracy['standard', 0, 5], 1.0)
    self.assertEqual(accuracy['standard', 4, 5], 0.1)
    change = frame.loc['batchnorm', 4, 10]
    self.assertEqual(change['landscape/gradient_change/min'], 2)
    self.assertEqual(change['landscape/gradient_change/max'], 4)
    self.assertEqual(change['landscape/loss_0'], 1)
    self.assertTrue(math.isnan(frame['landscape/loss_0']['batchnorm', 4, 9]))

  def test_several_directories(self):
    frame = bn_jax.frame(self.workdir, self.other)
    names = {'a/standard', 'a/batchnorm', 'b/standard'}
    self.assertEqual(set(frame.index.get_level_values('run')), names)

  def test_without_pandas_one_line_says_what_to_install(self):
    with (
      mock.patch.dict(sys.modules, pandas=None),
      self.assertRaisesRegex(errors.ConfigError, "pip install 'pandas>=2.2'"),
    ):
      bn_jax.frame(self.workdir)


if __name__ == '__main__':
  absltest.main()
