"""Runs that were trained, read back from their directories."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from bn_jax import (
  assemble,
  checkpoint,
  errors,
  records,
  resolve,
  trainer,
  types,
)

_MANIFEST = {'run': str, 'seed': int, 'config': {'devices': int}}


class Trained(NamedTuple):
  """One run with one seed, as its directory holds it.

  Attributes:
    directory: WORKDIR/run/seedK.
    manifest: what it is, see `trainer`.
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
  config = dict(manifest['config'])
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
  folder = run.directory / 'checkpoints'
  if not folder.is_dir():
    return ()
  saved = checkpoint.Checkpoints(folder)
  try:
    return saved.steps()
  finally:
    saved.close()


def newest(
  run: Trained, made: types.Problem, step: int | None = None
) -> types.TrainState:
  """The newest saved state of a run, or that of a step; its ring is empty.

  Args:
    run: as `find` says.
    made: its problem.
    step: one of `steps`; None is the newest.

  Raises:
    CheckpointError: there is none, or it is damaged or of another network.
  """
  folder = run.directory / 'checkpoints'
  shapes = trainer.without_ring(jax.eval_shape(made.init, 0))
  place = trainer.without_ring(assemble.placement(run.config, made))
  like = jax.tree.map(
    lambda leaf, where: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=where
    ),
    shapes,
    place,
  )
  if not folder.is_dir():
    raise errors.CheckpointError(f'{run.directory} holds no checkpoint yet')
  saved = checkpoint.Checkpoints(folder)
  try:
    step = saved.latest() if step is None else step
    if step is None:
      raise errors.CheckpointError(f'{run.directory} holds no checkpoint yet')
    return saved.restore(step, like)
  finally:
    saved.close()


def population(run: Trained, state: types.TrainState) -> types.TrainState:
  """The state with the statistics that `recalibrate` found for it.

  Raises:
    CheckpointError: it did not, or for another step.
  """
  folder = run.directory / 'population'
  if not folder.is_dir():
    raise errors.CheckpointError(
      f'{run.directory} holds no population statistics; make them: python -m '
      f'bn_jax recalibrate {run.directory}'
    )
  saved = checkpoint.Checkpoints(folder)
  try:
    if saved.latest() != int(state.step):
      raise errors.CheckpointError(
        f'{folder} is of step {saved.latest()}, the network of step '
        f'{int(state.step)}; make it anew: python -m bn_jax recalibrate '
        f'{run.directory}'
      )
    return saved.restore(saved.latest(), trainer.without_ring(state))
  finally:
    saved.close()
