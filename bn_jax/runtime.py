"""jax.distributed, made to leave with a line where it would abort.

The only file that touches what is private in jax.
"""

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from bn_jax import errors, tasks

# The runtime's own watch is the second one: ours, which has names, comes first.
_SILENCE = 40  # seconds


class Runtime(NamedTuple):
  """What was joined.

  Attributes:
    client: of the key-value store.
    index: of this process.
    count: of all.
  """

  client: Any
  index: int
  count: int


def join(
  where: tasks.Place, timeout: int, lost: Callable[[], NoReturn]
) -> Runtime:
  """Joins the other processes, before anything else of jax happens.

  Args:
    where: they meet; None in it is asked of the cluster by jax.
    timeout: seconds in which all must be there.
    lost: called, in some thread, when process 0 is gone; it must not return.

  Raises:
    ConfigError: the cluster does not say where.
    Interrupted: not all came in time: starting again may help.
  """
  # Losses are told by us, in a line; the runtime has pages about them.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  import jax
  from jax._src import distributed

  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  # One mechanism for signals, see `peers.Peers.stopping`.
  jax.config.update('jax_enable_preemption_service', False)
  state = distributed.global_state
  try:
    with _asking(distributed, lost):
      jax.distributed.initialize(
        **where._asdict(),
        initialization_timeout=timeout,
        heartbeat_timeout_seconds=_SILENCE,
        shutdown_timeout_seconds=_SILENCE,
      )
  except (ValueError, TypeError) as error:  # of jax, which asked the cluster
    raise errors.ConfigError(f'--distributed: {_first(error)}') from error
  except Exception as error:
    state.client = state.service = None  # jax would wait for them at the end
    why = 'not all came'
    if 'bad_cast' not in str(error):  # see `_asking`: that says no more
      why = _first(error)
    raise errors.Interrupted(
      f'process {state.process_id} of {where.num_processes or "several"} has '
      f'not met the others at {state.coordinator_address} in {timeout} s '
      f'({why}); see whether all were started and can reach that address, and '
      'start again'
    ) from error
  return Runtime(state.client, state.process_id, state.num_processes)


def part() -> None:
  """Lets go of the others, who do the same."""
  import jax

  with contextlib.suppress(Exception):
    jax.distributed.shutdown()


def _first(error: Exception) -> str:
  return str(error).splitlines()[0][:200] if str(error) else repr(error)


@contextlib.contextmanager
def _asking(distributed, lost: Callable[[], NoReturn]) -> Iterator[None]:
  """Makes jax call `lost` when its runtime has lost process 0.

  The runtime would abort with a page of text. jax has no argument for it, and
  its binding of this one ends in `std::terminate` (the reason has no form in
  Python; jaxlib 0.10): so we are asked in both ways.
  """
  make = distributed._jax.get_distributed_runtime_client

  def client(*arguments, **keywords):
    return make(
      *arguments,
      **keywords,
      missed_heartbeat_callback=lambda *reason: lost(),
      shutdown_on_destruction=False,
    )

  distributed._jax.get_distributed_runtime_client = client
  try:
    yield
    _on_terminate(lost)
  finally:
    distributed._jax.get_distributed_runtime_client = make


_HANDLER = ctypes.CFUNCTYPE(None)
_handlers = []  # kept: C++ holds no reference


def _on_terminate(function: Callable[[], NoReturn]) -> None:
  for name in ('libstdc++.so.6', '/usr/lib/libc++abi.dylib'):
    with contextlib.suppress(OSError, AttributeError):
      set_handler = ctypes.CDLL(name)._ZSt13set_terminatePFvvE
      set_handler.argtypes, set_handler.restype = [_HANDLER], ctypes.c_void_p
      _handlers.append(_HANDLER(function))
      set_handler(_handlers[-1])
      return
