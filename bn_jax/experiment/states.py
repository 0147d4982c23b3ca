"""Gives measures the states of other checkpoints than the one they look at.

A measure such as `path` goes from one checkpoint to another. It names the other
by a reference:

  '250'                       step 250 of the same run; '0' is before training
  'runs/a/batchnorm/seed1'    the newest checkpoint of another run
  'runs/a/batchnorm/seed1:250'

In training, '0' alone is there.
"""

import logging
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from bn_jax import errors, modules, trees, types
from bn_jax.analysis import kind
from bn_jax.config import build, differences
from bn_jax.config.run_config import RunConfig
from bn_jax.experiment import init_from, saved
from bn_jax.storage import chain, run_folder

# Of a config: what makes the same parameters another function, or were learned
# from something else.
_CONDITIONS = ('data', 'model', 'norm', 'loss')
_log = logging.getLogger('bn_jax')
_STEP = re.compile(r'[0-9]{1,9}')


class Beginning(NamedTuple):
  """The states that there are in training, a `types.States`.

  Attributes:
    init: () -> the state before the first step.
  """

  init: Callable[[], types.TrainState]

  def at(self, reference: str) -> types.TrainState:
    """Returns the state before the first step, for the reference '0'."""
    if reference != '0':  # as `probes.check` allows
      raise ValueError(f'{reference!r}; allowed in training: 0')
    return self.init()

  def steps(self) -> tuple[int, ...]:
    """Returns the steps of which there are states: the first."""
    return (0,)


class Kept(NamedTuple):
  """The checkpoints of a trained run, and of others, a `types.States`.

  Attributes:
    folder: of the run that is looked at, with its config and problem.
    last: the step that is looked at; later ones are not counted in `steps`.
  """

  folder: run_folder.RunFolder
  config: RunConfig
  problem: types.Problem
  last: int

  def at(self, reference: str) -> types.TrainState:
    """Returns the state that a reference names, with its running statistics.

    Raises:
      ConfigError: no run there, or no checkpoint of this step.
      CheckpointError: no checkpoint at all, or a damaged one.
    """
    folder, step = _located(self.folder, reference)
    if folder is self.folder:
      return at(folder, self.config, self.problem, step)
    config = saved.config_of(folder)
    with modules.bound(config.modules):
      problem = build.problem(config)
      return at(folder, config, problem, step)

  def steps(self) -> tuple[int, ...]:
    """Returns the steps of this run's checkpoints up to the last, in order."""
    return tuple(s for s in saved.steps(self.folder) if s <= self.last)


def at(
  folder: run_folder.RunFolder,
  config: RunConfig,
  problem: types.Problem,
  step: int,
) -> types.TrainState:
  """Returns the state of a step; step 0, if not kept, is made from the seed."""
  if step or step in saved.steps(folder):
    return saved.newest(folder, config, problem, step)
  init = init_from.beginning(config, problem, build.init(config, problem))
  return init(folder.seed)


def check(
  folder: run_folder.RunFolder,
  problem: types.Problem,
  references: Sequence[str],
) -> dict[str, str]:
  """Checks that there are states of the same network behind references.

  Nothing is compiled, and no checkpoint read.

  Returns:
    Reference -> what tells whether it is still the same state: its digest, or
    its seed where it is made from one. '*' is not among them.

  Raises:
    ConfigError: no run, no such step, or parameters of other shapes.
    CheckpointError: no checkpoint.
  """
  digests = {}
  for reference in references:
    if reference == kind.EVERY:
      continue
    other, step = _located(folder, reference)
    if other is not folder:
      config = saved.config_of(other)
      with modules.bound(config.modules):
        _check_alike(reference, problem, build.problem(config))
      _tell_conditions(reference, config, saved.config_of(folder))
    digests[reference] = (
      chain.state_digest(other.checkpoints, step) or f'seed {other.seed}'
    )
  return digests


def _tell_conditions(reference: str, there: RunConfig, here: RunConfig) -> None:
  """Warns of what another run was trained with and this one was not."""
  for section in _CONDITIONS:
    changes = differences.changed(
      f'config.{section}',
      *(dict(getattr(one, section)) for one in (there, here)),
    )
    for change in changes:
      _log.warning(
        '%s: %s here; it is looked at as this run is', reference, change
      )


def _located(
  folder: run_folder.RunFolder, reference: str
) -> tuple[run_folder.RunFolder, int]:
  """Returns the folder and the step that a reference names."""
  head, colon, tail = reference.rpartition(':')
  if _STEP.fullmatch(reference):
    path, step = None, int(reference)
  elif colon and _STEP.fullmatch(tail):
    path, step = head, int(tail)
  else:
    path, step = reference, None
  if path is not None:
    folders = run_folder.find(pathlib.Path(path))
    if len(folders) > 1:
      paths = ', '.join(str(other.path) for other in folders)
      raise errors.ConfigError(
        f'{path} holds {len(folders)} runs; give one: {paths}'
      )
    (folder,) = folders
  if step is None:
    steps = saved.steps(folder)
    if not steps:
      raise errors.CheckpointError(f'{folder.path} holds no checkpoint yet')
    step = steps[-1]
  saved.check_step(folder, step)
  return folder, step


def _check_alike(
  reference: str, problem: types.Problem, other: types.Problem
) -> None:
  """Raises ConfigError unless two networks have the same parameters."""
  here, there = (
    dict(zip(trees.paths(params), jax.tree.leaves(params)))
    for params in (
      jax.eval_shape(one.init, 0).params for one in (problem, other)
    )
  )
  differing = [
    path
    for path in dict.fromkeys([*here, *there])
    if _shape(here, path) != _shape(there, path)
  ]
  if differing:
    path = differing[0]
    raise errors.ConfigError(
      f'{reference} is another network: {len(differing)} of its parameters '
      f'differ, the first is {path}: there {_shape(there, path)}, here '
      f'{_shape(here, path)}; allowed: runs of one network'
    )


def _shape(arrays: dict[str, jax.ShapeDtypeStruct], path: str) -> str:
  if path not in arrays:
    return 'nothing'
  return f'{arrays[path].dtype}{list(arrays[path].shape)}'
