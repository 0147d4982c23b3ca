"""Trains seeds of one run, from its resolved config to their files."""

import contextlib
import functools
import hashlib
import json
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bn_jax import errors, modules, types
from bn_jax.config import build, differences
from bn_jax.config import numbers as numbers_lib
from bn_jax.config.run_config import RunConfig
from bn_jax.data import datasets
from bn_jax.experiment import divergence
from bn_jax.experiment import manifest as manifest_lib
from bn_jax.experiment import outputs as outputs_lib
from bn_jax.experiment import probes as probes_lib
from bn_jax.experiment import together as together_lib
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
from bn_jax.training import seeds as seeds_lib

_log = logging.getLogger('bn_jax')
_NOT_COMPILED = (
  'steps', 'log_every_steps', 'checkpoint', 'data_dir', 'init_from', 'schedule',
  'weight_decay',
)  # fmt: skip


class Program(NamedTuple):
  """What all seeds of a run share, compiled once.

  Attributes:
    config: of the run.
    problem: its network, objective and optimizer.
    init: its state before the first step, jitted.
    step: one update of a state, which it consumes, by the next of `feed`.
    together: numbers -> ((state, count) -> the state after so many such steps,
      of several seeds, whose states are `joined` and have these numbers;
      `seeds.part` of these); built when it is first called.
    feed: what the steps draw their batches from.
    probes: its measures.
    moments: (mean, standard deviation) that inputs are normalised by, [C].
    examples: how many are trained on: of an epoch.
  """

  config: RunConfig
  problem: types.Problem
  init: Callable[[int], types.TrainState]
  step: Callable[[types.TrainState], types.TrainState]
  together: Callable[..., tuple[Callable, Callable]]
  feed: datasets.Feed
  probes: list[loop.Probe]
  moments: tuple[Any, Any]
  examples: int


def program(
  config: RunConfig,
  problem: types.Problem,
  dataset: datasets.Dataset,
  check_stop: Callable[[], None] = lambda: None,
) -> Program:
  """Returns the program of a resolved run over a dataset.

  Args:
    problem: what `build.problem` returns for the config.
    dataset: is put on its devices, unless it lies there.
    check_stop: called before each batch of a measure; it raises to end that.
  """
  moments = dataset.train.moments()
  dataset = placed_data(config, dataset)
  feed = dataset.train.feed(config.batch_size)

  def stepping(compiled):
    def step(state, *number):
      with jax.default_matmul_precision(config.matmul_precision):
        return compiled(state, feed.take(), *number)

    return step

  probes = probes_lib.probes(config, problem, dataset, feed, check_stop)
  init = build.init(config, problem)

  @functools.cache
  def together(numbers=()):
    steps = stepping(build.steps_of_seeds(config, problem, numbers))
    part = seeds_lib.part(build.placement(config, problem))
    # What looks at one seed, or saves it, has the config of its run.
    return steps, lambda state, seed: part(state._replace(numbers=()), seed)

  return Program(
    config, problem, init, stepping(build.step(config, problem)), together,
    feed, probes, moments, dataset.train.num_examples,
  )  # fmt: skip


