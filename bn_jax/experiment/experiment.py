"""Trains what is missing of an experiment: runs x seeds."""

import functools
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from bn_jax import analysis, errors, modules, types
from bn_jax.config import build, differences, resolve
from bn_jax.config import numbers as numbers_lib
from bn_jax.config.run_config import RunConfig
from bn_jax.data import datasets as datasets_lib
from bn_jax.experiment import (
  cost,
  init_from,
  manifest,
  probes,
  states,
  together,
)
from bn_jax.experiment import run as run_lib
from bn_jax.host import memory, processes, signals, sinks
from bn_jax.storage import chain, checkpoint, files, run_folder
from bn_jax.training import loop

_log = logging.getLogger('bn_jax')


def run(
  resolved: resolve.Experiment,
  workdir: str,
  *,
  only: str | None = None,
  resume: str = 'auto',
) -> list[str]:
  """Trains every run with every seed that is not done yet.

  Args:
    workdir: where everything is written; training goes on from what it holds.
    only: a run, 'batchnorm', or a seed of it, 'batchnorm/seed0'; None is all.
    resume: 'auto' goes on from checkpoints or begins; 'must' refuses to begin;
      'never' refuses to go on.

  Returns:
    The runs that diverged although the config does not expect it of them,
    such as 'standard/seed0'.

  Raises:
    ConfigError: what cannot be trained, before anything is compiled or written;
      or, at its turn, a seed that another process trains.
    DataError, CheckpointError, StorageError, Interrupted.
  """
  directory = _directory(workdir)
  folders = {
    name: [run_folder.at(directory, name, seed) for seed in seeds]
    for name, seeds in resolved.chosen(only).items()
  }
  problems = _problems(directory, resolved)

  seeds_left = processes.agreed(
    lambda: _seeds_left(directory, resolved, problems, folders, resume)
  )
  to_train = {
    name: [folder for folder in folders[name] if folder.seed in seeds]
    for name, seeds in seeds_left.items()
  }
  sources = {name: build.source(resolved.runs[name]) for name in to_train}
  # Runs over the same data have one source, and load it once.
  datasets = processes.in_turn(
    lambda: {id(source): source.load() for source in sources.values()}
  )
  begun_with = processes.agreed(lambda: _lowerings(resolved, directory))
  processes.agreed(lambda: _write_experiment(directory, resolved))
  with signals.Stop() as stop:
    stopping = processes.Stopping(stop)
    train = functools.partial(
      run_lib.train, probes_of=_probes, stopped=stopping,
      unless_stopped=(
        stop if processes.count() == 1 else stopping
      ).unless_asked,
    )  # fmt: skip
    configs = {
      name: config.replace(lowering=begun_with[name])
      for name, config in resolved.runs.items()
    }
    for family in numbers_lib.families(configs):
      names = [name for name in family.names if name in to_train]
      if not names:
        continue
      with modules.bound(configs[names[0]].modules):
        dataset = datasets[id(sources[names[0]])]
        programs = _programs(names, configs, problems, dataset, stopping.check)
        _train(family, configs, programs, to_train, folders, train)
        del programs
        memory.drop_old_programs()
  if not to_train:
    _log.info('%s: nothing left to train', directory)
  return processes.agreed(lambda: diverged(resolved, workdir, only))


def diverged(
  resolved: resolve.Experiment, workdir: str, only: str | None = None
) -> list[str]:
  """Returns the runs that diverged although they were not expected to."""
  return [
    folder.label
    for name, seeds in resolved.chosen(only).items()
    if name not in resolved.expected_divergence
    for folder in (run_folder.at(_directory(workdir), name, s) for s in seeds)
    if folder.status == 'diverged'
  ]


