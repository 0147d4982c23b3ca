"""Times the quickstart's measures, against its training.

A look at the landscape at E points needs E + 1 gradients. Its time beyond them,
and the time of a look at the activations, are compared with the steps between
two looks. Everything is compiled first; step, gradient and looks alternate in
one process. Writing files is not timed.

  python benchmarks/probes.py [--batch_size=64] [--pairs=5]
"""

import argparse
import pathlib
import statistics
import sys
import time

import jax
import results

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from bn_jax.config import build, resolve
from bn_jax.data import datasets
from bn_jax.experiment import run as run_lib
from configs import quickstart


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--batch_size', type=int, default=64)
  parser.add_argument('--pairs', type=int, default=5)
  options = parser.parse_args()
  config = quickstart.get_config()
  config.batch_size = options.batch_size
  runs = resolve.experiment(config.to_dict(), {}).runs
  dataset = datasets.make('digits').load()
  for name, run in runs.items():
    seconds = _measure(run, dataset, options.pairs)
    _print(name, run, seconds)


def _measure(run, dataset, pairs) -> dict[str, float]:
  """Returns part, such as 'step' or 'landscape' -> its median seconds."""
  program = run_lib.program(run, build.problem(run), dataset)
  looks = {probe.name: probe for probe in program.probes}
  state = program.step(program.init(0))
  gradient = jax.jit(lambda loss, params: jax.value_and_grad(loss)(params))

  def take_gradient(state):
    batch = program.problem.batch(state, program.feed.peek())
    loss = program.problem.loss(state, batch, 'batch')
    with jax.default_matmul_precision('highest'):
      return gradient(loss, state.params)

  parts = {
    'gradient': take_gradient,
    'landscape': looks['landscape'].look,
    'activations': looks['activations'].look,
  }
  times = {name: [] for name in ('step', *parts)}
  for turn in range(pairs + 1):  # the first one compiles
    for name, part in parts.items():
      start = time.perf_counter()
      jax.block_until_ready(part(state))
      if turn:
        times[name].append(time.perf_counter() - start)
    start = time.perf_counter()
    for _ in range(10):  # one step is too short to time
      state = program.step(state)
    jax.block_until_ready(state)
    if turn:
      times['step'].append((time.perf_counter() - start) / 10)
  return {name: statistics.median(seconds) for name, seconds in times.items()}


def _print(name, run, seconds) -> None:
  measures = run.measures
  gradients = len(measures['landscape']['step_factors']) + 1
  beyond = {
    # Noise may make the difference negative.
    'landscape': max(0, seconds['landscape'] - gradients * seconds['gradient']),
    'activations': seconds['activations'],
  }
  # Each look as a share of the training between two of them.
  shares = [
    beyond[look] / (measures[look]['every_steps'] * seconds['step'])
    for look in beyond
  ]
  results.add(
    f'{name}: training with looks beyond their gradients / without',
    ratio=1 + sum(shares), limit=1.1, holds=sum(shares) <= 0.1,
  )  # fmt: skip
  text = ', '.join(f'{part} {1e3 * s:.1f} ms' for part, s in seconds.items())
  print(
    f'{name}: {text}; looks beyond their {gradients} gradients: '
    f'{100 * sum(shares):.1f} % of the training'
  )


if __name__ == '__main__':
  main()
