"""Runs that are killed, and go on to the same bits."""

import contextlib
import functools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from absl.testing import absltest, parameterized

from bn_jax.storage import files, lock, records
from tests.fixtures import (
  spawned,
  strict,  # noqa: F401
)

_EVERY = 4  # steps between two saves, see saving_config.py
_STEPS = 40


_shared = contextlib.ExitStack()


def tearDownModule():
  _shared.close()


@functools.cache
def _server():
  """(the server of commands, a folder): once, as starting takes seconds."""
  folder = _shared.enter_context(tempfile.TemporaryDirectory())
  server = spawned.Server()
  _shared.callback(server.close)
  return server, pathlib.Path(folder)


class Case(parameterized.TestCase):
  """With a server of commands, and the data that they read.

  All classes share them, so that no two give a run the same name.
  """

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.server, cls.root = _server()

  def words(self, name, *more):
    return (
      '--config=tests/fixtures/saving_config.py',
      f'--workdir={self.root / name}',
      f'--data_dir={self.root / "data"}',
      *more,
    )

  def train(self, name, *more, program='train'):
    process = self.server.start(program, *self.words(name, *more))
    self.addCleanup(process.kill)
    return process

  def done(self, name, *more, program='train'):
    """Trains to the end."""
    process = self.train(name, *more, program=program)
    self.assertEqual(process.wait(300), 0, process.text())
    return process.text()

  def place(self, name):
    return self.root / name / 'batchnorm' / 'seed0'

  def manifest(self, name):
    return files.read_json(self.place(name) / 'manifest.json') or {}

  def reached(self, name):
    """The last step of which there is a line, -1 without."""
    lines = records.read(self.place(name) / 'scalars.jsonl')
    return max((r.step for r in lines if r.name == 'train'), default=-1)

  def saved(self, name):
    """The steps that can be restored."""
    folder = self.place(name) / 'checkpoints'
    names = [path.name for path in folder.glob('*')]
    return sorted(int(name) for name in names if name.isdecimal())

  def content(self, name):
    """Everything that must be the same, whatever happened on the way."""
    place = self.place(name)
    state = place / 'checkpoints' / f'{max(self.saved(name))}' / 'state'
    tree = ocp.StandardCheckpointer().restore(state)
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
      **{
        jax.tree_util.keystr(path): (
          leaf.shape,
          str(leaf.dtype),
          leaf.tobytes(),
        )
        for path, leaf in leaves
      },
      **{
        path.name: path.read_bytes()
        for path in (place / 'scalars.jsonl', *(place / 'arrays').glob('*'))
      },
      'status': (self.manifest(name)['status'], self.manifest(name)['step']),
    }

  def assert_same(self, name, want):
    got = self.content(name)
    self.assertEqual(got.keys(), want.keys())
    for key in want:
      self.assertEqual(got[key], want[key], f'{key} of {name}')

  def await_step(self, process, name, step):
    """Waits until a step is saved, or the process is at its end."""
    while process.poll() is None:
      if max(self.saved(name), default=-1) >= step:
        return
      time.sleep(0.005)


