"""Several processes that train one experiment, each with devices of its own.

Process 0 keeps the books: it alone writes. What only one process may do, or
find out, the others learn from it (`agreed`, `broadcast`). One process is
process 0 of 1: nothing here needs to know whether there are more.
"""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

from bn_jax import errors
from bn_jax.host import cluster, distributed, watch

Place = cluster.Place  # what `joined` is given
_PIECE = 2**26  # bytes that are told at a time
# Seconds in which a meeting says itself who is missing: the runtime finds out
# 40 s after a loss, the meeting after 60 s.
_PATIENCE = 25.0


class _Joined(NamedTuple):
  """The processes, and how often they have agreed."""

  peers: watch.Peers
  agreements: Iterator[int]


_joined: _Joined | None = None
_met: watch.Peers | None = None  # the same, and still after the end


@contextlib.contextmanager
def joined(
  mode: str = 'auto', given: Place | None = None, timeout: int = 300
) -> Iterator[None]:
  """Within it this process is one of several, where there are several.

  It must be entered before anything else of jax happens. At its end all come to
  their end together. A `Failure` of all is told by process 0 alone (the others'
  has `told` set); one of this process alone ends the others too.

  Args:
    mode: see `cluster.place`.
    given: by flags, see `cluster.place`.
    timeout: seconds in which all must be there.

  Raises:
    ConfigError, Interrupted: see `cluster.place` and `distributed.join`.
  """
  global _joined, _met
  where = cluster.place(mode, given or Place(), os.environ)
  if where is None:
    yield
    return
  with distributed.ended_by_signals(_interrupted):
    others = _met = watch.Peers(*distributed.join(where, timeout, _lost))
  _joined = _Joined(others, itertools.count())
  try:
    yield
  except errors.Failure as failure:
    failure.told |= others.leave(_end(failure.exit_code, failure))
    raise
  except KeyboardInterrupt:
    stopped = errors.Interrupted('interrupted; the same command starts again')
    end = _end(stopped.exit_code, stopped)
    stopped.told = others.leave(end, seconds=2.0)
    raise stopped from None
  except Exception as error:
    others.suspect()  # most likely somebody is missing, and we leave here
    others.end(_end(errors.Failure.exit_code, error))
    raise
  else:
    others.leave(None)
  finally:
    _joined = None
    others.close()
    if not others.ended:  # else nobody would answer
      distributed.part()


def _end(exit_code: int, error: BaseException) -> watch.End:
  said = ' '.join(str(error).split())
  line = said if isinstance(error, errors.Failure) else f'{error!r}'
  return watch.End(index(), exit_code, line)


def index() -> int:
  """The number of this process."""
  return _joined.peers.index if _joined else 0


def count() -> int:
  """How many processes there are."""
  return _joined.peers.count if _joined else 1


def is_first() -> bool:
  """Whether this process writes."""
  return index() == 0


def stopping(asked: bool) -> bool:
  """Whether all processes stop now: each asks equally often, see `Peers`."""
  return _joined.peers.stopping(asked) if _joined else asked


class _Now(BaseException):
  """Ends a look of all processes; nothing that it found is kept."""


class Stopping:
  """Whether all processes stop, as a question of a loop and within its looks.

  A look of several processes cannot end in one of them alone.
  """

  def __init__(self, asked: Callable[[], bool]):
    """Asks `stopping` whether this process was `asked`."""
    self._asked = asked

  def __call__(self) -> bool:
    return stopping(self._asked())

  def check(self) -> None:
    """Ends the look that is being taken, if there are several processes."""
    if _joined is not None and self():
      raise _Now

  def unless_asked(self, look: Callable[[], Any]) -> Any:
    """What a look sees, or None if `check` has ended it."""
    try:
      return look()
    except _Now:
      return None


def agreed(function: Callable[[], Any]) -> Any:
  """What a function gives in process 0, which alone calls it, in all.

  Args:
    function: gives what JSON can hold; tuples come back as lists.

  Raises:
    Failure: that of process 0, in all processes.
  """
  if _joined is None:
    return function()
  key = f'agreed/{next(_joined.agreements)}'
  if is_first():
    try:
      found = json.dumps({'value': function()})
    except errors.Failure as failure:
      told = [type(failure).__name__, str(failure)]
      _joined.peers.put(key, json.dumps({'failure': told}))
      raise
    _joined.peers.put(key, found)
    return json.loads(found)['value']
  found = json.loads(_joined.peers.get(key))
  if 'failure' in found:
    name, message = found['failure']
    raise getattr(errors, name)(message)
  return found['value']


def in_turn(function: Callable[[], Any]) -> Any:
  """What a function gives in each process; process 0 calls it first.

  For what is prepared in a folder by who comes first.
  """
  found = []
  agreed(lambda: found.append(function()))
  return found[0] if found else function()


def broadcast(tree: Any, like: Any) -> Any:
  """The arrays of process 0 in all processes, bit for bit.

  Args:
    tree: of numpy arrays; nobody asks for that of another process.
    like: their shapes and dtypes, in all processes.
  """
  if _joined is None:
    return tree
  import jax

  if not is_first():
    tree = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
  leaves, form = jax.tree.flatten(tree)
  leaves = [np.asarray(leaf, order='C') for leaf in leaves]
  mine = np.concatenate([leaf.reshape(-1).view(np.uint8) for leaf in leaves])
  told = np.concatenate(
    [
      _first_of(mine[start : start + _PIECE])
      for start in range(0, mine.size, _PIECE)
    ]
  )
  ends = np.cumsum([leaf.nbytes for leaf in leaves])
  parts = np.split(told, ends[:-1])
  return jax.tree.unflatten(
    form,
    [
      part.view(leaf.dtype).reshape(leaf.shape)
      for part, leaf in zip(parts, leaves, strict=True)
    ],
  )


def _first_of(mine: np.ndarray) -> np.ndarray:
  """Bytes [K] of process 0."""
  from jax.experimental import multihost_utils

  return np.asarray(multihost_utils.broadcast_one_to_all(mine))


def _interrupted() -> NoReturn:
  """A signal came before all have met: nothing has been written."""
  _start_again('interrupted while waiting for the other processes')


def _lost() -> NoReturn:
  """Process 0 is gone: in a thread of the runtime's, which may not go on."""
  if _met is not None:
    _met.lost()
  time.sleep(_PATIENCE)
  _start_again('process 0 is gone')


def _start_again(line: str) -> NoReturn:
  code = errors.Interrupted.exit_code
  watch.leave_at_once(code, f'{line}; start again to go on')
