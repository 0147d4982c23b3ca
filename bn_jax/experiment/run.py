"""Trains one run with one seed, from its resolved config to its files."""

import contextlib
import logging
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from bn_jax import errors, modules, types
from bn_jax.config import build, differences
from bn_jax.config.run_config import RunConfig
from bn_jax.data import datasets
from bn_jax.experiment import divergence
from bn_jax.experiment import manifest as manifest_lib
from bn_jax.experiment import outputs as outputs_lib
from bn_jax.experiment import probes as probes_lib
from bn_jax.host import processes
from bn_jax.storage import (
  array_files,
  chain,
  checkpoint,
  files,
  lock,
  records,
  run_folder,
)
from bn_jax.training import devices, loop

_log = logging.getLogger('bn_jax')


class Program(NamedTuple):
  """What all seeds of a run share, compiled once.

  Attributes:
    config: of the run.
    problem: its network, objective and optimizer.
    init: its state before the first step, jitted.
    step: one update of a state, which it consumes, by the next of `feed`.
    feed: what the steps draw their batches from.
    probes: its measures.
    moments: (mean, standard deviation) that inputs are normalised by, [C].
  """

  config: RunConfig
  problem: types.Problem
  init: Callable[[int], types.TrainState]
  step: Callable[[types.TrainState], types.TrainState]
  feed: datasets.Feed
  probes: list[loop.Probe]
  moments: tuple[Any, Any]


def program(
  config: RunConfig,
  problem: types.Problem,
  dataset: datasets.Dataset,
  check_stop: Callable[[], None] = lambda: None,
) -> Program:
  """Returns the program of a resolved run over a dataset.

  Args:
    problem: what `build.problem` returns for the config.
    dataset: not on its devices yet.
    check_stop: called before each batch of a measure; it raises to end that.
  """
  whole = devices.whole(build.mesh(config))
  moments = dataset.train.moments()
  dataset = datasets.Dataset(*(part.placed(whole) for part in dataset))
  feed = dataset.train.feed(config.batch_size)
  compiled = build.step(config, problem)

  def step(state):
    with jax.default_matmul_precision(config.matmul_precision):
      return compiled(state, feed.take())

  probes = probes_lib.probes(config, problem, dataset, feed, check_stop)
  init = build.init(config, problem)
  return Program(config, problem, init, step, feed, probes, moments)


def is_done(folder: run_folder.RunFolder, config: RunConfig) -> bool:
  """Returns whether a seed has nothing left to train."""
  if folder.status == 'diverged':
    return not divergence.goes_on(folder.manifest['config'], config.max_skips)
  return folder.status == 'done' and folder.step >= config.steps


def checkpoints_of(
  config: RunConfig,
  folder: run_folder.RunFolder,
  directory: pathlib.Path | None = None,
) -> checkpoint.Checkpoints:
  """Returns the checkpoints of a run, which say whose they are.

  Args:
    directory: where they lie, if not in `folder.checkpoints`.
  """
  about = {'run': folder.run, 'seed': folder.seed, 'config': config.as_json()}

  def differs(stored):
    owner = chain.other_owner(stored, folder)
    if owner is not None or 'config' not in stored:  # of an earlier version
      return owner
    with modules.bound(config.modules):
      return differences.difference(stored['config'], about['config'])

  return checkpoint.Checkpoints(
    directory or folder.checkpoints,
    keep=config.checkpoint['keep'],
    about=about,
    differs=differs,
  )


def train(
  program: Program,
  folder: run_folder.RunFolder,
  *,
  stopped: Callable[[], bool],
  unless_stopped: Callable[[Callable[[], Any]], Any] = lambda look: look(),
) -> None:
  """Trains a run from its newest checkpoint, or from the seed, to its end.

  Args:
    folder: of the run with its seed; training goes on from what it holds.
    stopped: called each step; True ends training, with the state saved.
    unless_stopped: calls its argument; None if that is to end early.

  Raises:
    ConfigError: fewer steps than it has taken, or another process trains it.
    CheckpointError, StorageError, Interrupted.
  """
  with contextlib.ExitStack() as stack:

    def begin():
      files.make_folder(folder.path, 'give another --workdir')
      stack.enter_context(lock.held(folder.path))

    processes.agreed(begin)
    # Read again: nobody else changes the folder from here on.
    _train(program, folder.again(), stopped, unless_stopped)


