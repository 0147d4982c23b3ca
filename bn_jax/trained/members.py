"""Reads a trained network back, with the statistics that its norms use."""

import pathlib
from typing import Any, NamedTuple

import jax

from bn_jax import errors, types
from bn_jax.config import build
from bn_jax.config.run_config import RunConfig
from bn_jax.experiment import saved
from bn_jax.storage.run_folder import RunFolder
from bn_jax.trained import statistics as statistics_lib

# In place of a word of --statistics: of a network for which all are the same.
ANY = 'any'


class Member(NamedTuple):
  """A trained network with one kind of statistics.

  Attributes:
    label: RUN/seedK; its whole path, where another has that label too.
    state: the newest saved, of the weights that --weights asks for; its
      batch_stats are the population's if `statistics` says so.
    statistics: a word of --statistics; `ANY`, where they make no difference.
  """

  label: str
  path: pathlib.Path
  problem: types.Problem
  state: types.TrainState
  statistics: str

  def outputs(self, batch: types.Batch) -> jax.Array:
    """Returns the network's outputs, [B, K]."""
    kind, _, number = self.statistics.partition(':')
    if kind == 'mixture' or kind == 'test_batch':
      return self.problem.adapted(self.state, batch, float(number or 0))
    return self.problem.outputs(self.state, batch, statistics='running')


def of(folder: RunFolder, config: RunConfig, values: Any) -> list[Member]:
  """Returns a trained network with each of the statistics asked for.

  Where all of several are the same to it, it comes once, with `ANY`.

  Args:
    values: the flags of the command `evaluate`, as attributes.

  Raises:
    ConfigError: no average for --weights=ema, or population statistics of it; a
      network that keeps none (`NoStatistics`).
    CheckpointError: no checkpoint, or no population statistics.
  """
  problem = build.problem(config)
  state = saved.newest(folder, config, problem)
  words = values.statistics
  if values.weights == 'ema':
    if 'population' in words:
      raise errors.ConfigError(
        '--statistics: population with --weights=ema; allowed: running, '
        'test_batch, mixture:N; recalibrate estimates those of the trained '
        'weights'
      )
    if not state.average:
      raise errors.ConfigError(
        f'--weights: ema; {folder.label} was trained without config.ema, and '
        'keeps no average'
      )
    state = state.averaged()
  if len(words) > 1 and _is_any(problem):
    words = (ANY,)
  states = dict.fromkeys(words, state)
  if 'population' in words:
    statistics_lib.check(
      folder, problem, allowed='running, test_batch, mixture:N'
    )
    states['population'] = saved.population(folder, config, problem, state)
  return [
    Member(folder.label, folder.path, problem, state, statistics)
    for statistics, state in states.items()
  ]


def _is_any(problem: types.Problem) -> bool:
  """Returns whether a network does the same with all statistics."""
  return problem.group_size == 1 and not statistics_lib.keeps(problem)
