"""Binds measures to their data, and states the conditions of their records."""

import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import analysis, errors, plugins, types
from bn_jax.analysis import chunks, kind
from bn_jax.config import build
from bn_jax.config.run_config import RunConfig
from bn_jax.data import datasets
from bn_jax.experiment import cost
from bn_jax.host import processes
from bn_jax.training import devices as devices_lib
from bn_jax.training import loop, seeds

PRECISION = 'highest'  # of every product of a measure
# Of the memory that is left, for one gradient: the other half is for the copies
# of parameters that a measure keeps, and for what the estimate leaves out.
_SHARE = 0.5
_log = logging.getLogger('bn_jax')


class Bound(NamedTuple):
  """A measure with its data.

  Attributes:
    look: (state, journal=None, states=None) -> (name of a quantity -> array).
    conditions: what its records say: statistics, data, examples, precision.
    arrays: whether its results are too large for a line of records.
  """

  look: Callable[..., dict[str, Any]]
  conditions: dict[str, Any]
  arrays: bool


def probes(
  config: RunConfig,
  problem: types.Problem,
  dataset: datasets.Dataset,
  feed: datasets.Feed,
  check_stop: Callable[[], None] = lambda: None,
) -> list[loop.Probe]:
  """Returns the measures of a run, bound to data and times, in config order.

  Args:
    dataset: placed on the devices.
    feed: what the steps of training draw their batches from.
    check_stop: called before each batch; what it raises ends the look.
  """
  bound_probes = []
  for name, section in config.measures.items():
    section = dict(section)
    every_steps = section.pop('every_steps')
    with build.blaming(f'config.measures.{name}'):
      section = fitted(section, config, problem)
    measure = bound(
      section, config, problem, dataset, feed, check_stop=check_stop
    )
    bound_probes.append(
      loop.Probe(
        name,
        measure.look,
        every_steps,
        measure.arrays,
        measure.conditions,
        _look_at_all(section, config, dataset, feed, check_stop),
      )
    )
  return bound_probes


def _look_at_all(
  section: Mapping[str, Any],
  config: RunConfig,
  dataset: datasets.Dataset,
  feed: datasets.Feed,
  check_stop: Callable[[], None],
) -> Callable[[types.TrainState], list[dict[str, Any]]] | None:
  """Returns the look at several seeds at once, built at its first call.

  None for what is looked at seed by seed.
  """
  of_seeds = analysis.kind_of(section['name']).of_seeds
  if of_seeds is None:
    return None
  is_drawn = section['data'] == 'current_batch'
  bind = of_seeds(**{k: v for k, v in keywords(section).items() if k != 'name'})
  if bind is None:
    return None

  @functools.cache
  def look(numbers):
    problem = build.problem_of_seeds(config, numbers)
    batch_of = problem.batch if is_drawn else lambda state, batch: batch
    mapped = functools.partial(seeds.mapped, devices=build.mesh(config))
    return bind(problem, mapped, batch_of)

  @functools.cache
  def batches():
    # Whole on each device, which has seeds of its own.
    whole = devices_lib.whole(build.mesh(config))
    return _of_split(
      section['data'], config, dataset, lambda x: jax.device_put(x, whole)
    )

  def shared():
    for part in (feed.peek(),) if is_drawn else batches()():
      check_stop()
      yield part

  return lambda states: look(tuple(states.numbers))(states, shared())


def bound(
  section: Mapping[str, Any],
  config: RunConfig,
  problem: types.Problem,
  dataset: datasets.Dataset,
  feed: datasets.Feed,
  *,
  statistics: str | None = None,
  check_stop: Callable[[], None] = lambda: None,
) -> Bound:
  """Returns a measure with its data.

  Args:
    section: of the measure: name, data and keywords; see `fitted`.
    dataset: placed on the devices.
    feed: what the steps of training draw their batches from.
    statistics: 'population' if the state holds these in place of running
      averages; None: what the section says.
    check_stop: called before each batch; what it raises ends the look.
  """
  measure = analysis.make(**keywords(section))
  batches = _batches(section['data'], config, problem, dataset, feed)

  def stoppable(batches_of_look):
    for batch in batches_of_look:
      check_stop()
      yield batch

  told = set()

  takes_states = plugins.takes(measure, 'states')

  def look(state, journal=None, states=None):
    more = {'states': states} if takes_states else {}
    values = measure(problem, state, stoppable(batches(state)), journal, **more)
    if plugins.is_reference(section['name']):
      _tell_not_finite(section['name'], told, values)
    return values

  return Bound(
    look,
    conditions(section, config, statistics),
    analysis.kind_of(section['name']).arrays,
  )


