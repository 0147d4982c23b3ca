"""How large the page of many long runs is."""

import pathlib

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax.report import page
from bn_jax.report.results import curves
from tests.fixtures import made_up

_STEPS = 15_000
_NORMS = ('none', 'batch', 'group', 'layer', 'instance', 'rms')
_RATES = (0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


def _run(index, seeds):
  """A run whose records jump as those of batches do."""
  config = {
    **made_up.CONFIG,
    'norm': {'name': _NORMS[index % 6]},
    'schedule': {'name': 'constant', 'learning_rate': _RATES[index // 6]},
    'steps': _STEPS,
  }
  config['measures'] = {
    name: {**config['measures'][name], 'every_steps': every}
    for name, every in (('test', 250), ('landscape', 100))
  }
  name = f'run{index}'
  return curves.Run(
    name, tuple(_seed(config, name, index, seed) for seed in range(seeds))
  )


def _seed(config, name, index, seed):
  draw = np.random.default_rng([index, seed])
  manifest = made_up.manifest_of(config, run=name, seed=seed, step=_STEPS)

  def series(every, **values):
    step_T = np.arange(0, _STEPS, every)
    fall_T = np.exp(-step_T / _STEPS * (4 + index % 7))
    noise = lambda size: np.exp(0.3 * draw.standard_normal(size))
    return curves.Series(
      step_T,
      {
        value: (fall_T * noise((*shape, len(step_T)))).T
        for value, shape in values.items()
      },
    )

  norms = {'gradient_norm': (), 'update_norm': ()}
  along = ('loss', 'gradient_norm', 'gradient_change', 'beta')
  landscape = series(100, loss_0=(), **dict.fromkeys(along, (2,)))
  landscape.values['step_size'] = np.tile([0.05, 0.1], (_STEPS // 100, 1))
  return curves.Seed(
    seed,
    manifest,
    {
      'train': series(1, data_loss=(), accuracy=(), **norms),
      'test': series(250, loss=(), accuracy=()),
      'landscape': landscape,
    },
    {'train': 100.0},
    {},
  )


@pytest.mark.slow
class SizeTest(parameterized.TestCase):
  @parameterized.parameters((3, 3, 4), (60, 5, 14))
  def test_a_page_of_many_long_runs(self, runs, seeds, most):
    """Megabytes; the picture and the data of a figure are in them."""
    folder = pathlib.Path(self.create_tempdir().full_path)
    made = [_run(index, seeds) for index in range(runs)]
    size = page.write([folder], runs=made).stat().st_size / 1e6
    self.assertBetween(size, most / 4, most)


if __name__ == '__main__':
  absltest.main()
