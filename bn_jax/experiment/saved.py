"""Reads back what a trained run has saved, onto this machine."""

import jax

from bn_jax import errors, types
from bn_jax.config import differences
from bn_jax.config.run_config import RunConfig
from bn_jax.experiment import run as run_lib
from bn_jax.storage import checkpoint
from bn_jax.storage.run_folder import RunFolder


def config_of(folder: RunFolder) -> RunConfig:
  """Returns the resolved config of a run, on as many devices as are here.

  Raises:
    ConfigError: it is older than a key of the config.
    StorageError: a manifest that was changed.
  """
  config = RunConfig.of(
    differences.filled(folder.manifest['config']), folder.path
  )
  # The numbers are the same on any number of devices.
  if config.devices > len(jax.devices()):
    config = config.replace(devices=1)
  return config


def steps(folder: RunFolder) -> tuple[int, ...]:
  """Returns the steps of which a run has kept its state, in order."""
  return checkpoint.Checkpoints(folder.checkpoints).steps()


def newest(
  folder: RunFolder,
  config: RunConfig,
  problem: types.Problem,
  step: int | None = None,
) -> types.TrainState:
  """Returns the newest saved state, or that of a step; its ring is empty.

  Damaged ones are left out, and named; not that of a step that is asked for.

  Args:
    step: one of `steps`; None is the newest.

  Raises:
    CheckpointError: there is none, or it is damaged or of another network.
  """
  like = run_lib.without_ring(jax.eval_shape(problem.init, 0))
  checkpoints = run_lib.checkpoints_of(config, folder)
  saved = (
    checkpoints.newest(like)
    if step is None
    else checkpoints.restore(step, like)
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
    CheckpointError: there are none, or of another step.
  """
  checkpoints = checkpoint.Checkpoints(folder.population)
  step = checkpoints.latest()
  if step is None:
    raise errors.CheckpointError(
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
  return run_lib.placed(saved, config, problem)
