"""Estimates the cost of an analysis: evaluations, memory and time."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from bn_jax import analysis, types
from bn_jax.analysis import gradients
from bn_jax.config import build
from bn_jax.experiment import cost as cost_lib
from bn_jax.experiment import probes
from bn_jax.training import devices


def text(job: Any, state: types.TrainState, steps: Sequence[int]) -> str:
  """Returns the plan of a job, one evaluation of which is compiled and timed.

  Args:
    job: an `analyze.Job`; `Any`, since that module imports this one.
    state: that of one of its steps.
    steps: those that are to be measured.
  """
  section, config = job.section, job.config
  kind = analysis.kind_of(section['name'])
  count = probes.examples(section, config)
  size = section.get('chunk_size') or section.get('batch_size') or count
  if kind.forward is not None:
    is_one_batch = section['data'] == 'current_batch' or ':' in section['data']
    whole = count if is_one_batch else config.evaluation_batch_size
    size = section.get('chunk_size') or whole
  chunks = -(-count // min(size, count))
  cost = kind.cost(section, len(job.problem.layers(state)))
  lines = [
    f'{job.folder.label}: {section["name"]} of {count:,} examples '
    f'({section["data"]}), {job.statistics} statistics, at '
    f'{_steps(steps)}'
  ]
  rows = {'evaluations': _evaluations(cost, chunks, len(steps))}
  if isinstance(cost, str):
    rows['memory'] = rows['time'] = 'not estimated for this measure'
  else:
    seconds, memory = _trial(job, state, min(size, count))
    memory_left = cost_lib.memory_left(jax.devices()[0])
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    rows['memory'] = (
      f'{1e-9 * memory:.2f} GB for {min(size, count):,} examples at a time, '
      f'{"twice that for a Hessian product, " if cost.products else ""}'
      f'and a few times the parameters ({1e-9 * parameters:.2g} GB); '
      f'{1e-9 * memory_left:.1f} GB are left'
    )
    times = cost.in_gradients if kind.forward is None else cost.values
    total = seconds * times * chunks * len(steps)
    rows['time'] = (
      f'about {_duration(total)} ({1e3 * seconds:.3g} ms each, tried now; '
      'without compilation and reading)'
    )
  rows['results'] = f'{job.results.path}'
  return '\n'.join([*lines, *(f'  {k:13}{v}' for k, v in rows.items())]) + '\n'


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
  minutes = seconds / 60
  return f'{minutes:.0f} min' if minutes < 90 else f'{minutes / 60:.1f} h'
