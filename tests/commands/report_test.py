"""Pages of records that grow: report --watch, the first page, the next one."""

import contextlib
import io
import os
import pathlib
import subprocess
import threading
import time
from unittest import mock

import pytest
from absl.testing import absltest

from bn_jax import commands, errors
from bn_jax.commands import report
from bn_jax.storage import files, records
from tests.fixtures import (
  commanded,
  made_up,
  strict,  # noqa: F401
)


class _Folder(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.workdir = self.folder / 'w'
    self.said = self.enter_context(contextlib.redirect_stderr(io.StringIO()))

  def record(self, name='train', step=0):
    """A run that trains writes a record, the first one its manifest before."""
    place = self.workdir / 'a' / 'seed0'
    if not place.exists():
      place.mkdir(parents=True)
      experiment = {'runs': {'a': {}}, 'seeds': [0]}
      files.write_json(self.workdir / 'experiment.json', experiment)
      self.status('running')
    with (place / 'scalars.jsonl').open('a') as file:
      file.write(records.as_line(records.Record(step, name, {'loss': 1.0})))

  def status(self, status, seed=0):
    config = {**made_up.CONFIG, 'norm': {'name': 'none'}}
    manifest = made_up.manifest_of(config, run='a', seed=seed, status=status)
    file = self.workdir / 'a' / f'seed{seed}' / 'manifest.json'
    files.write_json(file, manifest)


class WatchTest(_Folder):
  def watched(self, *turns, build=lambda: None):
    """Watches while, turn by turn, something happens.

    Returns:
      How often a page was begun before each turn, and each turn's seconds.
    """
    self.workdir.mkdir()
    now, pages, seconds, builds, turns = [0.0], [], [], [], iter(turns)

    def built():
      builds.append(build())

    def sleep(time):
      pages.append(len(builds))
      seconds.append(time)
      if (action := next(turns)) is not None:
        action()

    self.clock = now
    with mock.patch.multiple(
      report.time, monotonic=lambda: now[0], sleep=sleep
    ):
      report.watch([self.workdir], built, 10)
    return [*pages, len(builds)], seconds

  def test_a_page_whenever_records_have_grown_until_the_end(self):
    def slow():
      self.clock[0] += 30.0

    pages, seconds = self.watched(
      None,
      self.record,
      None,
      lambda: self.record(step=1),
      lambda: self.status('done'),
      build=slow,
    )
    self.assertEqual(pages, [0, 0, 1, 1, 2, 3])
    # Not more often than pages can be built.
    self.assertEqual(seconds, [10, 10, 30, 30, 30])
    self.assertEqual(self.said.getvalue().count('waiting for the first rec'), 1)

  def test_what_has_not_begun_is_waited_for(self):
    def begin():
      self.record()
      files.write_json(
        self.workdir / 'experiment.json', {'runs': {'a': {}}, 'seeds': [0, 1]}
      )
      self.status('done')

    def end():
      (self.workdir / 'a' / 'seed1').mkdir()
      self.status('done', 1)

    self.assertEqual(self.watched(begin, None, None, end)[0][-1], 2)
    said = self.said.getvalue()
    self.assertEqual(said.count(f'such as {self.workdir}/a/seed1; Ctrl-C '), 1)

  def test_what_cannot_be_built_waits_for_more(self):
    results = [errors.StorageError('torn'), None]

    def build():
      if (failure := results.pop(0)) is not None:
        raise failure

    pages, _ = self.watched(
      self.record, None, lambda: self.status('diverged'), build=build
    )
    self.assertEqual((pages[-1], results), (1, []))
    self.assertEqual(self.said.getvalue().count('not built: torn'), 1)

  def test_what_can_never_be_built_ends_it(self):
    build = mock.Mock(side_effect=errors.StorageError('torn'))
    with self.assertRaisesRegex(errors.StorageError, 'torn'):
      self.watched(self.record, lambda: self.status('done'), build=build)
    self.assertEqual(build.call_count, 2)

  def test_ctrl_c(self):
    self.workdir.mkdir()
    with mock.patch.object(report.time, 'sleep', side_effect=KeyboardInterrupt):
      code, _, said = commanded.run('report', self.workdir, '--watch')
    self.assertEqual(code, 75)
    self.assertIn('error: interrupted; the same command starts again', said)


class FirstTest(_Folder):
  def test_once_when_a_row_of_training_is_there(self):
    started, process = threading.Event(), mock.Mock()
    popen = mock.Mock(side_effect=lambda *_, **__: started.set() or process)
    with (
      mock.patch.multiple(report, _FIRST=0.0, _TURN=0.01),
      mock.patch.object(subprocess, 'Popen', popen),
      mock.patch.dict(os.environ, {'BN_JAX_FIRST_PAGE': 'on'}),
      report.first(self.workdir),
    ):
      self.record('test')
      self.assertFalse(started.wait(0.1))
      self.record('train')
      self.assertTrue(started.wait(10))
      self.record('train', 1)
      time.sleep(0.05)
      process.terminate.assert_not_called()
    popen.assert_called_once()
    (command,) = popen.call_args.args
    self.assertEqual(command[-2:], ['report', str(self.workdir.absolute())])
    process.terminate.assert_called_once()

  @pytest.mark.slow  # imports, draws and gives way to everybody
  def test_it_is_built_by_a_process_of_its_own(self):
    made_up.workdir(self.workdir, a={})
    process = report._started(self.workdir)
    self.assertEqual(process.wait(600), 0)
    self.assertTrue((self.workdir / 'report.html').is_file())


class AgainTest(_Folder):
  def test_only_where_there_is_one_and_no_failure_of_it(self):
    made_up.workdir(self.workdir, a={})
    draw = mock.Mock(side_effect=errors.StorageError('torn'))
    with mock.patch.object(commands, 'draw', draw):
      report.again(self.workdir / 'a')
      draw.assert_not_called()
      (self.workdir / 'report.html').touch()
      report.again(self.workdir / 'a' / 'seed0')
    draw.assert_called_once_with([self.workdir])
    self.assertIn('the page is as it was: torn', self.said.getvalue())


if __name__ == '__main__':
  absltest.main()
