"""Options of sbatch: as a command line gives them, as submitit takes them."""

import re
from collections.abc import Sequence
from typing import Any

from bn_jax import errors

_DELAY = 90  # seconds before the end of a job's time in which it is told
_TIME = re.compile(r'(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?')


def parse(options: Sequence[str]) -> dict[str, str]:
  """'KEY=VALUE' as key -> value, keys as sbatch spells them.

  Raises:
    ConfigError: no such pair, or no time.
  """
  found = {}
  for option in options:
    match = re.fullmatch(r'(?:--)?([a-z][a-z_-]*)=(.+)', option)
    if not match:
      raise errors.ConfigError(
        f'--slurm {option}: allowed: KEY=VALUE, an option of sbatch, such as '
        'partition=gpu'
      )
    found[match[1].replace('_', '-')] = match[2]
  if 'time' not in found:
    raise errors.ConfigError(
      '--slurm time=MINUTES is missing; at the end of it a job saves its state '
      'and is queued again'
    )
  _minutes(found['time'])
  return found


def parameters(options: dict[str, str], at_once: int | None) -> dict[str, Any]:
  """The options of sbatch in submitit's words."""
  options = dict(options)
  minutes = _minutes(options.pop('time'))
  found = {
    'name': 'bn_jax',
    'slurm_time': minutes,
    'slurm_signal_delay_s': min(_DELAY, 30 * minutes),
  }
  if at_once is not None:
    found['slurm_array_parallelism'] = at_once
  # srun does not take it over from sbatch since SLURM 22.05.
  if 'cpus-per-task' in options:
    found['slurm_srun_args'] = ['--cpus-per-task', options['cpus-per-task']]
  if options:
    found['slurm_additional_parameters'] = options
  return found


def _minutes(text: str) -> int:
  """SLURM's time in minutes: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
  match = _TIME.fullmatch(text)
  if not match:
    raise errors.ConfigError(
      f'--slurm time={text}: allowed: MINUTES, HOURS:MINUTES:SECONDS, '
      'DAYS-HOURS'
    )
  days, *rest = match.groups()
  first, second, third = (int(part or 0) for part in rest)
  if days is not None:
    minutes = (int(days) * 24 + first) * 60 + second + third / 60
  elif rest[2] is not None:
    minutes = first * 60 + second + third / 60
  else:
    minutes = first + second / 60
  if minutes < 1:
    raise errors.ConfigError(f'--slurm time={text}: allowed: a minute or more')
  return int(minutes)
