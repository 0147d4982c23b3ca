"""Measures of a run on one device and on eight, in the layouts of its step."""

import pathlib

import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax.config import files, resolve
from bn_jax.experiment import experiment
from bn_jax.storage import array_files, records
from tests.fixtures import strict

# Every measure of curvature, surfaces and representations, small.
MEASURES = {
  'top_eigenvalues': dict(k=2, ends='both', blocks=('all', 'norms')),
  'spectral_density': dict(order=3, samples=2),
  'trace': dict(samples=6, squared=True, layers=('dense1',)),
  'sharpness': dict(radii=(0.1,), ascent_steps=2),
  'batch_sharpness': dict(data='train:32', batch_size=16),
  'gradient_noise': dict(batch_size=8),
  'gradient_confusion': dict(batch_size=8),
  'surface': dict(points=3),
  'path': dict(points=3),
  'representations': dict(examples=12),
  'cka': dict(examples=12, to='0'),
}


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class LayoutsTest(parameterized.TestCase):
  def recorded(self, devices, layout):
    """{measure: what it recorded before the first step}."""
    config = files.load(str(strict.FIXTURES / 'small_config.py'))
    config.seeds, config.steps = (0,), 1
    config.devices, config.layout = devices, layout
    config.measures = {
      name: {'name': name, 'data': 'current_batch', 'every_steps': 1} | keywords
      for name, keywords in MEASURES.items()
    }
    folder = self.create_tempdir().full_path
    experiment.run(resolve.experiment(config.to_dict(), {}), folder)
    place = pathlib.Path(folder) / 'batchnorm' / 'seed0'
    lines = records.read(place / 'scalars.jsonl')
    values = {
      record.name: record.values for record in lines if record.step == 0
    }
    for name in MEASURES.keys() - values.keys():
      values[name] = array_files.read(place / 'arrays', name)[0].values
    return values

  @pytest.mark.slow  # compiles every measure three times
  def test_eight_devices_record_what_one_does(self):
    want = self.recorded(1, 'jit')
    self.assertContainsSubset(MEASURES, want)
    for layout in ('jit', 'pmap'):
      got = self.recorded(8, layout)
      for name in MEASURES:
        self.assertEqual(list(got[name]), list(want[name]))
        for quantity, value in want[name].items():
          np.testing.assert_allclose(
            got[name][quantity], value, rtol=2e-3, atol=1e-4,
            err_msg=f'{layout}: {name}/{quantity}',
          )  # fmt: skip


if __name__ == '__main__':
  absltest.main()
