"""From a resolved run to the objects that train it."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from bn_jax import analysis, errors, loop, models, norms, optim, types
from bn_jax import problem as problem_lib
from bn_jax.data import in_memory, order

Config = dict[str, Any]


def problem(run: Config) -> types.Problem:
  """The problem of a run; nothing is compiled, no data are read.

  Raises:
    ConfigError: a value that its constructor refuses, an image too small for
      the network, a batch larger than the split.
  """
  data = run['data']
  facts = in_memory.facts(data['name'])
  shape = in_memory.image_shape(data['name'], resolution=data['resolution'])
  with _blaming('config.norm'):
    norm = norms.make(**run['norm'])
  with _blaming('config.model'):
    module = models.make(
      **{**run['model'], **lowering(run)},
      num_classes=facts.num_classes,
      norm=norm,
    )
  with _blaming('config.schedule'):
    schedule = optim.make_schedule(**run['schedule'])
  with _blaming('config.optimizer'):
    optimizer = optim.make(schedule=schedule, **run['optimizer'])
  with _blaming('config'):
    penalty = optim.weight_decay(
      weight_decay=run['weight_decay'], weight_decay_on=run['weight_decay_on']
    )
    sampler = order.sampler(
      num_examples=facts.num_train, batch_size=run['batch_size']
    )
  made = problem_lib.make(
    module,
    optimizer,
    sampler=sampler,
    penalty=penalty,
    image_shape=shape,
    layers=models.layers,
    taps=models.taps(module),
    ring_size=run['log_every_steps'],
  )
  with _blaming('config.model'):
    jax.eval_shape(made.init, 0)
    _trace_batch(module, made, shape, run['batch_size'])
  return made


def _trace_batch(module, made, shape, batch_size) -> None:
  """Shapes of one training batch: what does not fit shows before compiling."""
  state = jax.eval_shape(made.init, 0)
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  images = jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32)
  jax.eval_shape(
    lambda v, x: module.apply(v, x, mode='batch', mutable=['batch_stats']),
    variables,
    images,
  )


def probes(
  run: Config, made: types.Problem, dataset: in_memory.Dataset
) -> list[loop.Probe]:
  """The measures of a run, bound to their data and times, in config order."""
  return [
    _probe(name, dict(section), run, made, dataset)
    for name, section in run['measures'].items()
  ]


def _probe(name, section, run, made, dataset) -> loop.Probe:
  every_steps, data = section.pop('every_steps'), section.pop('data')
  with _blaming(f'config.measures.{name}'):
    measure = analysis.make(**section)
  batches = _batches(data, run['evaluation_batch_size'], made, dataset)
  return loop.Probe(
    name=name,
    look=lambda state: measure(made, state, batches(state)),
    every_steps=every_steps,
    arrays=section['name'] in analysis.ARRAYS,
  )


def _batches(
  data: str, batch_size: int, made: types.Problem, dataset: in_memory.Dataset
) -> Callable[[types.TrainState], Iterable[types.Batch]]:
  """state -> the batches that a probe looks at."""
  if data == 'current_batch':
    return lambda state: (made.batch(state, dataset.train),)
  name, _, count = data.partition(':')
  split = getattr(dataset, name)
  if count:
    batch = in_memory.first(split, int(count))
    return lambda state: (batch,)
  return lambda state: in_memory.padded_batches(split, batch_size=batch_size)


def check_measures(run: Config, made: types.Problem) -> None:
  """Makes each measure, and traces its batch, before anything is compiled.

  Raises:
    ConfigError: a keyword that a measure refuses, a layer that the network
      lacks, more examples than a split has, or not whole groups of them.
  """
  for name, section in run['measures'].items():
    own = {k: v for k, v in section.items() if k not in ('every_steps', 'data')}
    with _blaming(f'config.measures.{name}'):
      analysis.make(**own)
      for layer in own.get('layers', ()):
        if layer not in made.taps:
          raise ValueError(errors.unknown('layer', layer, made.taps))
      if (
        own.get('statistics') == 'batch' and section['data'] != 'current_batch'
      ):
        _trace_probe(run, made, section['data'])


def _trace_probe(run: Config, made: types.Problem, data: str) -> None:
  facts = in_memory.facts(run['data']['name'])
  split, _, count = data.partition(':')
  size = int(count) if count else run['evaluation_batch_size']
  available = {'train': facts.num_train, 'test': facts.num_test}[split]
  if count and size > available:
    raise ValueError(f'data is {data!r}; {split} has {available} examples')
  shape = in_memory.image_shape(
    run['data']['name'], resolution=run['data']['resolution']
  )
  batch = types.Batch(
    jax.ShapeDtypeStruct((size, *shape), jnp.float32),
    jax.ShapeDtypeStruct((size,), jnp.int32),
    None,
  )
  state = jax.eval_shape(made.init, 0)
  jax.eval_shape(
    lambda s, b: made.activations(s, b, 'batch', made.taps[-1:]), state, batch
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
def _blaming(where: str):
  """Turns a constructor's refusal into one that names the config's section."""
  try:
    yield
  except errors.Failure:
    raise
  except (ValueError, TypeError) as error:
    raise errors.ConfigError(f'{where}: {error}') from error
