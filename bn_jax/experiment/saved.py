"""Runs that were trained, read back from their directories."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from bn_jax import errors, types
from bn_jax.config import resolve
from bn_jax.experiment import run as run_lib
from bn_jax.storage import checkpoint, records

_MANIFEST = {'run': str, 'seed': int, 'config': {'devices': int}}


class Trained(NamedTuple):
  """One run with one seed, as its directory holds it.

  Attributes:
    directory: WORKDIR/run/seedK.
    manifest: what it is, see `manifest`.
    config: its resolved config, on as many devices as there are here.
  """

  directory: pathlib.Path
  manifest: Mapping[str, Any]
  config: dict[str, Any]

  @property
  def label(self) -> str:
    return f'{self.manifest["run"]}/seed{self.manifest["seed"]}'


def find(path: pathlib.Path) -> list[Trained]:
  """The runs at WORKDIR, WORKDIR/run or WORKDIR/run/seedK, in order.

  Raises:
    ConfigError: there are none, or they are older than a key of the config.
  """
  for above in ('.', 'seed*', '*/seed*'):
    found = sorted(path.glob(f'{above}/manifest.json'))
    if found:
      return [_read(manifest) for manifest in found]
  raise errors.ConfigError(
    f'{path} holds no run; give WORKDIR/run or WORKDIR/run/seedK'
  )


def _read(path: pathlib.Path) -> Trained:
  manifest = records.read_json(path, _MANIFEST)
  config = resolve.filled(manifest['config'])
  missing = [key for key in resolve.KEYS if key not in config]
  if missing:
    raise errors.ConfigError(
      f'{path.parent} was trained before config.{missing[0]} was a key; train '
      'it again'
    )
  # The numbers are the same on any number of devices.
  if config['devices'] > len(jax.devices()):
    config['devices'] = 1
  return Trained(path.parent, manifest, config)


def steps(run: Trained) -> tuple[int, ...]:
  """The steps of which a run has kept its state, in order."""
  return run_lib.checkpoints_of(run.config, run.directory).steps()


def newest(
  run: Trained, made: types.Problem, step: int | None = None
) -> types.TrainState:
  """The newest saved state of a run, or that of a step; its ring is empty.

  Damaged ones are left out, and named; not that of a step that is asked for.

  Args:
    run: as `find` says.
    made: its problem.
    step: one of `steps`; None is the newest.

  Raises:
    CheckpointError: there is none, or it is damaged or of another network.
  """
  like = run_lib.without_ring(jax.eval_shape(made.init, 0))
  there = run_lib.checkpoints_of(run.config, run.directory)
  saved = there.newest(like) if step is None else there.restore(step, like)
  if saved is None:
    raise errors.CheckpointError(f'{run.directory} holds no checkpoint yet')
  return run_lib.placed(saved, run.config, made)


def population(
  run: Trained, made: types.Problem, state: types.TrainState
) -> types.TrainState:
  """The state with the statistics that `recalibrate` found for it.

  Raises:
    CheckpointError: it did not, or for another step.
  """
  there = checkpoint.Checkpoints(run.directory / 'population')
  step = there.latest()
  if step is None:
    raise errors.CheckpointError(
      f'{run.directory} holds no population statistics; make them: python -m '
      f'bn_jax recalibrate {run.directory}'
    )
  if step != int(state.step):
    raise errors.CheckpointError(
      f'{run.directory / "population"} is of step {step}, the network of step '
      f'{int(state.step)}; make it anew: python -m bn_jax recalibrate '
      f'{run.directory}'
    )
  saved = there.restore(step, run_lib.without_ring(state))
  return run_lib.placed(saved, run.config, made)
