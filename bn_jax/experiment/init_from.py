"""Begins a run with the parameters of one that was trained before.

Fine-tuning: parameters and statistics are copied; a last layer of another
shape, as for other classes, is initialized from the seed. Everything else, such
as the optimizer's state and the step, is that of a new run.
"""

import contextlib
import logging
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

_log = logging.getLogger('bn_jax')
# Keywords of which parameters tell nothing, section by section.
_FUNCTION = {
  'model': ('padding', 'stride_in', 'head_pool', 'flatten'),
  'norm': ('epsilon',),
}


def check(config: RunConfig, problem: types.Problem) -> None:
  """Checks by shapes that a run can begin as its `init_from` says.

  Raises:
    ConfigError: not exactly one run lies there, or it is older than a key.
    CheckpointError: its network differs in more than the last layer.
    StorageError: its manifest was changed.
  """
  if config.init_from is None:
    return
  folder = _one_run(config.init_from)
  with _blaming():
    source = saved.config_of(folder)
    trained = jax.eval_shape(build.problem(source).init, 0)
  _matched(config, problem, jax.eval_shape(problem.init, 0), trained)
  _tell_function(source, config)


def _tell_function(source: RunConfig, config: RunConfig) -> None:
  """Warns of what makes another function of the same parameters."""
  for section, keys in _FUNCTION.items():
    old, new = (getattr(one, section) for one in (source, config))
    for key in keys:
      if key in old and key in new and old[key] != new[key]:
        _log.warning(
          'config.init_from: its weights were trained with %s.%s=%r, and this '
          'run has %r',
          section, key, old[key], new[key],
        )  # fmt: skip


def beginning(
  config: RunConfig,
  problem: types.Problem,
  init: Callable[[int], types.TrainState],
) -> Callable[[int], types.TrainState]:
  """Returns seed -> the state before the first step, parameters copied.

  Args:
    init: seed -> the state without the copy, on its devices.

  Raises:
    ConfigError, CheckpointError, StorageError: as `check`, a damaged
      checkpoint, or values that are not finite.
  """
  if config.init_from is None:
    return init
  folder = _one_run(config.init_from)
  with _blaming():
    source = saved.config_of(folder)
    trained = saved.newest(folder, source, build.problem(source))
  _check_finite(config, trained)

  def begin(seed: int) -> types.TrainState:
    own = init(seed)
    return own._replace(**_matched(config, problem, own, trained))

  return begin


def _check_finite(config: RunConfig, trained: types.TrainState) -> None:
  """Refuses values that are not finite: training cannot mend them."""
  for leaf in jax.tree.leaves((trained.params, trained.batch_stats)):
    if not jnp.isfinite(leaf).all():
      raise errors.CheckpointError(
        f'config.init_from: {config.init_from} holds parameters or '
        'statistics that are not finite; give another run'
      )


@contextlib.contextmanager
def _blaming():
  """Adds to a refusal that it is about config.init_from."""
  try:
    yield
  except errors.Failure as error:
    raise type(error)(f'config.init_from: {error}') from error


def _one_run(path: str) -> run_folder.RunFolder:
  folders = run_folder.find(pathlib.Path(path))
  if len(folders) > 1:
    paths = ', '.join(str(folder.path) for folder in folders)
    raise errors.ConfigError(
      f'config.init_from: {path} holds {len(folders)} runs; give one: {paths}'
    )
  return folders[0]


def _matched(config, problem, own, trained) -> dict[str, Any]:
  """Returns params and batch_stats of `own` with the values of `trained`.

  A last layer that does not fit keeps the params of `own`.

  Raises:
    CheckpointError: another leaf does not fit.
  """
  *_, (last, last_paths) = problem.layers(own)
  matched = {}
  for collection in ('params', 'batch_stats'):
    own_leaves, trained_leaves = (
      traverse_util.flatten_dict(getattr(state, collection), sep='/')
      for state in (own, trained)
    )
    different = [
      path
      for path in _different(own_leaves, trained_leaves)
      if not (collection == 'params' and _below(path, last_paths))
    ]
    if different:
      path = different[0]
      raise errors.CheckpointError(
        f'config.init_from: {config.init_from} holds another network: '
        f'{len(different)} of its {collection} differ, the first is {path}: '
        f'there {_shape(trained_leaves, path)}, here '
        f'{_shape(own_leaves, path)}; only the last layer, {last}, may'
      )
    differs = any(True for _ in _different(own_leaves, trained_leaves))
    leaves = {
      path: leaf
      if differs and _below(path, last_paths)
      else _like(leaf, trained_leaves[path])
      for path, leaf in own_leaves.items()
    }
    matched[collection] = traverse_util.unflatten_dict(leaves, sep='/')
  return matched


def _different(own: Mapping, trained: Mapping) -> Iterator[str]:
  """Yields the paths that one lacks, or whose shapes or dtypes differ."""
  return (
    path
    for path in sorted(own.keys() | trained.keys())
    if _shape(own, path) != _shape(trained, path)
  )


def _shape(arrays: Mapping[str, Any], path: str) -> str:
  if path not in arrays:
    return 'nothing'
  return f'{arrays[path].dtype}{list(arrays[path].shape)}'


def _below(path: str, prefixes: tuple[str, ...]) -> bool:
  return any(path.startswith(f'{prefix}/') for prefix in prefixes)


def _like(own: Any, trained: Any) -> Any:
  """Returns a copy of `trained` where `own` lies; a step consumes it."""
  if isinstance(own, jax.ShapeDtypeStruct):
    return own
  return jax.device_put(trained, own.sharding, may_alias=False)
