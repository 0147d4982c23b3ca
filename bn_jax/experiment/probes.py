"""Measures, bound to their data, and what their records say of it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from bn_jax import analysis, errors, types
from bn_jax.analysis import chunks
from bn_jax.config import build
from bn_jax.config.run_config import RunConfig
from bn_jax.data import datasets
from bn_jax.experiment import cost
from bn_jax.host import processes
from bn_jax.training import devices as devices_lib
from bn_jax.training import loop

PRECISION = 'highest'  # of every product of a measure
_SHARE = 0.5  # of the memory that is left, for one gradient


class Bound(NamedTuple):
  """A measure with its data.

  Attributes:
    look: (state, journal=None) -> name -> array.
    conditions: what its records say: statistics, data, examples, precision.
    arrays: whether its results are too large for a line of records.
  """

  look: Callable[..., dict[str, Any]]
  conditions: dict[str, Any]
  arrays: bool


def probes(
  config: RunConfig,
  made: types.Problem,
  dataset: datasets.Dataset,
  feed: datasets.Feed,
  check_stop: Callable[[], None] = lambda: None,
) -> list[loop.Probe]:
  """The measures of a run, bound to their data and times, in config order.

  Args:
    config: of the run.
    made: its problem.
    dataset: on its devices.
    feed: what the steps of training draw their batches from.
    check_stop: called before each batch; what it raises ends the look.
  """
  found = []
  for name, section in config.measures.items():
    section = dict(section)
    every_steps = section.pop('every_steps')
    with build.blaming(f'config.measures.{name}'):
      section = fitted(section, config, made)
    one = bound(section, config, made, dataset, feed, check_stop=check_stop)
    found.append(
      loop.Probe(name, one.look, every_steps, one.arrays, one.conditions)
    )
  return found


def bound(
  section: Mapping[str, Any],
  config: RunConfig,
  made: types.Problem,
  dataset: datasets.Dataset,
  feed: datasets.Feed,
  *,
  statistics: str | None = None,
  check_stop: Callable[[], None] = lambda: None,
) -> Bound:
  """A measure with its data.

  Args:
    section: its name, its data, its keywords; see `fitted`.
    config: of the run.
    made: its problem.
    dataset: on its devices.
    feed: what the steps of training draw their batches from.
    statistics: what to call those that norms use, where these are no running
      averages but the population's.
    check_stop: called before each batch; what it raises ends the look.
  """
  measure = analysis.make(**keywords(section))
  batches = _batches(section['data'], config, made, dataset, feed)

  def asked(found):
    for batch in found:
      check_stop()
      yield batch

  def look(state, journal=None):
    return measure(made, state, asked(batches(state)), journal)

  return Bound(
    look,
    conditions(section, config, statistics),
    analysis.MEASURES[section['name']].arrays,
  )


def keywords(section: Mapping[str, Any]) -> Mapping[str, Any]:
  """Of a measure's section, what its constructor takes."""
  return {k: v for k, v in section.items() if k not in ('data', 'every_steps')}


def conditions(
  section: Mapping[str, Any], config: RunConfig, statistics: str | None = None
) -> dict[str, Any]:
  """What the records of a measure say of how it was taken."""
  found = {
    'statistics': statistics or section.get('statistics', 'running'),
    'data': section['data'],
    'examples': examples(section, config),
    'precision': PRECISION,
  }
  # Groups, and chunks too: sums in another order are other bits.
  for key in ('group_size', 'chunk_size'):
    if section.get(key) not in (None, 'auto'):
      found[key] = section[key]
  return found


def examples(section: Mapping[str, Any], config: RunConfig) -> int:
  """How many examples a measure looks at."""
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
  where: str,
  config: RunConfig,
  made: types.Problem,
  dataset: datasets.Dataset,
  feed: datasets.Feed,
) -> Callable[[types.TrainState], Iterable[types.Batch]]:
  """state -> the batches that a measure looks at."""
  if where == 'current_batch':
    return lambda state: (made.batch(state, feed.peek()),)
  devices = build.mesh(config)
  name, _, count = where.partition(':')
  split = getattr(dataset, name)
  if count:
    batch = devices_lib.laid(split.first(int(count)), devices)
    return lambda state: (batch,)
  size = config.evaluation_batch_size
  return lambda state: (
    devices_lib.laid(batch, devices) for batch in split.batches(size)
  )


def check(config: RunConfig, made: types.Problem) -> None:
  """Makes each measure, and traces its batch, before anything is compiled.

  Raises:
    ConfigError: what `check_one` refuses, with the place in the config.
  """
  for name, section in config.measures.items():
    with build.blaming(f'config.measures.{name}'):
      check_one(section, config, made)