def _tell_not_finite(
  name: str, told: set[str], values: Mapping[str, Any]
) -> None:
  """Warns of numbers of a user's measure that are not finite, once a name.

  Args:
    told: the names so far.
  """
  for value, numbers in values.items():
    if value not in told and not np.isfinite(numbers).all():
      told.add(value)
      _log.warning('the measure of %s: %r is not finite', name, value)


def keywords(section: Mapping[str, Any]) -> Mapping[str, Any]:
  """Returns the keywords of the constructor in a measure's section."""
  return {k: v for k, v in section.items() if k not in ('data', 'every_steps')}


def conditions(
  section: Mapping[str, Any], config: RunConfig, statistics: str | None = None
) -> dict[str, Any]:
  """Returns the conditions that the records of a measure state."""
  record_conditions = {
    'statistics': statistics or statistics_of(section),
    'data': section['data'],
    'examples': examples(section, config),
    'precision': PRECISION,
  }
  if 'measure_lowering' in (lowerings := build.lowerings(config)):
    record_conditions['lowering'] = lowerings['measure_lowering']
  # Groups change the function; chunks the order of sums, and so the last bits.
  for key in ('group_size', 'chunk_size', 'batch_size'):
    if section.get(key) not in (None, 'auto'):
      record_conditions[key] = section[key]
  return record_conditions


def statistics_of(section: Mapping[str, Any]) -> str:
  """Returns with whose statistics a measure looks: 'batch', 'batch, reset'."""
  over = analysis.kind_of(section['name']).over(section)
  return ', '.join(over) or section.get('statistics', 'running')


def _sees_batches(section: Mapping[str, Any]) -> bool:
  """Returns whether norms use statistics of a batch, or a chunk of one."""
  over = analysis.kind_of(section['name']).over(section)
  every = over or (section.get('statistics'),)
  return not {'batch', 'reset'}.isdisjoint(every)


def examples(section: Mapping[str, Any], config: RunConfig) -> int:
  """Returns how many examples a measure looks at."""
  split, _, count = section['data'].partition(':')
  if split == 'current_batch':
    size = config.batch_size
  else:
    facts = build.source(config).facts
    size = int(
      count or {'train': facts.num_train, 'test': facts.num_test}[split]
    )
  return min(size, section['examples']) if 'examples' in section else size


def _batches(
  data: str,
  config: RunConfig,
  problem: types.Problem,
  dataset: datasets.Dataset,
  feed: datasets.Feed,
) -> Callable[[types.TrainState], Iterable[types.Batch]]:
  """Returns state -> the batches that a measure looks at."""
  if data == 'current_batch':
    return lambda state: (problem.batch(state, feed.peek()),)
  laid = functools.partial(devices_lib.laid, devices=build.mesh(config))
  batches = _of_split(data, config, dataset, laid)
  return lambda state: batches()


def _of_split(
  data: str,
  config: RunConfig,
  dataset: datasets.Dataset,
  laid: Callable[[types.Batch], types.Batch],
) -> Callable[[], Iterable[types.Batch]]:
  """Returns () -> the batches of a split that a measure looks at, laid."""
  name, _, count = data.partition(':')
  split = getattr(dataset, name)
  if count:
    batch = laid(split.first(int(count)))
    return lambda: (batch,)
  return lambda: map(laid, split.batches(config.evaluation_batch_size))


def check(config: RunConfig, problem: types.Problem) -> None:
  """Checks each measure of a run; nothing is compiled.

  Raises:
    ConfigError: what `check_one` refuses, with its path in the config.
  """
  for name, section in config.measures.items():
    with build.blaming(f'config.measures.{name}'):
      check_one(section, config, problem)
  check_others(config)