def placed_data(
  config: RunConfig, dataset: datasets.Dataset
) -> datasets.Dataset:
  """Returns a dataset on the devices of a run, whole on each."""
  whole = devices.whole(build.mesh(config))
  return datasets.Dataset(*(part.placed(whole) for part in dataset))


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
  programs: Mapping[str, Program],
  group: together_lib.Group,
  *,
  probes_of: Callable[[Program, int], list[loop.Probe]] | None = None,
  stopped: Callable[[], bool],
  unless_stopped: Callable[[Callable[[], Any]], Any] = lambda look: look(),
) -> None:
  """Trains seeds together, from their newest checkpoints, to their ends.

  Args:
    programs: of the runs, by their names.
    group: what is trained together; training goes on from what its folders
      hold.
    probes_of: (program, seed) -> its measures; None: those of the program.
    stopped: as in `loop.run`; True ends training, with the states saved.
    unless_stopped: calls its argument; None if that is to end early.

  Raises:
    ConfigError: fewer steps than one has taken, or another process trains it.
    CheckpointError, StorageError, Interrupted.
  """
  with contextlib.ExitStack() as stack:

    def begin():
      for folder in group.folders:
        files.make_folder(folder.path, 'give another --workdir')
        stack.enter_context(lock.held(folder.path))

    processes.agreed(begin)
    seeds = []
    for folder in group.folders:
      # Read again: nobody else changes the folder from here on.
      program = programs[folder.run]
      probes = program.probes
      if probes_of is not None:
        probes = probes_of(program, folder.seed)
      seed = _Seed(program, folder.again(), probes, group)
      stack.callback(seed.close)
      seeds.append(seed)
    _train(seeds, group, stopped, unless_stopped)


def _train(seeds, group, stopped, unless_stopped) -> None:
  # What is not a seed's own is the same of all runs of a group.
  program = seeds[0].program
  config = program.config
  for seed in seeds:
    seed.begin()
  if group.at_once == 1:
    (state,), part, most = [seed.state for seed in seeds], None, 1

    def advance(state, _):
      return program.step(state)

  else:
    state = _joined(seeds, group)
    advance, part = program.together(group.numbers)
    most = seeds_lib.STEPS
  for seed in seeds:
    del seed.state  # a step consumes it
  # A stream gives batches of one seed; such runs have `at_once` 1.
  program.feed.start(seed=seeds[0].folder.seed, first_step=seeds[0].first_step)

  def must_stop():
    for seed in seeds:
      seed.checkpoints.check()  # what cannot be saved is not trained on
    return stopped()

  showing = outputs_lib.shown(
    _label(seeds),
    first_step=min(seed.first_step for seed in seeds),
    steps=config.steps,
    program=_program_name(config, group.at_once),
  )
  try:
    with showing as shown:
      loop.run(
        state,
        advance,
        [seed.lane(shown) for seed in seeds],
        steps=config.steps,
        save_every_steps=config.checkpoint['every_steps'],
        part=part,
        most=most,
        stopped=must_stop,
        unless_stopped=unless_stopped,
      )
  except errors.Interrupted as error:
    stopped_seeds = [seed for seed in seeds if not seed.has_ended]
    for seed in stopped_seeds:
      seed.interrupted()
    raise errors.Interrupted(
      f'{_label(stopped_seeds)}: {error}; the same command goes on from there'
    ) from error
  finally:
    program.feed.close()


