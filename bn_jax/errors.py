"""Tells a person, in one line and by an exit code, why a command ended.

Exit codes: 0 done, 2 usage or config, 3 data, 4 checkpoint, 5 numerical,
6 storage, 75 interrupted (start again to go on), 130 stopped at once, 1 a bug
of ours.
"""

import difflib
import errno
from collections.abc import Iterable, Mapping
from typing import Any

_FEW = 12  # names that a message may list, unless no other help is there
_NEAR = 5  # of them, those that may be meant
_SHORT = 12  # characters of a digest in a message
_LINE = 200  # characters of a library's message; some quote whole programs


class Failure(Exception):
  """A condition with a one-line message for the user and an exit code.

  Attributes:
    exit_code: of the command that it ends.
    told: whether another process reports it.
  """

  exit_code = 1
  told = False


class ConfigError(Failure, ValueError):
  """A wrong command line or config; nothing was compiled or written."""

  exit_code = 2


class DataError(Failure):
  """The data are absent, damaged or of another shape than promised."""

  exit_code = 3


class CheckpointError(Failure):
  """A checkpoint cannot be restored into this network."""

  exit_code = 4


class Diverged(Failure):
  """A run's objective was not finite, and the config did not expect it."""

  exit_code = 5


class StorageError(Failure):
  """Files of a run are lost, changed, or cannot be read or written."""

  exit_code = 6


class Interrupted(Failure):
  """Stopped by a signal; the state is saved, the same command goes on."""

  exit_code = 75


def reason(error: OSError) -> str:
  """Returns what the system says, and what to do where a disk is full."""
  if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
    return f'{error.strerror}; make room, and the same command goes on'
  return str(error.strerror)


def first_line(error: BaseException) -> str:
  """Returns what an error says, cut to one line; where nothing, its type."""
  lines = str(error).strip().splitlines()
  return lines[0][:_LINE] if lines else type(error).__name__


def digests(before: str, now: str) -> str:
  """Returns that a SHA-256 has changed, in words."""
  return f'SHA-256 was {before[:_SHORT]}..., is {now[:_SHORT]}...'


def is_out_of_memory(error: BaseException) -> bool:
  """Returns whether the machine or a device had too little memory."""
  # JAX's errors have this word; NumPy's is a MemoryError.
  return isinstance(error, MemoryError) or (
    isinstance(error, RuntimeError) and 'RESOURCE_EXHAUSTED' in str(error)
  )


def unknown(
  kind: str,
  name: Any,
  known: Iterable[str],
  *,
  also: Iterable[str] = (),
  see: str | None = None,
) -> str:
  """Returns the message for a name that is not in `known`, near names first.

  A long list is left out where there are near ones: nobody would read it.

  Args:
    kind: what the name is one of: 'norm', 'model'.
    known: the names that are allowed.
    also: names that are meant although they are spelled otherwise; then only
      very near ones are added.
    see: where all of them are listed, instead of a long list.
  """
  known = sorted(known)
  # The dashes of flags would make all of them alike.
  spellings = {choice.lstrip('-'): choice for choice in known}
  # difflib's own cutoff is 0.6; a lower one finds more, and more that is wrong.
  matches = difflib.get_close_matches(
    str(name).lstrip('-'), spellings, n=3, cutoff=0.75 if also else 0.5
  )
  near = dict.fromkeys([*also, *(spellings[match] for match in matches)])
  near = list(near)[:_NEAR]
  hints = [f'did you mean {" or ".join(map(repr, near))}?'] if near else []
  if len(known) <= _FEW or not (near or see):
    hints.append(f'known: {", ".join(known)}')
  elif see:
    hints.append(f'see {see}')
  return f'unknown {kind} {name!r}; {" ".join(hints)}'


def lookup(kind: str, registry: Mapping[str, Any], name: Any) -> Any:
  """Returns `registry[name]`, or raises a ValueError that lists the names."""
  if not isinstance(name, str) or name not in registry:
    raise ValueError(unknown(kind, name, registry))
  return registry[name]
