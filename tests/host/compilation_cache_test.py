import collections
import contextlib
import importlib.util
import os
import pathlib
import random
import stat
import subprocess
import sys
import unittest
import warnings
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from absl.testing import absltest, parameterized
from jax.experimental.compilation_cache import compilation_cache

from bn_jax import errors
from bn_jax.host import compilation_cache as compilation_cache_lib
from tests.fixtures import same_bits, scratch, strict, toys

_SETTINGS = (
  'jax_compilation_cache_dir',
  'jax_persistent_cache_min_compile_time_secs',
  'jax_persistent_cache_min_entry_size_bytes',
)
_READ = '/jax/compilation_cache/cache_hits'
_WRITTEN = '/jax/compilation_cache/cache_misses'
_events = collections.Counter()
jax.monitoring.register_event_listener(
  lambda event, **_: _events.update([event])
)


class Kept(parameterized.TestCase):
  """A cache of its own, JAX's settings put back afterwards."""

  def setUp(self):
    super().setUp()
    self.base = scratch.folder(self)
    clean = {name: '' for name in os.environ if name.startswith('BN_JAX_')}
    self.enter_context(
      mock.patch.dict(os.environ, {**clean, 'BN_JAX_CACHE_DIR': str(self.base)})
    )
    for name in _SETTINGS:
      self.addCleanup(jax.config.update, name, getattr(jax.config, name))
    self.addCleanup(compilation_cache.reset_cache)
    jax.config.update('jax_compilation_cache_dir', None)
    self.enter_context(warnings.catch_warnings())
    self.start()

  def start(self):
    """As a new process: nothing compiled, nothing counted."""
    jax.clear_caches()
    compilation_cache.reset_cache()
    _events.clear()

  def sizes(self):
    return {
      path.name: path.stat().st_size for path in self.base.rglob('*-cac*')
    }


class KeepTest(Kept):
  def test_a_second_start_compiles_nothing_and_computes_the_same_bits(self):
    compilation_cache_lib.keep()
    first = self.train()
    self.assertGreater(_events[_WRITTEN], 3)
    self.assertEqual(_events[_READ], 0)
    written = self.sizes()
    self.start()
    second = self.train()
    self.assertLen(written, _events[_READ])
    self.assertEqual(_events[_WRITTEN], 0)
    self.assertEqual(self.sizes(), written)
    same_bits.assert_same(second, first)

  def test_the_seconds_of_the_last_time(self):
    begin, events = compilation_cache_lib.begin, []
    with mock.patch.multiple(
      compilation_cache_lib, _folder=None, _begun=set(), _MOST=2
    ):
      begin('a')[1](3.0)  # no folder: nothing is kept
      folder = compilation_cache_lib.keep()
      for program, seconds in (('a', 4.0), ('b', 5.0), ('c', 6.0)):
        last, took = begin(program)
        took(seconds)
        events.append(last)
      self.assertEqual(events, [None] * 3)
      self.assertIsNone(begin('c')[0])  # compiled in this process
      compilation_cache_lib._begun.clear()
      self.assertEqual([begin(x)[0] for x in 'abc'], [None, 5.0, 6.0])
      (folder / 'seconds.json').write_text('{')
      compilation_cache_lib._begun.clear()
      self.assertIsNone(begin('b')[0])

  def train(self):
    made = toys.classifier.__wrapped__('batch')
    state, split = jax.jit(made.init)(0), toys.split()
    for _ in range(3):
      state = jax.jit(made.step)(state, split)
    return jax.device_get(state._replace(key=jax.random.key_data(state.key)))

  def test_lies_in_a_folder_for_this_version_and_processor(self):
    folder = compilation_cache_lib.keep()
    self.assertEqual(folder, self.base / 'xla' / compilation_cache_lib.key())
    self.assertEqual(jax.config.jax_compilation_cache_dir, str(folder))
    self.assertIn(f'jaxlib-{jax.lib.__version__}-', folder.name)
    self.assertRegex(folder.name, r'^[A-Za-z0-9.-]+$')
    self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)

  def test_another_processor_has_another_folder(self):
    here = compilation_cache_lib._cpu()
    self.assertEqual(compilation_cache_lib.key(), compilation_cache_lib.key())
    for name, value in (
      ('flags', 'fpu sse2'),
      ('model name', 'Another CPU @ 3GHz'),
    ):
      changed = {**here, name: value}
      with mock.patch.object(
        compilation_cache_lib, '_cpu', return_value=changed
      ):
        another = compilation_cache_lib.key()
      self.assertNotEqual(another, compilation_cache_lib.key())
      self.assertRegex(another, r'^[A-Za-z0-9.-]+$')

  @unittest.skipUnless(sys.platform == 'linux', 'reads /proc/cpuinfo')
  def test_knows_the_processor_but_not_its_clock(self):
    with mock.patch.object(
      pathlib.Path, 'read_text',
      lambda _: 'model name\t: A\ncpu MHz\t: 2.5\nflags\t: a b\n\nflags\t: c\n',
    ):  # fmt: skip
      found = compilation_cache_lib._cpu()
    self.assertEqual(found, {'model name': 'A', 'flags': 'a b'})

  @parameterized.named_parameters(
    ('of_the_user', {'XDG_CACHE_HOME': '/x/y'}, '/x/y/bn_jax/xla'),
    ('of_the_home', {'HOME': '/x'}, '/x/.cache/bn_jax/xla'),
    ('given', {'BN_JAX_CACHE_DIR': '/z', 'HOME': '/x'}, '/z/xla'),
    ('24.8', {'BN_JAX_CACHE_DIR': '~/z', 'HOME': '/x'}, '/x/z/xla'),
  )
  def test_where(self, given, expected):
    with mock.patch.dict(os.environ, given, clear=True):
      self.assertEqual(compilation_cache_lib._base(), pathlib.Path(expected))


