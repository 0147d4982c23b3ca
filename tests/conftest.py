"""Lets absltest's temporary directories work, and saves time.

All processes of one call of pytest, and those that tests start, share the
programs that they compile. The folder is new at each call and gone after it, so
that every program is compiled once by the code under test. What a user has set
for caches counts for nothing.

The fast suite compiles in ways of XLA that take less time; with the slow tests
(`make test-all`) programs are compiled as they are outside of tests, except in
modules that leave optimizations out themselves.

Tracing in Python takes as long as compilation. Part of it was looking for
garbage, through all that the modules of all tests have made, and system calls
(see `_with_room`): with both mended the suite takes 864 s of user and 47 s of
system CPU, before 890 and 116 (88 tests fewer; two free cores, 2026-12-01).
"""

import gc
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable

import pytest
from absl import flags

flags.FLAGS.mark_as_parsed()
_FOLDER = 'JAX_COMPILATION_CACHE_DIR'
# Of XLA: the fusions of a program are one module of LLVM. Up to 0.10 its older
# way from fusions to LLVM, without MLIR, takes half the time; newer versions
# have it no more, and end at a flag that they do not know.
_XLA_FLAGS = '--xla_cpu_parallel_codegen_split_count=1'
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  _XLA_FLAGS += ' --xla_cpu_use_fusion_emitters=false'
# Of a user; the suite neither reads nor fills it.
_CACHES = ('BN_JAX_CACHE_DIR', 'BN_JAX_COMPILATION_CACHE')
# Slots of eight bytes: with the thousand that Python adds they are more than
# half of a chunk of 512 KiB, and leave 240 KB, a thousand frames.
_SLOTS = 33_000
_made = []
# As commands.begin does; the modules of the tests are imported under it too.
gc.set_threshold(100_000, 50, 50)


def pytest_configure(config: pytest.Config) -> None:
  config.pluginmanager.register(_Loop(), 'loop_with_room')
  # Here JAX is not imported yet. A worker has it from whoever started it.
  if hasattr(config, 'workerinput'):
    return
  for name in _CACHES:
    os.environ.pop(name, None)
  # A page of a training that takes long, as any does beside others.
  os.environ['BN_JAX_FIRST_PAGE'] = 'off'
  # Its threads wait for the next product by turning: 5 % of some test files.
  os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
  _made.append(tempfile.mkdtemp(prefix='bn_jax_programs_'))
  os.environ[_FOLDER] = _made[0]
  # Keeping what is compiled sooner takes as long as compiling it.
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'
  if _is_fast(config):
    given = os.environ.get('XLA_FLAGS', '')
    os.environ['XLA_FLAGS'] = f'{_XLA_FLAGS} {given}'


class _Loop:
  """Runs the tests with room, and what lives until the end left alone."""

  @pytest.hookimpl(tryfirst=True)
  def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
    gc.collect()
    gc.freeze()
    rest = session.config.pluginmanager.subset_hook_caller(
      'pytest_runtestloop', [self]
    )
    return _with_room(lambda: rest(session=session))


def _with_room(call: Callable[[], bool | None]) -> bool | None:
  """Returns what `call` returns; frames below lie in one piece of memory.

  Python asks the system for a chunk of 16 KiB whenever frames need another one,
  and gives it back at the return from it (until python/cpython#142183). Where
  calls go to and fro over that edge, as tracing some dozens of frames below
  pytest does, that took a third of a test file. A frame that claims more gets a
  larger chunk, which the frames below it share.
  """
  return call()


_with_room.__code__ = _with_room.__code__.replace(co_stacksize=_SLOTS)


@pytest.fixture(autouse=True, scope='module')
def _compile_sooner(request: pytest.FixtureRequest) -> None:
  """Leaves most optimizations out; a module may ask for them again."""
  if 'jax' in sys.modules and _is_fast(request.config):
    import jax

    jax.config.update('jax_disable_most_optimizations', True)


def _is_fast(config: pytest.Config) -> bool:
  return config.option.markexpr == 'not slow'


def pytest_unconfigure() -> None:
  for folder in _made:
    shutil.rmtree(folder, ignore_errors=True)
