"""A real SLURM on this machine: srun, scancel, launch.

  python -m pytest -n 0 -m slow tests/launch/slurm_test.py

needs root and apt-get; the packages stay installed, no daemon does.
"""

import contextlib
import functools
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from unittest import mock

import pytest
import submitit  # noqa: F401  as it closes log handlers: before any redirect
from absl.testing import absltest

from bn_jax import __main__
from tests.fixtures import slurm, strict

_FAST = {'JAX_PLATFORMS': 'cpu', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}
_MANY = 10**6
_LONG = (  # hundreds of steps a second, and no end
  f'--config.steps={_MANY}',
  '--config.log_every_steps=50',
  f'--config.checkpoint.every_steps={_MANY}',
  *(
    f'--config.measures.{name}.every_steps={_MANY}'
    for name in ('test', 'landscape', 'activations')
  ),
)
_STANDARD = ('--config=tests/fixtures/dense_config.py', '--only=standard/seed0')


@functools.cache
def _why_not():
  return slurm.why_not()


@pytest.mark.slow
class SlurmTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    if _why_not():
      raise absltest.unittest.SkipTest(_why_not())
    folder = tempfile.TemporaryDirectory(prefix='slurm')
    cls.addClassCleanup(folder.cleanup)
    cls.folder = pathlib.Path(folder.name)
    cls.folder.chmod(0o755)
    cls.enterClassContext(contextlib.chdir(strict.ROOT))
    (cls.folder / 'cluster').mkdir()
    environment = cls.enterClassContext(slurm.cluster(cls.folder / 'cluster'))
    cls.environment = environment | _FAST
    cls.enterClassContext(mock.patch.dict(os.environ, cls.environment))

  def setUp(self):
    super().setUp()
    self.workdir = self.folder / self.id().rpartition('.')[2]

  def run_here(self, *command, timeout=240):
    return subprocess.run(
      command, env=self.environment, capture_output=True, text=True,
      timeout=timeout,
    )  # fmt: skip

  def train(self, *words, tasks=2):
    """The command of train.py in so many tasks."""
    return [
      'srun', f'--ntasks={tasks}', '--time=10', sys.executable, 'train.py',
      f'--workdir={self.workdir}', *words,
    ]  # fmt: skip

  def launch(self, *words):
    """(exit code, stdout, stderr) of `python -m bn_jax launch`."""
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
      code = __main__.main([
        'bn_jax', 'launch', '--engine=slurm', '--slurm=time=5',
        f'--workdir={self.workdir}', *words,
      ])  # fmt: skip
    return code, printed.getvalue(), said.getvalue()

  def scalars(self, workdir, place='standard/seed0'):
    text = (workdir / place / 'scalars.jsonl').read_text()
    return [json.loads(line) for line in text.splitlines()]

  def manifest(self, place='standard/seed0'):
    return json.loads((self.workdir / place / 'manifest.json').read_text())

  def wait_for(self, condition, seconds=180):
    end = time.monotonic() + seconds
    while not (found := condition()):
      self.assertLess(time.monotonic(), end, 'it took too long')
      time.sleep(0.5)
    return found

  def has_trained(self, place='standard/seed0'):
    path = self.workdir / place / 'scalars.jsonl'
    return path.exists() and '"step": 50,' in path.read_text()

  def test_two_tasks_join_and_give_the_numbers_of_one_process(self):
    done = self.run_here(*self.train(*_STANDARD, '--devices=2'))
    self.assertEqual(done.returncode, 0, done.stderr)
    alone = self.folder / 'alone'
    done = self.run_here(
      sys.executable, 'train.py', *_STANDARD, f'--workdir={alone}'
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    found, expected = self.scalars(self.workdir), self.scalars(alone)
    self.assertEqual(
      [(one['step'], one['name']) for one in found],
      [(one['step'], one['name']) for one in expected],
    )
    for one, other in zip(found, expected):
      self.assert_close(one['values'], other['values'])
    self.assertEqual(self.manifest()['device']['count'], 2)

  def assert_close(self, found, expected):
    if isinstance(expected, dict):
      self.assertEqual(found.keys(), expected.keys())
      for key in expected:
        self.assert_close(found[key], expected[key])
    elif isinstance(expected, list):
      self.assertLen(found, len(expected))
      for one, other in zip(found, expected):
        self.assert_close(one, other)
    elif isinstance(expected, float):
      self.assertAlmostEqual(
        found, expected, delta=1e-4 * max(1, abs(expected))
      )
    else:
      self.assertEqual(found, expected)

  def test_scancel_saves_and_the_same_command_goes_on(self):
    words = self.train(*_STANDARD, '--devices=2', *_LONG)
    steps = []
    for _ in range(2):
      with subprocess.Popen(
        words, env=self.environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
      ) as process:  # fmt: skip
        try:
          self.wait_for(
            lambda: (
              self.has_trained() and self.manifest()['status'] == 'running'
            )
          )
          begun = self.manifest()['step']
          job = self.wait_for(lambda: self.jobs())[0]
          time.sleep(2)  # some steps more
          self.run_here('scancel', '--signal=TERM', job)
          said, _ = process.communicate(timeout=60)
        finally:
          process.kill()
      self.assertEqual(process.returncode, 75, said)
      self.assertLen(re.findall(r'^error: ', said, re.MULTILINE), 1, said)
      steps.append((begun, self.manifest()['step']))
      self.assertEqual(self.manifest()['status'], 'interrupted')
    (first, saved), (again, later) = steps
    self.assertEqual(first, 0)
    self.assertGreater(saved, 0)
    self.assertEqual(again, saved)
    self.assertGreater(later, again)

  def jobs(self):
    queue = self.run_here('squeue', '--noheader', '--array', '--format=%i')
    return queue.stdout.split()

  def test_a_sweep_as_an_array(self):
    words = ('--config=tests/fixtures/single_config.py', '--set',
             'norm.name=batch,none', '--set', 'seeds=0:2')  # fmt: skip
    code, printed, said = self.launch(*words)
    self.assertEqual(code, 0, printed + said)
    self.assertRegex(printed, r'only/seed0 +(queued|running) +\d of 6 +\d+_0')
    begun = set(self.jobs())
    self.assertLen(begun, 4)
    # The same command waits for them, and starts nothing again.
    code, printed, said = self.launch(*words, '--wait')
    self.assertEqual(code, 0, printed + said)
    self.assertIn('\n4 done\n', printed)
    self.assertEqual({line.split()[-1] for line in printed.splitlines()
                      if ' of ' in line}, begun)  # fmt: skip
    code, again, _ = self.launch(*words)
    self.assertEqual((code, again), (0, printed))

  def test_a_job_that_fails_says_why_and_is_started_again(self):
    words = ('--config=tests/fixtures/single_config.py',
             '--config.data.name=cifar10',
             f'--data_dir={self.folder}', '--wait')  # fmt: skip
    jobs = []
    for _ in range(2):
      code, printed, _ = self.launch(*words)
      self.assertEqual(code, 3)
      self.assertIn('failed, exit 3', printed)
      self.assertIn('cifar10 is not in', printed)
      jobs.append(re.search(r'of 6 +(\S+)', printed)[1])
    self.assertNotEqual(*jobs)

  def test_scancel_of_a_launched_job_and_the_end_of_its_time(self):
    words = (
      '--config=tests/fixtures/single_config.py',
      *_LONG,
      '--set=seeds=0:2',
    )
    _, _, said = self.launch(*words)
    for seed in (0, 1):
      self.wait_for(lambda: self.has_trained(f'only/seed{seed}'))  # noqa: B023
    first, second = sorted(self.jobs())
    self.run_here('scancel', first)
    # What SLURM sends before the time of a job is over.
    self.run_here('scancel', '--signal=USR2', second)
    self.wait_for(lambda: self.manifest('only/seed1')['status'] != 'running')
    self.wait_for(lambda: first not in self.jobs())
    for seed in (0, 1):
      self.assertEqual(
        self.manifest(f'only/seed{seed}')['status'], 'interrupted'
      )
      self.assertGreater(self.manifest(f'only/seed{seed}')['step'], 0)
    # One is in the queue again by itself, the other by the same command.
    self.wait_for(lambda: self.jobs() == [second])
    code, printed, said = self.launch(*words)
    self.assertEqual(code, 0, printed + said)
    self.assertRegex(printed, rf'only/seed1 +queued .* {second}\n')
    self.assertLen(self.jobs(), 2)
    saved = self.manifest('only/seed1')['step']
    self.run_here('scontrol', 'update', f'JobId={second}', 'StartTime=now')
    log = self.workdir / 'launch' / f'{second}_0_log.err'
    self.wait_for(lambda: f'goes on from step {saved}' in log.read_text())
    self.run_here('scancel', '--user=root')
    self.wait_for(lambda: not self.jobs())

  def test_the_batch_script_queues_itself_again(self):
    log = self.folder / 'batch.log'
    done = self.run_here(
      'sbatch', '--parsable', '--time=10', f'--output={log}',
      f'--export=ALL,PYTHON={sys.executable}', 'docs/templates/train.sbatch',
      *_STANDARD, *_LONG, f'--workdir={self.workdir}',
    )  # fmt: skip
    job = done.stdout.strip()
    self.wait_for(self.has_trained)
    self.run_here('scancel', '--signal=TERM', job)  # as at the end of its time
    self.wait_for(lambda: self.manifest()['status'] == 'interrupted')
    saved = self.manifest()['step']
    self.assertGreater(saved, 0)
    self.wait_for(lambda: self.state(job) == 'PENDING')
    self.run_here('scontrol', 'update', f'JobId={job}', 'StartTime=now')
    self.wait_for(lambda: f'goes on from step {saved}' in log.read_text())
    # Whom a person cancels is not queued again.
    self.run_here('scancel', job)
    self.wait_for(lambda: not self.jobs())
    self.wait_for(lambda: self.manifest()['status'] == 'interrupted')
    time.sleep(3)
    self.assertEmpty(self.jobs())

  def state(self, job):
    queue = self.run_here(
      'squeue', '--noheader', '--format=%T', f'--jobs={job}'
    )
    return queue.stdout.strip()

  def test_what_slurm_refuses(self):
    code, printed, said = self.launch(
      '--config=tests/fixtures/single_config.py', '--slurm=partition=nowhere'
    )
    self.assertEqual((code, printed), (2, ''))
    self.assertEqual(said.count('\n'), 1, said)
    self.assertIn('nvalid partition', said)


if __name__ == '__main__':
  absltest.main()
