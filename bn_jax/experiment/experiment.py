"""An experiment: trains what is missing of runs x seeds."""

import functools
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from bn_jax import errors
from bn_jax.config import build, resolve
from bn_jax.experiment import init_from, probes
from bn_jax.experiment import run as run_lib
from bn_jax.host import processes, signals
from bn_jax.storage import checkpoint, records

_log = logging.getLogger('bn_jax')
_EXPERIMENT = {'runs': {...: dict}, 'seeds': list}


def run(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  overrides: Mapping[str, Any] | None = None,
  only: str | None = None,
  resume: str = 'auto',
) -> list[str]:
  """Trains every run with every seed that is not done yet.

  Args:
    config: with the keys of configs/default.py.
    workdir: where everything is written; what is there is taken up again.
    overrides: what the command line changed in the config, path -> value.
    only: 'batchnorm' or 'batchnorm/seed0'; the others are left alone.
    resume: 'auto' takes up what is there; 'must' refuses to begin; 'never'
      refuses to go on.

  Returns:
    The runs that diverged although the config does not expect it of them,
    such as 'standard/seed0'.

  Raises:
    ConfigError: before anything is compiled or written.
    DataError, CheckpointError, StorageError, Interrupted.
  """
  plan = resolve.experiment(config.to_dict(), overrides or {})
  chosen = plan.chosen(only)
  directory = _directory(workdir)
  made = {}
  for name, resolved in plan.runs.items():
    with resolve.naming(name, plan.runs):
      made[name] = build.problem(resolved)
      probes.check(resolved, made[name])
      if not all(_has_begun(directory, name, seed) for seed in plan.seeds):
        init_from.check(resolved, made[name])

  def look() -> dict[str, list[int]]:
    _check_same(directory, plan)
    missing = {
      name: todo
      for name, seeds in chosen.items()
      if (todo := [s for s in seeds if not _is_done(directory, plan, name, s)])
    }
    _check_resume(directory, chosen, resume)
    _check_space(directory, plan, made, missing)
    return missing

  missing = processes.agreed(look)
  sources = {name: build.source(plan.runs[name]) for name in missing}
  # Runs over the same data share them: a source is made once.
  datasets = processes.in_turn(
    lambda: {id(source): source.load() for source in sources.values()}
  )
  processes.agreed(lambda: _write_experiment(directory, plan))
  with signals.Stop() as asked:
    stopped = processes.Stopping(asked)
    alone = processes.count() == 1
    unless_stopped = (asked if alone else stopped).unless_asked
    for name, seeds in missing.items():
      program = run_lib.program(
        plan.runs[name], datasets[id(sources[name])], stopped.check
      )
      # What goes on needs no more where it began.
      places = [_place(directory, name, seed) for seed in seeds]
      if not processes.agreed(functools.partial(_have_begun, places)):
        begun = init_from.beginning(
          plan.runs[name], program.problem, program.init
        )
        program = program._replace(init=begun)
      for seed in seeds:
        run_lib.train(
          program, _place(directory, name, seed), name=name, seed=seed,
          stopped=stopped, unless_stopped=unless_stopped,
        )  # fmt: skip
  if not missing:
    _log.info('%s: nothing left to train', directory)
  return processes.agreed(
    lambda: [
      f'{name}/seed{seed}'
      for name, seeds in chosen.items()
      for seed in seeds
      if name not in plan.expected_divergence
      and _status(directory, name, seed) == 'diverged'
    ]
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


def _place(directory: pathlib.Path, name: str, seed: int) -> pathlib.Path:
  return directory / name / f'seed{seed}'


def _status(directory: pathlib.Path, name: str, seed: int) -> str | None:
  path = _place(directory, name, seed) / 'manifest.json'
  return (records.read_json(path) or {}).get('status')


def _has_begun(directory: pathlib.Path, name: str, seed: int) -> bool:
  """Whether there is a checkpoint to go on from, whole or damaged."""
  return _have_begun([_place(directory, name, seed)])


def _have_begun(places: list[pathlib.Path]) -> bool:
  """The same of all of some runs' directories."""
  return all(
    checkpoint.Checkpoints(place / 'checkpoints').steps() for place in places
  )


def _check_resume(directory, chosen, resume: str) -> None:
  """Whether going on, or beginning, is what was asked for.

  Raises:
    ConfigError: --resume=never, and something is there.
    CheckpointError: --resume=must, and nothing is.
  """
  begun = [
    f'{name}/seed{seed}'
    for name, seeds in chosen.items()
    for seed in seeds
    if _has_begun(directory, name, seed)
  ]
  if resume == 'never' and begun:
    raise errors.ConfigError(
      f'--resume: never; {directory} has begun with {begun[0]}; give another '
      '--workdir, or --resume=auto to go on'
    )
  if resume == 'must' and not begun:
    raise errors.CheckpointError(
      f'--resume: must; {directory} holds no checkpoint of what is to be '
      'trained; look at --workdir, or give --resume=auto to begin'
    )


def _check_space(directory, plan, made, missing) -> None:
  """Refuses to begin what could not be saved to its end."""
  needed = 0
  for name, seeds in missing.items():
    state = run_lib.without_ring(jax.eval_shape(made[name].init, 0))
    keep = plan.runs[name]['checkpoint']['keep']
    for seed in seeds:
      folder = _place(directory, name, seed) / 'checkpoints'
      there = len(checkpoint.Checkpoints(folder).steps())
      needed += checkpoint.bytes_of(state) * max(1, keep + 1 - there)
  checkpoint.check_space(directory, needed)


def _is_done(directory, plan, name, seed) -> bool:
  return run_lib.is_done(_place(directory, name, seed), plan.runs[name])


def _check_same(directory: pathlib.Path, plan: resolve.Experiment) -> None:
  """Refuses a working directory that holds another experiment."""
  if directory.exists() and not directory.is_dir():
    raise errors.StorageError(
      f'--workdir: {directory} is a file; give a directory'
    )
  path = directory / 'experiment.json'
  old = records.read_json(path, _EXPERIMENT) or {'runs': {}}
  for name, resolved in plan.runs.items():
    before = old['runs'].get(name)
    if before is None:
      continue
    different = resolve.difference(before, resolved)
    if different:
      raise errors.ConfigError(
        f'{directory} holds another experiment, run {name!r}: {different}; '
        'give another --workdir'
      )
    for seed in plan.seeds:
      path = _place(directory, name, seed) / 'manifest.json'
      step = (records.read_json(path) or {}).get('step') or 0
      if step > resolved['steps']:
        raise errors.ConfigError(
          f'config.steps: {resolved["steps"]}; {name}/seed{seed} in '
          f'{directory} has made {step} already; allowed: as many or more'
        )


def _write_experiment(
  directory: pathlib.Path, plan: resolve.Experiment
) -> None:
  """experiment.json: this experiment, and what was in it before."""
  path = directory / 'experiment.json'
  old = records.read_json(path, _EXPERIMENT) or {'runs': {}, 'seeds': []}
  new = {
    'runs': {**old['runs'], **plan.runs},
    'seeds': sorted({*old['seeds'], *plan.seeds}),
    'expected_divergence': list(plan.expected_divergence),
  }
  if new == old:
    return
  try:
    directory.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.StorageError(
      f'--workdir: cannot make {directory}: {error.strerror}'
    ) from error
  records.write_json(path, new)
