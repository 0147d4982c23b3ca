"""Tests what benchmarks share: turns of processes, rows, files, the table."""

import json
import pathlib
import sys
import time
from unittest import mock

from absl.testing import absltest

from tests.fixtures import strict

sys.path.append(str(strict.ROOT / 'benchmarks'))  # as benchmarks do

import processes
import results
import turns

_SLEEPS = 'import time; time.sleep(600)'
# Writes down when it works, and says how much of a core it has used.
_PROGRAM = f"""
import sys, time
sys.path.append({sys.path[-1]!r})
import processes

def work(path, name):
  print('no answer')
  with open(path, 'a') as file:
    print(name, file=file, flush=True)
    time.sleep(0.05)
    print(name, file=file)
  return {{'cpu': time.process_time()}}

def cpu():
  return {{'cpu': time.process_time()}}

def grow(mb):
  bytearray(b'x') * (mb * 10**6)

processes.serve({{'work': work, 'cpu': cpu, 'grow': grow}})
"""


class ProcessTest(absltest.TestCase):
  def test_takes_turns_and_waits_without_a_core(self):
    log = pathlib.Path(self.create_tempdir()) / 'log'
    with (
      processes.Process('-c', _PROGRAM) as first,
      processes.Process('-c', _PROGRAM) as second,
    ):
      for _ in range(3):
        for name, process in (('a', first), ('b', second)):
          answer = process.ask('work', path=str(log), name=name)
          used = answer['cpu']
      # The second one slept; the first one has waited for it in a read.
      before = first.ask('cpu')['cpu']
      second.ask('work', path=str(log), name='b')
      self.assertLess(first.ask('cpu')['cpu'] - before, 0.02)
      self.assertGreater(used, 0)
      self.assertGreater(first.ask('memory')['peak_mb'], 1)
    self.assertEqual(log.read_text().split(), list('aabb' * 3 + 'bb'))

  def test_works_at_the_same_time_if_told_so(self):
    log = pathlib.Path(self.create_tempdir()) / 'log'
    with (
      processes.Process('-c', _PROGRAM) as first,
      processes.Process('-c', _PROGRAM) as second,
    ):
      for process in (first, second):
        process.tell('work', path=str(log), name='a')
      for process in (first, second):
        self.assertIn('cpu', process.answer())
    self.assertEqual(log.read_text().split(), list('aaaa'))

  @absltest.skipUnless(sys.platform == 'linux', 'only Linux forgets')
  def test_peaks_from_the_start_and_since_it_was_forgotten(self):
    with processes.Process('-c', _PROGRAM) as process:
      process.ask('grow', mb=200)
      process.ask('forget_peak')
      process.ask('grow', mb=50)
      peaks = process.ask('memory')
    self.assertBetween(peaks['peak_mb'], 200, 260)
    self.assertBetween(peaks['steps_mb'], 50, 110)

  def test_a_process_that_ends_is_named(self):
    with (
      processes.Process('-c', 'raise SystemExit(3)') as process,
      self.assertRaisesRegex(processes.Failed, 'SystemExit.* ended with 3'),
    ):
      process.ask('work')


class ResultsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir())

  def test_rows_of_a_benchmark_that_runs(self):
    path = self.folder / 'rows.jsonl'
    self.assertEqual(results.rows(path), [])
    turns.say('not kept', [1.0], [2.0])
    with mock.patch.dict('os.environ', results.environment(path)):
      turns.say('slower', [1.0, 2.0, 1.0], [1.5, 2.0, 1.0], limit=1.05)
      turns.say('faster', [1.0], [3.0], limit=4.0, at_least=True, share=0.5)
    slower, faster = results.rows(path)
    self.assertEqual(
      slower,
      {
        'what': 'slower', 'ours': 1.5, 'peer': 1.0, 'unit': 's', 'ratio': 1.0,
        'low': 1.0, 'high': 1.5, 'pairs': 3, 'limit': 1.05, 'holds': True,
      },
    )  # fmt: skip
    # A ratio that should be large is that of the peer to ours.
    self.assertEqual((faster['ours'], faster['peer']), (1.0, 3.0))
    self.assertEqual((faster['holds'], faster['share']), (False, 0.5))

  def test_a_file_keeps_the_results_of_the_other_benchmarks(self):
    path = results.path('2 CPU cores', '2026-11-30', self.folder)
    self.assertEqual(path.name, '2-cpu-cores-2026-11-30.json')
    for name, ratio in (('a', 1.0), ('b', 2.0), ('a', 3.0)):
      results.write(path, name, _benchmark(ratio), {'device': 'x'})
    whole = json.loads(path.read_text())
    self.assertEqual(whole['device'], 'x')
    ratios = {
      name: benchmark['rows'][0]['ratio']
      for name, benchmark in whole['benchmarks'].items()
    }
    self.assertEqual(ratios, {'a': 3.0, 'b': 2.0})

  def test_what_takes_too_long_is_ended_with_all_that_it_has_started(self):
    pid = self.folder / 'pid'
    program = (
      'import subprocess, sys; '
      f"child = subprocess.Popen([sys.executable, '-c', '{_SLEEPS}']); "
      f'open({str(pid)!r}, "w").write(str(child.pid)); child.wait()'
    )
    path = self.folder / 'results.json'
    code = results.measure(path, 'a', ('-c', program), {}, limit=2)
    self.assertEqual(code, 124)
    self.assertEqual(
      json.loads(path.read_text())['benchmarks']['a']['exit'], 124
    )
    if not pid.exists():
      self.skipTest('the machine is too busy: nothing had begun')
    status = pathlib.Path(f'/proc/{pid.read_text()}/status')
    deadline = time.monotonic() + 30
    while status.exists() and 'State:\tZ' not in status.read_text():
      self.assertLess(time.monotonic(), deadline)
      time.sleep(0.1)

  def test_the_table_has_the_newest_of_each_device(self):
    for device, day, ratio in (('x', 1, 1.0), ('x', 2, 2.0), ('y', 1, 3.0)):
      date = f'2026-01-0{day}'
      machine = {'device': device, 'date': date, 'versions': {'jax': '1'}}
      path = results.path(device, date, self.folder)
      results.write(path, 'a', _benchmark(ratio), machine)
    table = results.table(self.folder)
    self.assertIn('x, 2026-01-02 (jax 1):', table)
    self.assertIn('| speed | **2.00** | 1.50 to 4.00 in 6 rounds | 3', table)
    self.assertIn('y, 2026-01-01', table)
    self.assertNotIn('**1.00**', table)
    self.assertNotIn('hidden', table)
    self.assertEqual(table.count('missed'), 1)

  def test_a_page_shows_the_newest_results(self):
    table = results.table()
    if not table:
      self.skipTest('no benchmark has been run and kept')
    self.assertIn(table, (strict.ROOT / 'docs/speed.md').read_text())


def _benchmark(ratio):
  row = {
    'what': 'speed', 'ratio': ratio, 'low': 1.5, 'high': 4.0, 'pairs': 6,
    'limit': 3.0, 'holds': ratio >= 3, 'headline': True,
  }  # fmt: skip
  return {'command': '', 'exit': 0, 'rows': [row, {'what': 'hidden'}]}


if __name__ == '__main__':
  absltest.main()
