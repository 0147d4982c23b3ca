"""An experiment: trains what is missing of runs x seeds."""

import logging
import os
import pathlib
import signal
from collections.abc import Mapping
from typing import Any, Self

import ml_collections

from bn_jax import (
  assemble,
  errors,
  inherit,
  measures,
  records,
  resolve,
  trainer,
)

_log = logging.getLogger('bn_jax')
_EXPERIMENT = {'runs': {...: dict}, 'seeds': list}


def run(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  overrides: Mapping[str, Any] | None = None,
  only: str | None = None,
) -> list[str]:
  """Trains every run with every seed that is not done yet.

  Args:
    config: with the keys of configs/default.py.
    workdir: where everything is written; what is there is taken up again.
    overrides: what the command line changed in the config, path -> value.
    only: 'batchnorm' or 'batchnorm/seed0'; the others are left alone.

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
  for name, resolved in plan.runs.items():
    with resolve.naming(name, plan.runs):
      made = assemble.problem(resolved)
      measures.check(resolved, made)
      if not all(_has_begun(directory, name, seed) for seed in plan.seeds):
        inherit.check(resolved, made)
  _check_same(directory, plan)
  missing = {
    name: todo
    for name, seeds in chosen.items()
    if (todo := [s for s in seeds if not _is_done(directory, plan, name, s)])
  }
  sources = {name: assemble.source(plan.runs[name]) for name in missing}
  # Runs over the same data share them: a source is made once.
  datasets = {id(source): source.load() for source in sources.values()}
  _write_experiment(directory, plan)
  with _Stop() as stopped:
    for name, seeds in missing.items():
      made = trainer.program(plan.runs[name], datasets[id(sources[name])])
      # What goes on needs no more where it began.
      if not all(_has_begun(directory, name, seed) for seed in seeds):
        begun = inherit.beginning(plan.runs[name], made.problem, made.init)
        made = made._replace(init=begun)
      for seed in seeds:
        trainer.train(
          made, _place(directory, name, seed), name=name, seed=seed,
          stopped=stopped,
        )  # fmt: skip
  if not missing:
    _log.info('%s: nothing left to train', directory)
  return [
    f'{name}/seed{seed}'
    for name, seeds in chosen.items()
    for seed in seeds
    if name not in plan.expected_divergence
    and _status(directory, name, seed) == 'diverged'
  ]


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
  """Whether there is a checkpoint to go on from."""
  found = (_place(directory, name, seed) / 'checkpoints').glob('[0-9]*')
  return any(path.is_dir() for path in found)


def _is_done(directory, plan, name, seed) -> bool:
  steps = plan.runs[name]['steps']
  return trainer.is_done(_place(directory, name, seed), steps)


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


class _Stop:
  """Turns the first SIGTERM or Ctrl-C into a question; the second one exits."""

  def __enter__(self) -> Self:
    self._asked = False
    self._old = {
      number: signal.signal(number, self._ask)
      for number in (signal.SIGTERM, signal.SIGINT)
    }
    return self

  def __exit__(self, *unused) -> None:
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def __call__(self) -> bool:
    return self._asked

  def _ask(self, *unused) -> None:
    if self._asked:
      os._exit(130)
    self._asked = True
    _log.info('stopping; the state is saved first. Once more to stop at once')
