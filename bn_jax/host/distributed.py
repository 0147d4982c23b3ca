"""jax.distributed, made to leave with a line where it would abort.

The only file that touches what is private in jax.
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
from bn_jax.host import cluster

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
  where: cluster.Place, timeout: int, lost: Callable[[], NoReturn]
) -> Runtime:
  """Joins the other processes, before anything else of jax happens.

  Args:
    where: they meet; None in it is asked of the cluster by jax.
    timeout: seconds in which all must be there.
    lost: called, in some thread, when process 0 is gone; it must not return.

  Raises:
    ConfigError: the cluster does not say where, or the port there is taken.
    Interrupted: not all came in time: starting again may help.
  """
  # Losses are told by us, in a line; the runtime has pages about them.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  import jax
  from jax._src import distributed

  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  # One mechanism for signals, see `watch.Peers.stopping`.
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
  except BaseException as error:
    state.client = state.service = None  # jax would wait for them at the end
    if isinstance(error, errors.Failure) or not isinstance(error, Exception):
      raise
    # Of jax, which asked the cluster:
    if isinstance(error, (ValueError, TypeError)):
      raise errors.ConfigError(
        f'--distributed: {errors.first_line(error)}'
      ) from error
    why = 'not all came'
    if 'bad_cast' not in str(error):  # see `_asking`: that says no more
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
  """Within, SIGTERM and Ctrl-C call `leave` at once, in a thread.

  A handler in Python would run when `join` has met the others, or has not.
  Signals that have no handler do what they do anyhow.
  """
  if threading.current_thread() is not threading.main_thread():
    yield  # signals are the main thread's
    return

  def watch():
    while numbers := os.read(seen, 1):
      if numbers[0] in (signal.SIGTERM, signal.SIGINT):
        leave()

  seen, told = os.pipe()
  os.set_blocking(told, False)
  old = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
  thread = threading.Thread(target=watch, name='signals', daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(old)
    os.close(told)
    thread.join()
    os.close(seen)


def part() -> None:
  """Lets go of the others, who do the same."""
  import jax

  with contextlib.suppress(Exception):
    jax.distributed.shutdown()


@contextlib.contextmanager
def _asking(distributed, lost: Callable[[], NoReturn]) -> Iterator[None]:
  """Makes jax call `lost` when its runtime has lost process 0.

  The runtime would abort with a page of text. jax has no argument for it, and
  its binding of this one ends in `std::terminate` (the reason has no form in
  Python; jaxlib 0.10): so we are asked in both ways. Process 0 would end in a
  segmentation fault where its port is taken.
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
  """Whether process 0 can listen at host:port; [::] is every address."""
  host, _, port = address.rpartition(':')
  v4 = '' if host == '[::]' else host
  for family, at in (
    (socket.AF_INET6, host.strip('[]')), (socket.AF_INET, v4)
  ):  # fmt: skip
    try:
      with socket.socket(family, socket.SOCK_STREAM) as one:
        # As the server will: what a run before left behind is no hindrance.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
          one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        one.bind((at, int(port)))
        return
    except OSError as error:  # else there is no IPv6, or jax says why
      if error.errno == errno.EADDRINUSE:
        raise errors.ConfigError(
          f'--coordinator_address: port {port} is in use; give another'
        ) from error


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
