"""Loads a trained network, with all that it takes to use it on new inputs."""

import functools
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bn_jax import checks, errors
from bn_jax.config import build
from bn_jax.config.run_config import FrozenDict, RunConfig
from bn_jax.data.disk import levels
from bn_jax.experiment import saved
from bn_jax.storage import run_folder
from bn_jax.trained import statistics as statistics_lib

_STATISTICS = ('running', 'population')


class Trained(NamedTuple):
  """A trained network, and the inputs that it takes.

  Attributes:
    network: called as `network.apply(variables, x, statistics='running')`, with
      x normalised.
    variables: params and batch_stats.
    config: of the run, resolved.
    step: of training, at which the variables were saved.
    shape: of one input: (height, width, channels) of an image, or (D,).
    mean, std: by which an input is normalised, [C] float32: of images grey
      levels, 0 (black) to 255 (white), unless the set's pixels are integers
      that have no white; of vectors in the unit of the input.
    classes: what each output stands for: the names of the classes where the
      manifest has them all, as of a user's own data, of which it has the first
      1,000; or their numbers in the set; () of a regression.
    dtype: of the set's pixels; 'float32' of vectors.
  """

  network: nn.Module
  variables: dict[str, Any]
  config: RunConfig
  step: int
  shape: tuple[int, ...]
  mean: np.ndarray
  std: np.ndarray
  classes: tuple[str | int, ...]
  dtype: str

  def normalised(self, inputs: Any) -> jax.Array:
    """Returns what the network takes for these inputs, float32.

    Args:
      inputs: [N, *shape], such as the bytes of images. What is white in images
        their dtype says, as in the set (`data.disk.levels`): an image of
        floating point is 0 to 1, and is refused where the set's are not.

    Raises:
      ValueError: inputs of another shape, or of a dtype that leaves open what
        is white.
    """
    x = np.asarray(inputs)
    if x.shape[1:] != self.shape or not x.ndim:
      shape = ', '.join(map(str, self.shape))
      raise ValueError(
        f'inputs have the shape {list(x.shape)}; allowed: [N, {shape}], which '
        f'the network of {self.config.data["name"]} was trained on'
      )
    is_image = len(self.shape) == 3
    allowed = _readable(self.dtype) if is_image else tuple(levels.WHITES)
    if x.dtype.name not in allowed:
      raise ValueError(
        f'inputs are {x.dtype}; allowed: {", ".join(allowed)}, since those of '
        f'{self.config.data["name"]} are {self.dtype}'
      )
    if is_image:
      x = levels.of(x)
    binarize = self.config.data.get('binarize')
    if binarize is not None:
      x = x > levels.WHITE * binarize
    x = jnp.asarray(x.astype(np.float32))
    channels = (1,) * (x.ndim - 1) + (-1,)
    return (x - self.mean.reshape(channels)) / self.std.reshape(channels)

  def outputs(self, inputs: Any) -> jax.Array:
    """Returns the network's outputs for inputs that are not normalised, [N, K].

    Raises:
      ValueError: see `normalised`.
    """
    return _outputs(self.network, self.variables, self.normalised(inputs))

  def predict(self, inputs: Any) -> list[str | int]:
    """Returns the likeliest of `classes` for each input.

    Raises:
      ValueError: see `normalised`; or a regression.
    """
    if not self.classes:
      raise ValueError(
        f'{self.config.data["name"]} has targets and no classes; use outputs'
      )
    numbers = np.asarray(self.outputs(inputs)).argmax(axis=-1)
    return [self.classes[number] for number in numbers]


def _readable(own: str) -> tuple[str, ...]:
  """Returns the dtypes of images that a set with its own dtype is clear about.

  Bytes, 16 bits and booleans say by themselves what is white. Floating point
  may be 0 to 1 or 0 to 255, and other integers anything, unless the set's are
  such.
  """
  if levels.WHITES[own] is None:
    return tuple(name for name, white in levels.WHITES.items() if white is None)
  own_floats = 'float' in own
  return tuple(
    name
    for name, white in levels.WHITES.items()
    if white and (own_floats or 'float' not in name)
  )


