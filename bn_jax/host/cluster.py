"""Finds out whether this process is one of several, and where all meet."""

import importlib.util
import logging
from collections.abc import Mapping
from typing import NamedTuple

from bn_jax import errors

_log = logging.getLogger('bn_jax')
_KUBERNETES, _OPEN_MPI = 'Kubernetes', 'Open MPI'
_RANK = 'OMPI_COMM_WORLD_RANK'


def tasks(environment: Mapping[str, str]) -> tuple[str, int | None] | None:
  """Returns (kind of cluster, number of processes), or None for one process.

  The number is None if jax has to ask the cluster for it.
  """

  def has(*names):
    return all(name in environment for name in names)

  slurm = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_PROCID')
  # Not SLURM_NTASKS, which a batch script has too without being a task.
  if has('SLURM_STEP_NUM_TASKS', 'SLURM_LOCALID', *slurm):
    return _if_several('SLURM', environment['SLURM_STEP_NUM_TASKS'])
  if has('OMPI_COMM_WORLD_SIZE', _RANK):
    return _if_several(_OPEN_MPI, environment['OMPI_COMM_WORLD_SIZE'])
  if has('KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'):
    return _KUBERNETES, None
  for hosts in ('TPU_PROCESS_ADDRESSES', 'TPU_WORKER_HOSTNAMES'):
    if has(hosts):
      return _if_several('TPU pod', str(environment[hosts].count(',') + 1))
  return None


def _if_several(kind: str, count: str) -> tuple[str, int] | None:
  """Returns (kind, count) if the count is a number above 1, else None."""
  return (kind, int(count)) if count.isdecimal() and int(count) > 1 else None


class Place(NamedTuple):
  """Where the processes meet, and which of them this one is.

  jax asks the cluster for each value that is None.

  Attributes:
    coordinator_address: host:port at which process 0 listens.
    num_processes: how many processes there are.
    process_id: the index of this process, from 0 on.
  """

  coordinator_address: str | None = None
  num_processes: int | None = None
  process_id: int | None = None


def place(
  mode: str, flags: Place, environment: Mapping[str, str]
) -> Place | None:
  """Returns how to join the other processes, or None if there are none.

  Args:
    mode: 'off' joins nothing; 'auto' joins if `environment` or `flags` tell of
      several processes; 'on' also if neither tells of any.
    flags: the values that the user gave, None for the others.
    environment: the variables of the process, as in os.environ.

  Raises:
    ConfigError: an unknown mode; flags that are incomplete, out of range or
      contradict each other; or Kubernetes without its Python package.
  """
  if mode not in ('auto', 'on', 'off'):
    raise errors.ConfigError(f'--distributed: {mode!r}; allowed: auto, on, off')
  cluster_tasks = tasks(environment)
  has_flags = any(value is not None for value in flags)
  if flags.coordinator_address is None:
    address = environment.get('JAX_COORDINATOR_ADDRESS')
    flags = flags._replace(coordinator_address=address)
  if mode == 'off':
    return None
  if has_flags or cluster_tasks is not None or mode == 'on':
    _check(flags)
  is_kubernetes = cluster_tasks is not None and cluster_tasks[0] == _KUBERNETES
  if is_kubernetes and not _has_package():
    if not has_flags or None in flags:
      return _refuse_or_warn(mode, has_flags)
    cluster_tasks = None  # the flags suffice
  if cluster_tasks is None and has_flags:
    _check_complete(flags)
    return flags if flags.num_processes > 1 else None
  if cluster_tasks is None:  # jax can ask a TPU, whose host may show nothing
    return flags if mode == 'on' else None
  process_id = flags.process_id
  rank = environment.get(_RANK) or ''
  # From version 5 on Open MPI has no variable by which jax knows it.
  if cluster_tasks[0] == _OPEN_MPI and process_id is None and rank.isdecimal():
    process_id = int(rank)
  return flags._replace(
    num_processes=flags.num_processes or cluster_tasks[1], process_id=process_id
  )


def _has_package() -> bool:
  return importlib.util.find_spec('kubernetes') is not None


def _refuse_or_warn(mode: str, has_flags: bool) -> None:
  """Warns that a pod trains alone, or raises if it was told to join others."""
  why = (
    'Kubernetes is asked for the number of processes through a package that is '
    'missing: pip install kubernetes'
  )
  if mode == 'on' or has_flags:
    raise errors.ConfigError(
      f'--distributed={mode}: {why}, or give --coordinator_address, '
      '--num_processes and --process_id'
    )
  _log.warning(
    'each pod trains alone: %s, or give --distributed=off if you mean that', why
  )


def _check_complete(flags: Place) -> None:
  """Raises ConfigError unless the flags alone say how to join."""
  missing = [
    f'--{name}' for name, value in flags._asdict().items() if value is None
  ]
  if missing:
    raise errors.ConfigError(
      f'{" and ".join(missing)} missing, and no cluster tells of several tasks '
      '(SLURM, Open MPI, Kubernetes, a TPU pod); give '
      '--coordinator_address=HOST:PORT --num_processes=N --process_id=0..N-1, '
      'or --distributed=off'
    )


def _check(flags: Place) -> None:
  """Raises ConfigError for a flag that is out of range."""
  address, count, process = flags
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