def parts(
  resolved: resolve.Experiment,
  workdir: str,
  *,
  only: str | None = None,
  resume: str = 'auto',
) -> list[list[str]]:
  """Returns what is left to train, in parts that need nothing of each other.

  Each has a seed, RUN/seedK, or RUNs that have several seeds in one program:
  fewer of them would be in another program, which may round otherwise.

  Raises:
    ConfigError, DataError, CheckpointError, StorageError: as `run` before it
      trains.
  """
  directory = _directory(workdir)
  folders = {
    name: [run_folder.at(directory, name, seed) for seed in seeds]
    for name, seeds in resolved.chosen(only).items()
  }
  problems = _problems(directory, resolved)
  left = _seeds_left(directory, resolved, problems, folders, resume)
  to_train = {
    name: [folder for folder in folders[name] if folder.seed in seeds]
    for name, seeds in left.items()
  }
  every_part = []
  for family in numbers_lib.families(resolved.runs):
    groups = together.of_family(
      family, resolved.runs, problems, to_train, folders
    )
    if all(group.at_once == 1 for group in groups):
      every_part += [
        [one.label]
        for name in family.names
        if name in to_train
        for one in to_train[name]
      ]
      continue
    # Those that are done, too: groups go by how many were asked for.
    names = [name for name in family.names if name in folders]
    if any(len(folders[name]) < len(resolved.seeds) for name in names):
      every_part.append([one.label for name in names for one in folders[name]])
    else:
      every_part.append(names)
  return every_part


def _problems(
  directory: pathlib.Path, resolved: resolve.Experiment
) -> dict[str, types.Problem]:
  """Builds the problem of each run, and checks its measures and `init_from`.

  Raises:
    ConfigError, DataError, CheckpointError, StorageError: a run that cannot be
      built, measured or begun.
  """
  problems = {}
  for name, config in resolved.runs.items():
    with (
      resolve.naming(name, resolved.runs), modules.bound(config.modules),
    ):  # fmt: skip
      size, shape = config.examples_at_a_time, build.source(config).facts.shape
      cost.check_batch('config.batch_size', size, shape)
      problems[name] = build.problem(config)
      probes.check(config, problems[name])
      together.check(config, problems[name])
      if name in resolved.recalibrate and not problems[name].keeps_statistics(
        jax.eval_shape(problems[name].init, 0)
      ):
        raise errors.ConfigError(
          f'config.recalibrate: {name!r}, whose norm {config.norm["name"]!r} '
          'keeps no statistics; allowed: runs whose norms do'
        )
      seeds = [run_folder.at(directory, name, seed) for seed in resolved.seeds]
      if not all(_has_begun(folder) for folder in seeds):
        init_from.check(config, problems[name])
  return problems


def _seeds_left(
  directory: pathlib.Path,
  resolved: resolve.Experiment,
  problems: Mapping[str, types.Problem],
  folders: Mapping[str, list[run_folder.RunFolder]],
  resume: str,
) -> dict[str, list[int]]:
  """Returns run -> the seeds left to train, after checking that it can be done.

  Raises:
    ConfigError: another experiment, fewer steps, --resume against it, or a
      sink that is not installed.
    CheckpointError: --resume=must, and there is nothing to go on from; or a
      checkpoint of another run.
    StorageError: --workdir is a file, is damaged, or has too little space.
  """
  if directory.exists() and not directory.is_dir():
    raise errors.StorageError(
      f'--workdir: {directory} is a file; give a directory'
    )
  differences.check_same(directory, resolved)
  if run_folder.read_experiment(directory) is None:
    run_folder.below(directory)  # it is made again of these, see `_begun`
  _check_steps(directory, resolved)
  for run_folders in folders.values():
    for folder in run_folders:
      if folder.manifest or _has_begun(folder):
        chain.check(folder)
  to_train = {
    name: unfinished
    for name, run_folders in folders.items()
    if (
      unfinished := [
        folder
        for folder in run_folders
        if not run_lib.is_done(folder, resolved.runs[name])
      ]
    )
  }
  _check_resume(directory, folders, resume)
  for name, unfinished in to_train.items():
    for folder in unfinished:
      chain.check_restorable(folder)
      manifest.check_data(folder, resolved.runs[name])
  for name, run_folders in folders.items():
    for folder in run_folders:
      is_left = name in to_train and folder in to_train[name]
      _tell_changes(folder, resolved.runs[name], is_left)
  for name in to_train:
    sinks.check(resolved.runs[name].sinks)
  _check_space(directory, resolved, problems, to_train)
  return {
    name: [folder.seed for folder in unfinished]
    for name, unfinished in to_train.items()
  }


