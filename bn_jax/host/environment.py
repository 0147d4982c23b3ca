"""Begins JAX, and says in one line which variable of the environment is wrong.

JAX itself ends in a traceback, and XLA ends the process.
"""

import contextlib
import functools
import os
import pathlib
import platform
import re
import subprocess
import sys

from bn_jax import errors
from bn_jax.host import memory

# Variables that say which devices there are.
_DEVICES = (
  'JAX_PLATFORMS', 'JAX_PLATFORM_NAME', 'JAX_NUM_CPU_DEVICES', 'XLA_FLAGS'
)  # fmt: skip

_FILES = 10_000  # what macOS grants; more than seeds need


def check() -> None:
  """Imports JAX; call it before anything else does.

  Raises:
    ConfigError: a variable JAX_... or XLA_FLAGS has a value that is refused.
  """
  _check_xla_flags(os.environ.get('XLA_FLAGS') or '')
  try:
    import jax  # noqa: F401
  except ValueError as error:
    text = str(error)
    given = sorted(name for name in os.environ if name.startswith('JAX_'))
    # Some messages name the variable, others its value alone.
    meant = [name for name in given if name.lower() in text.lower()] or [
      name for name in given if repr(os.environ[name]) in text
    ]
    if not given:
      raise
    values = ', '.join(f'{k}={os.environ[k]}' for k in meant or given)
    raise errors.ConfigError(
      f'{values}: {errors.first_line(error)}; correct or unset it'
    ) from error


def check_devices() -> None:
  """Lets JAX find its devices and keep its memory small, after `check`.

  Raises:
    ConfigError: there is none of the kind that a variable asks for.
  """
  import jax

  memory.give_back_after_compiling()
  try:
    jax.devices()
  # JAX asserts that there is a device where a plugin is not installed.
  except (RuntimeError, AssertionError) as error:
    given = [name for name in _DEVICES if os.environ.get(name)]
    if 'device_count' not in (os.environ.get('XLA_FLAGS') or ''):
      given = [name for name in given if name != 'XLA_FLAGS']
    values = ', '.join(f'{k}={os.environ[k]}' for k in given)
    why = errors.first_line(error) if str(error) else 'there is no such device'
    raise errors.ConfigError(
      f'{values or "JAX_PLATFORMS is not set"}: {why}; correct or unset it; '
      'JAX_PLATFORMS=cpu is the processor, cuda needs jax[cuda12] and a GPU'
    ) from error


def allow_files() -> None:
  """Lets this process have as many open files as the system lets it choose.

  A seed in training has five, and 256 may be trained at once; usual are 1,024,
  or 256 on macOS.
  """
  with contextlib.suppress(ImportError, OSError, ValueError):
    import resource  # Windows has no such limit

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _FILES:
      most = _FILES if hard < 0 else min(hard, _FILES)
      resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def threads() -> int:
  """Returns how many threads XLA computes with on a CPU.

  They are as many as processors that this process may use, but for a variable.
  """
  for name in ('PJRT_NPROC', 'NPROC'):  # as XLA reads them
    if (os.environ.get(name) or '').isdecimal():
      return int(os.environ[name])
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def processor() -> str:
  """Returns the model of the processor, 'AMD EPYC 7B13'; else its kind."""
  with contextlib.suppress(OSError):  # Linux alone has this file
    text = pathlib.Path('/proc/cpuinfo').read_text(errors='replace')
    if model := re.search(r'^model name\s*:\s*(\S.*)$', text, re.M):
      return model[1].strip()
  return platform.processor() or platform.machine()


@functools.cache
def _check_xla_flags(flags: str) -> None:
  """Raises ConfigError for flags with which XLA would end the process."""
  if not flags.strip():
    return
  # What reads the flags, and no more: a fifth of a second.
  code = 'from jaxlib import xla_client; xla_client.CompileOptions()'
  child = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    errors='replace',
  )
  # An error in XLA's log: F1130 10:11:12.131415 123 file.cc:1] ...
  logged = re.findall(r'^[EF]\d{4} [^\]]*\] (.*)$', child.stderr, re.M)
  if child.returncode and logged:
    raise errors.ConfigError(
      f'XLA_FLAGS={flags.strip()}: {logged[0]}; correct or unset it'
    )
