"""About how long the runs of a figure take on this machine."""

import functools
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bn_jax import errors
from bn_jax.config import build
from bn_jax.experiment import cost as cost_lib
from bn_jax.experiment import probes
from bn_jax.papers import figures, matching
from bn_jax.storage import records
from bn_jax.trained import cost

# Of the rate of a large matrix product that training reaches, and what a step
# takes however small the network: for an estimate that is right within a
# factor of about three.
EFFICIENCY = 0.5
SECONDS_A_STEP = 1e-3
_SIZE = 1024  # of the matrix product
_TIMES = 3


def rate() -> float:
  """Floating-point operations a second of a matrix product here."""
  matrix = jnp.ones((_SIZE, _SIZE), jnp.float32)
  product = jax.jit(lambda a, b: a @ b)
  product(matrix, matrix).block_until_ready()  # compiles it
  seconds = []
  for _ in range(_TIMES):
    start = time.perf_counter()
    product(matrix, matrix).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return 2 * _SIZE**3 / min(seconds)


def measured(
  figure: figures.Reproduction, match: matching.Match
) -> float | None:
  """Seconds of all runs and seeds, from those that are done; None of none.

  Only what the figure needs counts: a run may have measured more.
  """
  means = []
  for name, seeds in match.cells.items():
    parts = ('train', 'save', *figure.runs[name]['measures'])
    spent = [
      sum(v for part, v in _spent(cell.place).items() if part in parts)
      for cell in seeds.values()
      if cell.status == 'done'
    ]
    means += [sum(spent) / len(spent)] if spent else []
  if not means:
    return None
  return len(figure.runs) * len(figure.seeds) * sum(means) / len(means)


def estimated(figure: figures.Reproduction, of_products: float) -> float | None:
  """Seconds of all runs and seeds, from what they compute.

  Args:
    figure: whose.
    of_products: what `rate` gives.

  Returns:
    None where that cannot be said, say of data that are not there.
  """
  try:
    each = [
      operations(run) / (EFFICIENCY * of_products)
      + SECONDS_A_STEP * run['steps']
      for run in figure.runs.values()
    ]
  except errors.Failure:
    return None
  return len(figure.seeds) * sum(each)


def operations(run: Mapping[str, Any]) -> float:
  """FLOPs of the products of a whole run, measures included.

  A gradient is three passes through the network; norms and whatever is no
  product are left out.
  """
  of_example = 3 * _forward(
    *(json.dumps(run[key], sort_keys=True) for key in ('data', 'model')),
    run['data_dir'],
  )
  gradients = run['steps'] * run['batch_size']
  for section in run['measures'].values():
    # Layers that are looked at by default are no more than three.
    found = cost.counts(section, 3)
    if found is None:
      continue
    looks = run['steps'] // section['every_steps'] + 1
    examples = probes.examples(section, run)
    gradients += looks * examples * found.in_gradients
  return of_example * gradients


@functools.cache
def _forward(data: str, model: str, data_dir: str | None) -> int:
  """FLOPs of the products of one pass of one example.

  The network is traced on shapes, without a norm and as the library computes
  it: neither changes its products by much.
  """
  run = {
    'data': json.loads(data), 'data_dir': data_dir, 'batch_size': 1,
    'model': json.loads(model), 'norm': {'name': 'none'},
  }  # fmt: skip
  if 'lowering' in run['model']:
    run['model']['lowering'] = 'library'
  network = build.network(run)
  x = build.shapes(run, 1).images
  variables = jax.eval_shape(
    functools.partial(network.init, mode='running'), jax.random.key(0), x
  )
  traced = jax.make_jaxpr(functools.partial(network.apply, mode='running'))
  return cost_lib.flops_of_products(traced(variables, x).jaxpr)


@functools.cache
def _spent(place: pathlib.Path) -> dict[str, float]:
  """Name -> seconds of a run; nothing where they cannot be read."""
  total = {}
  try:
    for record in records.read(place / 'timing.jsonl'):
      seconds = record.values.get('seconds')
      if isinstance(seconds, int | float):
        total[record.name] = total.get(record.name, 0.0) + seconds
  except errors.StorageError:
    return {}
  return total
