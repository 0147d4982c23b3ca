"""From a resolved run to the objects that train it."""

import contextlib
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax import errors, losses, models, norms, optim, types
from bn_jax import placement as placement_lib
from bn_jax.data import datasets
from bn_jax.training import devices as devices_lib
from bn_jax.training import problem as problem_lib

Config = dict[str, Any]


def mesh(run: Config) -> jax.sharding.Mesh:
  """The devices of a run.

  Raises:
    ConfigError: there are fewer.
  """
  with blaming('config'):
    return devices_lib.mesh(run['devices'])


def source(run: Config) -> datasets.Source:
  """The dataset of a run, which is not read yet.

  Raises:
    ConfigError: an unknown name, or a keyword that its constructor refuses.
    DataError: what lies in the data_dir cannot be used.
  """
  with blaming('config.data'):
    return _source(json.dumps(run['data']), run['data_dir'])


@functools.lru_cache
def _source(section: str, data_dir: str | None) -> datasets.Source:
  return datasets.make(**json.loads(section), data_dir=data_dir)


def problem(run: Config) -> types.Problem:
  """The problem of a run, as measures see it: whole batches, in float32.

  Nothing is compiled, no data are read.

  Raises:
    ConfigError: a value that its constructor refuses, an image too small for
      the network, a batch larger than the split, devices that are not there.
  """
  run = in_groups(run)
  made = _problem(run, *_as_measured(run))
  with blaming('config.model'):
    jax.eval_shape(made.init, 0)
    _trace_batch(run, made)
  return made


def _as_measured(run: Config) -> tuple[placement_lib.Spread, Any]:
  """How measures see a batch: all of it, in float32."""
  return devices_lib.in_sight(mesh(run)), jnp.dtype(jnp.float32)


def in_groups(run: Config) -> Config:
  """The run, with the micro-batches of training as statistics groups."""
  norm, micro = run['norm'], run['micro_batch_size']
  if micro is None or 'group_size' not in norm:
    return run
  return {**run, 'norm': {**norm, 'group_size': norm['group_size'] or micro}}


def step(
  run: Config, made: types.Problem
) -> Callable[[types.TrainState, types.Split], types.TrainState]:
  """The compiled training step of a run; it consumes the state.

  Args:
    run: the resolved run.
    made: what `problem` gives for it.
  """
  devices = mesh(run)
  spread = devices_lib.spread(run['layout'], devices)
  dtype = jnp.dtype(run['compute_dtype'])
  trained = made
  # Measures see whole batches in float32; a step that does not has a network
  # of its own, with the same parameters.
  if (run, spread, dtype) != (in_groups(run), *_as_measured(run)):
    trained = _problem(run, spread, dtype)
  return devices_lib.step(
    run['layout'], trained.step, devices, placement(run, made)
  )


def placement(run: Config, made: types.Problem) -> Any:
  """Where each array of a run's state lies, a tree of shardings."""
  shapes = jax.eval_shape(made.init, 0)
  return devices_lib.placement(
    shapes, mesh(run), shard_state=run['shard_state']
  )


def init(run: Config, made: types.Problem) -> Callable[[int], types.TrainState]:
  """seed -> the state before the first step, on its devices, compiled."""
  # It runs once: five seconds of optimizing random number generators for it,
  # as XLA does on the CPU, are lost.
  on_cpu = jax.default_backend() == 'cpu'
  options = {'xla_backend_optimization_level': 0} if on_cpu else None
  # Committed to their devices, as restored arrays are: else the first seed that
  # goes on and the first that starts would each compile the program.
  return jax.jit(
    made.init, out_shardings=placement(run, made), compiler_options=options
  )


def network(
  run: Config, spread: placement_lib.Spread = placement_lib.ALONE
) -> nn.Module:
  """The network of a run, for batches that lie as `spread` says.

  Raises:
    ConfigError: a value that its constructor refuses.
  """
  with blaming('config.norm'):
    norm = norms.make(**run['norm'], spread=spread)
  with blaming('config.model'):
    return models.make(
      **{**run['model'], **lowering(run)},
      num_classes=source(run).facts.num_classes,
      norm=norm,
    )