def _lowerings(
  resolved: resolve.Experiment, directory: pathlib.Path
) -> dict[str, str | None]:
  """Returns run -> the lowering that its first seed was begun with on a CPU.

  All seeds of the run go on with it, so that they stay alike: 'auto' may be
  another now. Elsewhere 'auto' is always the library. A run that has not begun
  takes that of those which may share its program.
  """

  def of(name):
    folders = [run_folder.at(directory, name, seed) for seed in resolved.seeds]
    every = [(folder.manifest or {}).get('lowering') for folder in folders]
    return [one for one in every if one not in (None, 'library')]

  lowerings = {}
  for family in numbers_lib.families(resolved.runs):
    own = {name: of(name) for name in family.names}
    first = next(filter(None, own.values()), [None])
    lowerings |= {name: (own[name] or first)[0] for name in family.names}
  return lowerings


def _programs(
  names: Sequence[str],
  configs: Mapping[str, RunConfig],
  problems: dict[str, types.Problem],
  dataset: datasets_lib.Dataset,
  check_stop: Callable[[], None],
) -> dict[str, run_lib.Program]:
  """Returns the programs of runs that differ in numbers alone, by their names.

  Args:
    problems: lose those of the runs, so that what is compiled for a problem
      goes with its program.
  """
  # They have the same data, which are placed once.
  dataset = run_lib.placed_data(configs[names[0]], dataset)
  return {
    name: run_lib.program(
      configs[name], problems.pop(name), dataset, check_stop
    )
    for name in names
  }


def _train(
  family: numbers_lib.Family,
  configs: Mapping[str, RunConfig],
  programs: Mapping[str, run_lib.Program],
  left: Mapping[str, list[run_folder.RunFolder]],
  asked: Mapping[str, list[run_folder.RunFolder]],
  train: Callable[..., None],
) -> None:
  """Trains what is left of the seeds asked for of a family, group by group."""
  programs = {
    name: _beginning(program, left[name]) for name, program in programs.items()
  }
  problems = {name: program.problem for name, program in programs.items()}
  for group in together.of_family(family, configs, problems, left, asked):
    train(programs, group)


def _beginning(
  program: run_lib.Program, folders: list[run_folder.RunFolder]
) -> run_lib.Program:
  """Returns the program of a run, which begins as `init_from` says.

  A seed that has a checkpoint does not need its beginning again, but for a
  measure that looks at it.
  """
  if not _looks_at_others(program.config) and processes.agreed(
    lambda: all(map(_has_begun, folders))
  ):
    return program
  return program._replace(
    init=init_from.beginning(program.config, program.problem, program.init)
  )


def _directory(workdir: str) -> pathlib.Path:
  directory = pathlib.Path(workdir)
  try:
    directory.exists()
  except OSError as error:  # a name that is too long, say
    raise errors.StorageError(
      f'--workdir: {workdir[:80]!r}: {error.strerror}'
    ) from error
  return directory


def _looks_at_others(config: RunConfig) -> bool:
  """Returns whether a measure looks at other checkpoints than the current."""
  return any(
    analysis.kind_of(section['name']).others(section)
    for section in config.measures.values()
  )


def _probes(program: run_lib.Program, seed: int) -> list[loop.Probe]:
  """Returns the measures, which can ask for the state of a seed's step 0."""
  beginning = states.Beginning(lambda: program.init(seed))
  return [
    probe._replace(look=functools.partial(probe.look, states=beginning))
    for probe in program.probes
  ]


