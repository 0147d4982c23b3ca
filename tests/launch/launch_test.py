import contextlib
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest
import submitit  # noqa: F401  as it closes log handlers: before any redirect
import yaml
from absl.testing import absltest, parameterized

from bn_jax import __main__, errors
from bn_jax.config import build, flags, resolve
from bn_jax.experiment import cost, together
from bn_jax.launch import engines, job, sweep
from bn_jax.launch import status as status_lib
from bn_jax.storage import lock, run_folder
from tests.fixtures import commanded, made_up, scratch, strict

_SINGLE = '--config=tests/fixtures/single_config.py'
_TOGETHER = '--config=tests/fixtures/regression_config.py'
_DENSE = '--config=tests/fixtures/dense_config.py'


class LaunchCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(contextlib.chdir(strict.ROOT))
    self.workdir = scratch.folder(self) / 'sweep'

  def main(self, *words):
    """(exit code, stdout, stderr) of `python -m bn_jax launch`."""
    return commanded.run('launch', *words, f'--workdir={self.workdir}')

  def expand(self, *settings, config=_SINGLE, only=None):
    return sweep.expand(
      [config], settings, workdir=str(self.workdir), only=only
    ).cells

  def write(self, cell, status, step):
    config = {
      **cell.config.as_json(),
      'on_nonfinite': 'stop',
      'max_skips': None,
    }
    self.write_manifest(cell, config, status=status, step=step)

  def called(self, cell, name):
    """The same cell, of a run of another name."""
    return cell._replace(folder=run_folder.at(cell.workdir, name, 0))

  def write_manifest(self, cell, config, **changes):
    folder = cell.folder
    folder.path.mkdir(parents=True, exist_ok=True)
    manifest = made_up.manifest_of(
      config, run=folder.run, seed=folder.seed, **changes
    )
    folder.manifest_file.write_text(json.dumps(manifest))

  def ended(self, cell, code):
    noted = status_lib.Notes(str(self.workdir), cell)
    noted.prepare()
    noted.submitted('local', '1')
    noted.ended.write_text(json.dumps({'job': '1', 'exit_code': code}))

  def holder(self, folder, name='lock', seconds=60):
    """Another process that holds a lock."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
      [
        sys.executable, '-c',
        'import pathlib, sys, time\n'
        'from bn_jax.storage import lock\n'
        'with lock.held(pathlib.Path(sys.argv[1]), sys.argv[2]):\n'
        "  print('held', flush=True)\n"
        '  time.sleep(float(sys.argv[3]))',
        str(folder), name, str(seconds),
      ],
      stdout=subprocess.PIPE,
    )  # fmt: skip
    self.addCleanup(process.wait)
    self.addCleanup(process.kill)
    self.addCleanup(process.stdout.close)
    self.assertEqual(process.stdout.readline(), b'held\n')
    return process

  def squeue(self, script):
    """From now on, what SLURM says."""
    folder = self.workdir / 'bin'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'squeue').write_text(f'#!/bin/sh\n{script}\n')
    (folder / 'squeue').chmod(0o755)
    path = f'{folder}:{os.environ["PATH"]}'
    self.enter_context(mock.patch.dict(os.environ, PATH=path))


class CommandLineTest(LaunchCase):
  def test_slurm_where_there_is_none(self):
    with mock.patch.object(shutil, 'which', lambda name: None):
      code, _, said = self.main('--engine=slurm', _SINGLE)
    self.assertEqual((code, said.count('\n')), (2, 1))
    self.assertIn('no sbatch on the PATH', said)

  def test_help(self):
    code, printed, _ = self.main('--help')
    self.assertEqual(code, 0)
    for word in ('--engine', '--set', '--jobs', '--slurm', '--wait'):
      self.assertIn(word, printed)
    self.assertLessEqual(max(map(len, printed.split('\n'))), 80)


class ExpandTest(LaunchCase):
  def test_every_combination_run_and_seed_once(self):
    cells = self.expand(
      'steps=3,4', 'schedule.learning_rate=0.1,0.2,0.3', 'seeds=2:4',
      config=_DENSE,
    )  # fmt: skip
    found = []
    for cell in cells:
      given = flags.train(['train.py', *sweep.Group((cell,)).words])
      self.assertEqual(given.workdir, str(cell.workdir))
      self.assertEqual(given.only, cell.label)
      self.assertEqual(given.overrides['seeds'], ('2:4',))
      self.assertEqual(given.overrides['steps'], cell.steps)
      rate = given.overrides['schedule.learning_rate']
      found.append((cell.steps, rate, cell.folder.run, cell.folder.seed))
    expected = itertools.product(
      (3, 4), (0.1, 0.2, 0.3), ('standard', 'batchnorm'), (2, 3)
    )
    self.assertEqual(found, list(expected))
    # Seeds and runs share a working directory, combinations do not.
    self.assertLen({cell.workdir for cell in cells}, 6)
    self.assertLen({cell.folder.path for cell in cells}, 24)

  def test_without_set_it_is_the_experiment_itself(self):
    cells = self.expand(config=_DENSE)
    self.assertEqual(
      [cell.folder.path.relative_to(self.workdir) for cell in cells],
      [pathlib.Path('standard/seed0'), pathlib.Path('batchnorm/seed0')],
    )

  def test_only(self):
    (cell,) = self.expand(
      'seeds=0:3', config=_DENSE, only='batchnorm/seed2'
    )  # fmt: skip
    self.assertEqual((cell.folder.run, cell.folder.seed), ('batchnorm', 2))

  def test_values_with_commas_stand_in_brackets(self):
    cells = self.expand('data.classes=(0,1),(2,3,4)')
    classes = [
      flags.train(['train.py', *cell.line]).overrides['data.classes']
      for cell in cells
    ]
    self.assertEqual(classes, [(0, 1), (2, 3, 4)])

  def test_folders_are_one_name_each_that_no_shell_reads(self):
    values = ['a/b', 'a-b', '../x', '/x', 'a b', "'", '$(x)', 'ä', 'ö', '~',
              'x' * 300, 'x' * 301, '.', '-', '1e-5', '']  # fmt: skip
    names = [sweep._name([('data.name', value)]) for value in values]
    self.assertLen(set(names), len(values))
    for name in names:
      self.assertRegex(name, r'^[A-Za-z0-9][A-Za-z0-9._=+-]*$')
      self.assertLess(len(name), 128)
    self.assertEqual(
      sweep._name([('a.b', '1e-5'), ('c', '3')]), 'a.b=1e-5__c=3'
    )

  def test_more_values_leave_the_old_folders(self):
    few = self.expand('steps=3')
    more = self.expand('steps=4,3')
    self.assertEqual(few[0], more[1])

  def test_another_experiment_is_refused(self):
    (cell,) = self.expand('steps=3')
    place = pathlib.Path(cell.workdir)
    place.mkdir(parents=True)
    given = flags.train(['train.py', _SINGLE, '--config.batch_size=8'])
    experiment = resolve.experiment(given.config.to_dict(), given.overrides)
    runs = {name: run.as_json() for name, run in experiment.runs.items()}
    (place / 'experiment.json').write_text(
      json.dumps({'runs': runs, 'seeds': [0]})
    )
    with self.assertRaisesRegex(
      errors.ConfigError, 'another experiment.*batch_size was 8, is 16'
    ):
      self.expand('steps=3')


class PrintTest(LaunchCase):
  def test_lines_are_commands_for_a_shell(self):
    code, printed, said = self.main(
      '--engine=print', _SINGLE, '--set', 'norm.name=batch,none',
      "--data_dir=it's here", '--config.steps=3',
    )  # fmt: skip
    self.assertEqual(code, 0, said)
    self.assertLen(printed.splitlines(), 2)
    for line, norm in zip(printed.splitlines(), ('batch', 'none')):
      python, script, *words = shlex.split(line)
      self.assertEqual(script, 'train.py')
      self.assertIsNotNone(shutil.which(python))
      given = flags.train([script, *words])
      self.assertEqual(
        given.overrides,
        {'norm.name': norm, 'steps': 3, 'data_dir': "it's here"},
      )
      self.assertEqual(given.only, 'only/seed0')
    self.assertIn('2 not started', said)
    self.assertFalse(self.workdir.exists())

  def test_it_needs_no_submitit(self):
    with mock.patch.dict(sys.modules, submitit=None):
      code, _, said = self.main('--engine=print', _SINGLE)
      self.assertEqual(code, 0, said)
      code, _, said = self.main('--engine=local', _SINGLE)
      self.assertEqual((code, said.count('\n')), (2, 1))
      self.assertIn('--engine=print', said)

  def test_what_is_over_or_alive_is_left_out(self):
    cells = self.expand('seeds=0:5')
    self.write(cells[0], 'done', 6)
    self.write(cells[1], 'diverged', 2)
    self.write(cells[2], 'interrupted', 2)
    self.write(cells[3], 'running', 0)
    self.holder(cells[3].folder.path)
    _, printed, _ = self.main('--engine=print', _SINGLE, '--set=seeds=0:5')
    started = [shlex.split(line)[-1] for line in printed.splitlines()]
    self.assertEqual(started, ['--only=only/seed2', '--only=only/seed4'])


class GroupsTest(LaunchCase):
  """Seeds that share a program are one job."""

  def groups(self, *settings, done=(), config=_TOGETHER, **more):
    cells = self.expand(*settings, config=config)
    to_start = [cell for cell in cells if cell.folder.seed not in done]
    return sweep.groups(cells, to_start, **more)

  def only(self, groups):
    return [group.words[-1].removeprefix('--only=') for group in groups]

  def test_a_line_trains_its_group_as_one_program(self):
    groups = self.groups('seeds=0:33', 'steps=3')
    self.assertEqual(
      self.only(groups), ['batchnorm/seed0:17', 'batchnorm/seed17:33']
    )
    given = flags.train(['train.py', *groups[-1].words])
    resolved = resolve.experiment(given.config.to_dict(), given.overrides)
    chosen = resolved.chosen(given.only)
    self.assertEqual(chosen, {'batchnorm': tuple(range(17, 33))})
    # 16 seeds in the program that is also for the 17.
    config = resolved.runs['batchnorm']
    self.assertEqual((config.seeds_at_once, config.steps), (17, 3))

  @parameterized.parameters(
    (('seeds=0:3',), ['batchnorm/seed0', 'batchnorm/seed1', 'batchnorm/seed2']),
    (('seeds=0:6', 'seeds_at_once=4'),
     ['batchnorm/seed0:4', 'batchnorm/seed4,batchnorm/seed5']),
    (('seeds=0:5', 'seeds_at_once=1'),
     [f'batchnorm/seed{seed}' for seed in range(5)]),
    (('seeds=0:4', 'devices=4', 'batch_size=8'), ['batchnorm/seed0:4']),
  )  # fmt: skip
  def test_which_seeds_share_a_job(self, settings, want):
    self.assertEqual(self.only(self.groups(*settings)), want)

  @parameterized.parameters('--{}=auto', '-{}=auto', '--{} auto')
  def test_an_auto_for_all_runs_does_not_hide_the_number(self, words):
    words = words.format('config.seeds_at_once').split()
    (cell,) = self.expand('seeds=0:1', config=_TOGETHER)
    cell = cell._replace(line=(_TOGETHER, *words, '--config.seeds=0:9'))
    words = sweep.Group((cell,), at_once=5).words
    given = flags.train(['train.py', *words])
    resolved = resolve.experiment(given.config.to_dict(), given.overrides)
    self.assertEqual(resolved.runs['batchnorm'].seeds_at_once, 5)

  def test_the_number_of_seeds_that_have_begun_is_not_said(self):
    """It may be above that of all seeds, which train.py would refuse."""
    cells = self.expand('seeds=0:4', config=_TOGETHER)
    manifest = {'seeds_at_once': 8, 'device': {'count': 1}}
    with mock.patch.object(run_folder.RunFolder, 'manifest', manifest):
      (group,) = sweep.groups(cells, cells)
      self.assertEqual(group.at_once, 8)
      self.assertNotIn('seeds_at_once', ' '.join(group.words))

  def test_runs_that_differ_in_numbers_alone_share_a_job(self):
    cells = self.expand('seeds=0:2', config=_TOGETHER)
    rates = {'slow': 1e-4, 'usual': 1e-3}
    schedules = {run: dict(name='constant', learning_rate=rate)
                 for run, rate in rates.items()}  # fmt: skip
    cells = [
      cell._replace(
        folder=run_folder.at(cell.workdir, run, cell.folder.seed),
        config=cell.config.replace(schedule=schedules[run]),
      )
      for run in rates
      for cell in cells
    ]
    (group,) = sweep.groups(cells, cells)
    *_, slow, usual, only = group.words
    self.assertEqual(slow, '--config.runs.slow.seeds_at_once=4')
    self.assertEqual(usual, '--config.runs.usual.seeds_at_once=4')
    self.assertEqual(
      only, '--only=slow/seed0,slow/seed1,usual/seed0,usual/seed1'
    )

  def test_what_is_done_is_left_out(self):
    groups = self.groups('seeds=0:8', done=(0, 3, 4))
    self.assertEqual(
      self.only(groups), ['batchnorm/seed1,batchnorm/seed2,batchnorm/seed5:8']
    )

  def test_jobs_at_a_time_share_the_memory(self):
    size = together.bytes_of_seed(
      (config := self.expand(config=_TOGETHER)[0].config),
      build.problem(config),
    )
    with mock.patch.object(cost, 'memory_left', return_value=2 * 16.5 * size):
      alone, shared = (
        self.groups('seeds=0:32', shares=jobs) for jobs in (1, 2)
      )
    self.assertEqual([group.at_once for group in alone], [16, 16])
    self.assertEqual([group.at_once for group in shared], [8, 8, 8, 8])

  def test_without_the_data_each_seed_is_a_job(self):
    groups = self.groups(
      'seeds=0:4', f'data_dir={self.workdir}', 'data.name=own',
      config='--config=tests/fixtures/dense_config.py',
    )  # fmt: skip
    self.assertLen(groups, 8)

  def test_one_end_of_a_job_is_that_of_all_its_cells(self):
    (group,) = self.groups('seeds=0:4')
    self.workdir.mkdir()
    said = []
    code = 'import sys; print("error: no", file=sys.stderr); sys.exit(3)'
    with mock.patch.object(
      engines, 'command', lambda group: [sys.executable, '-c', code]
    ):
      engines.locally(str(self.workdir), [group], at_once=1, say=said.append)
    standings = status_lib.of(str(self.workdir), group.cells)
    self.assertEqual([one.exit_code for one in standings], [3] * 4)
    self.assertLen({one.job for one in standings}, 1)
    self.assertEndsWith(said[-1], 'batchnorm/seed0:4 4 failed')
    # Whose message is told once.
    table = status_lib.table(group.cells, standings)
    self.assertEqual(table.count('\n      no\n'), 1)

  def test_several_processes_train_one_seed_after_the_other(self):
    self.assertTrue(engines.has_tasks({'ntasks-per-node': '2'}))
    self.assertFalse(engines.has_tasks({'time': '3', 'ntasks': '1'}))


class StandingTest(LaunchCase):
  @parameterized.named_parameters(
    ('nothing', None, None, 'not started', 75),
    ('done', ('done', 6), 0, 'done', 0),
    ('fewer', ('done', 4), 0, 'unfinished', 75),
    ('diverged', ('diverged', 2), 5, 'diverged', 5),
    ('interrupted', ('interrupted', 2), 75, 'interrupted', 75),
    ('before_the_first_step', None, 75, 'interrupted', 75),
    ('killed', ('running', 2), None, 'killed', 75),
    ('by_signal', ('running', 2), -9, 'killed', 75),
    ('at_once', ('running', 2), 130, 'killed', 75),
    ('config', None, 2, 'failed', 2),
    ('storage', ('running', 2), 6, 'failed', 6),
    ('bug', ('running', 2), 1, 'failed', 1),
    ('unknown', ('running', 2), 47, 'failed', 1),
  )
  def test_status(self, manifest, code, status, exit_code):
    (cell,) = self.expand()
    if code is not None:
      self.ended(cell, code)
    if manifest is not None:
      self.write(cell, *manifest)
    (now,) = status_lib.of(str(self.workdir), [cell])
    self.assertEqual(now.status, status)
    self.assertEqual(status_lib.exit_code([now]), exit_code)

  def test_divergence_that_is_expected_is_done(self):
    (cell,) = self.expand()
    cell = cell._replace(may_diverge=True)
    self.write(cell, 'diverged', 2)
    (now,) = status_lib.of(str(self.workdir), [cell])
    self.assertEqual((now.is_over, status_lib.exit_code([now])), (True, 0))

  @parameterized.parameters(
    (5, 'unfinished'), (0, 'unfinished'), (None, 'unfinished'),
    (3, 'failed'), (-9, 'killed'),
  )  # fmt: skip
  def test_divergence_goes_on_where_more_may_be_left_out(self, code, status):
    (cell,) = self.expand('on_nonfinite=skip', 'max_skips=10')
    cell = cell._replace(may_diverge=True)
    self.write(cell, 'diverged', 2)
    if code is not None:
      self.ended(cell, code)
    (now,) = status_lib.of(str(self.workdir), [cell])
    self.assertEqual((now.status, now.is_to_start), (status, True))
    # It has diverged under this config too.
    self.write_manifest(cell, cell.config.as_json(), status='diverged', step=4)
    (now,) = status_lib.of(str(self.workdir), [cell])
    self.assertEqual(now.status, 'diverged, expected')

  def test_what_cannot_be_removed_is_one_line(self):
    (cell,) = self.expand()
    noted = status_lib.Notes(str(self.workdir), cell)
    noted.ended.mkdir(parents=True)  # a folder in the place of the file
    with self.assertRaisesRegex(errors.StorageError, 'cannot write'):
      noted.prepare()

  def test_a_lock_that_was_left_holds_nobody_up(self):
    """Even if its process has a successor of the same number."""
    (cell,) = self.expand()
    self.write(cell, 'running', 2)
    process = self.holder(cell.folder.path)
    (now,) = status_lib.of(str(self.workdir), [cell])
    self.assertEqual(now.status, 'running')
    process.kill()
    process.wait()
    left = json.loads((cell.folder.path / 'lock').read_text())
    left['process'] = os.getpid()
    (cell.folder.path / 'lock').write_text(json.dumps(left))
    (now,) = status_lib.of(str(self.workdir), [cell])
    self.assertEqual(now.status, 'killed')

  @parameterized.parameters(
    (['done', 'interrupted', 'diverged'], 75),
    (['done', 'diverged'], 5),
    (['failed', 'interrupted'], 3),
  )
  def test_the_worst_decides(self, statuses, expected):
    all_of = [status_lib.Standing(status, exit_code=3) for status in statuses]
    self.assertEqual(status_lib.exit_code(all_of), expected)

  def test_two_ways_to_fail(self):
    both = [status_lib.Standing('failed', exit_code=code) for code in (2, 3)]
    self.assertEqual(status_lib.exit_code(both), 1)

  def test_an_end_of_an_earlier_job_is_forgotten(self):
    (cell,) = self.expand()
    self.ended(cell, 3)
    status_lib.Notes(str(self.workdir), cell).prepare()
    (now,) = status_lib.of(str(self.workdir), [cell])
    self.assertEqual(now.status, 'not started')

  def test_the_step_is_the_last_whole_record(self):
    (cell,) = self.expand()
    self.write(cell, 'running', 0)
    lines = [f'{{"step": {step}, "name": "train"}}\n' for step in (3, 4)]
    text = ''.join(lines) + '{"step": 5'
    (cell.folder.path / 'scalars.jsonl').write_text('x' * 20000 + '\n' + text)
    (now,) = status_lib.of(str(self.workdir), [cell])
    self.assertEqual((now.status, now.step), ('killed', 4))

  def test_the_queue_says_what_is_alive(self):
    cells = self.expand('seeds=0:3')
    for number, cell in enumerate(cells):
      noted = status_lib.Notes(str(self.workdir), cell)
      noted.prepare()
      noted.submitted('slurm', f'7_{number}')
    self.squeue("echo '7_0 RUNNING'; echo '7_1 PENDING'")
    found = status_lib.of(str(self.workdir), cells)
    for script, said in (
      ('echo no controller >&2; exit 1', 'no controller'),
      ('exec sleep 5', 'no answer of squeue in 0.1 s'),
    ):
      self.squeue(script)
      with (
        mock.patch.object(status_lib, '_PATIENCE', 0.1),
        self.assertRaisesRegex(errors.ConfigError, said),
      ):
        status_lib.of(str(self.workdir), cells)
    self.assertEqual(
      [now.status for now in found], ['running', 'queued', 'not started']
    )

  def test_the_table_fits(self):
    cells = self.expand('seeds=0:3', config=_DENSE)
    now = status_lib.Standing(
      'failed', 3, '123456_12', 2, error='of these words ' * 12
    )
    lines = status_lib.table(cells, [now] * len(cells)).splitlines()
    self.assertLessEqual(max(map(len, lines[1:])), 80)
    self.assertEqual(lines[-1], '6 failed')
    self.assertRegex(lines[2], r'^ +standard/seed0 +failed, exit 2 +3 of 6 ')


_NOTE = """
import os, pathlib, signal, sys, time
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
def write(what): (folder / f'{name}.{what}').write_text(repr(time.time()))
def stop(*unused):
  write('asked')
  sys.exit(75)
