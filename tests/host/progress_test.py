"""What is shown of seeds that are trained together."""

import contextlib
import io
import threading
import types
from unittest import mock

from absl.testing import absltest
from rich import console as rich_console

from bn_jax.host import progress
from bn_jax.storage.records import Record


def row(step, loss):
  return Record(step, 'train', {'data_loss': loss, 'accuracy': loss / 8})


class ProgressTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.lines = []
    clock = mock.patch.object(progress.time, 'monotonic', lambda: self.now)
    self.enter_context(clock)
    # Lines that come by themselves would come in between.
    silent = mock.patch.object(progress.Progress, '_wait', lambda _: None)
    self.enter_context(silent)
    self.now = 0.0
    self.compiled = []
    self.progress = self.enter_context(
      progress.Progress(
        'bn/seed0 and 1 more', first_step=0, steps=4, say=self.lines.append,
        compiling=41.3, compiled=self.compiled.append,
      )
    )  # fmt: skip

  def shown(self):
    """The lines since the last call, without the label."""
    lines = [line.removeprefix('bn/seed0 and 1 more: ') for line in self.lines]
    self.lines.clear()
    return lines

  def test_all_seeds_are_one_line(self):
    with contextlib.ExitStack() as stack:
      a, b = (stack.enter_context(self.progress.of_seed()) for _ in range(2))
      compiling = 'step 0/4, compiling (41 s the last time)'
      self.assertEqual(self.shown(), [compiling])
      self.now = 1.0
      a.write(row(0, 2.0))
      self.assertEqual(self.shown(), [])
      b.write(row(0, 4.0))
      self.assertEqual(
        self.shown(),
        ['step 1/4, loss 2 to 4 accuracy 25 to 50 %, 1.0 steps/s'],
      )
      a.write(row(1, 2.0))
      self.now = 20.0
      b.write(row(1, 2.0))
      self.assertEqual(
        self.shown(), ['step 2/4, loss 2 accuracy 25 %, 0.1 steps/s']
      )
      self.assertEqual(self.compiled, [1.0])
      for step in (2, 3):
        for seed in (a, b):
          seed.write(row(step, 2.0))
      self.assertEqual(
        self.shown(), ['step 4/4, loss 2 accuracy 25 %, 0.2 steps/s']
      )

  def test_a_silence_is_broken(self):
    """Every five seconds, and more rarely the longer it takes."""
    with self.progress.of_seed() as a:
      self.now = 12.0
      self.assertEqual(
        self.progress.waiting(self.now),
        'compiling (41 s the last time), 12 s so far',
      )
      a.write(row(0, 2.0))
      text = self.progress.waiting(self.now)
      self.assertEqual(text, 'step 1/4, compiling or looking')

  def test_lines_are_rarer_in_a_long_training(self):
    with self.progress.of_seed() as a:
      for now, comes in (
        (1.0, True), (5.9, False), (6.1, True), (1000.0, True),
        (1019.0, False), (1021.0, True), (9000.0, True), (9059.0, False),
        (9061.0, True),
      ):  # fmt: skip
        self.shown()
        self.now = now
        a.write(row(1, 2.0))
        self.assertEqual(bool(self.shown()), comes, now)

  def test_one_that_has_ended_is_not_waited_for(self):
    with self.progress.of_seed() as a:
      with self.progress.of_seed() as b:
        b.write(row(0, 8.0))  # and diverges
      self.shown()
      a.write(row(3, 2.0))
      self.assertIn('step 4/4, loss 2', *self.shown())


class SilenceTest(absltest.TestCase):
  def test_lines_come_by_themselves(self):
    told, lines = threading.Event(), []

    def say(line):
      lines.append(line)
      if len(lines) == 2:
        told.set()

    with (
      mock.patch.object(progress, '_SHORTEST', 0.02),
      mock.patch.object(progress, '_SHARE', 0.0),
      progress.Progress('a', first_step=0, steps=4, say=say),
    ):
      self.assertTrue(told.wait(60))
    self.assertEqual(lines[0], 'a: step 0/4, compiling')
    self.assertRegex(lines[1], '^a: compiling, [0-9]+ s so far$')


class DrawingTest(absltest.TestCase):
  def shown(self, is_terminal):
    text = io.StringIO()
    console = rich_console.Console(
      file=text, force_terminal=is_terminal, width=80
    )
    made = mock.patch.object(rich_console, 'Console', lambda **_: console)
    figures = [types.SimpleNamespace(name=name) for name in ('drift', 'unit')]
    with made, contextlib.redirect_stderr(text):
      self.assertEqual(list(progress.drawing(figures)), figures)
    return text.getvalue()

  def test_a_bar_on_a_terminal_alone(self):
    self.assertEqual(self.shown(False), 'drawing 2 figures\n')
    said = self.shown(True)
    self.assertIn('2/2', said)
    self.assertIn('unit', said)


if __name__ == '__main__':
  absltest.main()
