"""Builds the objects that train a resolved run."""

import contextlib
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax import (
  errors,
  losses,
  models,
  modules,
  norms,
  optim,
  plugins,
  trees,
  types,
)
from bn_jax import placement as placement_lib
from bn_jax.config import numbers as numbers_lib
from bn_jax.config.run_config import FrozenDict, RunConfig
from bn_jax.data import datasets
from bn_jax.models import parts
from bn_jax.optim import average, by_path
from bn_jax.training import devices as devices_lib
from bn_jax.training import problem as problem_lib
from bn_jax.training import seeds


def mesh(config: RunConfig) -> jax.sharding.Mesh:
  """Returns the devices of a run.

  Raises:
    ConfigError: this machine has fewer than config.devices.
  """
  with blaming('config'):
    return devices_lib.mesh(config.devices)


def source(config: RunConfig) -> datasets.Source:
  """Returns the dataset of a run, without reading it.

  Raises:
    ConfigError: an unknown name, or a keyword that its constructor refuses.
    DataError: what lies in the data_dir cannot be used.
  """
  return dataset(config.data, config.data_dir, config.modules)


def dataset(
  section: FrozenDict, data_dir: str | None, own_modules: FrozenDict
) -> datasets.Source:
  """Returns the dataset of the section `data`, as `source` does."""
  with blaming('config.data'):
    with modules.bound(own_modules):
      # Those of the data alone: runs that differ in others share their data.
      files = plugins.files([section['name']])
    frozen = {name: FrozenDict(entry) for name, entry in files.items()}
    return _source(section, data_dir, FrozenDict(frozen))


@functools.lru_cache
def _source(
  section: FrozenDict, data_dir: str | None, own_modules: FrozenDict
) -> datasets.Source:
  with modules.bound(own_modules):
    return datasets.make(**section, data_dir=data_dir)


def problem(config: RunConfig) -> types.Problem:
  """Returns the problem of a run for measures: whole batches, in float32.

  Nothing is compiled, no data are read.

  Raises:
    ConfigError: a value that its constructor refuses, an image too small for
      the network, a batch larger than the split, more devices than there are.
  """
  spread = devices_lib.spread(config.layout, mesh(config))
  if spread.axis_name and _is_users(config):  # before anything is written
    _traits(config, network(config, spread), spread)
  config = config.in_groups()
  measured = _problem(config, _as_measured(config))
  if measured.group_size is None and config.micro_batch_size is not None:
    raise errors.ConfigError(
      f'config.micro_batch_size: {config.micro_batch_size} with a network that '
      'normalises by the whole batch, as measures do then; allowed: None, or a '
      'norm with group_size'
    )
  with blaming('config.model'):
    params = jax.eval_shape(measured.init, 0).params
    _trace_batch(config, measured)
  if config.modules:
    _trace_own(config, measured)
  if _is_users(config) and config.layout != 'jit':
    spread = devices_lib.spread(config.layout, mesh(config))
    _traits(config, network(config, spread), spread)  # refuses a norm
  with blaming('config'):
    _check_paths(config, params)
  _check_frozen(config, params)
  return measured


def check(config: RunConfig) -> None:
  """Refuses what constructors refuse, which takes about a millisecond.

  Nothing is traced, and JAX looks for no devices. `problem` refuses more.

  Raises:
    ConfigError: a value that its constructor refuses.
    DataError: what lies in the data_dir cannot be used.
  """
  # 'auto' would ask for the devices.
  _parts(config, placement_lib.ALONE, config.model.get('lowering'))


class _Sight(NamedTuple):
  """How a network sees a batch, and computes."""

  spread: placement_lib.Spread
  dtype: jnp.dtype
  lowering: str | None  # None: it has no such keyword


def _as_measured(config: RunConfig) -> _Sight:
  """Returns how measures see a batch: all of it, in float32, exactly."""
  return _Sight(
    devices_lib.in_sight(mesh(config)),
    jnp.dtype(jnp.float32),
    lowerings(config).get('measure_lowering'),
  )


def _as_trained(config: RunConfig, spread: placement_lib.Spread) -> _Sight:
  """Returns how the step sees a batch that lies on devices as `spread` says."""
  dtype = jnp.dtype(config.compute_dtype)
  return _Sight(spread, dtype, lowerings(config).get('lowering'))


def step(
  config: RunConfig, problem: types.Problem
) -> Callable[[types.TrainState, types.Split], types.TrainState]:
  """Returns the training step of a run, jitted; it consumes the state.

  Args:
    problem: what `build.problem` returns for the config.
  """
  devices = mesh(config)
  spread = devices_lib.spread(config.layout, devices)
  return devices_lib.step(
    config.layout, _step(config, problem, spread), devices,
    placement(config, problem),
  )  # fmt: skip