class OffTest(Kept):
  def assert_off(self):
    self.assertIsNone(compilation_cache_lib.keep())
    self.assertIsNone(jax.config.jax_compilation_cache_dir)
    jax.jit(lambda x: x + 1)(jnp.zeros(3))
    self.assertEmpty(self.sizes())

  def test_on_request(self):
    with mock.patch.dict(os.environ, {'BN_JAX_COMPILATION_CACHE': 'off'}):
      self.assert_off()
    self.assertEmpty(list(self.base.iterdir()))

  def test_a_wrong_word_is_an_error(self):
    with (
      mock.patch.dict(os.environ, {'BN_JAX_COMPILATION_CACHE': 'no'}),
      self.assertRaisesRegex(errors.ConfigError, "is 'no'; allowed: on, off"),
    ):
      compilation_cache_lib.keep()

  def test_on_macos(self):
    with mock.patch.object(sys, 'platform', 'darwin'):
      self.assert_off()

  def test_where_entries_have_no_checksum(self):
    with mock.patch.object(importlib.util, 'find_spec', lambda name: name):
      self.assert_off()

  def test_where_the_folder_cannot_be_made(self):
    (self.base / 'xla').write_text('a file')
    self.assert_off()

  def test_where_xla_cannot_be_told_the_folder(self):
    """24.18: in a locale whose encoding lacks letters of it."""
    folder = {'BN_JAX_CACHE_DIR': f'{self.base}/\udcc3'}
    with mock.patch.dict(os.environ, folder):
      self.assert_off()

  def test_where_others_can_write(self):
    folder = self.base / 'xla' / compilation_cache_lib.key()
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    self.assert_off()

  def test_leaves_the_cache_of_a_user_alone(self):
    theirs = str(self.base / 'theirs')
    jax.config.update('jax_compilation_cache_dir', theirs)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 7)
    self.assertIsNone(compilation_cache_lib.keep())
    self.assertEqual(jax.config.jax_compilation_cache_dir, theirs)
    self.assertEqual(jax.config.jax_persistent_cache_min_compile_time_secs, 7)
    self.assertFalse((self.base / 'xla').exists())


