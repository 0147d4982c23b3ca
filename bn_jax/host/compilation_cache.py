"""Compiled programs, kept on disk: a second start compiles nothing again.

JAX writes every program that it compiles into a folder and reads it from there
the next time. Two things are missing from that for daily use and are here: a
folder that fits this processor, within a bound; and what happens when an entry
is damaged. Settings of the environment:

  JAX_COMPILATION_CACHE_DIR       JAX's own: everything here is left alone
  BN_JAX_CACHE_DIR                the folder; default ~/.cache/bn_jax
  BN_JAX_COMPILATION_CACHE=off    compiles at each start
"""

import contextlib
import glob
import hashlib
import importlib.util
import logging
import os
import pathlib
import platform
import re
import sys
import tempfile
import warnings

import jax
import jaxlib

from bn_jax import errors

_log = logging.getLogger('bn_jax')
LARGEST = 2 << 30  # bytes of all programs together
_ENTRIES = '*-cache'
_TROUBLE = r"Error (reading|writing) persistent compilation cache entry for '"
# What decides which instructions a program may hold; not the clock.
_OF_CPU = (
  'vendor_id', 'cpu family', 'model', 'model name', 'stepping', 'flags',
  'CPU implementer', 'CPU architecture', 'CPU variant', 'CPU part', 'Features',
)  # fmt: skip


def keep() -> pathlib.Path | None:
  """Switches the cache on; to be called before anything is compiled.

  Programs of all sizes are kept. Off where it is not known to be safe: on macOS
  (intact entries crashed there), where an entry would carry no checksum (JAX
  with zstandard), in a folder that others can write (an entry is code). Never
  an error: where there is no cache, programs are compiled.

  Returns:
    The folder; None where it is off or the user's own.

  Raises:
    ConfigError: BN_JAX_COMPILATION_CACHE is neither on nor off.
  """
  if not _wanted() or jax.config.jax_compilation_cache_dir:
    return None
  base = _base()
  if base is None or not _is_ours(folder := base / key()):
    return None
  prune(base, LARGEST)
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
  _mend(folder)
  return folder


def key() -> str:
  """The name of the folder for this jaxlib, platform and kind of processor.

  JAX's own key does not know the processor: on another one a program may hold
  instructions that are not there.
  """
  facts = _cpu()
  name = facts['model name'] if 'model name' in facts else platform.processor()
  digest = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()
  words = ('jaxlib', jaxlib.__version__, sys.platform, platform.machine(), name)
  readable = re.sub(r'[^A-Za-z0-9.]+', '-', ' '.join(words)).strip('-')
  return f'{readable[:100]}-{digest[:12]}'


def prune(base: pathlib.Path, largest: int) -> None:
  """Deletes the programs that were not used for longest, if there are too many.

  JAX's own bound needs a lock and a list of the folder at every program.

  Args:
    base: of all folders of programs, older versions' too.
    largest: bytes of all together; if they are more, half of it is left.
  """
  found, total = [], 0
  for path in base.glob(f'*/{_ENTRIES}'):
    with contextlib.suppress(OSError):  # another process prunes
      facts = path.stat()
      # The time of reading is old on some file systems.
      found.append((max(facts.st_atime, facts.st_mtime), facts.st_size, path))
      total += facts.st_size
  if total <= largest:
    return
  for _, size, path in sorted(found):
    with contextlib.suppress(OSError):
      path.unlink()
    total -= size
    if total <= largest // 2:
      return


def _wanted() -> bool:
  said = os.environ.get('BN_JAX_COMPILATION_CACHE')
  if said not in (None, '', 'on', 'off'):
    raise errors.ConfigError(
      f'BN_JAX_COMPILATION_CACHE is {said!r}; allowed: on, off'
    )
  return said != 'off' and sys.platform != 'darwin' and _has_checksums()


def _has_checksums() -> bool:
  """Whether JAX compresses with zlib, which notices a flipped bit.

  It prefers zstandard, whose frames it writes without a checksum.
  """
  return sys.version_info < (3, 14) and not importlib.util.find_spec(
    'zstandard'
  )


def _base() -> pathlib.Path | None:
  """The folder of all folders of programs; None without a home."""
  ours = os.environ.get('BN_JAX_CACHE_DIR')
  if ours:
    return pathlib.Path(ours).absolute() / 'xla'
  caches = os.environ.get('XDG_CACHE_HOME')
  try:
    home = pathlib.Path(caches) if caches else pathlib.Path.home() / '.cache'
  except RuntimeError:
    return None
  return home.absolute() / 'bn_jax' / 'xla'


def _is_ours(folder: pathlib.Path) -> bool:
  """Whether we, and nobody else, can write there; makes the folder."""
  try:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.stat()
    if hasattr(os, 'getuid') and facts.st_uid != os.getuid():
      return False
    with tempfile.TemporaryFile(dir=folder):
      return not facts.st_mode & 0o022
  except OSError:
    return False


def _cpu() -> dict[str, str]:
  """What the operating system says of the first processor."""
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    return {'machine': platform.machine(), 'model name': platform.processor()}
  lines = (line.partition(':') for line in text.split('\n\n')[0].splitlines())
  named = {name.strip(): value.strip() for name, _, value in lines}
  return {name: named[name] for name in _OF_CPU if name in named}


def _mend(folder: pathlib.Path) -> None:
  """Takes JAX's warnings of entries that it cannot read or write.

  It compiles such a program, but leaves the entry, warns of each and at every
  start. Here the entry goes, so that a whole one takes its place, and one line
  is said. The warning names the program, of which there may be several entries:
  all of them go.
  """
  show = warnings.showwarning
  said = []

  def showwarning(message, category, filename, lineno, file=None, line=None):
    trouble = re.match(f"{_TROUBLE}([^']*)'", str(message))
    if trouble is None:
      show(message, category, filename, lineno, file, line)
      return
    doing, program = trouble.groups()
    with contextlib.suppress(OSError):
      for path in folder.glob(f'{glob.escape(program)}-{_ENTRIES}'):
        path.unlink(missing_ok=True)
    if not said:
      said.append(program)
      _log.warning(
        'compilation cache: trouble %s a program, which is compiled as if new; '
        'if that comes again, delete %s', doing, folder,
      )  # fmt: skip

  warnings.filterwarnings('always', message=_TROUBLE)
  warnings.showwarning = showwarning
