"""Checks the theory on each run of a config, after a few steps."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bn_jax import errors, plugins, types
from bn_jax.analysis import activations
from bn_jax.config import build, resolve
from bn_jax.config.run_config import RunConfig
from bn_jax.data import datasets
from bn_jax.experiment import run as run_lib
from bn_jax.trained import statements

# The norms that compute Algorithm 1; 'noisy' does with its noise off, as here.
_BATCH_NORMS = ('batch', 'noisy')


class After(NamedTuple):
  """A run after some steps.

  Attributes:
    steps: the number of --steps; training may have diverged before.
    start: the parameters before the first step.
    state: the state after the last step.
    batch: the batch of the next step.
  """

  seed: int
  steps: int
  start: Any
  state: types.TrainState
  batch: types.Batch


def texts(
  resolved: resolve.Experiment,
  *,
  only: str | None,
  units: int,
  steps: int,
) -> Iterator[str]:
  """Yields what to print, run by run.

  Args:
    only: a run, or a run and seed; None for all runs, with their first seed.
    units: the most units of each normalization.
    steps: the number of training steps before the statements are checked.

  Raises:
    ConfigError: an unknown run, one that cannot be built, or a TPU.
    DataError: the data are not there, or not what their name promises.
  """
  _check_platform()
  seeds_of = resolved.chosen(only)
  configs = {name: _alone(resolved.runs[name]) for name in seeds_of}
  problems, layers_before = {}, {}
  for name, config in configs.items():
    with resolve.naming(name, resolved.runs):
      problems[name] = build.problem(config)
    layers_before[name] = _before(config)
  datasets = {}  # id of a source -> what it loads, once
  for name, config in configs.items():
    if not layers_before[name]:
      yield _left_out(name, config)
      continue
    source = build.source(config)
    if id(source) not in datasets:
      datasets[id(source)] = source.load()
    after = _train(
      config, problems.pop(name), datasets[id(source)], seeds_of[name][0],
      steps,
    )  # fmt: skip
    yield from _of_run(name, config, layers_before[name], after, units)
  if any(layers_before.values()):
    yield statements.LEGEND


def _check_platform() -> None:
  if jax.default_backend() == 'tpu':
    raise errors.ConfigError(
      'the theory needs float64, which a TPU lacks; allowed: JAX_PLATFORMS=cpu'
    )


def _alone(config: RunConfig) -> RunConfig:
  """Returns a run on one device, without measures: the same, up to rounding."""
  return config.replace(devices=1, layout='jit', shard_state=False, measures={})


def _before(config: RunConfig) -> dict[str, str]:
  """Returns path of a Batch Normalization -> path of the layer before."""
  norm = config.norm
  # With statistics as constants the derivative is not that of Algorithm 1.
  constant = norm.get('stop_statistics_gradient') or norm.get('frozen')
  if norm['name'] not in _BATCH_NORMS or constant:
    return {}
  return {
    path: name
    for name, paths in build.network(config).layer_paths()
    for path in paths
    if 'norm' in path.rpartition('/')[2]
  }


def _train(
  config: RunConfig,
  problem: types.Problem,
  dataset: datasets.Dataset,
  seed: int,
  steps: int,
) -> After:
  program = run_lib.program(config, problem, dataset)
  state = program.init(seed)
  start = jax.device_get(state.params)  # a copy: the step consumes the state
  program.feed.start(seed=seed, first_step=0)
  for _ in range(steps):
    state = program.step(state)
  batch = program.problem.batch(state, program.feed.peek())
  program.feed.close()
  return After(seed, steps, start, state, batch)


def _of_run(name, config, before, after, units) -> Iterator[str]:
  """Yields what the table of a run is about, then the table."""
  layers = activations.chosen_layers(tuple(before.values()), ())
  yield _caption(name, config, after, layers)
  yield _table(config, before, after, layers, units)


def _table(
  config: RunConfig,
  before: Mapping[str, str],
  after: After,
  layers: tuple[str, ...],
  units: int,
) -> str:
  """Returns the table of a run, in float64 whatever it was trained in."""
  with jax.enable_x64(True):
    start, end, batch_stats, batch = jax.tree.map(
      _in_float64,
      (
        after.start,
        after.state.params,
        after.state.batch_stats,
        after.batch,
      ),
    )
    network = statements.Network(
      loss=_loss(config, batch_stats, batch),
      params=end,
      before={path: layer for path, layer in before.items() if layer in layers},
    )
    key = jax.random.key(after.seed)
    unit_outcomes = statements.of_units(network, units=units, key=key)
    weight_outcomes = statements.of_weights(
      *(
        {path: _at(params, path)['kernel'] for path in before.values()}
        for params in (start, end)
      )
    )
  return statements.table(*unit_outcomes, weight_outcomes)


def _loss(config: RunConfig, batch_stats: Any, batch: types.Batch):
  """Returns params -> cross-entropy of a batch, with noise and dropout off."""
  network = build.network(config)

  def loss(params):
    logits, _ = network.apply(
      {'params': params, 'batch_stats': batch_stats},
      batch.images,
      statistics='batch',
      mutable=['batch_stats'],
    )
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, batch.labels
    ).mean()

  return loss


def _caption(
  name: str, config: RunConfig, after: After, layers: tuple[str, ...]
) -> str:
  step = int(after.state.step)
  diverged = ', where it diverged' if step < after.steps else ''
  text = (
    f'{name}: {config.model["name"]}, norm {config.norm["name"]}, after step '
    f'{step} of seed {after.seed}{diverged}; loss of the next batch of '
    f'{config.batch_size}, in float64, noise and dropout off; units of the '
    f'normalizations after {", ".join(layers)}.'
  )
  return textwrap.fill(text, statements.WIDTH) + '\n\n'


def _left_out(name: str, config: RunConfig) -> str:
  if plugins.is_reference(config.model['name']):
    return (
      f'{name}: network {config.model["name"]}; the theory looks at the '
      f"config's norm ({', '.join(_BATCH_NORMS)}) under paths with 'norm'\n\n"
    )
  return (
    f'{name}: norm {config.norm["name"]}; the theory is about Batch '
    f'Normalization ({", ".join(_BATCH_NORMS)}), differentiated in full\n\n'
  )


def _in_float64(x: jax.Array) -> jax.Array:
  """Returns x, in float64 if it is floating point."""
  x = jnp.asarray(x)
  return x.astype(float) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _at(tree: Mapping[str, Any], path: str) -> Any:
  for key in path.split('/'):
    tree = tree[key]
  return tree