def step_of_one(
  config: RunConfig, problem: types.Problem, numbers: tuple[str, ...] = ()
) -> Callable[[types.TrainState, types.Split], types.TrainState]:
  """Returns the step of one of several seeds, or runs, not compiled.

  Args:
    problem: what `build.problem` returns for the config.
    numbers: paths of those that the state has in the place of the config's.
  """
  if not numbers:
    return _step(config, problem, placement_lib.SEEDS)

  def step(state, split):
    varied = numbers_lib.replaced(config, state.numbers)
    sight = _as_trained(varied, placement_lib.SEEDS)
    return _problem(varied, sight).step(state, split)

  return step


def steps_of_seeds(
  config: RunConfig, problem: types.Problem, numbers: tuple[str, ...] = ()
) -> Callable[[types.TrainState, types.Split, int], types.TrainState]:
  """Returns the steps of several seeds of a run, jitted: `seeds.steps`.

  Args:
    problem, numbers: as in `step_of_one`.
  """
  # No batch is cut: a device has whole seeds, whatever the layout.
  function = step_of_one(config, problem, numbers)
  return seeds.steps(function, mesh(config))


def problem_of_seeds(
  config: RunConfig, numbers: tuple[str, ...] = ()
) -> types.Problem:
  """Returns the problem of a run for measures of several seeds at once.

  Args:
    numbers: as in `step_of_one`.
  """
  config = config.in_groups()
  sight = _as_measured(config)._replace(spread=placement_lib.SEEDS)
  problem = _problem(config, sight)
  if not numbers:
    return problem

  def own(name):
    def function(state, *rest, **more):
      varied = numbers_lib.replaced(config, state.numbers)
      return getattr(_problem(varied, sight), name)(state, *rest, **more)

    return function

  names = ('loss', 'learning_rate', 'updates', 'evaluate', 'activations')
  return problem._replace(**{name: own(name) for name in names})


def _step(
  config: RunConfig, problem: types.Problem, spread: placement_lib.Spread
) -> Callable[[types.TrainState, types.Split], types.TrainState]:
  """Returns the step of one seed, not compiled, for batches that lie so."""
  # A step that sees batches otherwise than measures has a network of its own,
  # with the same parameters.
  sight, grouped = _as_trained(config, spread), config.in_groups()
  if (config, sight) != (grouped, _as_measured(grouped)):
    return _problem(config, sight).step
  return problem.step


def placement(config: RunConfig, problem: types.Problem) -> Any:
  """Returns where each array of a run's state lies, a tree of shardings."""
  state_shapes = jax.eval_shape(problem.init, 0)
  return devices_lib.placement(
    state_shapes, mesh(config), shard_state=config.shard_state
  )


def init(
  config: RunConfig, problem: types.Problem
) -> Callable[[int], types.TrainState]:
  """Returns seed -> the state before the first step, on the run's devices."""
  # It runs once, too short to repay the five seconds in which XLA optimizes its
  # random number generators on the CPU.
  on_cpu = jax.default_backend() == 'cpu'
  options = {'xla_backend_optimization_level': 0} if on_cpu else None
  # Committed to their devices, as restored arrays are: else the step would be
  # compiled twice, for a seed that starts and for one that goes on.
  return jax.jit(
    problem.init,
    out_shardings=placement(config, problem),
    compiler_options=options,
  )


def network(
  config: RunConfig,
  spread: placement_lib.Spread = placement_lib.ALONE,
  lowering: str | None = None,
) -> nn.Module:
  """Returns the network of a run, for batches that lie as `spread` says.

  Args:
    lowering: of a network with that keyword; None: that of measures.

  Raises:
    ConfigError: a value that its constructor refuses.
  """
  with modules.bound(config.modules), blaming('config.norm'):
    norm = norms.make(**config.norm, spread=spread)
    norm = norm._replace(product=parts.product(spread))
  facts = source(config).facts
  model = dict(config.model)
  if 'lowering' in model:
    model['lowering'] = lowering or lowerings(config)['measure_lowering']
  with modules.bound(config.modules), blaming('config.model'):
    module = models.make(
      **model,
      num_classes=facts.num_classes,
      norm=norm,
    )
    return models.for_shape(module, facts.shape)


class _Parts(NamedTuple):
  """What the sections of a config build."""

  module: nn.Module
  optimizer: types.Optimizer
  penalty: Callable[[Any], jax.Array]
  sampler: types.Sampler
  loss: losses.Loss


