import pathlib
import sys
from unittest import mock

import jax
from absl.testing import absltest
from jax import monitoring

from bn_jax.host import memory

_EVENT = '/jax/core/compile/backend_compile_duration'


def resident():
  """Bytes of this process that are in memory."""
  return int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * 4096


class MemoryTest(absltest.TestCase):
  @absltest.skipUnless(sys.platform == 'linux', 'glibc')
  def test_what_was_freed_goes_back(self):
    # Small pieces, of which every other one stays: no end of the heap is free.
    pieces = [bytearray(50_000) for _ in range(4000)]
    last = pieces[-1]
    del pieces
    before = resident()
    memory.give_back()
    self.assertLess(resident(), before - 50e6)
    self.assertLen(last, 50_000)

  def test_after_a_long_compilation_alone(self):
    memory.give_back_after_compiling()
    memory.give_back_after_compiling()  # no second listener
    with mock.patch.object(memory, 'give_back') as give_back:
      jax.jit(lambda x: x + 1)(1.0)
      monitoring.record_event_duration_secs(_EVENT, 0.01)
      monitoring.record_event_duration_secs('/another/event', 100.0)
      give_back.assert_not_called()
      monitoring.record_event_duration_secs(_EVENT, 100.0)
      give_back.assert_called_once_with()

  def test_jax_tells_of_compilations_under_this_name(self):
    events = []
    monitoring.register_event_duration_secs_listener(
      lambda event, seconds, **_: events.append(event)
    )
    jax.jit(lambda x: x * 3 + 7)(2.0)
    self.assertIn(_EVENT, events)


if __name__ == '__main__':
  absltest.main()