def _problem(run: Config, spread: placement_lib.Spread, dtype) -> types.Problem:
  made_of = source(run)
  module = network(run, spread)
  with blaming('config.schedule'):
    schedule = optim.make_schedule(**run['schedule'])
  with blaming('config.optimizer'):
    optimizer = optim.make(schedule=schedule, **run['optimizer'])
  with blaming('config'):
    penalty = optim.weight_decay(
      weight_decay=run['weight_decay'], weight_decay_on=run['weight_decay_on']
    )
    sampler = made_of.sampler(run['batch_size'])
  with blaming('config.loss'):
    loss = losses.make(**run['loss'])
    _check_targets(run, loss)
  _check_frozen(run)
  return problem_lib.make(
    module,
    optimizer,
    sampler=sampler,
    penalty=penalty,
    image_shape=made_of.facts.shape,
    layers=models.layers,
    taps=models.taps(module),
    loss=loss,
    ring_size=run['log_every_steps'],
    compute_dtype=dtype,
    spread=spread,
    group_size=_group_size(run),
    noisy=run['norm']['name'] in ('noise', 'noisy'),
    micro_batches=run['batch_size'] // _at_a_time(run),
    remat=run['remat'],
    max_skips=run['max_skips'],
  )


def _group_size(run: Config) -> int | None:
  """Examples that see each other with batch statistics; None: all."""
  norm = run['norm']
  apart = 'group_size' not in norm or norm.get('frozen')
  return 1 if apart else norm['group_size']


def _check_targets(run: Config, loss: losses.Loss) -> None:
  """Labels for a classification, numbers for a regression."""
  targets = source(run).shapes(run['batch_size']).labels
  if loss.classifies != (targets.ndim == 1):
    has = 'labels' if targets.ndim == 1 else 'numbers as targets'
    fits = 'cross_entropy' if targets.ndim == 1 else 'squared_error'
    raise ValueError(
      f'{run["loss"]["name"]} does not fit {run["data"]["name"]}, which has '
      f'{has}; give loss.name={fits!r}'
    )


def _check_frozen(run: Config) -> None:
  """A penalty on all parameters would move those that are to stay."""
  if not run['weight_decay'] or run['weight_decay_on'] != 'all':
    return
  for key, value in (('frozen', True), ('affine', False)):
    if run['norm'].get(key) is value:
      raise errors.ConfigError(
        "config.weight_decay_on: 'all' would shrink the scale and bias of the "
        f"norm, which are to stay; allowed with norm.{key}={value}: 'kernels'"
      )


def _at_a_time(run: Config) -> int:
  """Examples whose gradient is taken at a time."""
  return run['micro_batch_size'] or run['batch_size']


def _trace_batch(run: Config, made: types.Problem) -> None:
  """Shapes of one training batch: what does not fit shows before compiling."""
  state = jax.eval_shape(made.init, 0)
  with blaming('config.data'):
    jax.eval_shape(made.batch, state, source(run).shapes(run['batch_size']))
  batch = shapes(run, _at_a_time(run))
  jax.eval_shape(
    lambda s, b: made.activations(s, b, 'batch', made.taps[-1:]), state, batch
  )


def shapes(run: Config, size: int) -> types.Batch:
  """The shapes of a batch of so many examples."""
  of_step = source(run).shapes(run['batch_size'])
  inputs = jax.ShapeDtypeStruct((size, *of_step.images.shape[1:]), jnp.float32)
  targets = of_step.labels
  return types.Batch(
    inputs,
    jax.ShapeDtypeStruct((size, *targets.shape[1:]), targets.dtype),
    None,
  )


def lowering(run: Config) -> dict[str, str]:
  """{'lowering': ...} of a run's convolutions, 'auto' by this platform.

  Empty for a network that knows no lowering.
  """
  if 'lowering' not in run['model']:
    return {}
  given = run['model']['lowering']
  if given != 'auto':
    return {'lowering': given}
  on_cpu = jax.default_backend() == 'cpu'
  return {'lowering': 'product' if on_cpu else 'library'}


@contextlib.contextmanager
def blaming(where: str):
  """Turns a constructor's refusal into one that names the config's section."""
  try:
    yield
  except errors.Failure:
    raise
  except (ValueError, TypeError) as error:
    raise errors.ConfigError(f'{where}: {error}') from error
