import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from unittest import mock

from absl.testing import absltest, parameterized

from bn_jax.host import code
from tests.fixtures import strict

_ASK = 'from bn_jax.host import code; print(code.commit())'


def git(folder, *words):
  who = ('-c', 'user.name=a', '-c', 'user.email=a@b')
  done = subprocess.run(
    ['git', '-C', str(folder), *who, *words],
    capture_output=True, text=True, check=True,
    env={k: v for k, v in os.environ.items() if not k.startswith('GIT_')},
  )  # fmt: skip
  return done.stdout.strip()


class CommitTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    # Another repository: somebody's, with a commit of its own.
    self.folder = pathlib.Path(folder.name).resolve() / 'repository'
    self.folder.mkdir()
    (self.folder / 'file').write_text('1')
    git(self.folder, 'init', '-q')
    git(self.folder, 'add', 'file')
    git(self.folder, 'commit', '-q', '-m', 'theirs')
    self.theirs = git(self.folder, 'rev-parse', 'HEAD')

  def copied(self):
    """The package as a copy inside the other repository."""
    ignored = shutil.ignore_patterns('__pycache__')
    source = strict.ROOT / 'bn_jax' / 'host'
    (self.folder / 'bn_jax').mkdir()
    for name in ('__init__.py', 'errors.py'):
      shutil.copy(strict.ROOT / 'bn_jax' / name, self.folder / 'bn_jax')
    shutil.copytree(source, self.folder / 'bn_jax' / 'host', ignore=ignored)

  def asked(self, folder, **environment):
    done = subprocess.run(
      [sys.executable, '-c', _ASK], cwd=folder,
      env={**os.environ, 'PYTHONPATH': str(folder), **environment},
      capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()

  def test_a_copy_in_another_project_has_no_version(self):
    """24.17: the metadata of a package that is not installed are none."""
    self.copied()
    project = self.folder / 'pyproject.toml'
    ask = ('-c', _ASK.replace('commit', 'version'))
    for text in ('[tool.x]\n', '[project]\nname = "theirs"\n', 'no toml', None):
      project.unlink(missing_ok=True)
      if text is not None:
        project.write_text(text)
      done = subprocess.run(
        [sys.executable, '-S', *ask], cwd=self.folder, text=True,
        env={**os.environ, 'PYTHONPATH': str(self.folder)},
        capture_output=True,
      )  # fmt: skip
      self.assertEqual((done.stdout, done.stderr), ('None\n', ''), text)

  def test_a_copy_in_another_project_is_no_checkout(self):
    self.copied()
    ask = _ASK.replace('commit()', 'checkout(), *code.training()[1:]')
    for name, expected in (
      ('theirs', 'None -P -m bn_jax train'),
      ('bn_jax', f'{self.folder} {self.folder / "train.py"}'),
    ):
      project = f'[project]\nname = "{name}"\nversion = "1"\n'
      (self.folder / 'pyproject.toml').write_text(project)
      with mock.patch.object(sys.modules[__name__], '_ASK', ask):
        self.assertEqual(self.asked(self.folder), expected)

  def test_the_script_of_pip_is_named_without_its_path(self):
    for program, expected in (
      ('/home/me/bin/bn_jax', 'bn_jax train --config=quickstart'),
      ('train.py', 'python train.py train --config=quickstart'),
    ):
      words = [program, 'train', '--config=quickstart']
      with mock.patch.object(sys, 'argv', words):
        self.assertEqual(code.command(), expected)

  def test_variables_of_git_lead_nowhere_else(self):
    """24.17: hooks and CI set them."""
    own = self.asked(strict.ROOT)
    self.assertRegex(own, r'^([0-9a-f]{40}\+?|None)$')
    variables = {
      'GIT_DIR': str(self.folder / '.git'),
      'GIT_WORK_TREE': str(self.folder),
      'GIT_INDEX_FILE': str(self.folder / '.git' / 'index'),
    }
    self.assertEqual(self.asked(strict.ROOT, **variables), own)
    for name, value in variables.items():
      self.assertEqual(self.asked(strict.ROOT, **{name: value}), own, name)

  def test_a_copy_inside_a_repository_that_does_not_track_it(self):
    """24.17."""
    self.copied()
    self.assertEqual(self.asked(self.folder), 'None')

  def test_a_repository_that_tracks_it(self):
    self.copied()
    git(self.folder, 'add', 'bn_jax')
    git(self.folder, 'commit', '-q', '-m', 'copied')
    head = git(self.folder, 'rev-parse', 'HEAD')
    self.assertNotEqual(head, self.theirs)
    self.assertEqual(self.asked(self.folder), head)
    (self.folder / 'file').write_text('2')  # not of the package
    self.assertEqual(self.asked(self.folder), head)
    with (self.folder / 'bn_jax' / 'errors.py').open('a') as file:
      file.write('\n')
    self.assertEqual(self.asked(self.folder), f'{head}+')

  def test_where_there_is_no_git(self):
    self.copied()
    shutil.rmtree(self.folder / '.git')
    self.assertEqual(self.asked(self.folder), 'None')
    self.assertEqual(self.asked(strict.ROOT, PATH='/nowhere'), 'None')


class CommandTest(parameterized.TestCase):
  @parameterized.parameters(
    (['train.py', '--config=a b.py'], "python train.py '--config=a b.py'"),
    (['/x/bn_jax/__main__.py', 'train'], 'python -m bn_jax train'),
    ([''], "python ''"),
  )
  def test_as_a_shell_takes_it(self, words, want):
    with mock.patch.object(sys, 'argv', words):
      self.assertEqual(code.command(), want)


class VersionTest(parameterized.TestCase):
  @parameterized.parameters('', '[project]\nname = "other"\nversion = "7"\n')
  def test_where_it_is_installed(self, text):
    with tempfile.TemporaryDirectory() as folder:
      site = pathlib.Path(folder)
      if text:
        (site / 'pyproject.toml').write_text(text)
      with (
        mock.patch.object(code, '_PACKAGE', site / 'bn_jax'),
        mock.patch.object(metadata, 'version', lambda name: f'{name} 1'),
      ):
        self.assertEqual(code.version(), 'bn_jax 1')

  def test_in_a_checkout_it_is_its_own(self):
    text = (strict.ROOT / 'pyproject.toml').read_text()
    self.assertIn(f'\nversion = "{code.version()}"\n', text)


if __name__ == '__main__':
  absltest.main()