def check_one(
  section: Mapping[str, Any], config: RunConfig, made: types.Problem
) -> None:
  """Makes a measure, and traces its batch, before anything is compiled.

  Raises:
    ValueError: a keyword that the measure refuses, a layer that the network
      lacks, more examples than a split has, not whole groups of them, or chunks
      that would change the function.
  """
  analysis.make(**keywords(section))
  known = made.taps
  if analysis.MEASURES[section['name']].layers == 'all':
    known = [name for name, _ in made.layers(jax.eval_shape(made.init, 0))]
  for layer in section.get('layers', ()):
    if layer not in known:
      raise ValueError(errors.unknown('layer', layer, known))
  if section['data'] != 'current_batch':
    _check_data(section, config, made)
  _check_chunks(section, config, made)


def where_apart(
  section: Mapping[str, Any], made: types.Problem
) -> Mapping[str, Any]:
  """A section whose groups are but chunks, where no example sees another."""
  apart = made.group_size == 1 and section.get('statistics') == 'batch'
  if not apart or section.get('group_size') is None:
    return section
  if section['chunk_size'] != 'auto':
    return {**section, 'group_size': None}
  return {
    **section, 'group_size': None, 'chunk_size': section['group_size'],
  }  # fmt: skip


def _check_data(
  section: Mapping[str, Any], config: RunConfig, made: types.Problem
) -> None:
  """Whether there are so many examples, and they make whole groups."""
  facts = build.source(config).facts
  split, _, count = section['data'].partition(':')
  size = int(count) if count else config.evaluation_batch_size
  available = {'train': facts.num_train, 'test': facts.num_test}[split]
  if count and size > available:
    raise ValueError(
      f'data is {section["data"]!r}; {split} has {available} examples'
    )
  if section.get('statistics') != 'batch' or _chunk(section) not in (None, 0):
    return
  state = jax.eval_shape(made.init, 0)
  jax.eval_shape(
    lambda s, b: made.activations(s, b, 'batch', made.taps[-1:]),
    state,
    build.shapes(config, size),
  )


def _chunk(section: Mapping[str, Any]) -> int | None:
  """The chunk size of a section, None for none or one that is to be found."""
  size = section.get('chunk_size')
  return None if size == 'auto' else size


def _check_chunks(
  section: Mapping[str, Any], config: RunConfig, made: types.Problem
) -> None:
  """Refuses chunks that would change the function, and groups without them."""
  group = section.get('group_size')
  size, count = _chunk(section), examples(section, config)
  if group is not None:
    if section['statistics'] != 'batch' or made.group_size is not None:
      has = (
        f'statistics {section["statistics"]!r}'
        if section['statistics'] != 'batch'
        else f'groups of {made.group_size} already'
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
    seen = made.group_size if section['statistics'] == 'batch' else 1
    analysis.check_chunks(count, size, seen)


def fitted(
  section: Mapping[str, Any], config: RunConfig, made: types.Problem
) -> Mapping[str, Any]:
  """A measure's section with the chunk size that 'auto' stands for.

  What is as large as a training batch is taken whole: training does that too.
  What is larger is taken whole if its gradient takes half of the memory left,
  and else in chunks that do.

  Raises:
    ValueError: it does not fit, and chunks would change the function.
  """
  if section.get('chunk_size') != 'auto':
    return section
  count, group = examples(section, config), section.get('group_size')
  if group is not None:
    return {**section, 'chunk_size': min(group, count)}
  if count <= config.batch_size:
    return {**section, 'chunk_size': None}
  seen = made.group_size if section['statistics'] == 'batch' else 1
  there = _SHARE * cost.memory_left(jax.local_devices()[0]) * config.devices
  fits = processes.agreed(
    lambda: chunks.fitting(
      lambda size: gradient_bytes(section, config, made, size),
      count,
      there,
      seen or 1,
    )
  )
  if fits == count:
    return {**section, 'chunk_size': None}
  if seen is None:
    raise ValueError(
      f'of {count} examples {fits} fit into half of the memory left '
      f'({1e-9 * there:.1f} GB), and with batch statistics over all of them '
      'chunks would change the function; allowed: fewer examples, '
      f'group_size={_divisor(count, config.batch_size)} (which is the '
      'chunk_size too), or '
      "statistics='running'"
    )
  return {**section, 'chunk_size': fits}


def _divisor(count: int, most: int) -> int:
  """The largest number up to `most` that divides another."""
  return next(n for n in range(most, 0, -1) if not count % n)


def gradient_bytes(
  section: Mapping[str, Any], config: RunConfig, made: types.Problem, size: int
) -> int:
  """Bytes that a gradient over so many examples takes; it is compiled."""
  loss = jax.eval_shape(
    lambda s, b: made.loss(s, b, section['statistics']),
    jax.eval_shape(made.init, 0),
    build.shapes(config, size),
  )
  return analysis.memory(loss, jax.eval_shape(made.init, 0).params)
