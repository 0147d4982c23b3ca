"""Compiled programs on disk, so that a second start compiles nothing again.

JAX itself writes programs into a folder and reads them the next time. This
module adds a folder for each kind of processor, a bound on its size, and the
removal of damaged entries. Environment variables:

  JAX_COMPILATION_CACHE_DIR       JAX's own setting; nothing here is then used
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
# Bytes of all programs together: 2 GiB hold the programs of many experiments,
# and still fit into a home directory with a quota.
LARGEST = 2 << 30
_ENTRIES = '*-cache'
_TROUBLE = r"Error (reading|writing) persistent compilation cache entry for '"
# The facts that decide which instructions a program may use. The clock rate,
# which changes all the time, is not among them.
_OF_CPU = (
  'vendor_id', 'cpu family', 'model', 'model name', 'stepping', 'flags',
  'CPU implementer', 'CPU architecture', 'CPU variant', 'CPU part', 'Features',
)  # fmt: skip


def keep() -> pathlib.Path | None:
  """Switches the cache on, for programs of all sizes; call it before compiling.

  The cache stays off where it is not known to be safe: on macOS (intact entries
  crashed there), where entries have no checksum (JAX with zstandard), and in a
  folder that others can write (entries are code). Programs are then compiled.

  Returns:
    The folder; None if the cache is off or the user has set JAX's own.

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
  """Returns the folder's name for this jaxlib, platform and kind of processor.

  JAX's own key lacks the processor: a program may use instructions that another
  one does not have.
  """
  facts = _cpu()
  name = facts['model name'] if 'model name' in facts else platform.processor()
  digest = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()
  words = ('jaxlib', jaxlib.__version__, sys.platform, platform.machine(), name)
  readable = re.sub(r'[^A-Za-z0-9.]+', '-', ' '.join(words)).strip('-')
  return f'{readable[:100]}-{digest[:12]}'


def prune(base: pathlib.Path, largest: int) -> None:
  """Deletes the least recently used programs if all together are too large.

  JAX's own bound locks and lists the folder for every program.

  Args:
    base: the folder of all folders of programs, older versions' too.
    largest: bytes of all programs; if they are more, they are cut to half of
      it, so that not every start has to delete some.
  """
  entries, total = [], 0
  for path in base.glob(f'*/{_ENTRIES}'):
    with contextlib.suppress(OSError):  # another process has deleted it
      facts = path.stat()
      # Some file systems do not update the time of reading.
      last_use = max(facts.st_atime, facts.st_mtime)
      entries.append((last_use, facts.st_size, path))
      total += facts.st_size
  if total <= largest:
    return
  for _, size, path in sorted(entries):
    with contextlib.suppress(OSError):
      path.unlink()
    total -= size
    if total <= largest // 2:
      return


def _wanted() -> bool:
  setting = os.environ.get('BN_JAX_COMPILATION_CACHE')
  if setting not in (None, '', 'on', 'off'):
    raise errors.ConfigError(
      f'BN_JAX_COMPILATION_CACHE is {setting!r}; allowed: on, off'
    )
  return setting != 'off' and sys.platform != 'darwin' and _has_checksums()


def _has_checksums() -> bool:
  """Returns whether JAX compresses with zlib, which notices a flipped bit.

  JAX prefers zstandard, but writes it without checksums.
  """
  return sys.version_info < (3, 14) and not importlib.util.find_spec(
    'zstandard'
  )


def _base() -> pathlib.Path | None:
  """Returns the folder of all folders of programs; None without a home."""
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
  """Makes a folder; returns whether only this user can write there."""
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
  """Reads the facts of the first processor from the operating system."""
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    return {'machine': platform.machine(), 'model name': platform.processor()}
  lines = (line.partition(':') for line in text.split('\n\n')[0].splitlines())
  named = {name.strip(): value.strip() for name, _, value in lines}
  return {name: named[name] for name in _OF_CPU if name in named}


def _mend(folder: pathlib.Path) -> None:
  """Deletes the entries that JAX warns it cannot read or write.

  JAX compiles such a program, but keeps the entry and warns at every start.
  Here the entry is deleted, so that a new one takes its place, and only one
  line is logged. The warning names the program, which may have several entries;
  all are deleted.
  """
  show = warnings.showwarning
  reported = []

  def showwarning(message, category, filename, lineno, file=None, line=None):
    trouble = re.match(f"{_TROUBLE}([^']*)'", str(message))
    if trouble is None:
      show(message, category, filename, lineno, file, line)
      return
    doing, program = trouble.groups()
    with contextlib.suppress(OSError):
      for path in folder.glob(f'{glob.escape(program)}-{_ENTRIES}'):
        path.unlink(missing_ok=True)
    if not reported:
      reported.append(program)
      _log.warning(
        'compilation cache: trouble %s a program, which is compiled as if new; '
        'if that comes again, delete %s', doing, folder,
      )  # fmt: skip

  warnings.filterwarnings('always', message=_TROUBLE)
  warnings.showwarning = showwarning