signal.signal(signal.SIGTERM, stop)
"""


class LocalTest(LaunchCase):
  """Real local jobs of submitit, of commands that do nothing."""

  def run_jobs(self, code, names, *, at_once=2, say=lambda line: None):
    (cell,) = self.expand()
    cells = [self.called(cell, name) for name in names]
    self.workdir.mkdir(exist_ok=True)

    def command(group):
      run = group.cells[0].folder.run
      return [sys.executable, '-c', code, str(self.workdir), run]

    groups = [sweep.Group((cell,)) for cell in cells]
    with mock.patch.object(engines, 'command', command):
      engines.locally(str(self.workdir), groups, at_once=at_once, say=say)
    return [status_lib.Notes(str(self.workdir), cell).read() for cell in cells]

  def time_of(self, name):
    return float((self.workdir / name).read_text())

  def test_ends_are_noted_and_so_many_run_at_once(self):
    code = (
      "write('begun'); time.sleep(1); print(os.environ['CUDA_VISIBLE_DEVICES'"
      "], file=sys.stderr); write('ended'); sys.exit(int(name[-1]))"
    )
    names = ['a0', 'b3', 'c0']
    with mock.patch.dict(os.environ, CUDA_VISIBLE_DEVICES='5'):
      found = self.run_jobs(_NOTE + code, names)
    self.assertEqual([note.exit_code for note in found], [0, 3, 0])
    times = [(self.time_of(f'{n}.begun'), 1) for n in names]
    times += [(self.time_of(f'{n}.ended'), -1) for n in names]
    alive = itertools.accumulate(change for _, change in sorted(times))
    self.assertLessEqual(max(alive), 2)
    log = self.workdir / 'launch' / f'{found[0].job}_0_log.err'
    self.assertIn('5\n', log.read_text())

  def test_ctrl_c_is_passed_on_and_waited_for(self):
    code = (
      "write(str(os.environ.get('CUDA_VISIBLE_DEVICES'))); write('begun'); "
      'time.sleep(60)'
    )

    def say(line):
      if 'started' in line:
        end = time.monotonic() + 20
        while not (self.workdir / 'a.begun').exists():
          self.assertLess(time.monotonic(), end)
          time.sleep(0.05)
        raise KeyboardInterrupt

    before = time.monotonic()
    with mock.patch.dict(os.environ):
      os.environ.pop('CUDA_VISIBLE_DEVICES', None)
      first, second = self.run_jobs(_NOTE + code, ['a', 'b'], say=say)
    self.assertLess(time.monotonic() - before, 30)
    self.assertEqual((first.exit_code, second.job), (75, None))
    self.assertGreater(self.time_of('a.asked'), self.time_of('a.begun'))
    # submitit's own jobs would see no GPU.
    self.assertTrue((self.workdir / 'a.None').exists())

  def test_ctrl_c_when_a_job_has_just_ended(self):
    gone = subprocess.Popen(['true'])
    gone.wait()
    made = mock.Mock(job_id=str(gone.pid), done=lambda: True)

    def say(line):
      if 'started' in line:
        raise KeyboardInterrupt

    with mock.patch.object(engines, '_submit_here', lambda *_: made):
      (note,) = self.run_jobs('', ['a'], say=say)
    self.assertEqual(note.job, str(gone.pid))

  def test_two_at_once_are_refused(self):
    process = self.holder(self.workdir / 'launch', 'launch.lock')
    with mock.patch.object(engines, '_submit_here') as submitted:
      code, printed, said = self.main('--engine=local', _SINGLE)
    submitted.assert_not_called()
    self.assertEqual((code, printed, said.count('\n')), (2, '', 1))
    self.assertIn(f'is being written by process {process.pid} on', said)
    # There is nothing to wait for where all is over.
    (cell,) = self.expand()
    self.write(cell, 'done', 6)
    self.assertEqual(self.main('--engine=local', _SINGLE)[0], 0)

  def test_what_another_one_has_ended_meanwhile_is_not_started(self):
    (cell,) = self.expand()
    self.write(self.called(cell, 'a'), 'done', 6)
    first, second = self.run_jobs('', ['a', 'b'])
    self.assertEqual((first.job, second.exit_code), (None, 0))


class WaitTest(LaunchCase):
  def setUp(self):
    super().setUp()
    self.enter_context(mock.patch.object(engines, '_POLL_QUEUE', 0.05))
    (self.cell,) = self.expand()

  def wait(self):
    engines.wait(str(self.workdir), [self.cell])

  def test_for_one_that_runs_here_slurm_is_not_asked(self):
    self.ended(self.cell, 0)
    self.squeue('touch "$0.asked"; exit 1')
    self.holder(self.cell.folder.path, seconds=0.5)
    self.wait()
    self.assertFalse(lock.is_held(self.cell.folder.path))
    self.assertFalse((self.workdir / 'bin' / 'squeue.asked').exists())

  def submit(self):
    noted = status_lib.Notes(str(self.workdir), self.cell)
    noted.prepare()
    noted.submitted('slurm', '7_0')

  def test_a_slurm_that_never_answers_is_an_error(self):
    self.submit()
    self.squeue('echo . >> "$0.asked"; echo no controller >&2; exit 1')
    with (
      mock.patch.object(engines, '_SILENT', 3),
      self.assertRaisesRegex(errors.ConfigError, 'no controller'),
    ):
      self.wait()
    asked = (self.workdir / 'bin' / 'squeue.asked').read_text()
    self.assertEqual(asked.count('.'), 3)

  def test_a_slurm_that_starts_anew_is_waited_for(self):
    self.submit()
    # Silent twice, then alive, silent twice, and gone: never thrice in a row.
    self.squeue(
      'echo . >> "$0.asked"; n=$(wc -l < "$0.asked")\n'
      "case $n in 3) echo '7_0 RUNNING';; 6) ;; *) exit 1;; esac"
    )
    with mock.patch.object(engines, '_SILENT', 3):
      self.wait()
    asked = (self.workdir / 'bin' / 'squeue.asked').read_text()
    self.assertEqual(asked.count('.'), 6)


class JobTest(absltest.TestCase):
  def training(self, code):
    made = job.Training(['true'], ['ended.json'], local=False)
    made._process = subprocess.Popen(
      [sys.executable, '-c', code], stdout=subprocess.PIPE,
      preexec_fn=job._signals,
    )  # fmt: skip
    self.addCleanup(made._process.wait)
    self.addCleanup(made._process.kill)
    self.addCleanup(made._process.stdout.close)
    made._process.stdout.readline()
    return made

  def test_at_the_end_of_its_time_it_is_stopped_and_queued_again(self):
    saves = (
      'import signal, sys, time\n'
      'signal.signal(signal.SIGTERM, lambda *_: sys.exit({}))\n'
      "print('ready', flush=True)\n"
      'time.sleep(60)'
    )
    again = self.training(saves.format(75)).checkpoint()
    self.assertEqual(again.function._arguments[0], ('true',))
    # A command that has ended, well or not, is not to be started again.
    for code in (0, 3):
      self.assertIsNone(self.training(saves.format(code)).checkpoint())

  def test_the_clusters_own_signal_does_not_end_the_command(self):
    made = self.training(
      "import time; print('ready', flush=True); time.sleep(60)"
    )
    made._process.send_signal(signal.SIGUSR2)
    time.sleep(0.3)
    self.assertIsNone(made._process.poll())


class SbatchTest(parameterized.TestCase):
  @parameterized.parameters(
    ('30', 30), ('30:30', 30), ('2:30:00', 150), ('1-0', 1440),
    ('1-2', 26 * 60), ('1-02:30', 26 * 60 + 30), ('1-02:30:59', 26 * 60 + 30),
  )  # fmt: skip
  def test_time(self, text, minutes):
    found = engines.sbatch_parameters(
      engines.sbatch_options([f'time={text}']), None
    )
    self.assertEqual(found['slurm_time'], minutes)

  @parameterized.parameters(
    ([], 'time=MINUTES is missing'),
    (['time=soon'], 'time=soon: allowed: MINUTES'),
    (['time=0:30'], 'a minute or more'),
    (['time=3', 'gpus'], 'gpus: allowed: KEY=VALUE'),
  )
  def test_refused(self, options, expected):
    with self.assertRaisesRegex(errors.ConfigError, expected):
      engines.sbatch_options(options)

  def test_options_reach_the_script(self):
    from submitit.slurm import slurm

    options = ['time=20', 'gpus=2', 'cpus_per_task=3', '--partition=a']
    found = engines.sbatch_parameters(engines.sbatch_options(options), 4)
    script = slurm._make_sbatch_string(
      command='train', folder='/x', map_count=9,
      **{k.removeprefix('slurm_'): v for k, v in found.items() if k != 'name'},
    )  # fmt: skip
    for line in (
      '--time=20', '--gpus=2', '--cpus-per-task=3', '--partition=a',
      '--array=0-8%4', '--signal=USR2@90',
    ):  # fmt: skip
      self.assertIn(f'#SBATCH {line}\n', script)
    self.assertRegex(script, 'srun .*--cpus-per-task 3 train')


class DocsTest(LaunchCase):
  """docs/clusters.md and its templates."""

  def test_its_sweeps_are_understood(self):
    text = (strict.ROOT / 'docs' / 'clusters.md').read_text()
    text = text.replace('\\\n', ' ')
    commands = re.findall(
      r'^python -m bn_jax (launch [^|\n]*)', text, re.MULTILINE
    )
    self.assertLen(commands, 3)
    for command in commands:
      words = shlex.split(command)
      given = __main__.parser(words).parse_args(words)
      found = sweep.expand(given.rest, given.set, workdir=None, only=given.only)
      self.assertNotEmpty(found.cells)
      if given.engine == 'slurm':
        engines.sbatch_parameters(engines.sbatch_options(given.slurm), 1)

  def test_templates_have_a_syntax(self):
    folder = strict.ROOT / 'docs' / 'templates'
    for name in ('train.sbatch', 'tpu_pod.sh'):
      subprocess.run(['bash', '-n', folder / name], check=True)
    sky = yaml.safe_load((folder / 'skypilot.yaml').read_text())
    *_, jobset = yaml.safe_load_all((folder / 'jobset.yaml').read_text())
    (workers,) = jobset['spec']['replicatedJobs']
    spec = workers['template']['spec']
    (container,) = spec['template']['spec']['containers']
    (rule,) = spec['podFailurePolicy']['rules']
    interrupted = errors.Interrupted.exit_code
    self.assertNotIn(interrupted, rule['onExitCodes']['values'])
    self.assertEqual(rule['onExitCodes']['containerName'], container['name'])
    self.assertEqual(
      sky['resources']['job_recovery']['recover_on_exit_codes'], [interrupted]
    )
    for command in (shlex.join(container['command']), sky['run']):
      flags.train(shlex.split(command)[1:])


@pytest.mark.slow
class TrainingTest(LaunchCase):
  def test_a_sweep_to_its_end_and_nothing_twice(self):
    words = ('--engine=local', _SINGLE, '--set', 'steps=2', '--set',
             'seeds=0:2', '--jobs=2')  # fmt: skip
    fast = {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1', 'JAX_PLATFORMS': 'cpu'}
    with mock.patch.dict(os.environ, fast):
      code, printed, said = self.main(*words)
    self.assertEqual(code, 0, said)
    self.assertIn('2 done', printed)
    page = self.workdir / 'steps=2' / 'report.html'
    self.assertIn('2 seeds', page.read_text())
    code, _, said = self.main(*words)
    self.assertEqual((code, said), (0, ''))

  def test_ctrl_c_in_a_terminal_saves_the_state(self):
    """It reaches launch and all that it started: they are one group."""
    many = 10**6
    with subprocess.Popen(
      [
        sys.executable, '-m', 'bn_jax', 'launch', '--engine=local', _SINGLE,
        f'--workdir={self.workdir}', f'--config.steps={many}',
        '--config.log_every_steps=50',
        f'--config.checkpoint.every_steps={many}',
        f'--config.measures.landscape.every_steps={many}',
        f'--config.measures.activations.every_steps={many}',
        f'--config.measures.test.every_steps={many}',
      ],
      env={**os.environ, 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'},
      stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
      scalars = self.workdir / 'only' / 'seed0' / 'scalars.jsonl'
      end = time.monotonic() + 120
      try:
        while not scalars.exists() or '"step": 50,' not in scalars.read_text():
          self.assertLess(time.monotonic(), end)
          time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
      finally:
        process.kill()
    self.assertEqual(process.returncode, 75, printed)
    self.assertRegex(printed, r'only/seed0 +interrupted +[1-9]')
    # Its job was waited for, and not killed on the way.
    noted = self.workdir / 'launch' / 'jobs' / 'only' / 'seed0' / 'ended.json'
    self.assertEqual(json.loads(noted.read_text())['exit_code'], 75)
    manifest = scalars.with_name('manifest.json').read_text()
    self.assertGreater(json.loads(manifest)['step'], 0)


if __name__ == '__main__':
  absltest.main()
