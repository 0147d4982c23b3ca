"""A run that begins with the parameters of one that was trained before.

Fine-tuning: parameters and statistics are taken over; the last layer begins
anew where it differs, as it does for other classes. Everything else, such as
the optimizer's state and the step, is that of a run that has just begun.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from bn_jax import errors, types
from bn_jax.config import build
from bn_jax.config.run_config import RunConfig
from bn_jax.experiment import saved
from bn_jax.storage import run_folder


def check(config: RunConfig, made: types.Problem) -> None:
  """Whether a run can begin as its `init_from` says, by shapes alone.

  Raises:
    ConfigError: there is no such run.
    CheckpointError: its network is another one, beyond the last layer.
  """
  if config.init_from is None:
    return
  source = _found(config.init_from)
  with _blaming():
    made_of = build.problem(saved.config_of(source))
    theirs = jax.eval_shape(made_of.init, 0)
  _matched(config, made, jax.eval_shape(made.init, 0), theirs)


def beginning(
  config: RunConfig,
  made: types.Problem,
  init: Callable[[int], types.TrainState],
) -> Callable[[int], types.TrainState]:
  """seed -> the state before the first step, parameters taken over.

  Args:
    config: the resolved run.
    made: its problem.
    init: makes a state from a seed alone.

  Raises:
    ConfigError, CheckpointError: as `check`, or a damaged checkpoint.
  """
  if config.init_from is None:
    return init
  source = _found(config.init_from)
  with _blaming():
    its = saved.config_of(source)
    theirs = saved.newest(source, its, build.problem(its))
  _check_finite(config, theirs)

  def begin(seed: int) -> types.TrainState:
    own = init(seed)
    return own._replace(**_matched(config, made, own, theirs))

  return begin


def _check_finite(config: RunConfig, theirs: types.TrainState) -> None:
  """What is not finite would never become so."""
  for leaf in jax.tree.leaves((theirs.params, theirs.batch_stats)):
    if not jnp.isfinite(leaf).all():
      raise errors.CheckpointError(
        f'config.init_from: {config.init_from} holds parameters or '
        'statistics that are not finite; give another run'
      )


@contextlib.contextmanager
def _blaming():
  """Says that a refusal is about the run that one begins with."""
  try:
    yield
  except errors.Failure as error:
    raise type(error)(f'config.init_from: {error}') from error


def _found(path: str) -> run_folder.RunFolder:
  folders = run_folder.find(pathlib.Path(path))
  if len(folders) > 1:
    listed = ', '.join(str(folder.path) for folder in folders)
    raise errors.ConfigError(
      f'config.init_from: {path} holds {len(folders)} runs; give one: {listed}'
    )
  return folders[0]


def _matched(config, made, own, theirs) -> dict[str, Any]:
  """params and batch_stats of `own`, those of `theirs` in their place.

  Raises:
    CheckpointError: what does not fit lies outside the last layer.
  """
  *_, (last, last_paths) = made.layers(own)
  matched = {}
  for collection in ('params', 'batch_stats'):
    mine, given = (
      traverse_util.flatten_dict(getattr(state, collection), sep='/')
      for state in (own, theirs)
    )
    begins_anew = [
      path
      for path in _different(mine, given)
      if not (collection == 'params' and _below(path, last_paths))
    ]
    if begins_anew:
      path = begins_anew[0]
      raise errors.CheckpointError(
        f'config.init_from: {config.init_from} holds another network: '
        f'{len(begins_anew)} of its {collection} differ, the first is {path}: '
        f'there {_shape(given, path)}, here {_shape(mine, path)}; only the '
        f'last layer, {last}, may'
      )
    # A layer that differs begins anew as a whole.
    anew = any(True for _ in _different(mine, given))
    taken = {
      path: leaf
      if anew and _below(path, last_paths)
      else _like(leaf, given[path])
      for path, leaf in mine.items()
    }
    matched[collection] = traverse_util.unflatten_dict(taken, sep='/')
  return matched


def _different(mine: Mapping, given: Mapping) -> Iterator[str]:
  """Paths that only one has, or that have another shape or dtype there."""
  return (
    path
    for path in sorted(mine.keys() | given.keys())
    if _shape(mine, path) != _shape(given, path)
  )


def _shape(arrays: Mapping[str, Any], path: str) -> str:
  if path not in arrays:
    return 'nothing'
  return f'{arrays[path].dtype}{list(arrays[path].shape)}'


def _below(path: str, prefixes: tuple[str, ...]) -> bool:
  return any(path.startswith(f'{prefix}/') for prefix in prefixes)


def _like(own: Any, given: Any) -> Any:
  """A copy of the given array, where the own one lies; a step consumes it."""
  if isinstance(own, jax.ShapeDtypeStruct):
    return own
  return jax.device_put(given, own.sharding, may_alias=False)
