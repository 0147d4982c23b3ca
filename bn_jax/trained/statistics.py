"""Goes on with the runs that have statistics of the population.

A working directory often holds runs with and without them: a network without
norms beside one with Batch Normalization.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax

from bn_jax import errors, types
from bn_jax.experiment import saved
from bn_jax.host import memory
from bn_jax.storage.run_folder import RunFolder


class NoStatistics(errors.ConfigError):
  """Raised for a network whose norms have no statistics to estimate."""


def check(
  folder: RunFolder,
  problem: types.Problem,
  given: str = '--statistics: population',
  allowed: str = 'batch, running',
) -> None:
  """Raises NoStatistics for a network that can have none of the population.

  Args:
    given: what asks for them, as a message says it.
    allowed: in place of them.
  """
  if not keeps(problem):
    raise NoStatistics(
      f'{given}; {folder.label} keeps no statistics; allowed: {allowed}'
    )


def keeps(problem: types.Problem) -> bool:
  """Returns whether a network keeps statistics that can be estimated."""
  return problem.keeps_statistics(jax.eval_shape(problem.init, 0))


def having(runs: Iterable[Any], make: Callable[[Any], Any]) -> list[Any]:
  """Returns make(run) of the runs that have statistics; names the others.

  Args:
    make: raises NoStatistics or saved.NoPopulation for a run without.

  Raises:
    NoStatistics, NoPopulation: no run has them; one that says how to make them,
      if there is one.
  """
  made, lacking = [], []
  for run in runs:
    try:
      made.append(make(run))
      memory.drop_old_programs()
    except (NoStatistics, saved.NoPopulation) as error:
      lacking.append(error)
  if lacking and not made:
    raise min(lacking, key=lambda error: isinstance(error, NoStatistics))
  for error in lacking:
    sys.stderr.write(f'{error}; left out\n')
  return made
