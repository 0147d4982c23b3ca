"""Lets several processes train one experiment, each with devices of its own.

Only process 0 writes files. What one process alone may do, process 0 does, and
the others get its result (`agreed`, `broadcast`). A single process is process 0
of 1, so callers need not know how many there are.
"""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from bn_jax import errors
from bn_jax.host import cluster, distributed, watch

Place = cluster.Place  # for callers of `joined`
# Bytes that are broadcast at a time: more need more memory on a device, fewer
# need more calls, each of which waits for all processes.
_PIECE = 2**26
# Seconds for `watch.Peers` to name the process that is missing while all meet:
# the runtime notices a loss after 40 s, the meeting of the peers after 60 s.
_PATIENCE = 25.0


class _Joined(NamedTuple):
  """The processes, and the numbers of their coming agreements."""

  peers: watch.Peers
  agreements: Iterator[int]


_joined: _Joined | None = None
_met: watch.Peers | None = None  # the same peers, also after `joined` has ended


@contextlib.contextmanager
def joined(
  mode: str = 'auto', flags: Place | None = None, timeout: int = 300
) -> Iterator[None]:
  """Joins the other processes, if there are any, during a `with` block.

  Enter the block before any other use of jax. All processes leave it together.
  If all fail alike, process 0 alone reports that: in the others, the `Failure`
  has `told` set. If only this process fails, it makes the others end.

  Args:
    mode: 'auto', 'on' or 'off'; see `cluster.place`.
    flags: the values that the user gave; see `cluster.place`.
    timeout: seconds in which all must join; clusters may start processes
      minutes apart.

  Raises:
    ConfigError: see `cluster.place` and `distributed.join`.
    Interrupted: a process is missing, or Ctrl-C ended the block.
  """
  global _joined, _met
  where = cluster.place(mode, flags or Place(), os.environ)
  if where is None:
    yield
    return
  with distributed.ended_by_signals(_interrupted):
    peers = _met = watch.Peers(*distributed.join(where, timeout, _lost))
  _joined = _Joined(peers, itertools.count())
  try:
    yield
  except errors.Failure as failure:
    failure.told |= peers.leave(_end(failure.exit_code, failure))
    raise
  except KeyboardInterrupt:
    failure = errors.Interrupted('interrupted; the same command starts again')
    end = _end(failure.exit_code, failure)
    # Short: a Ctrl-C in a terminal reaches all processes at once.
    failure.told = peers.leave(end, seconds=2.0)
    raise failure from None
  except Exception as error:
    peers.suspect()  # most likely a process is lost, and this one leaves here
    peers.end(_end(errors.Failure.exit_code, error))
    raise
  else:
    peers.leave(None)
  finally:
    _joined = None
    peers.close()
    if not peers.ended:  # else no other process is left to answer
      distributed.part()


def _end(exit_code: int, error: BaseException) -> watch.End:
  message = ' '.join(str(error).split())
  line = message if isinstance(error, errors.Failure) else f'{error!r}'
  return watch.End(index(), exit_code, line)


def index() -> int:
  """Returns the index of this process, from 0 on."""
  return _joined.peers.index if _joined else 0


def count() -> int:
  """Returns the number of processes."""
  return _joined.peers.count if _joined else 1


def is_first() -> bool:
  """Returns whether this is process 0, which writes files."""
  return index() == 0


def stopping(is_asked: bool) -> bool:
  """Returns whether all processes stop now, see `watch.Peers.stopping`."""
  return _joined.peers.stopping(is_asked) if _joined else is_asked


class _Now(BaseException):
  """Ends a look in all processes; the look's results are lost."""


class Stopping:
  """Tells a loop, and the looks within it, whether all processes stop.

  A look of several processes must end in all of them at the same place.
  """

  def __init__(self, is_asked: Callable[[], bool]):
    """Takes a function that says whether this process was asked to stop."""
    self._is_asked = is_asked

  def __call__(self) -> bool:
    return stopping(self._is_asked())

  def check(self) -> None:
    """Ends the current look if there are several processes and all stop."""
    if _joined is not None and self():
      raise _Now

  def unless_asked(self, look: Callable[[], Any]) -> Any:
    """Calls `look`; returns its result, or None if `check` has ended it."""
    try:
      return look()
    except _Now:
      return None


def agreed(function: Callable[[], Any]) -> Any:
  """Calls a function in process 0 alone; returns its result in all processes.

  Args:
    function: returns JSON values; tuples become lists.

  Raises:
    Failure: what the function raises, in all processes.
  """
  if _joined is None:
    return function()
  key = f'agreed/{next(_joined.agreements)}'
  if is_first():
    try:
      text = json.dumps({'value': function()})
    except errors.Failure as failure:
      # The other processes know the kinds of `errors`.
      kinds = [kind.__name__ for kind in type(failure).__mro__]
      name = next(kind for kind in kinds if hasattr(errors, kind))
      name_and_message = [name, str(failure)]
      _joined.peers.put(key, json.dumps({'failure': name_and_message}))
      raise
    _joined.peers.put(key, text)
    return json.loads(text)['value']
  result = json.loads(_joined.peers.get(key))
  if 'failure' in result:
    name, message = result['failure']
    raise getattr(errors, name)(message)
  return result['value']


def in_turn(function: Callable[[], Any]) -> Any:
  """Calls a function in process 0, then in the others; returns its result.

  The first call may prepare a folder, which the others then find.
  """
  results = []
  agreed(lambda: results.append(function()))
  return results[0] if results else function()


def broadcast(tree: Any, like: Any) -> Any:
  """Sends the arrays of process 0 to all processes, bit for bit.

  Args:
    tree: NumPy arrays of process 0; ignored in the others.
    like: a tree of the same shapes and dtypes, in all processes.
  """
  if _joined is None:
    return tree
  import jax
  import numpy as np  # late: a command line that is wrong waits for no imports
  from jax.experimental import multihost_utils

  if not is_first():
    tree = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
  leaves, structure = jax.tree.flatten(tree)
  leaves = [np.asarray(leaf, order='C') for leaf in leaves]
  data = np.concatenate([leaf.reshape(-1).view(np.uint8) for leaf in leaves])
  data_of_first = np.concatenate(
    [
      multihost_utils.broadcast_one_to_all(data[start : start + _PIECE])
      for start in range(0, data.size, _PIECE)
    ]
  )
  ends = np.cumsum([leaf.nbytes for leaf in leaves])
  parts = np.split(data_of_first, ends[:-1])
  return jax.tree.unflatten(
    structure,
    [
      part.view(leaf.dtype).reshape(leaf.shape)
      for part, leaf in zip(parts, leaves, strict=True)
    ],
  )


def _interrupted() -> NoReturn:
  """Leaves on a signal before all have met; nothing has been written yet."""
  _start_again('interrupted while waiting for the other processes')


def _lost() -> NoReturn:
  """Leaves because process 0 is gone; called in a thread of the runtime."""
  if _met is not None:
    _met.lost()
  time.sleep(_PATIENCE)
  _start_again('process 0 is gone')


def _start_again(line: str) -> NoReturn:
  code = errors.Interrupted.exit_code
  watch.leave_at_once(code, f'{line}; start again to go on')
