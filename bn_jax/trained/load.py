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
from bn_jax.config.run_config import RunConfig
from bn_jax.experiment import saved
from bn_jax.storage import run_folder
from bn_jax.trained import statistics as statistics_lib

_STATISTICS = ('running', 'population')
_WHITE = 255  # the grey level; binary images have 1 for it


class Trained(NamedTuple):
  """A trained network, and the inputs that it takes.

  Attributes:
    network: called as `network.apply(variables, x, statistics='running')`, with
      x normalised.
    variables: params and batch_stats.
    config: of the run, resolved.
    step: of training, at which the variables were saved.
    shape: of one input: (height, width, channels) of an image, or (D,).
    mean, std: by which an input is normalised, [C] float32, in the unit of the
      input: of images grey levels, 0 (black) to 255 (white), unless the set's
      pixels are integers that have no white.
    classes: what each output stands for: the name of a class where the data are
      a user's own, or its number in the set; () of a regression.
  """

  network: nn.Module
  variables: dict[str, Any]
  config: RunConfig
  step: int
  shape: tuple[int, ...]
  mean: np.ndarray
  std: np.ndarray
  classes: tuple[str | int, ...]

  def normalised(self, inputs: Any) -> jax.Array:
    """Returns what the network takes for these inputs, float32.

    Args:
      inputs: [N, *shape], such as the bytes of images.

    Raises:
      ValueError: inputs of another shape.
    """
    x = jnp.asarray(inputs)
    if x.shape[1:] != self.shape or not x.ndim:
      shape = ', '.join(map(str, self.shape))
      raise ValueError(
        f'inputs have the shape {list(x.shape)}; allowed: [N, {shape}], which '
        f'the network of {self.config.data["name"]} was trained on'
      )
    x = x.astype(jnp.float32)
    binarize = self.config.data.get('binarize')
    if binarize is not None:
      x = (x > _WHITE * binarize).astype(jnp.float32)
    channels = (1,) * (x.ndim - 1) + (-1,)
    return (x - self.mean.reshape(channels)) / self.std.reshape(channels)

  def outputs(self, inputs: Any) -> jax.Array:
    """Returns the network's outputs for inputs that are not normalised, [N, K].

    Raises:
      ValueError: inputs of another shape.
    """
    return _outputs(self.network, self.variables, self.normalised(inputs))

  def predict(self, inputs: Any) -> list[str | int]:
    """Returns the likeliest of `classes` for each input.

    Raises:
      ValueError: inputs of another shape, or a regression.
    """
    if not self.classes:
      raise ValueError(
        f'{self.config.data["name"]} has targets and no classes; use outputs'
      )
    numbers = np.asarray(self.outputs(inputs)).argmax(axis=-1)
    return [self.classes[number] for number in numbers]


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
      average.
    CheckpointError: no such checkpoint, or a damaged one; no population
      statistics.
    DataError: the data, of which the run's manifest does not say all, are gone.
    StorageError: the manifest was changed.
    ValueError: a keyword out of its range.
  """
  checks.one_of('statistics', statistics, _STATISTICS)
  checks.flag('averaged', averaged)
  checks.count('step', step, least=0, also=(None,))
  folder = _one_seed(pathlib.Path(path))
  config = saved.config_of(folder)
  problem = build.problem(config)
  state = saved.newest(folder, config, problem, step)
  if statistics == 'population':
    statistics_lib.check(folder, problem)
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
  recorded = folder.manifest.get('input')
  if recorded:
    return recorded['mean'], recorded['std']
  return build.source(config).load().train.moments()  # an earlier version's


def _classes(
  folder: run_folder.RunFolder, config: RunConfig
) -> tuple[str | int, ...]:
  """Returns the name or number of each class, in the order of the outputs."""
  chosen = config.data.get('classes') or range(
    build.source(config).facts.num_classes
  )
  data = folder.manifest.get('data') or {}
  names = data.get('classes') or {}
  return tuple(names[k] if k < len(names) else k for k in chosen)