def _parts(
  config: RunConfig, spread: placement_lib.Spread, lowering: str | None
) -> _Parts:
  module = network(config, spread, lowering)
  with modules.bound(config.modules), blaming('config.schedule'):
    schedule = optim.make_schedule(**config.schedule)
  with modules.bound(config.modules), blaming('config.optimizer'):
    optimizer = optim.make(
      schedule=schedule, weight_decay_on=config.weight_decay_on,
      **config.optimizer,
    )  # fmt: skip
  with blaming('config'):
    penalty = optim.weight_decay(
      weight_decay=config.weight_decay, weight_decay_on=config.weight_decay_on
    )
    optimizer = optim.within(
      optimizer, clip_norm=config.clip_norm, rates=config.rates,
      adaptive_clip=config.adaptive_clip, trainable=config.trainable,
    )  # fmt: skip
    average.check(config.ema)
    sampler = source(config).sampler(config.batch_size)
  with modules.bound(config.modules), blaming('config.loss'):
    loss = losses.make(**config.loss)
    _check_targets(config, loss)
  return _Parts(module, optimizer, penalty, sampler, loss)


def _problem(config: RunConfig, sight: _Sight) -> types.Problem:
  spread = sight.spread
  parts = _parts(config, spread, sight.lowering)
  traits = _traits(config, parts.module, spread)
  return problem_lib.make(
    parts.module,
    parts.optimizer,
    sampler=parts.sampler,
    penalty=parts.penalty,
    image_shape=source(config).facts.shape,
    layers=models.layers,
    taps=_taps(config, parts.module, spread),
    loss=parts.loss,
    ring_size=min(config.log_every_steps, config.steps),
    compute_dtype=sight.dtype,
    spread=spread,
    group_size=traits.group_size,
    noisy=traits.noisy,
    micro_batches=config.batch_size // config.examples_at_a_time,
    remat=config.remat,
    max_skips=config.max_skips,
    ema=config.ema,
    keeps_statistics=norms.keeps_statistics,
    population=functools.partial(norms.population_statistics, parts.module),
    adapted=functools.partial(norms.adapted, parts.module),
  )


def _traits(
  config: RunConfig, module: nn.Module, spread: placement_lib.Spread
) -> models.Traits:
  """Returns what training has to know of the network.

  One of our networks has the config's norm and no other; users' are traced.
  """
  norm = config.norm
  if _is_users(config):
    with modules.bound(config.modules), blaming('config.model'):
      traits = models.traits(module, source(config).facts.shape, spread)
      own = norms.make(**norm, spread=spread)
      return models.with_norm(traits, own, spread)
  layer = norms.make(**norm, spread=spread).layer(None)
  return models.Traits(group_size=layer.sees(), noisy=layer.is_noisy)


def _taps(
  config: RunConfig, module: nn.Module, spread: placement_lib.Spread
) -> tuple[tuple[str, str], ...]:
  """Returns the taps of a network, which are the same on any devices."""
  if spread.axis_name and _is_users(config):
    module = network(config)  # is traced, for which it needs no axis
  return models.taps(module)


def _is_users(config: RunConfig) -> bool:
  """Returns whether the network or its norm is a user's."""
  names = (config.model['name'], config.norm['name'])
  return any(map(plugins.is_reference, names))


def _check_targets(config: RunConfig, loss: losses.Loss) -> None:
  """Raises ValueError unless a classification has labels, others numbers."""
  targets = source(config).shapes(config.batch_size).labels
  if loss.classifies != (targets.ndim == 1):
    has = 'labels' if targets.ndim == 1 else 'numbers as targets'
    fits = 'cross_entropy' if targets.ndim == 1 else 'squared_error'
    raise ValueError(
      f'{config.loss["name"]} does not fit {config.data["name"]}, which has '
      f'{has}; give loss.name={fits!r}'
    )


def _check_frozen(config: RunConfig, params: Any) -> None:
  """Refuses a penalty that would move what the norm does not train."""
  keys = {'frozen': True, 'affine': False}
  stays = [key for key, x in keys.items() if config.norm.get(key) is x]
  decay = config.weight_decay or config.optimizer.get('weight_decay')
  if not decay or not stays:
    return
  decayed = by_path.chosen(params, config.weight_decay_on)
  paths = dict(zip(trees.paths(params), jax.tree.leaves(decayed)))
  for path, is_decayed in paths.items():
    module, _, name = path.rpartition('/')
    if is_decayed and (name == 'scale' or f'{module}/scale' in paths):
      raise errors.ConfigError(
        f'config.weight_decay_on: {config.weight_decay_on!r} would shrink '
        f'{path}, which is to stay; allowed with norm.{stays[0]}='
        f"{keys[stays[0]]}: 'kernels', or other globs that leave out the scale "
        'and bias of norms'
      )


