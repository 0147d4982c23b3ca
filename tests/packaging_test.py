"""What pip installs; `make package` installs it and trains."""

import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile

import pytest
from absl.testing import absltest, parameterized

from tests.fixtures import strict

_PROJECT = tomllib.loads((strict.ROOT / 'pyproject.toml').read_text())


class ExtrasTest(parameterized.TestCase):
  @parameterized.parameters('bench', 'docs')
  def test_is_its_file_of_requirements(self, extra):
    text = (strict.ROOT / f'requirements-{extra}.txt').read_text()
    wanted = re.findall(r'^[\w-]+ *[=<>][^#\n]*[^#\n ]', text, re.M)
    extras = _PROJECT['project']['optional-dependencies']
    self.assertEqual(sorted(extras[extra]), sorted(wanted))

  def test_pandas_is_the_one_that_tests_have(self):
    text = (strict.ROOT / 'requirements-test.txt').read_text()
    (pandas,) = _PROJECT['project']['optional-dependencies']['pandas']
    self.assertIn(pandas, text)


class WheelTest(absltest.TestCase):
  @pytest.mark.slow  # pip asks a package index for setuptools
  def test_has_every_file_that_is_read(self):
    with tempfile.TemporaryDirectory() as folder:
      subprocess.run(
        [
          sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps',
          f'--wheel-dir={folder}', str(strict.ROOT),
        ],
        check=True,
      )  # fmt: skip
      (wheel,) = pathlib.Path(folder).iterdir()
      names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
      ['git', 'ls-files', 'bn_jax', 'configs'], cwd=strict.ROOT,
      capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    wanted = {
      f'bn_jax/{name}' if name.startswith('configs/') else name
      for name in tracked
    }
    self.assertContainsSubset(wanted, names)
    self.assertEmpty({name for name in names if name.startswith('tests')})
    self.assertEqual({name.split('/')[0] for name in names - wanted}, {
      f'bn_jax-{_PROJECT["project"]["version"]}.dist-info'
    })  # fmt: skip


if __name__ == '__main__':
  absltest.main()
