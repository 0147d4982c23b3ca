import os
import pathlib
import runpy
import sys
from unittest import mock

import jax
from absl.testing import absltest
from jax import monitoring

from bn_jax.host import memory
from tests.fixtures import strict

_HUGE_PAGES = 'glibc.malloc.hugetlb'
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


class HugePagesTest(absltest.TestCase):
  def start(self, variables, *, on_request=True):
    """Returns the command and variables of a new start, or None."""
    path = pathlib.Path(self.create_tempfile().full_path)
    path.write_text(
      'always [madvise] never' if on_request else '[always] madvise never'
    )
    with (
      mock.patch.object(memory, '_ON_REQUEST', path),
      mock.patch.dict('os.environ', variables),
      mock.patch.object(os, 'execv') as execv,
    ):
      os.environ.pop('GLIBC_TUNABLES', None)
      os.environ.update(variables)
      memory.use_huge_pages()
      if not execv.called:
        return None
      return execv.call_args.args[1], os.environ['GLIBC_TUNABLES']

  @absltest.skipUnless(sys.platform == 'linux', 'glibc')
  def test_starts_the_same_command_once(self):
    other = 'glibc.malloc.perturb=3'
    for before, after in (
      ({}, f'{_HUGE_PAGES}=1'),
      ({'GLIBC_TUNABLES': other}, f'{other}:{_HUGE_PAGES}=1'),
    ):
      command, tunables = self.start(before)
      self.assertEqual(command, [sys.executable, *sys.orig_argv[1:]])
      self.assertEqual(tunables, after)
      self.assertIsNone(self.start({'GLIBC_TUNABLES': tunables}))

  def test_stays_where_there_is_nothing_to_ask_for(self):
    self.assertIsNone(self.start({'GLIBC_TUNABLES': f'{_HUGE_PAGES}=0'}))
    self.assertIsNone(self.start({}, on_request=False))
    with mock.patch.object(os, 'confstr', side_effect=ValueError):
      self.assertIsNone(self.start({}))

  def test_commands_ask_before_anything_else(self):
    for run in (
      lambda: runpy.run_path(
        str(strict.ROOT / 'train.py'), run_name='__main__'
      ),
      lambda: runpy.run_module('bn_jax', run_name='__main__'),
    ):
      with (
        mock.patch.dict(sys.modules),
        mock.patch.object(
          memory, 'use_huge_pages', side_effect=SystemExit('asked')
        ),
        self.assertRaisesRegex(SystemExit, 'asked'),
      ):
        sys.modules.pop('bn_jax.__main__', None)  # runpy runs what is new
        run()

  def test_programs_are_dropped_where_maps_are_few(self):
    function = jax.jit(lambda x: x + 1)
    folder = pathlib.Path(self.create_tempdir())
    maps, most = folder / 'maps', folder / 'most'
    most.write_text('100\n')
    for count, dropped in ((49, False), (50, True)):
      function(1.0)
      maps.write_text('a map\n' * count)
      with mock.patch.multiple(memory, _MAPS=maps, _MOST_MAPS=most):
        self.assertEqual(memory.drop_old_programs(), dropped)
      self.assertEqual(function._cache_size(), 1 - dropped)

  def test_elsewhere_nothing_is_dropped(self):
    nowhere = pathlib.Path(self.create_tempdir()) / 'nothing'
    with mock.patch.object(memory, '_MOST_MAPS', nowhere):
      self.assertFalse(memory.drop_old_programs())


if __name__ == '__main__':
  absltest.main()
