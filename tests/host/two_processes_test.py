"""Two processes on this machine train what one process trains."""

import json
import os
import re
import signal
import socket
import time

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax.storage import records
from tests.fixtures import (
  made_sets,
  scratch,
  spawned,
  strict,  # noqa: F401
)

_STEPS = 4


class Case(parameterized.TestCase):
  """With a server of commands, and the data that they read."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = scratch.folder(cls)
    cls.server = spawned.Server(TF_CPP_MIN_LOG_LEVEL='3')
    cls.addClassCleanup(cls.server.close)

  def start(self, name, count, *more, devices=1, config='dense'):
    """Starts the processes of a run."""
    words = [
      f'--config=tests/fixtures/{config}_config.py',
      f'--workdir={self.root / name}',
      '--only=batchnorm/seed0', f'--data_dir={self.root / "data"}',
      f'--config.steps={_STEPS}', *more,
    ]  # fmt: skip
    of = [[f'--devices={devices}']]
    if count > 1:
      with socket.socket() as free:
        free.bind(('localhost', 0))
        address = f'localhost:{free.getsockname()[1]}'
      of = [
        [
          f'--coordinator_address={address}', f'--num_processes={count}',
          f'--process_id={i}', '--join_timeout=60',
        ]
        for i in range(count)
      ]  # fmt: skip
    found = []
    for flags in of:
      simulated = f'--xla_force_host_platform_device_count={devices}'
      simulated = f'{os.environ.get("XLA_FLAGS", "")} {simulated}'
      found.append(
        # The page is of the records, and those are compared.
        self.server.start(
          'train without a page', *words, *flags, XLA_FLAGS=simulated
        )
      )
      self.addCleanup(found[-1].kill)
    return found

  def ends(self, started, code, seconds=300.0):
    """Waits; returns what each has said, without the transport's words."""
    codes = [one.wait(seconds) for one in started]
    said = [re.sub(r'\[Gloo\].*\n', '', one.text()) for one in started]
    self.assertEqual(codes, [code] * len(started), said)
    return said

  def trained(self, name, count, *more, **keywords):
    return self.ends(self.start(name, count, *more, **keywords), 0)

  def place(self, name):
    return self.root / name / 'batchnorm' / 'seed0'

  def files(self, name):
    """The files of a run, those of orbax by their folder."""
    found = (p.relative_to(self.place(name)) for p in
             self.place(name).rglob('*') if p.is_file())  # fmt: skip
    return {
      str(path)
      for path in found
      if 'state' not in path.parts and path.parts[0] != 'tb'
    }

  def scalars(self, name):
    return (self.place(name) / 'scalars.jsonl').read_bytes()

  def assert_same_numbers(self, name, other):
    pair = [
      list(records.read(self.place(one) / 'scalars.jsonl'))
      for one in (name, other)
    ]
    for a, b in zip(*pair, strict=True):
      self.assertEqual((a.step, a.name), (b.step, b.name))
      for key, value in a.values.items():
        np.testing.assert_allclose(
          b.values[key], value, rtol=1e-4, atol=1e-5, err_msg=f'{a.name} {key}'
        )


class TwoTest(Case):
  def test_two_processes_write_what_one_writes(self):
    one, other = self.trained('2x1', 2)
    self.trained('1x2', 1, devices=2)
    self.assertEqual(self.scalars('1x2'), self.scalars('2x1'))
    self.assertEqual(self.files('1x2'), self.files('2x1'))
    names = {r.name for r in records.read(self.place('2x1') / 'scalars.jsonl')}
    self.assertLessEqual({'train', 'test', 'landscape'}, names)
    self.assertIn('report: ', one)
    self.assertNotIn('report: ', other)
    states = [
      json.loads((self.place(name) / 'checkpoints/4/digests.json').read_text())
      for name in ('1x2', '2x1')
    ]
    self.assertEqual(states[0]['arrays'], states[1]['arrays'])


