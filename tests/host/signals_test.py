import os
import signal
import subprocess
import sys
import time

from absl.testing import absltest, parameterized

from bn_jax import commands, errors
from bn_jax.host import signals
from tests.fixtures import strict

_BUSY = """
import hashlib, signal, sys
from bn_jax.host import signals as stop
with stop.Stop() as stopped:
  print('ready', flush=True)
  # As in a compilation, no line of Python runs for long, and others may.
  hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
"""

_OTHER = """
import hashlib
from bn_jax.host import signals as stop
from bn_jax import commands
stop._PATIENCE = 0.5
def command():
  print('ready', flush=True)
  hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
commands.run(command)
"""


def send(number):
  os.kill(os.getpid(), number)


class StopTest(parameterized.TestCase):
  @parameterized.parameters(signal.SIGTERM, signal.SIGINT)
  def test_the_first_signal_asks(self, number):
    before = signal.getsignal(number)
    with signals.Stop() as stopped:
      self.assertFalse(stopped())
      send(number)
      self.assertTrue(stopped())
    self.assertIs(signal.getsignal(number), before)

  @parameterized.parameters(signal.SIGTERM, signal.SIGINT)
  def test_the_second_exits_at_once_whatever_is_going_on(self, number):
    process = subprocess.Popen(
      [sys.executable, '-c', _BUSY],
      cwd=strict.ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    self.addCleanup(process.communicate)
    self.addCleanup(process.kill)
    self.assertEqual(process.stdout.readline(), 'ready\n')
    process.send_signal(number)
    time.sleep(signals._ONE_SIGTERM + 0.2)
    self.assertIsNone(process.poll())
    process.send_signal(number)
    self.assertEqual(process.wait(5), 130)

  def test_one_that_launchers_send_twice_is_one(self):
    with signals.Stop() as stopped:
      send(signal.SIGTERM)
      send(signal.SIGTERM)
      time.sleep(0.1)  # else the other thread has not seen it
      self.assertTrue(stopped())

  def test_a_look_ends_early(self):
    with signals.Stop() as stopped:
      self.assertEqual(stopped.unless_asked(lambda: 3), 3)
      begun = time.monotonic()

      def look():
        send(signal.SIGINT)
        time.sleep(10)

      self.assertIsNone(stopped.unless_asked(look))
      self.assertLess(time.monotonic() - begun, 5)
      self.assertTrue(stopped())
      self.assertIsNone(stopped.unless_asked(lambda: self.fail('looked')))

  def test_after_a_look_a_signal_asks_again(self):
    with signals.Stop() as stopped:
      with self.assertRaises(ZeroDivisionError):
        stopped.unless_asked(lambda: 1 / 0)
      send(signal.SIGTERM)
      self.assertTrue(stopped())

  @parameterized.parameters(signal.SIGTERM, signal.SIGINT)
  def test_other_commands_end_with_75(self, number):
    before = signal.getsignal(number)
    self.assertEqual(commands.run(lambda: send(number)), 75)
    self.assertIs(signal.getsignal(number), before)

  def test_other_commands_end_in_a_long_call_too(self):
    process = subprocess.Popen(
      [sys.executable, '-c', _OTHER],
      cwd=strict.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      text=True,
    )  # fmt: skip
    self.addCleanup(process.kill)
    self.assertEqual(process.stdout.readline(), 'ready\n')
    time.sleep(0.5)  # it is in the call now
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=10)
    self.assertEqual((process.returncode, said.count('\n')), (75, 1), said)

  def test_what_another_process_says_is_not_said_again(self):
    def command():
      failure = errors.DataError('no data')
      failure.told = True
      raise failure

    with self.assertNoLogs():
      self.assertEqual(commands.run(command), 3)


if __name__ == '__main__':
  absltest.main()
