"""Bad input, by a table: one line, the right exit code, nothing changed.

The rows lie in tests/fixtures/bad_inputs, a file for each area.
"""

import contextlib
import functools
import hashlib
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from unittest import mock

import jax
import pytest
from absl.testing import absltest, parameterized

from bn_jax.config import build
from bn_jax.data.disk import prepare
from tests.fixtures import commanded, strict
from tests.fixtures.bad_inputs import (
  chained,
  commands,
  config,
  constructors,
  curvature,
  data,
  environment,
  mini_batches,
  networks,
  plugins,
  rows,
  weights,
  workdir,
)

_COMPILED = '/jax/core/compile/backend_compile_duration'
# Single operations, each a program of its own, in which constants are made.
_CONSTANTS = ('jit(convert_element_type)', 'jit(broadcast_in_dim)')
_compilations = []
_shared = tempfile.TemporaryDirectory()
_SHARED = pathlib.Path(_shared.name)


def setUpModule():
  jax.monitoring.register_event_duration_secs_listener(_count)
  prepare.prepare('digits', data_dir=_SHARED / 'tfds')


def tearDownModule():
  jax.monitoring.unregister_event_duration_listener(_count)
  _shared.cleanup()


def _count(event, _, fun_name='', **__):
  if event == _COMPILED and fun_name not in _CONSTANTS:
    _compilations.append(fun_name)


def named(table):
  """Names tests by the rows: pytest -k C7."""
  return parameterized.named_parameters(
    (re.sub(r'\W+', '_', f'_{row.number}_{row.given}'), row) for row in table
  )


def words_of(row, config_flag=rows.TINY):
  """Returns the words of a row, with what is the same in most of them."""
  words = row.words.split() if isinstance(row.words, str) else list(row.words)
  if words[0] == 'train':
    for flag in (config_flag, '--workdir=work'):
      name = flag.partition('=')[0]
      if not any(word.partition('=')[0] == name for word in words):
        words.append(flag)
  return words


def run(words):
  """Returns (exit code, stdout, stderr) of python -m bn_jax WORDS."""
  return commanded.run(*words)


def digests(folder):
  """Returns path -> what lies there, of all that lies below a folder."""
  found = {}
  for path in sorted(folder.rglob('*')):
    if path.is_symlink():
      content = os.readlink(path)
    elif path.is_file():
      content = hashlib.sha256(path.read_bytes()).hexdigest()
    else:
      content = None
    found[str(path.relative_to(folder))] = content
  return found


@functools.cache
def trained():
  """Returns the working directory of the small config, trained once."""
  place = _SHARED / 'trained'
  with commanded.without_page():
    code, said, wrong = run(['train', rows.SMALL, f'--workdir={place}'])
  assert code == 0, said + wrong
  return place


@functools.cache
def chained_workdir():
  """Returns the working directory that the rows of `chained` change."""
  with commanded.without_page():
    return chained.made(_SHARED / 'chained', run)


