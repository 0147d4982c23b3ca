"""Estimates the cost of an analysis: evaluations, memory and time."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from bn_jax import analysis, errors, types
from bn_jax.analysis import gradients
from bn_jax.config import build
from bn_jax.experiment import cost as cost_lib
from bn_jax.experiment import probes
from bn_jax.training import devices

# Evaluations from which on a job is tried before it begins: of fewer, those of
# the trial, and to compile it once more, would be a large part.
_MANY = 300
_DAY = 86_400.0  # seconds


class Estimate(NamedTuple):
  """What a job costs.

  Attributes:
    cost: of a look at each chunk; or words, and then the rest is 0.
    chunks: of each look.
    size: examples of a chunk.
    seconds, memory: of one evaluation, tried now.
    total: seconds of all evaluations.
  """

  cost: analysis.Cost | str
  chunks: int
  size: int
  seconds: float = 0.0
  memory: int = 0
  total: float = 0.0


def check_time(
  job: Any, read: Callable[[], types.TrainState], steps: Sequence[int]
) -> None:
  """Refuses a job of more than a day; one of few evaluations is not tried.

  Args:
    job, steps: see `text`.
    read: () -> the state of one of the steps.

  Raises:
    ConfigError: it takes longer.
  """
  cost, chunks = _counts(job)[:2]
  if isinstance(cost, str) or sum(cost[:3]) * chunks * len(steps) < _MANY:
    return
  estimate = _estimate(job, read(), steps)
  if estimate.total > _DAY:
    raise errors.ConfigError(
      f'{job.folder.label}: {job.section["name"]} would take about '
      f'{_duration(estimate.total)}: {_evaluations(cost, chunks, len(steps))}, '
      f'{1e3 * estimate.seconds:.3g} ms a gradient or pass; allowed: fewer, '
      'such as of fewer points or examples, or --yes'
    )


def text(job: Any, state: types.TrainState, steps: Sequence[int]) -> str:
  """Returns the plan of a job, one evaluation of which is compiled and timed.

  Args:
    job: an `analyze.Job`; `Any`, since that module imports this one.
    state: that of one of its steps.
    steps: those that are to be measured.
  """
  section = job.section
  count = probes.examples(section, job.config)
  cost, chunks, size, seconds, memory, total = _estimate(job, state, steps)
  lines = [
    f'{job.folder.label}: {section["name"]} of {count:,} examples '
    f'({section["data"]}), {job.statistics} statistics, at '
    f'{_steps(steps)}'
  ]
  rows = {'evaluations': _evaluations(cost, chunks, len(steps))}
  if isinstance(cost, str):
    rows['memory'] = rows['time'] = 'not estimated for this measure'
  else:
    memory_left = cost_lib.memory_left(jax.devices()[0])
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    rows['memory'] = (
      f'{1e-9 * memory:.2f} GB for {size:,} examples at a time, '
      f'{"twice that for a Hessian product, " if cost.products else ""}'
      f'and a few times the parameters ({1e-9 * parameters:.2g} GB)'
      f'{_of_vectors(cost, parameters)}; '
      f'{1e-9 * memory_left:.1f} GB are left'
    )
    rows['time'] = (
      f'about {_duration(total)} ({1e3 * seconds:.3g} ms each, tried now; '
      'without compilation and reading)'
    )
  rows['results'] = f'{job.results.path}'
  return '\n'.join([*lines, *(f'  {k:13}{v}' for k, v in rows.items())]) + '\n'


def _estimate(job, state, steps: Sequence[int]) -> Estimate:
  """Returns what a job costs; one evaluation is compiled and timed for it."""
  cost, chunks, size = _counts(job)
  if isinstance(cost, str):
    return Estimate(cost, chunks, size)
  seconds, memory = _trial(job, state, size)
  is_pass = analysis.kind_of(job.section['name']).forward is not None
  times = cost.values if is_pass else cost.in_gradients
  total = seconds * times * chunks * len(steps)
  return Estimate(cost, chunks, size, seconds, memory, total)


def _counts(job) -> tuple[analysis.Cost | str, int, int]:
  """Returns (cost of a look at a chunk, chunks, examples of one)."""
  section, config = job.section, job.config
  kind = analysis.kind_of(section['name'])
  count = probes.examples(section, config)
  size = section.get('chunk_size') or section.get('batch_size') or count
  if kind.forward is not None:
    is_one_batch = section['data'] == 'current_batch' or ':' in section['data']
    whole = count if is_one_batch else config.evaluation_batch_size
    size = section.get('chunk_size') or whole
  size = min(size, count)
  state = jax.eval_shape(job.problem.init, 0)
  if section['name'] == 'spectral_density':  # which ends with its Krylov space
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    section = {**section, 'order': min(section['order'], parameters)}
  cost = kind.cost(section, len(job.problem.layers(state)))
  return cost, -(-count // size), size


def _of_vectors(cost: analysis.Cost, parameters: int) -> str:
  """Returns what vectors of the size of the parameters take; '' for none."""
  if not cost.vectors:
    return ''
  return (
    f', with {cost.vectors} vectors of their size '
    f'({1e-9 * cost.vectors * parameters:.2g} GB)'
  )


def _steps(steps: Sequence[int]) -> str:
  if len(steps) == 1:
    return f'step {steps[0]}'
  numbers = ', '.join(map(str, steps[:8])) + (', ...' if steps[8:] else '')
  return f'{len(steps)} steps ({numbers})'


def _evaluations(cost: analysis.Cost | str, chunks: int, steps: int) -> str:
  if isinstance(cost, str):
    return cost
  counts = [
    f'{number * chunks * steps:,} {what}'
    for what, number in zip(('gradients', 'values', 'Hessian products'), cost)
    if number
  ]
  return (
    f'{", ".join(counts)} ({chunks} chunk{"s" if chunks > 1 else ""} x {steps} '
    f'checkpoint{"s" if steps > 1 else ""})'
  )


def _trial(job, state, size: int) -> tuple[float, int]:
  """Returns (seconds, bytes) of one evaluation over `size` examples."""
  shapes = build.shapes(job.config, size)
  zeros = jax.tree.map(
    lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), shapes
  )
  batch = devices.laid(zeros, build.mesh(job.config))
  problem, section = job.problem, job.section
  forward = analysis.kind_of(section['name']).forward
  if forward is None:
    loss = problem.loss(state, batch, section.get('statistics', 'running'))
    return _seconds(
      lambda: gradients.value_and_gradient(loss, state.params)
    ), analysis.memory(loss, state.params)
  function, arguments = forward(problem, state, batch, section)
  with jax.default_matmul_precision(probes.PRECISION):
    sizes = function.lower(*arguments).compile().memory_analysis()
    memory = sizes.temp_size_in_bytes + sizes.output_size_in_bytes
    return _seconds(lambda: function(*arguments)), memory


def _seconds(call: Callable[[], Any]) -> float:
  """Returns the mean time of two calls, in seconds, after one that compiles."""
  jax.block_until_ready(call())
  start = time.perf_counter()
  for _ in range(2):
    jax.block_until_ready(call())
  return (time.perf_counter() - start) / 2


def _duration(seconds: float) -> str:
  if seconds < 90:
    return f'{seconds:.2g} s'
  for unit, length, most in (('min', 60, 90), ('h', 3600, 48)):
    if seconds < most * length:
      return f'{seconds / length:.{0 if unit == "min" else 1}f} {unit}'
  return f'{seconds / _DAY:,.1f} days'
