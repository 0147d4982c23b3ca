"""Whether this process is one of several, and where they meet."""

import importlib.util
import logging
from collections.abc import Mapping
from typing import NamedTuple

from bn_jax import errors

_log = logging.getLogger('bn_jax')
_KUBERNETES = 'Kubernetes'


def tasks(environment: Mapping[str, str]) -> tuple[str, int | None] | None:
  """(who started this process, of how many), where these may be several.

  None where a process stands alone; the number is None where jax has to ask
  for it.
  """

  def has(*names):
    return all(name in environment for name in names)

  step = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_PROCID')
  # A batch script has the job's number of tasks, but is no task itself.
  if has('SLURM_STEP_NUM_TASKS', 'SLURM_LOCALID', *step):
    return _if_several('SLURM', environment['SLURM_STEP_NUM_TASKS'])
  if has('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'):
    return _if_several('Open MPI', environment['OMPI_COMM_WORLD_SIZE'])
  if has('KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'):
    return _KUBERNETES, None
  for hosts in ('TPU_PROCESS_ADDRESSES', 'TPU_WORKER_HOSTNAMES'):
    if has(hosts):
      return _if_several('TPU pod', str(environment[hosts].count(',') + 1))
  return None


def _if_several(kind: str, count: str) -> tuple[str, int] | None:
  return (kind, int(count)) if count.isdecimal() and int(count) > 1 else None


class Place(NamedTuple):
  """Where the processes meet, and who of them this one is; None is asked for.

  Attributes:
    coordinator_address: host:port of process 0.
    num_processes: of all.
    process_id: of this one.
  """

  coordinator_address: str | None = None
  num_processes: int | None = None
  process_id: int | None = None


def place(
  mode: str, given: Place, environment: Mapping[str, str]
) -> Place | None:
  """How to join, None where this process stays alone.

  Args:
    mode: 'auto' joins where the environment or `given` shows several processes,
      'on' insists, 'off' does not.
    given: by flags.
    environment: as os.environ.

  Raises:
    ConfigError: an unknown mode, flags that do not say enough or contradict
      each other, nothing that says how.
  """
  if mode not in ('auto', 'on', 'off'):
    raise errors.ConfigError(f'--distributed: {mode!r}; allowed: auto, on, off')
  found = tasks(environment)
  by_flags = any(value is not None for value in given)
  if given.coordinator_address is None:
    address = {**environment}.get('JAX_COORDINATOR_ADDRESS')
    given = given._replace(coordinator_address=address)
  if mode == 'off':
    return None
  if by_flags or found is not None or mode == 'on':
    _check(given)
  if found is not None and found[0] == _KUBERNETES and not _has_kubernetes():
    if not by_flags or None in given:
      return _unasked(mode, by_flags)
    found = None  # the flags say all
  if found is None and by_flags:
    _check_all_there(given)
    return given if given.num_processes > 1 else None
  if found is None:  # jax can ask a TPU's host, which shows nothing here
    return given if mode == 'on' else None
  return given._replace(num_processes=given.num_processes or found[1])


def _has_kubernetes() -> bool:
  return importlib.util.find_spec('kubernetes') is not None


def _unasked(mode: str, by_flags: bool) -> None:
  """Says what becomes of a pod that cannot ask for the others."""
  why = (
    'Kubernetes is asked for the number of processes through a package that is '
    'missing: pip install kubernetes'
  )
  if mode == 'on' or by_flags:
    raise errors.ConfigError(
      f'--distributed: {mode}; {why}, or give --coordinator_address, '
      '--num_processes and --process_id'
    )
  _log.warning(
    'each pod trains alone: %s, or say --distributed=off if that is meant', why
  )


def _check_all_there(given: Place) -> None:
  """Whether flags alone say how to join."""
  missing = [
    f'--{name}' for name, value in given._asdict().items() if value is None
  ]
  if missing:
    raise errors.ConfigError(
      f'{" and ".join(missing)} missing, and nothing is seen that started '
      'several tasks (SLURM, Open MPI, Kubernetes, a TPU pod); give '
      '--coordinator_address=HOST:PORT --num_processes=N --process_id=0..N-1, '
      'or --distributed=off'
    )


def _check(given: Place) -> None:
  """Whether each value that is given can be one."""
  address, count, process = given
  if address is not None and not _is_address(address):
    raise errors.ConfigError(
      f'--coordinator_address: {address!r}; allowed: HOST:PORT of process 0'
    )
  if count is not None and count < 1:
    raise errors.ConfigError(f'--num_processes: {count}; allowed: 1 or more')
  if None not in (process, count) and not 0 <= process < count:
    raise errors.ConfigError(
      f'--process_id: {process}; allowed: 0 to {count - 1}, of '
      f'--num_processes={count}'
    )


def _is_address(address: str) -> bool:
  host, _, port = address.rpartition(':')
  return bool(host) and port.isdecimal() and 0 < int(port) < 2**16
