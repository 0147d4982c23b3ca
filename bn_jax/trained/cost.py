"""What an analysis costs: evaluations, memory and time, before it is made."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from bn_jax import analysis, types
from bn_jax.analysis import gradients
from bn_jax.analysis.covariate_shift import default_layers
from bn_jax.config import build
from bn_jax.experiment import probes
from bn_jax.host import memory
from bn_jax.training import devices

_WHOLE = ('activations', 'evaluation')  # forward passes over batches


class Counts(NamedTuple):
  """Evaluations of one chunk at one checkpoint.

  Attributes:
    gradients: of the loss.
    values: of the loss, or passes through the network.
    products: of the Hessian and a vector.
  """

  gradients: int = 0
  values: int = 0
  products: int = 0

  @property
  def in_gradients(self) -> float:
    """As so many gradients: a value is a third of one, a product two."""
    return self.gradients + self.values / 3 + 2 * self.products


def counts(section: dict[str, Any], layers: int) -> Counts | None:
  """What a measure evaluates; None where that is no such count.

  Args:
    section: the measure's.
    layers: how many the network has.
  """
  name = section['name']
  if name == 'along_gradient':
    points = len(section['step_sizes'] or section['step_factors'])
    return Counts(1 + points, products=int(section['curvature']))
  if name == 'covariate_shift':
    known = tuple(map(str, range(layers)))
    looked = set(section['layers'] or default_layers(known))
    return Counts(2 + len(looked))
  if name == 'one_step_loss':
    return Counts(1, values=len(section['learning_rates']))
  if name == 'weights':
    return Counts(2)
  if name == 'signal':
    return Counts(1)
  return Counts(values=1) if name in _WHOLE else None


def text(job: Any, state: types.TrainState, steps: Sequence[int]) -> str:
  """The plan of a job, for people; a gradient is compiled and timed for it.

  Args:
    job: of `analyze`.
    state: one of its checkpoints.
    steps: those that are to be measured.
  """
  section, config = job.section, job.config
  count = probes.examples(section, config)
  size = section.get('chunk_size') or count
  if section['name'] in _WHOLE:
    in_one = section['data'] == 'current_batch' or ':' in section['data']
    size = count if in_one else config['evaluation_batch_size']
  chunks = -(-count // min(size, count))
  found = counts(section, len(job.made.layers(state)))
  lines = [
    f'{job.folder.label}: {section["name"]} of {count:,} examples '
    f'({section["data"]}), {job.statistics} statistics, at '
    f'{_steps(steps)}'
  ]
  rows = {'evaluations': _evaluations(found, chunks, len(steps))}
  if found is None:
    rows['memory'] = rows['time'] = 'not estimated for this measure'
  else:
    seconds, needed = _tried(job, state, min(size, count))
    there = memory.available(jax.devices()[0])
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    rows['memory'] = (
      f'{1e-9 * needed:.2f} GB for {min(size, count):,} examples at a time, '
      f'{"twice that for a Hessian product, " if found.products else ""}'
      f'and a few times the parameters ({1e-9 * held:.2g} GB); '
      f'{1e-9 * there:.1f} GB are left'
    )
    times = found.values if section['name'] in _WHOLE else found.in_gradients
    total = seconds * times * chunks * len(steps)
    rows['time'] = (
      f'about {_duration(total)} ({1e3 * seconds:.3g} ms each, tried now; '
      'without compilation and reading)'
    )
  rows['results'] = f'{job.results.path}'
  return '\n'.join([*lines, *(f'  {k:13}{v}' for k, v in rows.items())]) + '\n'


def _steps(steps: Sequence[int]) -> str:
  listed = ', '.join(map(str, steps[:8])) + (', ...' if steps[8:] else '')
  several = f'{len(steps)} steps' if len(steps) > 1 else 'step'
  return f'{several} ({listed})' if len(steps) > 1 else f'{several} {listed}'


def _evaluations(found: Counts | None, chunks: int, steps: int) -> str:
  if found is None:
    return 'a forward-mode product for each number of an activation'
  said = [
    f'{number * chunks * steps:,} {what}'
    for what, number in zip(('gradients', 'values', 'Hessian products'), found)
    if number
  ]
  return (
    f'{", ".join(said)} ({chunks} chunk{"s" if chunks > 1 else ""} x {steps} '
    f'checkpoint{"s" if steps > 1 else ""})'
  )


def _tried(job, state, size: int) -> tuple[float, int]:
  """(seconds, bytes) of one evaluation over so many examples."""
  shapes = build.shapes(job.config, size)
  zeros = jax.tree.map(
    lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), shapes
  )
  batch = devices.laid(zeros, build.mesh(job.config))
  made, section = job.made, job.section
  if section['name'] == 'evaluation':
    function, arguments = made.evaluate, (state, batch)
  elif section['name'] == 'activations':
    layers = tuple(section['layers']) or made.taps[:1]
    function = made.activations
    arguments = state, batch, section['statistics'], layers
  else:
    loss = made.loss(state, batch, section['statistics'])
    return _seconds(
      lambda: gradients.value_and_gradient(loss, state.params)
    ), analysis.memory(loss, state.params)
  with jax.default_matmul_precision(probes.PRECISION):
    lowered = function.lower(*arguments).compile().memory_analysis()
    needed = lowered.temp_size_in_bytes + lowered.output_size_in_bytes
    return _seconds(lambda: function(*arguments)), needed


def _seconds(call: Callable[[], Any]) -> float:
  """Of the second and third call: the first one compiles."""
  jax.block_until_ready(call())
  start = time.perf_counter()
  for _ in range(2):
    jax.block_until_ready(call())
  return (time.perf_counter() - start) / 2


def _duration(seconds: float) -> str:
  if seconds < 90:
    return f'{seconds:.2g} s'
  minutes = seconds / 60
  return f'{minutes:.0f} min' if minutes < 90 else f'{minutes / 60:.1f} h'
