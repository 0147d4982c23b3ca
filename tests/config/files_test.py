"""Config files, and the modules that lie beside them."""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest
from absl.testing import absltest, parameterized

from bn_jax import errors, plugins
from bn_jax.config import files
from tests.fixtures import strict

_ABOVE = """
import sizes
from bn_jax.config import defaults

def get_config():
  config = defaults.get_config()
  config.steps = sizes.STEPS
  return config
"""
_INSIDE = """
from bn_jax.config import defaults

def get_config():
  import sizes
  config = defaults.get_config()
  config.steps = sizes.STEPS
  return config
"""


class NeighbourTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.new_folder()
    self.enterContext(contextlib.chdir(self.new_folder()))

  def new_folder(self):
    place = self.enterContext(tempfile.TemporaryDirectory())
    return pathlib.Path(place).resolve()

  def written(self, text=_ABOVE, sizes='STEPS = 7\n', folder=None):
    folder = folder or self.folder
    (folder / 'sizes.py').write_text(sizes)
    (folder / 'mine.py').write_text(text)
    return str(folder / 'mine.py')

  @parameterized.parameters(_ABOVE, _INSIDE)
  def test_is_imported(self, text):
    path, names = list(sys.path), set(sys.modules)
    self.assertEqual(files.load(self.written(text)).steps, 7)
    self.assertEqual(sys.path, path)
    self.assertNotIn('sizes', set(sys.modules) - names)
    self.assertEqual(sorted(os.listdir(self.folder)), ['mine.py', 'sizes.py'])

  def test_two_folders_have_one_of_the_same_name(self):
    other = self.written(sizes='STEPS = 8\n', folder=self.new_folder())
    one = self.written()
    steps = [files.load(file).steps for file in (one, other, one)]
    self.assertEqual(steps, [7, 8, 7])

  def test_a_change_counts(self):
    self.assertEqual(files.load(self.written()).steps, 7)
    changed = self.written(sizes='STEPS = 9\n')
    self.assertEqual(files.load(changed).steps, 9)

  def test_it_is_the_module_that_the_config_names(self):
    text = _ABOVE.replace('sizes.STEPS', 'sizes.STEPS\n  sizes.SEEN.append(1)')
    files.load(self.written(text, sizes='STEPS = 7\nSEEN = []\n'))
    self.assertEqual(plugins.load('sizes:SEEN'), [1])

  def test_one_that_fails(self):
    config = self.written(sizes='{}[0]\n')
    for _ in range(2):
      with self.assertRaisesRegex(
        errors.ConfigError, 'sizes.py:1: KeyError: 0$'
      ):
        files.load(config)
    self.assertEqual(files.load(self.written()).steps, 7)

  @pytest.mark.slow
  def test_from_any_folder(self):
    self.written()
    command = [sys.executable, strict.ROOT / 'train.py', '--show']
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    for config, folder in (
      ('mine.py', self.folder), (self.folder / 'mine.py', self.new_folder())
    ):  # fmt: skip
      run = subprocess.run(
        [*command, f'--config={config}'], capture_output=True, text=True,
        cwd=folder, env=environment, check=False,
      )  # fmt: skip
      self.assertIn('steps = 7', run.stdout, run.stderr)


if __name__ == '__main__':
  absltest.main()
