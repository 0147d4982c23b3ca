"""Joins processes by jax.distributed, which ends here with one line of error.

jax itself would abort with pages of text. This is the only file that uses
private parts of jax.
"""

import contextlib
import ctypes
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from bn_jax import errors
from bn_jax.host import cluster, signals

# Seconds of silence after which jax's runtime declares a process lost. It must
# be longer than `watch._SILENCE`: our watch can name the process and so should
# come first.
_SILENCE = 40


class Runtime(NamedTuple):
  """The runtime that connects the processes.

  Attributes:
    client: of its key-value store.
    index: the number of this process.
    count: the number of all processes.
  """

  client: Any
  index: int
  count: int


def join(
  where: cluster.Place, timeout: int, lost: Callable[[], NoReturn]
) -> Runtime:
  """Joins the other processes; call it before anything else of jax.

  Args:
    where: the processes meet; see `cluster.Place`.
    timeout: seconds in which all must join.
    lost: called, in some thread, when process 0 is gone; it must not return.

  Raises:
    ConfigError: the cluster does not say where, or the port there is taken.
    Interrupted: not all joined in time; starting again may help.
  """
  # Hides the runtime's pages about a loss, for which we have one line.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  import jax
  from jax._src import distributed

  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  # jax would handle SIGTERM too; we have `watch.Peers.stopping`.
  jax.config.update('jax_enable_preemption_service', False)
  state = distributed.global_state
  try:
    with _calling(lost, distributed):
      jax.distributed.initialize(
        **where._asdict(),
        initialization_timeout=timeout,
        heartbeat_timeout_seconds=_SILENCE,
        shutdown_timeout_seconds=_SILENCE,
      )
  except BaseException as error:
    state.client = state.service = None  # jax would wait for them at the end
    if isinstance(error, errors.Failure) or not isinstance(error, Exception):
      raise
    # jax raises these if the cluster's answers do not suffice.
    if isinstance(error, (ValueError, TypeError)):
      raise errors.ConfigError(
        f'--distributed: {errors.first_line(error)}'
      ) from error
    why = 'not all came'
    if 'bad_cast' not in str(error):  # see `_calling`: it has no more to say
      why = errors.first_line(error)
    raise errors.Interrupted(
      f'process {state.process_id} of {where.num_processes or "several"} has '
      f'not met the others at {state.coordinator_address} in {timeout} s '
      f'({why}); see whether all were started and can reach that address, and '
      'start again'
    ) from error
  return Runtime(state.client, state.process_id, state.num_processes)


@contextlib.contextmanager
def ended_by_signals(leave: Callable[[], NoReturn]) -> Iterator[None]:
  """Calls `leave` in a thread on SIGTERM or Ctrl-C, during a `with` block.

  A Python handler would only run when `join` returns. Signals without a handler
  keep their effect.
  """
  if threading.current_thread() is not threading.main_thread():
    yield  # signals are the main thread's
    return

  def hear(number):
    if number in (signal.SIGTERM, signal.SIGINT):
      leave()

  with signals.on_signal(hear):
    yield


def part() -> None:
  """Leaves the runtime, together with all other processes."""
  import jax

  with contextlib.suppress(Exception):
    jax.distributed.shutdown()


@contextlib.contextmanager
def _calling(lost: Callable[[], NoReturn], distributed) -> Iterator[None]:
  """Makes jax call `lost` when its runtime has lost process 0.

  The runtime would abort with a page of text. `jax.distributed.initialize` has
  no argument for a callback, and the callback that the runtime does take ends
  in `std::terminate`, as its argument cannot be converted to Python (jaxlib
  0.10). So `lost` is set as the callback and as the handler of `terminate`.

  It also checks the port of process 0, which would otherwise end in a
  segmentation fault if the port is taken.
  """
  make = distributed._jax.get_distributed_runtime_client
  serve = distributed._jax.get_distributed_runtime_service

  def client(*arguments, **keywords):
    return make(
      *arguments,
      **keywords,
      missed_heartbeat_callback=lambda *reason: lost(),
      shutdown_on_destruction=False,
    )

  def service(address, *arguments, **keywords):
    _check_free(address)
    return serve(address, *arguments, **keywords)

  distributed._jax.get_distributed_runtime_client = client
  distributed._jax.get_distributed_runtime_service = service
  try:
    yield
    _on_terminate(lost)
  finally:
    distributed._jax.get_distributed_runtime_client = make
    distributed._jax.get_distributed_runtime_service = serve


def _check_free(address: str) -> None:
  """Raises ConfigError if host:port is in use; [::] is every address."""
  host, _, port = address.rpartition(':')
  v4 = '' if host == '[::]' else host
  for family, at in (
    (socket.AF_INET6, host.strip('[]')), (socket.AF_INET, v4)
  ):  # fmt: skip
    try:
      with socket.socket(family, socket.SOCK_STREAM) as one:
        # As the server does: a port that a previous run has just left is free.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
          one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        one.bind((at, int(port)))
        return
    except OSError as error:  # others: no IPv6, or jax reports them itself
      if error.errno == errno.EADDRINUSE:
        raise errors.ConfigError(
          f'--coordinator_address: port {port} is in use; give another'
        ) from error


_HANDLER = ctypes.CFUNCTYPE(None)
_handlers = []  # keeps them alive, as C++ holds no reference


def _on_terminate(function: Callable[[], NoReturn]) -> None:
  for name in ('libstdc++.so.6', '/usr/lib/libc++abi.dylib'):
    with contextlib.suppress(OSError, AttributeError):
      set_handler = ctypes.CDLL(name)._ZSt13set_terminatePFvvE
      set_handler.argtypes, set_handler.restype = [_HANDLER], ctypes.c_void_p
      _handlers.append(_HANDLER(function))
      set_handler(_handlers[-1])
      return