class DamageTest(Kept):
  def setUp(self):
    super().setUp()
    self.folder = compilation_cache_lib.keep()
    self.program = jax.jit(toys.quadratic()[0])
    self.params = toys.quadratic()[1]
    self.expected = self.program(self.params)
    (self.entry,) = self.folder.glob('jit_loss-*-cache')
    self.whole = self.entry.read_bytes()

  def again(self):
    self.start()
    same_bits.assert_same(self.program(self.params), self.expected)

  @parameterized.parameters('flipped', 'cut', 'emptied')
  def test_is_compiled_again_and_mended(self, how):
    generator = random.Random(how)
    for _ in range(1 if how == 'emptied' else 4):
      data = bytearray(self.whole)
      place = generator.randrange(len(data))
      if how == 'flipped':
        data[place] ^= 1 << generator.randrange(8)
      else:
        del data[place if how == 'cut' else 0 :]
      self.entry.write_bytes(data)
      with self.quiet():
        self.again()
      self.assertEqual(_events[_WRITTEN], 1)
      self.again()  # from the entry that was written anew
      self.assertEqual(_events[_WRITTEN], 0)

  def test_one_line_is_said_however_many_are_damaged(self):
    jax.jit(jnp.sin)(self.expected)
    for path in self.folder.glob('*-cache'):
      path.write_bytes(b'no program')
    with self.assertLogs('bn_jax') as said:
      self.again()
      jax.jit(jnp.sin)(self.expected)
    self.assertGreaterEqual(_events[_WRITTEN], 2)
    self.assertLen(said.output, 1)
    self.assertIn(str(self.folder), said.output[0])

  def test_other_warnings_are_shown(self):
    with warnings.catch_warnings(record=True) as shown:
      compilation_cache_lib._mend(self.folder)
      warnings.warn('something else', stacklevel=1)
    self.assertEqual([str(w.message) for w in shown], ['something else'])

  def test_a_program_that_cannot_be_written_leaves_nothing_behind(self):
    def write(path, data):
      path.write_text('half')
      raise OSError(28, 'No space left on device')

    self.entry.unlink()
    with mock.patch('etils.epath.Path.write_bytes', write), self.quiet():
      self.again()
    self.assertFalse(self.entry.exists())

  @contextlib.contextmanager
  def quiet(self):
    with mock.patch.object(compilation_cache_lib._log, 'warning'):
      yield


class PruneTest(Kept):
  def test_deletes_what_was_not_used_for_longest(self):
    for version in ('old', 'new'):
      (self.base / version).mkdir()
      for k in range(5):
        entry = self.base / version / f'jit_f-{version}{k}-cache'
        entry.write_bytes(bytes(100))
        written = 1000 + 10 * k + (5 if version == 'new' else 0)
        os.utime(entry, (written, written))
    read = self.base / 'old' / 'jit_f-old0-cache'
    os.utime(read, (2000, 1000))
    os.utime(self.base / 'old' / 'jit_f-old1-cache', (1000, 2000))
    (self.base / 'new' / 'autotuned').write_bytes(bytes(5000))
    compilation_cache_lib.prune(self.base, 1000)
    self.assertLen(self.sizes(), 10)  # within the bound: nothing goes
    compilation_cache_lib.prune(self.base, 999)
    names = {'old0', 'old1', 'new4', 'old4'}
    self.assertEqual(
      set(self.sizes()), {f'jit_f-{name}-cache' for name in names}
    )
    self.assertTrue((self.base / 'new' / 'autotuned').exists())


@pytest.mark.slow  # four starts of train.py
class StartsTest(absltest.TestCase):
  """Whole runs: without a cache, two at once into one, and a last from it."""

  def test_results_are_the_same_bits_with_and_without_a_cache(self):
    base = scratch.folder(self)
    without = self.start(base, 'without', BN_JAX_COMPILATION_CACHE='off')
    expected = self.results(base, without)
    self.assertFalse((base / 'cache').exists())
    both = [self.start(base, name) for name in ('one', 'another')]
    for started in both:
      self.assertEqual(self.results(base, started), expected)
    kept = {path.name for path in base.glob('cache/xla/*/*-cache')}
    self.assertGreater(len(kept), 10)
    self.assertEqual(self.results(base, self.start(base, 'last')), expected)
    now = {path.name for path in base.glob('cache/xla/*/*-cache')}
    self.assertEqual(now, kept)

  def start(self, base, name, **settings):
    clean = {
      name: value
      for name, value in os.environ.items()
      if not name.startswith(('BN_JAX_', 'JAX_COMPILATION_CACHE'))
    }
    process = subprocess.Popen(
      [sys.executable, '-W', 'always::UserWarning:jax', 'train.py',
       '--config=tests/fixtures/dense_config.py', '--only=standard/seed0',
       f'--workdir={base / name}'],
      cwd=strict.ROOT, stderr=subprocess.PIPE, text=True,
      env={**clean, 'BN_JAX_CACHE_DIR': str(base / 'cache'), **settings},
    )  # fmt: skip
    self.addCleanup(process.kill)
    return name, process

  def results(self, base, started):
    """File -> bytes of all that must not depend on where programs come from."""
    name, process = started
    _, said = process.communicate(timeout=300)
    self.assertEqual(process.returncode, 0, said)
    self.assertNotRegex(said, 'compilation cache|machine|feature|rror')
    found = {
      str(path.relative_to(base / name)): path.read_bytes()
      for pattern in ('**/scalars.jsonl', '**/*.npz')
      for path in (base / name).glob(pattern)
    }
    self.assertIn('standard/seed0/scalars.jsonl', found)
    return found


if __name__ == '__main__':
  absltest.main()
