"""Runs and seeds that are trained side by side, in processes."""

import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from unittest import mock

import pytest
from absl.testing import absltest

from bn_jax import errors
from bn_jax.config import flags, resolve
from bn_jax.host import code, environment
from bn_jax.launch import jobs
from bn_jax.storage import run_folder
from tests.fixtures import strict

# In the place of train.py: says lines, and ends as its runs' names say.
_FAKE = """
import os, signal, sys, time
labels = [w for w in sys.argv if w.startswith('--only=')][0][7:]
say = lambda text: print(text, file=sys.stderr, flush=True)
say('the same of all')
say(f'{labels}: {os.environ["PJRT_NPROC"]} threads')
if 'fails' in labels:
  say('error: it fails'); sys.exit(6)
if 'killed' in labels:
  os.kill(os.getpid(), signal.SIGKILL)
if 'waits' in labels:
  def stop(*_):
    say(f'error: {labels}: state saved'); sys.exit(75)
  signal.signal(signal.SIGTERM, stop)
  say('waiting')
  time.sleep(100)
sys.exit(5 if 'diverges' in labels else 0)
"""


def _experiment(*changes):
  words = ['train.py', '--config=tests/fixtures/small_config.py', *changes]
  training = flags.train(words)
  return resolve.experiment(training.config.to_dict(), training.overrides)


class PartsTest(absltest.TestCase):
  def number(self, asked, count, cores, **more):
    parts = [[f'batchnorm/seed{seed}'] for seed in range(count)]
    with (
      mock.patch.object(environment, 'threads', return_value=cores),
      mock.patch.object(jobs, '_fitting', return_value=more.get('fit', 99)),
    ):
      return jobs.number(
        asked, _experiment(), parts, more.get('is_alone', True)
      )

  def test_as_many_jobs_as_end_soonest(self):
    self.assertEqual(
      [self.number('auto', count, 2) for count in (0, 1, 2, 3, 4, 8)],
      [1, 1, 2, 3, 2, 2],
    )
    self.assertEqual(self.number('auto', 3, 1), 1)
    self.assertEqual(self.number('auto', 64, 16), 16)
    self.assertEqual(self.number('auto', 8, 8, fit=3), 3)
    self.assertEqual(self.number('auto', 8, 8, fit=0), 1)
    self.assertEqual(self.number('auto', 8, 8, is_alone=False), 1)
    self.assertEqual(self.number(5, 3, 2), 3)  # no more than there are parts
    with self.assertRaisesRegex(errors.ConfigError, 'several processes'):
      self.number(2, 3, 2, is_alone=False)

  def test_seeds_of_one_program_are_one_part(self):
    parts = [[f'batchnorm/seed{seed}' for seed in range(32)]]
    for asked in ('auto', 2):
      self.assertEqual(jobs.number(asked, _experiment(), parts, True), 1)

  def test_pieces_are_of_one_run_and_have_each_part_once(self):
    parts = [[f'{run}/seed{k}'] for run in 'ab' for k in range(9)]
    parts.append(['c'])  # whose seeds are trained in one program
    pieces = list(jobs._pieces(parts, 1))
    together = lambda groups: list(itertools.chain(*groups))
    self.assertEqual(together(pieces), together(parts))
    self.assertEqual([len(piece) for piece in pieces], [9, 5, 3, 1, 1])
    for piece in pieces:
      self.assertLen({label[0] for label in piece}, 1)

  def test_several_runs_and_seeds_are_chosen_with_commas(self):
    resolved = _experiment('--config.seeds=3,1,2')
    label = 'batchnorm/seed'
    self.assertEqual(
      resolved.chosen(f'{label}2,{label}3'), {'batchnorm': (3, 2)}
    )
    self.assertEqual(
      resolved.chosen(f'{label}2, batchnorm'), {'batchnorm': (3, 1, 2)}
    )
    self.assertEqual(resolved.chosen(f'{label}1:3'), {'batchnorm': (1, 2)})
    seeds = [0, 1, 3, 4, 5, 9, 2]
    words = run_folder.labels('batchnorm', seeds)
    self.assertEqual(words.count(','), 4)
    resolved = _experiment('--config.seeds=0:10')
    self.assertEqual(
      resolved.chosen(words), {'batchnorm': tuple(sorted(seeds))}
    )


class ProcessesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enter_context(tempfile.TemporaryDirectory())
    fake = pathlib.Path(folder, 'train.py')
    fake.write_text(textwrap.dedent(_FAKE))
    words = [sys.executable, str(fake)]
    self.enter_context(mock.patch.object(code, 'training', lambda: words))
    self.enter_context(
      mock.patch.object(environment, 'threads', return_value=4)
    )
    self.said = []

  def train(self, *labels, at_once=2):
    jobs.train([], [[label] for label in labels], at_once, self.said.append)

  def test_lines_threads_and_a_run_that_diverges(self):
    self.train('a/seed0', 'diverges/seed0', 'b/seed0')
    self.assertCountEqual(
      self.said,
      ['the same of all', 'a/seed0: 2 threads', 'diverges/seed0: 2 threads',
       'b/seed0: 2 threads'],
    )  # fmt: skip

  def test_a_failure_stops_the_others_and_starts_no_more(self):
    start = time.monotonic()
    with self.assertRaises(errors.Failure) as caught:
      self.train('waits/seed0', 'fails/seed0', 'never/seed0')
    self.assertEqual((caught.exception.exit_code, caught.exception.told),
                     (6, True))  # fmt: skip
    self.assertLess(time.monotonic() - start, 60)  # of the 100 that it waits
    self.assertIn('error: it fails', self.said)
    self.assertNotIn('never/seed0: 2 threads', self.said)

  def test_a_killed_process_is_told(self):
    with self.assertRaisesRegex(errors.Interrupted, 'killed/seed0.*signal 9'):
      self.train('killed/seed0')

  def test_a_signal_lets_all_save(self):
    def say(line):
      self.said.append(line)
      if self.said.count('waiting') and not self.has_signal.is_set():
        self.has_signal.set()
        raise KeyboardInterrupt  # as `signals.at_once` does

    self.has_signal = threading.Event()
    with self.assertRaises(errors.Interrupted) as caught:
      jobs.train([], [['waits/seed0'], ['waits/seed1']], 2, say)
    self.assertTrue(caught.exception.told or len(self.said) < 4)
    self.assertIn('stopping; the states are saved first. Once more to stop at '
                  'once', self.said)  # fmt: skip
    self.assertTrue([x for x in self.said if x.endswith('state saved')])


@pytest.mark.slow  # six starts of JAX
class TrainedTest(absltest.TestCase):
  def train(self, *words, **variables):
    return subprocess.run(
      [sys.executable, 'train.py', '--config=tests/fixtures/small_config.py',
       f'--workdir={self.folder / words[0]}', *words[1:]],
      cwd=strict.ROOT, env={**os.environ, **variables}, capture_output=True,
      text=True,
    )  # fmt: skip

  def test_the_same_bits_as_alone_with_as_many_threads(self):
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )
    two = self.train('two', '--jobs=2', PJRT_NPROC='2')
    one = self.train('one', PJRT_NPROC='1')
    for end in (two, one):
      self.assertEqual(end.returncode, 0, end.stderr)
      self.assertEqual(end.stderr.count('report: '), 1)
    for seed in (0, 1):
      name = f'batchnorm/seed{seed}/scalars.jsonl'
      self.assertEqual(
        (self.folder / 'two' / name).read_bytes(),
        (self.folder / 'one' / name).read_bytes(),
      )
    again = self.train('two', '--jobs=2')
    self.assertIn('nothing left to train', again.stderr)
    never = self.train('two', '--jobs=2', '--resume=never')
    self.assertEqual(never.returncode, 2, never.stderr)


if __name__ == '__main__':
  absltest.main()