@pytest.mark.slow
class LayoutsTest(Case):
  @parameterized.parameters('jit', 'shard_map', 'pmap')
  def test_two_processes_of_two_devices(self, layout):
    more = [f'--config.layout={layout}']
    if layout == 'jit':  # large arrays are cut over processes, and saved whole
      more += ['--config.shard_state=True', '--config.model.hidden=(256,256)']
    self.trained(f'4{layout}', 2, *more, devices=2)
    self.trained(f'1{layout}', 1, *more)
    self.assert_same_numbers(f'1{layout}', f'4{layout}')

  def test_statistics_found_anew_on_the_way_to_another_network(self):
    more = [
      '--config.measures.line=path', '--config.measures.line.every_steps=4',
      '--config.measures.line.data=current_batch',
      '--config.measures.line.points=3', '--config.measures.line.to=0',
    ]  # fmt: skip
    self.trained('4line', 2, *more, devices=2)
    self.trained('1line', 1, *more)
    self.assert_same_numbers('1line', '4line')
    (line,) = [
      r for r in records.read(self.place('4line') / 'scalars.jsonl')
      if (r.name, r.step) == ('line', 4)
    ]  # fmt: skip
    self.assertNotEqual(
      *(line.values[f'{name}/loss'][1] for name in ('reset', 'interpolated'))
    )

  def test_a_stream_is_read_in_parts(self):
    made_sets.write(self.root / 'made', train=20, test=7)
    more = (
      f'--data_dir={self.root / "made"}',
      '--config.data.name=made', '--config.data.streaming=True',
      '--config.evaluation_batch_size=4', '--config.batch_size=8',
      '--config.measures.activations.data=test:4',
    )  # fmt: skip
    self.trained('one', 1, *more)
    self.trained('two', 2, *more)
    self.assert_same_numbers('one', 'two')
    counts = [
      r.values['count']
      for r in records.read(self.place('two') / 'scalars.jsonl')
      if r.name == 'test'
    ]
    self.assertEqual(set(counts), {7})  # each example once


@pytest.mark.slow
class LeaveTest(Case):
  """A run of many steps, of which one process is told to end, or ends."""

  LONG = ('--config.steps=100000', '--config.checkpoint.every_steps=5')

  def begun(self, name):
    """Two processes, the run of which has a checkpoint to go on from."""
    started = self.start(name, 2, *self.LONG, config='small')
    end = time.monotonic() + 120
    while not [
      p
      for p in self.place(name).glob('checkpoints/*')
      if p.name.isdecimal() and int(p.name) > 0
    ]:
      self.assertIsNone(started[0].poll(), started[0].text())
      self.assertLess(time.monotonic(), end, started[0].text())
      time.sleep(0.05)
    return started

  def goes_on(self, name, count):
    """Starts again, and returns the step from which it went on."""
    started = self.start(name, count, *self.LONG, config='small')
    started[0].await_text('goes on from step', 120)
    started[0].send(signal.SIGTERM)
    said = self.ends(started, 75, 120)
    return int(re.search(r'goes on from step (\d+)', said[0])[1])

  @parameterized.parameters(0, 1)
  def test_a_signal_to_one_stops_both_at_one_step(self, told):
    started = self.begun(f'term{told}')
    started[told].send(signal.SIGTERM)
    first, second = self.ends(started, 75, 10)
    (stopped,) = re.findall(r'stopped at step (\d+)', first)
    self.assertEqual(first.count('error:'), 1)
    self.assertNotIn('error:', second)
    saved = self.place(f'term{told}') / 'checkpoints' / stopped / 'digests.json'
    self.assertTrue(saved.exists())
    # One process goes on where two have stopped, and two where one has.
    self.assertEqual(self.goes_on(f'term{told}', 1), int(stopped))
    self.assertGreaterEqual(self.goes_on(f'term{told}', 2), int(stopped))

  @parameterized.parameters(0, 1)
  def test_a_killed_process_is_named_and_the_other_leaves(self, killed):
    started = self.begun(f'kill{killed}')
    started[killed].send(signal.SIGKILL)
    other = started[1 - killed]
    self.assertEqual(other.wait(30), 75, other.text())
    lines = [line for line in other.text().splitlines() if 'error' in line]
    self.assertLen(lines, 1, other.text())
    self.assertRegex(
      lines[0],
      rf'^error: process {killed} of 2 on \S+ \(pid {started[killed].pid}\) is '
      'gone; start again to go on$',
    )
    self.assertNotIn('Traceback', other.text())
    self.assertGreater(self.goes_on(f'kill{killed}', 2), 0)

  def test_a_process_that_waits_in_vain_says_so(self):
    words = ('--num_processes=2', '--process_id=1', '--join_timeout=2',
             '--coordinator_address=localhost:1')  # fmt: skip
    (alone,) = self.start('vain', 1, *words)
    (said,) = self.ends([alone], 75, 30)
    self.assertRegex(
      said, r'^error: process 1 of 2 has not met the others at localhost:1 in 2'
    )
    self.assertLen(said.splitlines(), 1)


if __name__ == '__main__':
  absltest.main()
