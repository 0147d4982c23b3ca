"""Reads back what a trained run has saved, onto this machine's devices."""

import functools
import logging

import jax

from bn_jax import errors, modules, plugins, types
from bn_jax.config import differences, schema
from bn_jax.config.run_config import RunConfig
from bn_jax.experiment import manifest
from bn_jax.experiment import run as run_lib
from bn_jax.storage import chain, checkpoint
from bn_jax.storage.run_folder import RunFolder

_log = logging.getLogger('bn_jax')


class NoPopulation(errors.CheckpointError):
  """Raised for a run whose population statistics were not estimated yet."""


def config_of(folder: RunFolder) -> RunConfig:
  """Returns the resolved config of a run, for devices that this machine has.

  Raises:
    ConfigError: it is older than a key of the config, or a user's module that
      it was trained by is gone, or fails.
    CheckpointError: its newest checkpoint is another run's.
    StorageError: the manifest was changed, or is of another experiment.
  """
  chain.check_owner(folder)
  own_modules = folder.manifest.get('modules') or {}
  own = {k: v for k, v in folder.manifest['config'].items() if k != 'measures'}
  with modules.bound(own_modules):
    plugins.files(schema.references(own))  # are there, and do not fail
    filled = differences.filled(folder.manifest['config'])
  config = RunConfig.of(filled, folder.path, own_modules)
  # The numbers are the same on any number of devices.
  if config.devices > len(jax.devices()):
    config = config.replace(devices=1)
  return config


def steps(folder: RunFolder) -> tuple[int, ...]:
  """Returns the steps of the checkpoints that a run has kept, in order."""
  return checkpoint.Checkpoints(folder.checkpoints).steps()


def check_step(folder: RunFolder, step: int, where: str = '') -> None:
  """Raises ConfigError unless a step has a checkpoint, or is 0.

  Args:
    where: what the message begins with.
  """
  kept_steps = steps(folder)
  if step and step not in kept_steps:
    others = [str(other) for other in kept_steps if other]
    allowed = ', '.join(['0 (made from the seed)', *others])
    raise errors.ConfigError(
      f'{where}{folder.label} has no checkpoint of step {step}; allowed: '
      f'{allowed} (config.checkpoint.keep says how many training keeps)'
    )


def newest(
  folder: RunFolder,
  config: RunConfig,
  problem: types.Problem,
  step: int | None = None,
) -> types.TrainState:
  """Returns the newest saved state, or that of a step; its ring is empty.

  Args:
    step: one of `steps`; None is the newest undamaged one, and damaged ones are
      named.

  Raises:
    CheckpointError: there is none, or it is damaged, or of another network or
      experiment.
  """
  _tell_change(folder, config)
  shapes = run_lib.without_ring(jax.eval_shape(problem.init, 0))
  checkpoints = run_lib.checkpoints_of(config, folder)
  saved = (
    checkpoints.newest(shapes)
    if step is None
    else checkpoints.restore(step, shapes)
  )
  if saved is None:
    raise errors.CheckpointError(f'{folder.path} holds no checkpoint yet')
  return run_lib.placed(saved, config, problem)


def population(
  folder: RunFolder,
  config: RunConfig,
  problem: types.Problem,
  state: types.TrainState,
) -> types.TrainState:
  """Returns the state with the population statistics of `recalibrate`.

  Raises:
    CheckpointError: there are none, or they are damaged or of another step.
  """
  checkpoints = run_lib.checkpoints_of(config, folder, folder.population)
  step = checkpoints.latest()
  if step is None:
    raise NoPopulation(
      f'{folder.path} holds no population statistics; make them: python -m '
      f'bn_jax recalibrate {folder.path}'
    )
  if step != int(state.step):
    raise errors.CheckpointError(
      f'{folder.population} is of step {step}, the network of step '
      f'{int(state.step)}; make it anew: python -m bn_jax recalibrate '
      f'{folder.path}'
    )
  saved = checkpoints.restore(step, run_lib.without_ring(state))
  source = checkpoints.about(step).get('source')
  if source and source != chain.state_digest(folder.checkpoints, step):
    raise errors.CheckpointError(
      f'{folder.population} was made from another checkpoint of step {step}; '
      f'make it anew: python -m bn_jax recalibrate {folder.path}'
    )
  placed = run_lib.placed(saved, config, problem)
  # The population statistics are of the parameters, not of their average.
  return placed._replace(average=())


@functools.lru_cache
def _warn(sentence: str) -> None:
  """Warns once, though the states of many steps are read."""
  _log.warning('%s', sentence)


def _tell_change(folder: RunFolder, config: RunConfig) -> None:
  """Warns of data that have changed since a run was trained.

  Raises:
    DataError: see `manifest.check_data`.
  """
  manifest.check_data(folder, config)
  if change := manifest.change_of_data(folder, config):
    _warn(f'{folder.label}: {change}')
