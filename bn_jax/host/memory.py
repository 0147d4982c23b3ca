"""Asks for memory in large pages, gives back what is free, drops old programs.

XLA asks for the temporary memory of a program anew each time that it runs it on
a CPU, and the system clears it page by page: 226,000 pages of 4 kB a step of
VGG-16 (batch 128), a third of its time. With pages of 2 MB a step takes 0.74 of
the time, of ResNet-20 too (two loaded cores, jax 0.10.2, 2026-11-30).

XLA compiles in several threads, and glibc keeps what they free for the process,
where nothing else needs it: after compiling a step of ResNet-20 (batch 128) on
two CPU cores, 436 of 1,046 MB (2026-11-30). A step would come on top of them.

Each kernel of a program is mapped by itself, and JAX keeps programs. Linux
gives a process 65,530 maps: of 27 VGGs with several measures, one after the
other, the 26th could not be compiled (2026-12-01).
"""

import ctypes
import functools
import os
import pathlib
import sys

_TUNABLES, _HUGE_PAGES = 'GLIBC_TUNABLES', 'glibc.malloc.hugetlb'
# 'always [madvise] never': programs have large pages if they ask for them.
_ON_REQUEST = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
_COMPILED = '/jax/core/compile/backend_compile_duration'  # an event of JAX
_MAPS = pathlib.Path('/proc/self/maps')
_MOST_MAPS = pathlib.Path('/proc/sys/vm/max_map_count')
# A network may need as many again: all of a VGG's programs are some 2,500 maps.
_CROWDED = 0.5
# A program that is compiled faster has used little, and trimming takes some
# milliseconds.
_LEAST_SECONDS = 0.5


def use_huge_pages() -> None:
  """Starts this program anew with huge pages, where it must ask for them.

  glibc (2.35 or newer; others ignore it) reads the variable GLIBC_TUNABLES when
  a program starts. One that says glibc.malloc.hugetlb=0 or 1 already stays as
  it is, and so does a program where nobody can ask: with another library or
  system, or where huge pages are switched off, or there for all. Call it
  before anything else is done: nothing of this process is left.
  """
  tunables = os.environ.get(_TUNABLES) or ''
  if _HUGE_PAGES in tunables or not _huge_pages_on_request():
    return
  os.environ[_TUNABLES] = f'{tunables}:{_HUGE_PAGES}=1'.removeprefix(':')
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _huge_pages_on_request() -> bool:
  try:
    is_glibc = os.confstr('CS_GNU_LIBC_VERSION') is not None
    return is_glibc and '[madvise]' in _ON_REQUEST.read_text()
  except (ValueError, OSError):  # another library; another system
    return False


@functools.cache
def give_back_after_compiling() -> None:
  """Lets every longer compilation end with `give_back`; call it once or more.

  It imports JAX.
  """
  from jax import monitoring

  def compiled(event: str, seconds: float, **_) -> None:
    if event == _COMPILED and seconds >= _LEAST_SECONDS:
      give_back()

  monitoring.register_event_duration_secs_listener(compiled)


def give_back() -> bool:
  """Returns whether memory was given back; only glibc can be asked."""
  if not sys.platform.startswith('linux'):
    return False
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
  return trim is not None and bool(trim(0))


def drop_old_programs() -> bool:
  """Drops compiled programs where this process has used half of its maps.

  Call it when one network is done and others follow: whatever is still needed
  is compiled again. It imports JAX. Returns whether it did; only Linux tells.
  """
  try:
    maps = len(_MAPS.read_bytes().splitlines())
    most = int(_MOST_MAPS.read_text())
  except (OSError, ValueError):
    return False
  if maps < _CROWDED * most:
    return False
  import jax

  jax.clear_caches()
  return True