def _train(program, folder, stopped, unless_stopped) -> None:
  config = program.config
  checkpoints = checkpoints_of(config, folder)
  state = _newest(program, folder, checkpoints)
  first_step = int(state.step)
  processes.agreed(
    lambda: _check_before(folder, checkpoints, config, first_step)
  )
  layers = [layer for layer, _ in program.problem.layers(state)]
  facts = manifest_lib.facts(config, layers, state, program.moments)
  manifest = manifest_lib.Manifest(folder, facts)
  # Without the digests of all records, which the cut is about to shorten.
  manifest.write('running', first_step)
  processes.agreed(lambda: _cut(folder, first_step))
  mesh = build.mesh(config)
  # The first save is waited for: a run with records has a checkpoint.
  save = _save_in(checkpoints, mesh, lambda _: chain.on_disk(folder))
  save(first_step, state)
  checkpoints.wait()
  if first_step:
    _log.info('%s: goes on from step %d', folder.label, first_step)
  opened = outputs_lib.opened(folder, first_step=first_step, steps=config.steps)
  program.feed.start(seed=folder.seed, first_step=first_step)

  def must_stop():
    checkpoints.check()  # what cannot be saved is not trained on
    return stopped()

  try:
    with opened as outputs:
      try:
        outcome = loop.run(
          state,
          program.step,
          steps=config.steps,
          probes=program.probes,
          sinks=outputs.sinks,
          arrays=outputs.arrays,
          timing=outputs.timing,
          save=_save_in(checkpoints, mesh, outputs.recorded),
          save_every_steps=config.checkpoint['every_steps'],
          stopped=must_stop,
          unless_stopped=unless_stopped,
        )
      except errors.Interrupted as error:
        checkpoints.wait()
        manifest.write(
          'interrupted', checkpoints.latest(), records=outputs.recorded()
        )
        raise errors.Interrupted(
          f'{folder.label}: {error}; the same command goes on from there'
        ) from error
      digests = outputs.recorded()
    checkpoints.wait()
    if outcome.status == 'diverged':
      row, newest = outputs.last.row, checkpoints.latest()
      message = divergence.message(row, newest, folder.path)
      _log.info('%s: %s', folder.label, message)
      manifest.write(
        'diverged', outcome.step, records=digests,
        divergence=divergence.facts(row, newest),
      )  # fmt: skip
    else:
      manifest.write(outcome.status, outcome.step, records=digests)
  finally:
    program.feed.close()
    checkpoints.close()


def _save_in(
  checkpoints: checkpoint.Checkpoints,
  mesh: jax.sharding.Mesh,
  recorded: Callable[[int], dict[str, Any]],
) -> Callable[[int, types.TrainState], None]:
  """Returns save(step, state): all processes gather, process 0 writes."""

  def save(step, state):
    whole = devices.gathered(without_ring(state), mesh)
    if processes.is_first():
      # Records are on the disk before what comes after them.
      checkpoints.save(step, whole, {'records': recorded(step)})

  return save


def _check_before(
  folder: run_folder.RunFolder,
  checkpoints: checkpoint.Checkpoints,
  config: RunConfig,
  step: int,
) -> None:
  """Checks that a run can go on from the checkpoint of a step.

  Raises:
    ConfigError: it has made more steps than are asked for.
    StorageError: records of the steps before are lost or were changed.
  """
  if step > config.steps:
    raise errors.ConfigError(
      f'config.steps: {config.steps}; {folder.path} has made {step} already; '
      'allowed: as many or more'
    )
  if checkpoints.steps():
    about = checkpoints.about(step)
    chain.check_records(folder, about.get('records'))
    if 'records' not in about:  # of an earlier version
      _check_whole(folder.scalars, step)


def _cut(folder: run_folder.RunFolder, step: int) -> None:
  """Removes the records of a step and of later ones."""
  records.cut(folder.scalars, step)
  # The seconds of some steps are written at the step after them.
  records.cut(folder.timing, step, and_at=('train', 'save'), strict=False)
  array_files.cut(folder.arrays, step)


def _check_whole(path: pathlib.Path, steps: int) -> None:
  """Refuses to go on with records that lack steps before the checkpoint."""
  rows = sum(
    record.name == 'train' and record.step < steps
    for record in records.read(path)
  )
  if rows != steps:
    raise errors.StorageError(
      f'{path} holds {rows} of the {steps} steps before the checkpoint: it was '
      'changed or damaged; restore it from a copy, or give another --workdir '
      'to begin again'
    )


def _newest(
  program: Program,
  folder: run_folder.RunFolder,
  checkpoints: checkpoint.Checkpoints,
) -> types.TrainState:
  """Returns the newest saved state, or that before the first step.

  Raises:
    CheckpointError: none is whole, or the newest does not fit, or there are
      records and no checkpoint.
  """
  fresh = program.init(folder.seed)
  newest = None

  def read() -> bool:
    nonlocal newest
    checkpoints.clean()
    for directory in (folder.path, folder.arrays):
      files.remove_torn(directory)
    newest = checkpoints.newest(without_ring(fresh), set_aside=True)
    if newest is None:
      chain.check_restorable(folder)
    return newest is not None

  if not processes.agreed(read):
    return fresh
  shapes = jax.eval_shape(lambda: without_ring(fresh))
  restored = divergence.reopened(processes.broadcast(newest, shapes))
  return placed(restored, program.config, program.problem)._replace(
    ring=fresh.ring
  )


def placed(
  saved: types.TrainState, config: RunConfig, problem: types.Problem
) -> types.TrainState:
  """Returns a saved state on the devices of its run."""
  return devices.placed(saved, without_ring(build.placement(config, problem)))


def without_ring(state: types.TrainState) -> types.TrainState:
  """Returns a state without its ring: rows are on disk, its size may change."""
  return state._replace(ring={})