def _has_begun(folder: run_folder.RunFolder) -> bool:
  """Returns whether a seed has a checkpoint, whole or damaged."""
  return bool(checkpoint.Checkpoints(folder.checkpoints).steps())


def _check_resume(directory, folders, resume: str) -> None:
  """Checks that going on, or beginning, is what --resume asks for.

  Raises:
    ConfigError: --resume=never, and a seed has a checkpoint.
    CheckpointError: --resume=must, and no seed has one.
  """
  labels = [
    folder.label
    for run_folders in folders.values()
    for folder in run_folders
    if _has_begun(folder)
  ]
  if resume == 'never' and labels:
    raise errors.ConfigError(
      f'--resume: never; {directory} has begun with {labels[0]}; give another '
      '--workdir, or --resume=auto to go on'
    )
  if resume == 'must' and not labels:
    raise errors.CheckpointError(
      f'--resume: must; {directory} holds no checkpoint of what is to be '
      'trained; look at --workdir, or give --resume=auto to begin'
    )


def _tell_changes(
  folder: run_folder.RunFolder, config: RunConfig, is_left: bool
) -> None:
  """Warns of users' modules and data that are others than a seed's before.

  Args:
    is_left: whether it is to be trained; else it stays as it is.
  """
  does = 'goes on' if is_left else 'has ended and stays as it is'
  old = (folder.manifest or {}).get('modules') or {}
  changes = modules.changes(old, config.modules)
  if change := manifest.change_of_data(folder, config):
    changes.append(change)
  for change in changes:
    _log.warning('%s %s, though %s', folder.label, does, change)


def _check_space(directory, resolved, problems, to_train) -> None:
  """Refuses to begin if the disk has no room for checkpoints and records."""
  needed = {'checkpoints': 0, 'records': 0}
  for name, folders in to_train.items():
    config = resolved.runs[name]
    state = run_lib.without_ring(jax.eval_shape(problems[name].init, 0))
    for folder in folders:
      steps = config.steps - folder.step
      old = len(checkpoint.Checkpoints(folder.checkpoints).steps())
      new = 2 + steps // config.checkpoint['every_steps']
      # Of `keep` + 1, the oldest is removed once the newest is written.
      count = min(new, max(1, config.checkpoint['keep'] + 1 - old))
      needed['checkpoints'] += checkpoint.bytes_of(state) * count
      needed['records'] += steps * cost.record_bytes(config)
  checkpoint.check_space(directory, **needed)


def _check_steps(directory: pathlib.Path, resolved: resolve.Experiment) -> None:
  """Refuses to train to fewer steps than a seed has taken."""
  for name, config in resolved.runs.items():
    for seed in resolved.seeds:
      folder = run_folder.at(directory, name, seed)
      if folder.step > config.steps:
        raise errors.ConfigError(
          f'config.steps: {config.steps}; {folder.label} in {directory} '
          f'has made {folder.step} already; allowed: as many or more'
        )


def _write_experiment(
  directory: pathlib.Path, resolved: resolve.Experiment
) -> None:
  """Writes experiment.json: this experiment, added to those that it held."""
  old = run_folder.read_experiment(directory) or _begun(directory)
  new = {
    'runs': {
      **old['runs'],
      **{name: config.as_json() for name, config in resolved.runs.items()},
    },
    'seeds': sorted({*old['seeds'], *resolved.seeds}),
    'expected_divergence': list(resolved.expected_divergence),
  }
  if new == old:
    return
  files.make_folder(directory, 'give another --workdir')
  run_folder.write_experiment(directory, new)


def _begun(directory: pathlib.Path) -> dict[str, Any]:
  """Returns an experiment of the runs that have begun; for a lost file."""
  folders = run_folder.below(directory)
  if folders:
    _log.warning(
      '%s/experiment.json is missing; it is made again of what has begun there',
      directory,
    )
  return {
    'runs': {folder.run: folder.manifest['config'] for folder in folders},
    'seeds': sorted({folder.seed for folder in folders}),
  }