class KillTest(Case):
  """kill -9, without notice, again and again."""

  def killed(self, name, generator, in_report, program):
    """Starts a run, and kills it; returns from which step it went on.

    None if it was killed before it had read what is there, or after its end.
    """
    process = self.train(name, program=program)
    if in_report:
      while process.poll() is None and self.manifest_says_running(name):
        time.sleep(0.005)
      time.sleep(generator.uniform(0, 4))
    else:
      # Near a save: in it, in the removal of an old one, in a line of records.
      target = generator.integers(0, _STEPS // 4)
      self.await_step(process, name, max(self.saved(name), default=0) + target)
      time.sleep(generator.uniform(0, 0.06))
    alive = process.poll() is None
    process.kill()
    self.kills += alive
    said = process.text()
    self.assertNotIn('damaged', said)
    self.assertNotIn('Traceback', said)
    found = re.search(r'goes on from step (\d+)', said)
    return int(found[1]) if found else None

  def manifest_says_running(self, name):
    return self.manifest(name).get('status') != 'done'

  def kill_often(self, kills, seed, turns, program='train'):
    """Kills each run so often, the last time in its report."""
    self.done('whole', program='train without a page')
    want = self.content('whole')
    generator = np.random.default_rng(seed)
    self.kills, number, went_on = 0, 0, []
    while self.kills < kills:
      number += 1
      name = f'killed{number}'
      reached = -1
      for turn in range(turns):
        begun = self.killed(name, generator, turn == turns - 1, program)
        if begun is not None:
          # An interval, and what was trained while a save went on.
          self.assertGreater(begun, reached - 2 * _EVERY)
          went_on.append(begun)
        reached = self.reached(name)
        if self.kills == kills:
          break
      said = self.done(name, program=program)
      went_on += map(int, re.findall(r'goes on from step (\d+)', said))
      self.assert_same(name, want)
      self.assertEmpty(list((self.place(name) / 'checkpoints').glob('*.*')))
      for path in (self.root / name).rglob('*'):
        self.assertNotEqual(path.suffix, '.tmp', path)
        # Killed between making it and writing into it.
        if path.is_file() and path.name != 'lock' and path.parent.name != 'tb':
          self.assertGreater(path.stat().st_size, 0, path)
      if program == 'train':
        self.assertTrue((self.root / name / 'report.html').is_file())
      shutil.rmtree(self.root / name)
    # A test of going on in which nothing went on tests nothing.
    self.assertNotEmpty([step for step in went_on if step > 0])
    print(f'{self.kills} kills, went on from {sorted(went_on)}')

  def test_goes_on_to_the_same_bits(self):
    """Once, near a save; a page takes as long as all of it."""
    self.kill_often(1, seed=1, turns=2, program='train without a page')

  @pytest.mark.slow
  def test_a_hundred_times(self):
    """Some of them in the report."""
    self.kill_often(100, seed=2, turns=6)


_LONG = ('--config.steps=100000', '--config.log_every_steps=50')
# What a process does nearly all of its time.
_DOING = {
  'training': (
    *_LONG, '--config.checkpoint.every_steps=100000',
    '--config.measures.test.every_steps=100000',
    '--config.measures.activations.every_steps=100000',
  ),
  'saving': (
    *_LONG, '--config.checkpoint.every_steps=1',
    '--config.measures.test.every_steps=100000',
    '--config.measures.activations.every_steps=100000',
  ),
  'evaluation': (
    *_LONG, '--config.measures.test.every_steps=1',
    '--config.measures.test.data=test', '--config.evaluation_batch_size=1',
  ),
  'probes': (*_LONG, '--config.measures.activations.every_steps=1'),
}  # fmt: skip
_PROMPT = 10  # seconds


class SignalTest(Case):
  """SIGTERM and Ctrl-C: saved at that step, exit code 75."""

  def stopped(self, name, number, *words):
    """Sends a signal to a run in training; returns the step it stands at."""
    process = self.train(name, *words, program='train without a page')
    self.await_step(process, name, 0)
    process.await_text('compiling')
    while self.reached(name) < 1 and process.poll() is None:
      time.sleep(0.01)
    reached = self.reached(name)
    begun = time.monotonic()
    process.send(number)
    code = process.wait(60)
    self.assertLess(time.monotonic() - begun, _PROMPT)
    self.assertEqual(code, 75, process.text())
    self.assertIn('the same command goes on from there', process.text())
    manifest = self.manifest(name)
    self.assertEqual(manifest['status'], 'interrupted')
    step = manifest['step']
    self.assertEqual(max(self.saved(name)), step)
    self.assertGreaterEqual(step, reached)
    # Every step that was made is there, and no other.
    self.assertEqual(self.reached(name), step - 1)
    return step

  def test_the_same_bits_after_a_signal(self):
    self.check_signals(signal.SIGTERM)

  @pytest.mark.slow
  def test_so_after_two(self):
    self.check_signals(signal.SIGTERM, signal.SIGINT)

  def check_signals(self, *numbers):
    """A run that is stopped by each of them, and one that is not."""
    name = f'stopped {len(numbers)}'
    for number in numbers:
      step = self.stopped(name, number, *_DOING['training'])
    end = step + 10
    few = (f'--config.steps={end}', *_DOING['training'][2:])
    said = self.done(name, *few, program='train without a page')
    self.assertIn(f'goes on from step {step}', said)
    self.assertGreater(step, 0)
    whole = f'at once {len(numbers)}'
    self.done(whole, *few, program='train without a page')
    want = self.content(whole)
    # The looks at the last step differ: no other step was the last.
    self.assert_same(name, want)

  @parameterized.product(doing=tuple(_DOING), number=(15, 2))
  @pytest.mark.slow
  def test_wherever_it_is(self, doing, number):
    name = f'{doing}{number}'
    step = self.stopped(name, number, *_DOING[doing])
    end = step + 3
    more = [w for w in _DOING[doing] if '.steps=' not in w]
    said = self.done(name, *more, f'--config.steps={end}')
    self.assertIn(f'goes on from step {step}', said)
    self.assertEqual(self.manifest(name)['step'], end)

  @pytest.mark.slow
  def test_a_second_signal_exits_at_once(self):
    process = self.train('second', *_DOING['evaluation'])
    process.await_text('compiling')
    process.send(signal.SIGTERM)
    time.sleep(0.01)
    process.send(signal.SIGINT)
    begun = time.monotonic()
    self.assertIn(process.wait(20), (130, 75))
    self.assertLess(time.monotonic() - begun, 1)

  @parameterized.parameters(signal.SIGTERM, signal.SIGINT)
  @pytest.mark.slow
  def test_analyze(self, number):
    name = f'analyzed{number}'
    self.done(name)
    words = (
      'analyze', str(self.place(name)), '--measure=along_gradient',
      '--data=train:1000', '--chunk_size=1', '--statistics=running',
      f'--name=look{number}',
    )  # fmt: skip
    process = self.server.start('bn_jax', *words)
    partial = self.place(name) / 'analysis' / f'look{number}' / 'partial'
    while not list(partial.rglob('*.npz')) and process.poll() is None:
      time.sleep(0.01)
    begun = time.monotonic()
    process.send(number)
    self.assertEqual(process.wait(60), 75, process.text())
    self.assertLess(time.monotonic() - begun, _PROMPT)
    self.assertIn('goes on from there', process.text())
    again = self.server.run('bn_jax', *words)
    self.assertEqual(again.poll(), 0, again.text())


class GroupTest(Case):
  """Five seeds in one program: each goes on from a state of its own."""

  seed = 0  # that `place` is of

  def words(self, name, *more):
    return (
      '--config=tests/fixtures/regression_config.py',
      f'--workdir={self.root / name}', f'--config.steps={_STEPS}',
      '--config.log_every_steps=2',
      '--config.measures.landscape.every_steps=8', *more,
    )  # fmt: skip

  def place(self, name):
    return self.root / name / 'batchnorm' / f'seed{self.seed}'

  def of_each(self, function, name):
    """Returns what a function of a run's name gives, of each seed."""
    values = []
    for self.seed in range(5):
      values.append(function(name))
    self.seed = 0
    return values

  def ended(self, name, want, *more):
    """Trains to the end, and compares every seed's bits."""
    said = self.done(name, *more, program='train without a page')
    for got, content in zip(self.of_each(self.content, name), want):
      self.assertEqual(got, content)
    for manifest in self.of_each(self.manifest, name):
      self.assertEqual(manifest['seeds_at_once'], 5)
    return said

  def whole(self, name, *more):
    self.done(name, *more, program='train without a page')
    return self.of_each(self.content, name)

  @pytest.mark.slow
  def test_killed_it_goes_on_to_the_same_bits(self):
    """Near a save, in which some seeds have saved and others not."""
    want = self.whole('group')
    generator = np.random.default_rng(3)
    apart, went_on = 0, 0
    for number in range(2):
      name = f'group killed {number}'
      for _ in range(3):
        process = self.train(name, program='train without a page')
        step = max(self.saved(name), default=0)
        self.await_step(process, name, step + generator.integers(1, 12))
        time.sleep(generator.uniform(0, 0.06))
        process.kill()
        self.assertNotIn('Traceback', process.text())
        newest = self.of_each(lambda name: max(self.saved(name)), name)
        apart += len(set(newest)) > 1
      said = self.ended(name, want)
      went_on += 'goes on from step' in said
      self.assertNotIn('damaged', said)
    print(f'{apart} of 6 kills left seeds at two steps, {went_on} went on')
    self.assertGreater(apart, 0)
    self.assertGreater(went_on, 0)

  @pytest.mark.slow
  def test_a_signal_saves_all_at_that_step(self):
    # No save but at the end, so that the signal makes that of each.
    long = (
      '--config.steps=1000', '--config.checkpoint.every_steps=1000',
      '--config.measures.landscape.every_steps=500',
      '--config.measures.test.every_steps=500',
    )  # fmt: skip
    want = self.whole('long group', *long)
    for number in (signal.SIGTERM, signal.SIGINT):
      name = f'group stopped {number}'
      process = self.train(name, *long, program='train without a page')
      while self.reached(name) < 1 and process.poll() is None:
        time.sleep(0.001)
      process.send(number)
      self.assertEqual(process.wait(60), 75, process.text())
      self.assertIn('seed0 and 4 more: stopped at step', process.text())
      (step,) = set(self.of_each(lambda name: max(self.saved(name)), name))
      self.assertBetween(step, 1, 999)
      for manifest in self.of_each(self.manifest, name):
        self.assertEqual(
          (manifest['status'], manifest['step']), ('interrupted', step)
        )
      self.assertEqual(self.of_each(self.reached, name), [step - 1] * 5)
      said = self.ended(name, want, *long)
      self.assertEqual(said.count(f'goes on from step {step}'), 5)


class TwoWritersTest(Case):
  def test_the_second_is_refused(self):
    """The first is this process: it holds what a training holds."""
    self.place('two').mkdir(parents=True)
    with lock.held(self.place('two')):
      second = self.train('two', program='train without a page')
      self.assertEqual(second.wait(300), 2, second.text())
    self.assertIn(f'being written by process {os.getpid()} on', second.text())


class FullDiskTest(Case):
  """On a small file system of its own."""

  def setUp(self):
    super().setUp()
    self.disk = self.root / 'disk'
    self.disk.mkdir(exist_ok=True)
    mounted = subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', str(self.disk)],
      capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
      self.skipTest(f'no file system can be mounted: {mounted.stderr.strip()}')
    self.addCleanup(subprocess.run, ['umount', '-l', str(self.disk)])

  def words(self, name, *more):
    return super().words(f'disk/{name}', *more)

  def place(self, name):
    return super().place(f'disk/{name}')

  def fill(self):
    """Leaves no room; returns what to remove."""
    filler = self.disk / 'filler'
    with filler.open('wb', buffering=0) as file:
      for size in (2**16, 2**10, 1):
        with contextlib.suppress(OSError):
          while file.write(b'x' * size) == size:
            pass
    return filler

  def assert_nothing_empty(self):
    for path in self.disk.rglob('*'):
      if path.is_file() and path.name not in ('lock', 'filler'):
        self.assertGreater(path.stat().st_size, 0, path)
        self.assertNotEqual(path.suffix, '.tmp')

  @parameterized.named_parameters(
    ('checkpoint', 'saving', '--config.log_every_steps=100000'),
    ('records', 'training', '--config.log_every_steps=1'),
  )
  @pytest.mark.slow
  def test_training_ends_with_a_line_and_goes_on(self, doing, more):
    name = doing
    process = self.train(name, *_DOING[doing], more)
    process.await_text('compiling')
    self.await_step(process, name, 3 if doing == 'saving' else 0)
    filler = self.fill()
    self.assertEqual(process.wait(60), 6, process.text())
    self.assertNotIn('Traceback', process.text())
    self.assertIn('make room', process.text())
    good = max(self.saved(name))
    filler.unlink()
    self.assert_nothing_empty()
    end = good + 5
    words = [w for w in _DOING[doing] if '.steps=' not in w]
    self.done(name, *words, f'--config.steps={end}')
    self.assertEqual(self.manifest(name)['step'], end)

  @pytest.mark.slow
  def test_a_report_is_not_lost(self):
    self.done('whole')
    page = self.disk / 'whole' / 'report.html'
    before = page.read_bytes()
    filler = self.fill()
    process = self.server.run('bn_jax', 'report', str(self.disk / 'whole'))
    self.assertEqual(process.poll(), 6, process.text())
    self.assertEqual(page.read_bytes(), before)
    filler.unlink()
    self.assert_nothing_empty()

  @pytest.mark.slow
  def test_too_small_from_the_start(self):
    filler = self.fill()
    process = self.train('small')
    self.assertEqual(process.wait(60), 6, process.text())
    self.assertRegex(process.text(), r'needs [\d.]+ MB for its checkpoints')
    filler.unlink()
    self.assertEmpty([p for p in self.disk.rglob('*') if p.is_file()])


if __name__ == '__main__':
  absltest.main()