class Case(parameterized.TestCase):
  """In a folder with configs/ alone; digits to train on lie elsewhere."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.enterContext(contextlib.chdir(self.folder))
    # Messages name the files of configs/, as in a checkout.
    (self.folder / 'configs').symlink_to(strict.ROOT / 'configs')
    variables = {'TFDS_DATA_DIR': str(_SHARED / 'tfds')}
    self.enterContext(mock.patch.dict(os.environ, variables))

  def assert_line(self, row, text):
    for fragment in [row.said] if isinstance(row.said, str) else row.said:
      self.assertIn(fragment, text)

  def assert_refused(self, row, outcome):
    code, said, wrong = outcome
    self.assertEqual(code, row.code, wrong)
    self.assertEqual(said, '')
    self.assertStartsWith(wrong, 'error: ')
    self.assertEqual(wrong.count('\n'), 1, wrong)
    self.assert_line(row, wrong)

  def assert_unchanged(self, before):
    now = digests(self.folder)
    changed = {
      path
      for path in {*before, *now}
      if path not in before or path not in now or before[path] != now[path]
    }
    self.assertEmpty(changed)

  def check(self, row, words):
    """Runs a command that must be refused before anything happens."""
    before = digests(self.folder)
    _compilations.clear()
    self.assert_refused(row, run(words))
    self.assert_unchanged(before)
    self.assertEmpty(_compilations)


# Numbers of the catalogue that are no row: what is held there trains, takes
# what no command makes, or needs a second process.
_ELSEWHERE = {
  'C22': 'data/disk/pixels_test.py'
  '::test_every_mode_gets_the_channels_that_are_stated',
  'C42': 'experiment/survive_test.py::TwoWritersTest',
  'C43': 'experiment/experiment_test.py::test_no_room_is_said_before_anything',
  'C47': 'storage/checkpoint_test.py::test_another_dtype_is_refused',
  'C49': 'storage/checkpoint_test.py::test_an_empty_folder_is_no_checkpoint',
  'C50': 'storage/checkpoint_test.py::test_a_newer_format_is_refused',
  'C51': 'experiment/experiment_test.py::test_goes_on_on_other_devices',
  'C52': 'experiment/experiment_test.py::test_divergence_ends_the_run',
  'C54': 'host/processes_test.py::test_a_meeting_in_vain_leaves_nothing',
}


class CatalogueTest(absltest.TestCase):
  def test_each_number_has_a_row_or_a_test(self):
    numbers = {
      row.number
      for module in (
        chained, commands, config, constructors, curvature, data, environment,
        workdir,
      )
      for table in vars(module).values()
      if isinstance(table, tuple)
      for row in table
      if hasattr(row, 'number')
    }  # fmt: skip
    catalogue = {f'C{number}' for number in range(1, 57)}
    self.assertEqual(catalogue - numbers - set(_ELSEWHERE), set())
    for place in _ELSEWHERE.values():
      path, name = place.split('::')
      self.assertIn(name, (strict.ROOT / 'tests' / path).read_text())


class CommandTest(Case):
  @named((*commands.COMMANDS, *weights.COMMANDS))
  def test_line(self, row):
    for name, text in row.files.items():
      (self.folder / name).write_text(text)
    self.check(row, row.words.split() if row.whole else words_of(row))

  @named((*plugins.COMMANDS, *networks.COMMANDS))
  def test_users(self, row):
    for name, text in row.files.items():
      (self.folder / name).write_text(text)
    self.check(row, words_of(row))

  @named((*config.LINES, *curvature.LINES))
  def test_key(self, row):
    self.check(row, words_of(row))

  @named((*config.FILES, *mini_batches.FILES))
  def test_config(self, row):
    text = row.text
    (self.folder / row.name).write_bytes(
      text if isinstance(text, bytes) else text.encode()
    )
    self.check(row, ['train', f'--config={row.name}', '--workdir=work'])


class CallTest(Case):
  @named(
    (*constructors.CALLS, *networks.CALLS, *mini_batches.CALLS, *weights.CALLS)
  )
  def test_row(self, row):
    _compilations.clear()
    with self.assertRaises(ValueError) as raised:
      row.call()
    text = str(raised.exception)
    self.assert_line(row, text)
    self.assertNotIn('\n', text)
    self.assertEmpty(_compilations)


class DataTest(Case):
  @named((*data.SETS, *data.FOLDERS, *data.ARRAYS))
  def test_row(self, row):
    (self.folder / 'data').mkdir()
    build._source.cache_clear()  # of another row's folder, of the same name
    row.write(self.folder / 'data')
    self.check(row, [*words_of(row, rows.SMALL), '--data_dir=data'])


class WorkdirTest(Case):
  @named((*workdir.WORKDIRS, *curvature.WORKDIRS, *mini_batches.WORKDIRS))
  def test_row(self, row):
    self.check_changed(trained(), row, rows.SMALL)

  @named(chained.CHAINED)
  def test_chain(self, row):
    self.check_changed(chained_workdir(), row, rows.CHAINED)

  def check_changed(self, whole, row, config_flag):
    shutil.copytree(whole, self.folder / 'work', symlinks=True)
    row.change(self.folder / 'work')
    words = words_of(row, config_flag)
    if row.code:
      self.check(row, words)
      return
    with self.assertLogs('bn_jax') as log:
      logging.getLogger('bn_jax').info('begins')
      code, said, wrong = run(words)
    self.assertEqual(code, 0, wrong)
    self.assert_line(row, said + wrong + '\n'.join(log.output))
    if row.check is not None:
      row.check(self.folder / 'work')


class EnvironmentTest(Case):
  @named(environment.ENVIRONMENTS)
  def test_row(self, row):
    self.check_process(row)

  @named(environment.ALIKE)
  @pytest.mark.slow  # a second each
  def test_alike(self, row):
    self.check_process(row)

  def check_process(self, row):
    before = digests(self.folder)
    # What is compiled would be a line on stderr.
    variables = {
      **os.environ, 'PYTHONPATH': str(strict.ROOT), 'JAX_LOG_COMPILES': '1',
      **row.variables,
    }  # fmt: skip
    done = subprocess.run(
      [sys.executable, '-m', 'bn_jax', *words_of(row)],
      env={name: x for name, x in variables.items() if x is not None},
      capture_output=True, text=True,
    )  # fmt: skip
    self.assert_refused(row, (done.returncode, done.stdout, done.stderr))
    self.assert_unchanged(before)


if __name__ == '__main__':
  absltest.main()