def _program_name(config: RunConfig, at_once: int) -> str:
  """Returns what tells the programs of a run from those of others.

  Without what takes no longer to compile if it is another: numbers of steps,
  rates and places.
  """
  about = {
    key: value
    for key, value in config.as_json().items()
    if key not in _NOT_COMPILED
  }
  kind = jax.devices()[0].device_kind
  text = json.dumps([about, at_once, config.lowering, kind], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _joined(
  seeds: Sequence['_Seed'], group: together_lib.Group
) -> types.TrainState:
  """Returns one state of the seeds of a group, as its program takes it."""
  config = seeds[0].program.config
  places = seeds_lib.places(
    group.at_once, config.devices, jax.default_backend()
  )
  states = [seed.with_numbers(group.numbers) for seed in seeds]
  # The program is for so many seeds; the rest are copies, which nobody reads.
  copies = states[:1] * (places - len(states))
  return seeds_lib.joined([*states, *copies], build.mesh(config))


def _label(seeds: Sequence['_Seed']) -> str:
  others = len(seeds) - 1
  return seeds[0].folder.label + (f' and {others} more' if others else '')


class _Seed:
  """One seed of a run while it is trained: its files, from begin to close.

  Attributes:
    program: of the run.
    folder: of the run with the seed.
    checkpoints: in it.
    first_step: at which training goes on.
    state: there.
    has_ended: whether it is trained to its end, and its manifest says so.
  """

  def __init__(
    self,
    program: Program,
    folder: run_folder.RunFolder,
    probes: list[loop.Probe],
    group: together_lib.Group,
  ):
    self.program, self.folder = program, folder
    self.checkpoints = checkpoints_of(program.config, folder)
    self._probes, self._group = probes, group
    self._files = contextlib.ExitStack()
    self.has_ended = False

  def begin(self) -> None:
    """Reads or makes the state, and opens the files that grow."""
    config, folder = self.program.config, self.folder
    self.state = _newest(self.program, folder, self.checkpoints)
    self.first_step = first_step = int(self.state.step)
    processes.agreed(
      lambda: _check_before(folder, self.checkpoints, config, first_step)
    )
    layers = [layer for layer, _ in self.program.problem.layers(self.state)]
    facts = manifest_lib.facts(
      config, layers, self.state, self.program.moments, self._group
    )
    facts['examples'] = self.program.examples
    self._manifest = manifest_lib.Manifest(folder, facts)
    # Without the digests of all records, which the cut is about to shorten.
    self._manifest.write('running', first_step)
    processes.agreed(lambda: _cut(folder, first_step))
    # The first save is waited for: a run with records has a checkpoint.
    save = self._save_in(lambda _: chain.on_disk(folder))
    save(first_step, self.state)
    self.checkpoints.wait()
    if first_step:
      _log.info('%s: goes on from step %d', folder.label, first_step)
    self._outputs = self._files.enter_context(
      outputs_lib.opened(folder, config, first_step=first_step)
    )

  def with_numbers(self, paths: tuple[str, ...]) -> types.TrainState:
    """Returns the state, with what the run's config has at paths."""
    if not paths:
      return self.state
    # As precise as the numbers of the config would be in the program.
    dtype = jax.tree.leaves(self.state.params)[0].dtype
    values = numbers_lib.of(self.program.config, paths)
    return self.state._replace(
      numbers={path: np.asarray(value, dtype) for path, value in values.items()}
    )

  def lane(self, shown) -> loop.Lane:
    """Returns what the loop needs; `shown` is what `outputs.shown` gives."""
    bar = self._files.enter_context(shown())
    return loop.Lane(
      probes=self._probes,
      sinks=(*self._outputs.sinks, bar),
      arrays=self._outputs.arrays,
      timing=self._outputs.timing,
      save=self._save_in(self._outputs.recorded),
      ended=self._end,
    )

  def interrupted(self) -> None:
    """Says in the manifest that training was stopped before its end."""
    self.checkpoints.wait()
    self._outputs.opened.status = 'interrupted'
    self._manifest.write(
      'interrupted',
      self.checkpoints.latest(),
      records=self._outputs.recorded(),
    )

  def close(self) -> None:
    self._files.close()
    self.checkpoints.close()

  def _end(self, outcome: loop.Outcome) -> None:
    """Closes the files and says in the manifest how training has ended."""
    digests = self._outputs.recorded()
    self._outputs.opened.status = outcome.status
    self._files.close()
    self.checkpoints.wait()
    more = {}
    if outcome.status == 'diverged':
      row, newest = self._outputs.last.row, self.checkpoints.latest()
      message = divergence.message(row, newest, self.folder.path)
      _log.info('%s: %s', self.folder.label, message)
      more = {'divergence': divergence.facts(row, newest)}
    self._manifest.write(outcome.status, outcome.step, records=digests, **more)
    self.has_ended = True

  def _save_in(self, recorded: Callable[[int], dict[str, Any]]):
    """Returns save(step, state): all processes gather, process 0 writes."""
    mesh = build.mesh(self.program.config)

    def save(step, state):
      whole = devices.gathered(without_ring(state), mesh)
      if processes.is_first():
        # Records are on the disk before what comes after them.
        self.checkpoints.save(step, whole, {'records': recorded(step)})

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