def check_others(config: RunConfig) -> None:
  """Raises ConfigError for checkpoints that are not there in training."""
  for name, section in config.measures.items():
    with build.blaming(f'config.measures.{name}'):
      _check_others(section)


def _check_others(section: Mapping[str, Any]) -> None:
  """Raises ValueError for checkpoints that are not there in training."""
  for reference in analysis.kind_of(section['name']).others(section):
    if reference != '0':
      other = 'all checkpoints' if reference == kind.EVERY else reference
      raise ValueError(
        f'{section["name"]} looks at {other}; allowed in training: 0, the '
        'state before the first step (afterwards: python -m bn_jax analyze RUN '
        f'--measure={section["name"]})'
      )


def check_one(
  section: Mapping[str, Any], config: RunConfig, problem: types.Problem
) -> None:
  """Checks a measure: its keywords, layers, data and chunks; compiles nothing.

  Raises:
    ValueError: a keyword that the measure refuses, a layer that the network
      lacks, more examples than a split has, not whole groups of them, or chunks
      that would change the function.
  """
  analysis.make(**keywords(section))
  if section['data'] in ('train', 'test'):
    cost.check_batch(
      'config.evaluation_batch_size', config.evaluation_batch_size,
      build.source(config).facts.shape,
    )  # fmt: skip
  if 'layers' in section:
    _check_layers(section, config, problem)
  if section['data'] != 'current_batch':
    _check_data(section, config, problem)
  _check_chunks(section, config, problem)
  _of_examples(section, config, problem)
  kind = analysis.kind_of(section['name'])
  if kind.check is not None:
    kind.check(section, problem, jax.eval_shape(problem.init, 0))


def _of_examples(
  section: Mapping[str, Any], config: RunConfig, problem: types.Problem
) -> Mapping[str, Any]:
  """Returns a section as its measure has it for the examples that it is given.

  Raises:
    ValueError: the measure cannot look at so many.
  """
  is_batch = section.get('statistics') == 'batch'
  return analysis.kind_of(section['name']).fitted(
    section, examples(section, config), problem.group_size if is_batch else 1
  )


def _check_layers(
  section: Mapping[str, Any], config: RunConfig, problem: types.Problem
) -> None:
  """Checks that the network has the layers, and lets the measure at them."""
  kind = analysis.kind_of(section['name'])
  state = jax.eval_shape(problem.init, 0)
  every = [name for name, _ in problem.layers(state)]
  layers = every if kind.layers == 'all' else problem.taps
  if not layers:
    of = 'layers' if kind.layers == 'all' else 'inputs of nonlinearities'
    raise ValueError(
      f'{section["name"]} looks at {of}, and {config.model["name"]} has none '
      'that can be found; allowed: other measures'
    )
  for layer in section['layers']:
    if layer not in layers:
      has_no_tap = layer in every and ' (nothing can be read behind this one)'
      raise ValueError(
        errors.unknown('layer', layer, layers) + (has_no_tap or '')
      )
  changed = kind.replaces(section, layers) if kind.replaces else ()
  if changed and config.modules:  # those of this package let it
    zeros = dict.fromkeys(changed, jnp.zeros(()))
    jax.eval_shape(
      lambda s, b: problem.perturbed(s, b, 'running')(s.params, zeros),
      state,
      build.shapes(config, 1),
    )


def where_apart(
  section: Mapping[str, Any], problem: types.Problem
) -> Mapping[str, Any]:
  """Returns a section, its groups as chunks where no example sees another."""
  is_apart = problem.group_size == 1 and _sees_batches(section)
  if not is_apart or section.get('group_size') is None:
    return section
  if section['chunk_size'] != 'auto':
    return {**section, 'group_size': None}
  return {
    **section, 'group_size': None, 'chunk_size': section['group_size'],
  }  # fmt: skip


