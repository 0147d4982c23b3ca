"""Joins processes by jax.distributed, and reports its errors in one line.

jax itself would abort with pages of text. This is the only module that uses
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

# Seconds of silence after which jax's runtime declares a process lost: longer
# than `watch._SILENCE`, so that the watch, which names the process, is first.
_SILENCE = 40


class Runtime(NamedTuple):
  """The runtime that connects the processes.

  Attributes:
    client: of its key-value store.
    index: of this process, from 0 on.
    count: number of processes.
  """

  client: Any
  index: int
  count: int


def join(
  where: cluster.Place, timeout: int, lost: Callable[[], NoReturn]
) -> Runtime:
  """Joins the other processes; call it before anything else of jax.

  Args:
    where: the address of process 0, and which process this is.
    timeout: seconds in which all must join.
    lost: called, in a thread of jax, when process 0 is gone; must not return.

  Raises:
    ConfigError: the cluster does not tell jax enough, or the port is in use.
    Interrupted: not all joined in time; starting again may help.
  """
  # Hides the runtime's pages about a loss; `watch` reports it in one line.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  import jax
  from jax._src import distributed

  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  # jax would handle SIGTERM too, which `watch.Peers.stopping` answers.
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
    # jax raises these types if the cluster does not tell enough; others too,
    # before it knows where to meet.
    is_untold = isinstance(error, (ValueError, TypeError))
    if is_untold or not (
      where.coordinator_address or state.coordinator_address
    ):
      raise errors.ConfigError(
        "--distributed: the cluster's variables do not say where the processes "
        f'meet, or which this is ({errors.first_line(error)}); give '
        '--coordinator_address=HOST:PORT (of process 0), --num_processes=N and '
        '--process_id=K, or --distributed=off to train with this one alone'
      ) from error
    why = 'not all came'
    if 'bad_cast' not in str(error):  # else jax's text is lost: see `_calling`
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

  A Python handler would run only after `join`. Signals that have no Python
  handler keep their effect.
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
  no argument for a callback. The runtime itself takes one, but calling it ends
  in `std::terminate`, as the callback's argument cannot be converted to Python
  (jaxlib 0.10). So `lost` is both that callback and the handler of `terminate`.

  The port of process 0 is checked too, since jax ends in a segmentation fault
  if it is in use.
  """
  make_client = distributed._jax.get_distributed_runtime_client
  make_service = distributed._jax.get_distributed_runtime_service

  def client(*arguments, **keywords):
    return make_client(
      *arguments,
      **keywords,
      missed_heartbeat_callback=lambda *reason: lost(),
      shutdown_on_destruction=False,
    )

  def service(address, *arguments, **keywords):
    _check_free(address)
    return make_service(address, *arguments, **keywords)

  distributed._jax.get_distributed_runtime_client = client
  distributed._jax.get_distributed_runtime_service = service
  try:
    yield
    _on_terminate(lost)
  finally:
    distributed._jax.get_distributed_runtime_client = make_client
    distributed._jax.get_distributed_runtime_service = make_service


def _check_free(address: str) -> None:
  """Raises ConfigError if host:port is in use; host [::] is every address."""
  host, _, port = address.rpartition(':')
  ipv4_host = '' if host == '[::]' else host
  for family, family_host in (
    (socket.AF_INET6, host.strip('[]')), (socket.AF_INET, ipv4_host)
  ):  # fmt: skip
    try:
      with socket.socket(family, socket.SOCK_STREAM) as server:
        # As jax's server does: a port that a run has just left is free.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
          server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((family_host, int(port)))
        return
    except OSError as error:  # others: no IPv6, or jax reports them itself
      if error.errno == errno.EADDRINUSE:
        raise errors.ConfigError(
          f'--coordinator_address: port {port} is in use; give another one'
        ) from error


_HANDLER = ctypes.CFUNCTYPE(None)
_handlers = []  # keeps handlers alive, as C++ holds no reference


def _on_terminate(function: Callable[[], NoReturn]) -> None:
  """Sets the handler of `std::terminate`, where a C++ library is found."""
  for name in ('libstdc++.so.6', '/usr/lib/libc++abi.dylib'):
    with contextlib.suppress(OSError, AttributeError):
      set_handler = ctypes.CDLL(name)._ZSt13set_terminatePFvvE
      set_handler.argtypes, set_handler.restype = [_HANDLER], ctypes.c_void_p
      _handlers.append(_HANDLER(function))
      set_handler(_handlers[-1])
      return