def _check_paths(config: RunConfig, params: Any) -> None:
  """Raises ValueError for globs of paths that name no parameter."""
  globs = {'trainable': config.trainable}
  if config.weight_decay or config.optimizer.get('weight_decay'):
    globs['weight_decay_on'] = config.weight_decay_on
  if 'perturb' in config.optimizer:
    globs['optimizer.perturb'] = config.optimizer['perturb']
  optim.check_found(params, rates=config.rates, globs=globs)


def _trace_batch(config: RunConfig, problem: types.Problem) -> None:
  """Traces one training batch, so that a misfit shows before compiling."""
  state = jax.eval_shape(problem.init, 0)
  with blaming('config.data'):
    jax.eval_shape(
      problem.batch, state, source(config).shapes(config.batch_size)
    )
  batch = shapes(config, config.examples_at_a_time)
  jax.eval_shape(
    lambda s, b: problem.activations(s, b, 'batch', problem.taps[-1:]),
    state,
    batch,
  )


def _trace_own(config: RunConfig, problem: types.Problem) -> None:
  """Traces what users wrote as evaluation and a step call it."""
  state = jax.eval_shape(problem.init, 0)
  size = config.examples_at_a_time
  batch = shapes(config, size)
  with blaming('config.model'):
    outputs = jax.eval_shape(
      lambda s, b: problem.outputs(s, b, statistics='running'), state, batch
    )
    allowed = (size, source(config).facts.num_classes)
    if getattr(outputs, 'shape', None) != allowed:
      raise ValueError(
        f'{config.model["name"]} returns outputs of shape '
        f'{jax.tree.map(lambda x: x.shape, outputs)}; allowed: {allowed}'
      )
  with blaming('config.loss'):
    jax.eval_shape(problem.evaluate, state, batch)
  with blaming('config.optimizer'):
    split = source(config).shapes(config.batch_size)
    jax.eval_shape(problem.step, state, split)


def shapes(config: RunConfig, size: int) -> types.Batch:
  """Returns the shapes of a batch of `size` examples."""
  batch_shapes = source(config).shapes(config.batch_size)
  inputs = jax.ShapeDtypeStruct(
    (size, *batch_shapes.images.shape[1:]), jnp.float32
  )
  targets = batch_shapes.labels
  return types.Batch(
    inputs,
    jax.ShapeDtypeStruct((size, *targets.shape[1:]), targets.dtype),
    None,
  )


def lowerings(config: RunConfig) -> dict[str, str]:
  """Returns 'lowering', of the step, and 'measure_lowering', with no 'auto'.

  Empty for a network without that keyword. One that a config names is that of
  both. Of 'auto' the step has what is fast and fit for training, but keeps
  what a run was begun with; measures have what rounds as the operations do.
  """
  if 'lowering' not in config.model:
    return {}
  training, measures = config.model['lowering'], config.measure_lowering
  if measures == 'auto':
    measures = training
  on_cpu = jax.default_backend() == 'cpu'
  # Not in a loop of the program, where the transforms of 'winograd' are several
  # times slower; and 'jit' adds up over devices what they have of a kernel's
  # gradient before its last transform, which is four times as large.
  in_loop = config.examples_at_a_time < config.batch_size
  over_devices = config.layout == 'jit' and config.devices > 1
  fast = 'product' if in_loop or over_devices else 'winograd'
  fast = config.lowering or fast
  exact = 'product'
  if not on_cpu:
    fast = exact = 'library'
  return {
    'lowering': fast if training == 'auto' else training,
    'measure_lowering': exact if measures == 'auto' else measures,
  }


@contextlib.contextmanager
def blaming(where: str):
  """Turns a constructor's refusal into one that names `where` in the config.

  Args:
    where: a section, or 'config', of which the refusal begins with the key.
  """
  try:
    yield
  except errors.Failure:
    raise
  except (ValueError, TypeError) as error:
    place = modules.place(error)
    text = modules.described(error) if place else str(error)
    if where == 'config.model' and isinstance(error, norms.Misfit):
      where = 'config.norm'
    if where == 'config' and not place:  # then the text begins with the key
      text = re.sub(r'^(\S+) is ', r'\1: ', text)
      raise errors.ConfigError(f'config.{text}') from error
    raise errors.ConfigError(f'{where}: {text}') from error
  except (Exception, SystemExit) as error:
    if modules.place(error) is None:  # a bug of ours
      raise
    raise errors.ConfigError(f'{where}: {modules.described(error)}') from error