def _check_data(
  section: Mapping[str, Any], config: RunConfig, problem: types.Problem
) -> None:
  """Checks that a split has the examples, and that they make whole groups."""
  facts = build.source(config).facts
  split, _, count = section['data'].partition(':')
  size = int(count) if count else config.evaluation_batch_size
  available = {'train': facts.num_train, 'test': facts.num_test}[split]
  if count and size > available:
    raise ValueError(
      f'data is {section["data"]!r}; {split} has {available} examples; '
      f'allowed: {split}:N up to that'
    )
  if not _sees_batches(section) or _chunk(section) not in (None, 0):
    return
  state = jax.eval_shape(problem.init, 0)
  jax.eval_shape(
    lambda s, b: problem.activations(s, b, 'batch', problem.taps[-1:]),
    state,
    build.shapes(config, size),
  )


def _chunk(section: Mapping[str, Any]) -> int | None:
  """Returns the chunk size of a section; None also for 'auto'."""
  size = section.get('chunk_size')
  return None if size == 'auto' else size


def _check_chunks(
  section: Mapping[str, Any], config: RunConfig, problem: types.Problem
) -> None:
  """Refuses chunks that would change the function, and groups without them."""
  group = section.get('group_size')
  size, count = _chunk(section), examples(section, config)
  if group is not None:
    if not _sees_batches(section) or problem.group_size is not None:
      has = (
        f'statistics {statistics_of(section)!r}'
        if not _sees_batches(section)
        else f'groups of {problem.group_size} already'
      )
      raise ValueError(
        f'group_size is {group}; the network has {has}; allowed: None'
      )
    if count % group or size not in (None, group):
      raise ValueError(
        f'group_size is {group} of {count} examples; allowed: what divides '
        f'them, and is the chunk_size{f" ({size})" if size else ""}'
      )
    return
  if size is not None:
    group = problem.group_size if _sees_batches(section) else 1
    analysis.check_chunks(count, size, group)


def fitted(
  section: Mapping[str, Any], config: RunConfig, problem: types.Problem
) -> Mapping[str, Any]:
  """Returns a measure's section with the sizes that defaults stand for.

  Up to a training batch, examples are taken whole, as in training. More are
  taken whole if their gradient fits into half of the memory left, and else in
  chunks whose gradients do.

  Raises:
    ValueError: the gradient does not fit, and chunks would change the function.
  """
  section = _of_examples(section, config, problem)
  if section.get('chunk_size') != 'auto':
    return section
  count, group = examples(section, config), section.get('group_size')
  if group is not None:
    return {**section, 'chunk_size': min(group, count)}
  if count <= config.batch_size:
    return {**section, 'chunk_size': None}
  is_batch = _sees_batches(section)
  network_group = problem.group_size if is_batch else 1
  room = _SHARE * cost.memory_left(jax.local_devices()[0]) * config.devices
  largest = processes.agreed(
    lambda: chunks.fitting(
      lambda size: gradient_bytes(section, config, problem, size),
      count,
      room,
      network_group or 1,
    )
  )
  if largest == count:
    return {**section, 'chunk_size': None}
  if network_group is None:
    raise ValueError(
      f'of {count} examples {largest} fit into half of the memory left '
      f'({1e-9 * room:.1f} GB), and with batch statistics over all of them '
      'chunks would change the function; allowed: fewer examples, '
      f'group_size={_divisor(count, config.batch_size)} (which is the '
      'chunk_size too), or '
      "statistics='running'"
    )
  return {**section, 'chunk_size': largest}


def _divisor(number: int, most: int) -> int:
  """Returns the largest divisor of `number` that is at most `most`."""
  return next(n for n in range(most, 0, -1) if not number % n)


def gradient_bytes(
  section: Mapping[str, Any],
  config: RunConfig,
  problem: types.Problem,
  size: int,
) -> int:
  """Compiles a gradient over `size` examples; returns the bytes it takes."""
  loss = jax.eval_shape(
    lambda s, b: problem.loss(
      s, b, 'batch' if _sees_batches(section) else 'running'
    ),
    jax.eval_shape(problem.init, 0),
    build.shapes(config, size),
  )
  return analysis.memory(loss, jax.eval_shape(problem.init, 0).params)
