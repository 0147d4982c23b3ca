"""What is written to stdout and stderr where nobody takes it."""

import contextlib
import io
import os
import pty
import subprocess
import sys
import tempfile

import pytest
from absl.testing import absltest, parameterized

from bn_jax import commands
from bn_jax.host import output
from tests.fixtures import scratch, strict

_FULL = (
  'error: cannot write standard output: No space left on device; make room, '
  'and the same command goes on\n'
)


def run(line, **environment):
  """(exit code, stderr) of a line of a shell, where `bn` is python -m bn_jax.

  The exit code is that of the first program.
  """
  bn = f'bn() {{ {sys.executable} "$@"; }}\n'
  done = subprocess.run(
    ['bash', '-c', f'{bn}{line}; exit ${{PIPESTATUS[0]}}'],
    cwd=strict.ROOT, capture_output=True, text=True,
    env={**os.environ, **environment},
  )  # fmt: skip
  return done.returncode, done.stderr


class CommandsTest(parameterized.TestCase):
  """24.16, each with a command that JAX is not needed for."""

  @parameterized.parameters(
    '-m bn_jax models --help', '-m bn_jax --version', 'train.py --help'
  )
  def test_a_reader_that_is_gone_ends_it_quietly(self, words):
    self.check_readers(words)

  @parameterized.parameters('-m bn_jax models', '-m bn_jax papers')
  @pytest.mark.slow
  def test_a_reader_that_is_gone_ends_a_long_answer(self, words):
    self.check_readers(words)

  def check_readers(self, words):
    # `sleep` reads nothing: the pipe ends while the command starts.
    for reader in ('| true', '| head -1 >&2', '>&-', '| sleep 0'):
      code, wrong = run(f'bn {words} {reader}')
      self.assertEqual(code, 0, (reader, wrong))
      self.assertLessEqual(wrong.count('\n'), 1, wrong)
      self.assertNotIn('rror', wrong)

  @parameterized.parameters(
    '-m bn_jax --help', '-m bn_jax --version', 'train.py --help'
  )
  def test_a_full_device_is_one_line_and_exit_6(self, words):
    self.assertEqual(run(f'bn {words} >/dev/full'), (6, _FULL))
    self.assertEqual(run(f'bn {words} >/dev/full 2>/dev/full'), (6, ''))

  def test_all_three_streams_closed(self):
    self.assertEqual(run('bn -m bn_jax --version <&- >&- 2>&-'), (0, ''))

  def test_no_file_takes_the_place_of_a_closed_stream(self):
    """What a library says by the number of stderr would land in it."""
    with tempfile.NamedTemporaryFile() as file:
      code = (
        'import os, sys\n'
        'from bn_jax.host import output\n'
        'with output.dropping(), open(sys.argv[1], "w") as file:\n'
        '  os.write(1, b"noise"); os.write(2, b"noise")\n'
        '  file.write("ours")'
      )
      run(f"bn -c '{code}' {file.name} >&- 2>&-")
      self.assertEqual(file.read(), b'ours')

  def test_a_wrong_line_keeps_its_code(self):
    for words in ('2>&-', '2>/dev/full', '>/dev/full 2>&1', '>&- 2>&-'):
      self.assertEqual(run(f'bn -m bn_jax papers --no {words}'), (2, ''))

  def test_characters_that_the_encoding_lacks(self):
    code, wrong = run(
      "bn -m bn_jax report 'käse\udcff'",
      LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0',
    )  # fmt: skip
    self.assertEqual(code, 2, wrong)
    self.assertIn('is not a directory', wrong)
    said = io.TextIOWrapper(io.BytesIO(), encoding='ascii')
    with contextlib.redirect_stdout(said):
      self.assertEqual(commands.run(lambda: sys.stdout.write('ä') and 0), 0)
    self.assertEqual(said.buffer.getvalue(), rb'\xe4')


class StreamTest(absltest.TestCase):
  def test_a_command_goes_on_in_silence(self):
    """Its own failure is what counts, and not that nobody hears of it."""
    read, written = os.pipe()
    os.close(read)
    steps = []

    def command():
      for step in range(3):
        sys.stdout.write('said\n')
        sys.stdout.flush()
        steps.append(step)
      return 5

    with open(written, 'w') as stream, contextlib.redirect_stdout(stream):
      self.assertEqual(commands.run(command), 5)
    self.assertEqual(steps, [0, 1, 2])

  def test_what_only_prints_ends_early(self):
    made = []

    def texts():
      for number in range(1000):
        made.append(number)
        yield 'said\n'

    read, written = os.pipe()
    os.close(read)
    with open(written, 'w') as stream, contextlib.redirect_stdout(stream):
      self.assertEqual(commands.run(lambda: output.show(texts()) or 0), 0)
    self.assertEqual(made, [0])
    with contextlib.redirect_stdout(io.StringIO()) as said:
      self.assertEqual(commands.run(lambda: output.show(texts()) or 0), 0)
    self.assertEqual(said.getvalue(), 1000 * 'said\n')

  def test_the_streams_are_put_back(self):
    before = sys.stdout, sys.stderr
    self.assertEqual(commands.run(lambda: 0), 0)
    self.assertEqual((sys.stdout, sys.stderr), before)


class TrainingTest(absltest.TestCase):
  """24.16: training goes on when its terminal is gone."""

  def setUp(self):
    super().setUp()
    self.folder = scratch.folder(self)
    self.words = [
      sys.executable, 'train.py', '--config=tests/fixtures/small_config.py',
      '--config.seeds=0', f'--workdir={self.folder}',
    ]  # fmt: skip

  def assert_trained(self):
    scalars = self.folder / 'batchnorm' / 'seed0' / 'scalars.jsonl'
    lines = scalars.read_text().splitlines()
    # Whatever libraries write to stderr, it is in no file of ours.
    self.assertLen(lines, 4)
    for line in lines:
      self.assertStartsWith(line, '{"step": ')
    self.assertTrue((self.folder / 'report.html').exists())

  @pytest.mark.slow
  def test_closed_descriptors(self):
    line = ' '.join(self.words).replace(sys.executable, 'bn', 1)
    self.assertEqual(run(f'{line} <&- >&- 2>&-')[0], 0)
    self.assert_trained()

  def test_a_terminal_that_is_closed(self):
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
      self.words,
      cwd=strict.ROOT,
      stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
    )  # fmt: skip
    os.close(inside)
    os.read(terminal, 1)  # it has begun to say something
    os.close(terminal)
    self.assertEqual(process.wait(120), 0)
    self.assert_trained()

  @pytest.mark.slow
  def test_a_log_on_a_full_device(self):
    with open('/dev/full', 'w') as full:
      done = subprocess.run(self.words, cwd=strict.ROOT, stderr=full)
    self.assertEqual(done.returncode, 0)
    self.assert_trained()


if __name__ == '__main__':
  absltest.main()
