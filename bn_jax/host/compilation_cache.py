"""Keeps compiled programs on disk, so that a second start compiles nothing.

JAX itself writes programs into a folder and reads them the next time. This
module adds a folder for each kind of processor, a bound on the size of all
folders, the removal of damaged programs, and how long compiling took the last
time. Environment variables:

  JAX_COMPILATION_CACHE_DIR       JAX's own setting; if set, nothing is added
  BN_JAX_CACHE_DIR                default: bn_jax in XDG_CACHE_HOME or ~/.cache
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
from collections.abc import Callable

import jax
import jaxlib

from bn_jax import errors
from bn_jax.storage import files

_log = logging.getLogger('bn_jax')
# Bytes of all programs together: 2 GiB hold the programs of many experiments,
# and still fit into a home directory with a quota.
LARGEST = 2 << 30
_ENTRIES = '*-cache'  # as JAX names the files of programs
_WARNING = r"Error (reading|writing) persistent compilation cache entry for '"
# The facts that tell which instructions a processor has. The clock rate, which
# changes all the time, is not among them.
_OF_CPU = (
  'vendor_id', 'cpu family', 'model', 'model name', 'stepping', 'flags',
  'CPU implementer', 'CPU architecture', 'CPU variant', 'CPU part', 'Features',
)  # fmt: skip

_SECONDS = 'seconds.json'  # in the folder: of the programs that were begun
_MOST = 1000  # of them that are kept: more than anybody has in use
_folder: pathlib.Path | None = None  # what `keep` has returned
_begun = set()  # programs that this process has compiled, or is compiling


def keep() -> pathlib.Path | None:
  """Switches the cache on, for programs of all sizes; call it before compiling.

  The cache stays off where it is not known to be safe: on macOS (where intact
  entries crashed), if entries have no checksum (JAX with zstandard), and in a
  folder that others can write (entries are code).

  Returns:
    The folder for this processor; None if the cache is off or the user has set
    JAX_COMPILATION_CACHE_DIR.

  Raises:
    ConfigError: BN_JAX_COMPILATION_CACHE is neither on nor off.
  """
  global _folder
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
  _folder = folder
  return folder


def begin(program: str) -> tuple[float | None, Callable[[float], None]]:
  """Returns how long a program took to begin the last time, and a listener.

  The listener is to be told how long it takes this time. Without a folder that
  `keep` made, and for a program that this process has begun before, the time is
  None and the listener does nothing.

  Args:
    program: tells it from all others.
  """
  if _folder is None or program in _begun:
    return None, lambda seconds: None
  _begun.add(program)
  path = _folder / _SECONDS

  def seconds_of() -> dict[str, float]:
    try:
      return files.read_json(path, {...: float}) or {}
    except errors.StorageError:  # they are no more than an estimate
      return {}

  def took(seconds: float) -> None:
    others = {k: v for k, v in seconds_of().items() if k != program}
    newest = dict(list(others.items())[1 - _MOST :])
    with contextlib.suppress(errors.StorageError):
      files.write_json(path, {**newest, program: round(float(seconds), 3)})

  return seconds_of().get(program), took


def key() -> str:
  """Returns the folder's name for this jaxlib, platform and kind of processor.

  JAX's own keys ignore the processor, but a program may use instructions that
  another processor lacks.
  """
  facts = _cpu()
  name = facts['model name'] if 'model name' in facts else platform.processor()
  digest = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()
  words = ('jaxlib', jaxlib.__version__, sys.platform, platform.machine(), name)
  readable = re.sub(r'[^A-Za-z0-9.]+', '-', ' '.join(words)).strip('-')
  # Cut, as file systems allow 255 bytes; 12 digits tell processors apart.
  return f'{readable[:100]}-{digest[:12]}'


def prune(base: pathlib.Path, largest: int) -> None:
  """Deletes the least recently used programs if all together are too large.

  JAX has a bound too, but then locks and lists the folder for every program.

  Args:
    base: holds the folders of all processors and versions.
    largest: bytes that all programs may have. Beyond it, half of it is kept, so
      that not every start has to delete some.
  """
  entries, total = [], 0
  for path in base.glob(f'*/{_ENTRIES}'):
    with contextlib.suppress(OSError):  # another process has deleted it
      status = path.stat()
      # Some file systems do not update the time of reading.
      last_use = max(status.st_atime, status.st_mtime)
      entries.append((last_use, status.st_size, path))
      total += status.st_size
  if total <= largest:
    return
  for _, size, path in sorted(entries):
    with contextlib.suppress(OSError):
      path.unlink()
    total -= size
    if total <= largest // 2:
      return


def _wanted() -> bool:
  """Returns whether neither the user nor the platform rules the cache out."""
  setting = os.environ.get('BN_JAX_COMPILATION_CACHE')
  if setting not in (None, '', 'on', 'off'):
    raise errors.ConfigError(
      f'BN_JAX_COMPILATION_CACHE is {setting!r}; allowed: on, off'
    )
  return setting != 'off' and sys.platform != 'darwin' and _has_checksums()


def _has_checksums() -> bool:
  """Returns whether JAX compresses with zlib, which notices a flipped bit.

  JAX prefers zstandard, which Python has from 3.14 on, without checksums.
  """
  return sys.version_info < (3, 14) and not importlib.util.find_spec(
    'zstandard'
  )


def _base() -> pathlib.Path | None:
  """Returns the folder above those of all processors; None without a home."""
  setting = os.environ.get('BN_JAX_CACHE_DIR')
  if setting:
    return pathlib.Path(os.path.expanduser(setting)).absolute() / 'xla'
  xdg = os.environ.get('XDG_CACHE_HOME')
  try:
    caches = pathlib.Path(xdg) if xdg else pathlib.Path.home() / '.cache'
  except RuntimeError:
    return None
  return caches.absolute() / 'bn_jax' / 'xla'


def _is_ours(folder: pathlib.Path) -> bool:
  """Makes a folder; returns whether this user alone can write there.

  False, too, if XLA, of C++, cannot be told its path in this locale.
  """
  try:
    str(folder).encode()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if hasattr(os, 'getuid') and status.st_uid != os.getuid():
      return False
    with tempfile.TemporaryFile(dir=folder):
      return not status.st_mode & 0o022
  except (OSError, UnicodeEncodeError):
    return False


def _cpu() -> dict[str, str]:
  """Returns name -> fact of the first processor, by the operating system."""
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    return {'machine': platform.machine(), 'model name': platform.processor()}
  lines = (line.partition(':') for line in text.split('\n\n')[0].splitlines())
  facts = {name.strip(): value.strip() for name, _, value in lines}
  return {name: facts[name] for name in _OF_CPU if name in facts}


def _mend(folder: pathlib.Path) -> None:
  """Deletes the entries that JAX warns it cannot read or write.

  JAX itself compiles the program, but keeps the entry and warns at every start.
  A warning names a program, which may have several entries; all are deleted, so
  that JAX writes new ones. Only the first warning of a process is logged.
  """
  show = warnings.showwarning
  programs = []

  def showwarning(message, category, filename, lineno, file=None, line=None):
    match = re.match(f"{_WARNING}([^']*)'", str(message))
    if match is None:
      show(message, category, filename, lineno, file, line)
      return
    action, program = match.groups()
    with contextlib.suppress(OSError):
      for path in folder.glob(f'{glob.escape(program)}-{_ENTRIES}'):
        path.unlink(missing_ok=True)
    if not programs:
      programs.append(program)
      _log.warning(
        'compilation cache: trouble %s a program, which is compiled as if new; '
        'if that comes again, delete %s', action, folder,
      )  # fmt: skip

  warnings.filterwarnings('always', message=_WARNING)
  warnings.showwarning = showwarning