@functools.partial(jax.jit, static_argnums=0)
def _outputs(network, variables, x):
  # As the command `evaluate` computes them.
  with jax.default_matmul_precision('highest'):
    return network.apply(variables, x, statistics='running')


def load(
  path: str | os.PathLike,
  *,
  step: int | None = None,
  statistics: str = 'running',
  averaged: bool = False,
) -> Trained:
  """Loads the network that one seed of a run has trained.

  Args:
    path: WORKDIR/run/seedK, or above it where there is one seed.
    step: of a checkpoint; None is the newest.
    statistics: 'running', those of training, or 'population', those of
      `python -m bn_jax recalibrate`.
    averaged: whether parameters and statistics are the averages that a run
      with config.ema keeps.

  Raises:
    ConfigError: no run there, or several; a module of the user that fails; no
      average, or one with population statistics; norms that keep none.
    CheckpointError: no such checkpoint, or a damaged one; no population
      statistics.
    DataError: the data, of which the run's manifest does not say all, are gone.
    StorageError: the manifest was changed.
    ValueError: a keyword out of its range.
  """
  checks.one_of('statistics', statistics, _STATISTICS)
  checks.flag('averaged', averaged)
  checks.count('step', step, least=0, also=(None,))
  if statistics == 'population' and averaged:
    raise errors.ConfigError(
      "statistics is 'population' with averaged=True; allowed: 'running'; "
      'recalibrate estimates those of the trained weights'
    )
  folder = _one_seed(pathlib.Path(path))
  config = saved.config_of(folder)
  problem = build.problem(config)
  state = saved.newest(folder, config, problem, step)
  if statistics == 'population':
    statistics_lib.check(
      folder, problem, "statistics is 'population'", 'running'
    )
    state = saved.population(folder, config, problem, state)
  if averaged:
    if not state.average:
      raise errors.ConfigError(
        f'{folder.label} keeps no average; allowed: averaged=False, or a run '
        'with config.ema'
      )
    state = state.averaged()
  mean, std = _moments(folder, config)
  facts = build.source(config).facts
  return Trained(
    build.network(config),
    {'params': state.params, 'batch_stats': state.batch_stats},
    config,
    int(state.step),
    facts.shape,
    np.asarray(mean, np.float32),
    np.asarray(std, np.float32),
    _classes(folder, config) if facts.classifies else (),
    _dtype(config),
  )


def _one_seed(path: pathlib.Path) -> run_folder.RunFolder:
  """Returns the only seed at a path; raises ConfigError for several."""
  folders = run_folder.find(path)
  if len(folders) > 1:
    labels = ', '.join(folder.label for folder in folders[:8])
    raise errors.ConfigError(
      f'{path} holds {len(folders)} trained networks; give one of them: '
      f'{labels}'
    )
  return folders[0]


def _moments(folder: run_folder.RunFolder, config: RunConfig) -> tuple:
  """Returns the mean and deviation of inputs: recorded, or else measured."""
  moments = folder.manifest.get('input')
  if moments:
    return moments['mean'], moments['std']
  return build.source(config).load().train.moments()  # an earlier version's


def _classes(
  folder: run_folder.RunFolder, config: RunConfig
) -> tuple[str | int, ...]:
  """Returns the name or number of each class, in the order of the outputs."""
  numbers = config.data.get('classes') or range(
    build.source(config).facts.num_classes
  )
  data = folder.manifest.get('data') or {}
  names = data.get('classes') or {}
  is_named = max(numbers) < len(names)
  return tuple(names[k] if is_named else k for k in numbers)


def _dtype(config: RunConfig) -> str:
  """Returns the dtype of the set's inputs, which binary images had too."""
  data = dict(config.data)
  if 'binarize' in data:
    data['binarize'] = None
  whole = build.dataset(FrozenDict(data), config.data_dir, config.modules)
  return whole.facts.dtype
