"""Times seeds in one program against seeds one after the other.

Two processes take turns, one of which waits without using a core: this build,
which trains N seeds at once, and another build (`--before`, a `git worktree` of
it; without it this build's program of one seed), which trains one. Each first
tells what it computed: the objective of seed 0 after some steps. Steps and
looks are timed apart, in seed-steps and looks of a seed a second; the ratio of
processor time tells what is left on a machine that others use, too.

  git worktree add ../before fba2511
  python -m benchmarks seeds --before=../before
  python -m benchmarks seeds --seeds=4,8,16,32,64   # which number is best
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

import results

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = {
  'linear': ('configs.santurkar2018.linear', 'the deep linear network'),
  'mlp': ('configs.ioffe2015.figure1', 'the MLP of MNIST'),
}
LIMIT, REACH = 3.0, 8.0  # ratio of seed-steps a second
_TOLERANCE = 1e-3  # of an objective in float32 after some steps


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--before', default=str(ROOT), metavar='DIR')
  parser.add_argument('--seeds', default='32', help='numbers, as 4,8,16,32')
  parser.add_argument('--only', choices=CASES)
  parser.add_argument('--run', default='batchnorm')
  parser.add_argument('--steps', type=int, default=100, help='in a turn')
  parser.add_argument('--pairs', type=int, default=6)
  parser.add_argument('--worker', help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.worker:
    _work(options)
    return
  counts = options.seeds.split(',')
  if not all(count.isdecimal() and int(count) for count in counts):
    parser.error(
      f'--seeds: {options.seeds!r}; allowed: 1 or more, as 4,8,16,32'
    )
  if not (pathlib.Path(options.before) / 'bn_jax').is_dir():
    parser.error(f'--before: {options.before} has no bn_jax; give a checkout')
  for case, (_, what) in CASES.items():
    if options.only in (None, case):
      for count in map(int, counts):
        _compare(case, what, count, options)


def _compare(case: str, what: str, count: int, options) -> None:
  """Prints how many times as fast this build is, in steps and in looks."""
  one = _Worker(pathlib.Path(options.before), case, 1, options)
  many = _Worker(ROOT, case, count, options)
  before, after = one.asked('value'), many.asked('value')
  if not math.isclose(before, after, rel_tol=_TOLERANCE):
    sys.exit(f'error: {what}: seed 0 has {after}, alone {before}')
  print(f'{what}, {options.run}, {count} seeds; values agree', flush=True)
  for part in ('steps', *one.asked('names')):
    pairs = [(one.asked(part), many.asked(part)) for _ in range(options.pairs)]
    wall, cpu = (
      [a[i] / (b[i] / count) for a, b in pairs] for i in (0, 1)
    )  # fmt: skip
    number = options.steps if part == 'steps' else 1
    rates = [
      statistics.median(number * seeds / seconds[0] for seconds in side)
      for seeds, side in zip((1, count), zip(*pairs))
    ]
    verdict = ''
    if part == 'steps':
      holds = statistics.median(wall) >= LIMIT
      verdict = f'; at least {LIMIT}: {"holds" if holds else "does not hold"}'
      verdict += f' (reach: {REACH})'
    results.add(
      f'{what}, {count} seeds, {part}', ours=rates[1], peer=rates[0],
      unit='a second', peer_name='one seed after the other',
      ratio=statistics.median(wall), low=min(wall), high=max(wall),
      pairs=len(wall), limit=LIMIT if part == 'steps' else None,
      holds=statistics.median(wall) >= LIMIT if part == 'steps' else None,
      headline=part == 'steps',
    )  # fmt: skip
    print(
      f'  {part}: {rates[0]:.1f} a second alone, {rates[1]:.1f} together: '
      f'{_spread(wall)}; in processor time {_spread(cpu)}{verdict}',
      flush=True,
    )
  for worker in (one, many):
    worker.close()


def _spread(ratios: list[float]) -> str:
  return (
    f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'
  )


class _Worker:
  """A process of one build that computes when it is asked."""

  def __init__(self, root: pathlib.Path, case: str, count: int, options):
    words = [
      f'--worker={case}', f'--seeds={count}', f'--run={options.run}',
      f'--steps={options.steps}',
    ]  # fmt: skip
    self._process = subprocess.Popen(
      [sys.executable, __file__, *words],
      env={**os.environ, 'PYTHONPATH': str(root.resolve())},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def asked(self, what: str):
    self._process.stdin.write(f'{what}\n')
    self._process.stdin.flush()
    line = self._process.stdout.readline()
    if not line:
      sys.exit(f'error: the process that was asked for {what} has ended')
    return json.loads(line)

  def close(self) -> None:
    self._process.stdin.close()
    self._process.wait()


def _work(options) -> None:
  """Answers each line of stdin: the seconds, and those of the processors."""
  side = _Side(CASES[options.worker][0], int(options.seeds), options)
  answers = {
    'value': side.value,
    'names': lambda: list(side.looks),
    'steps': lambda: _timed(side.steps),
    **{
      name: lambda look=look: _timed(look) for name, look in side.looks.items()
    },
  }
  for line in sys.stdin:
    print(json.dumps(answers[line.strip()]()), flush=True)


def _timed(work) -> tuple[float, float]:
  wall, cpu = time.perf_counter(), time.process_time()
  work()
  return time.perf_counter() - wall, time.process_time() - cpu


class _Side:
  """The program of one build, for one seed or several, compiled."""

  def __init__(self, module: str, count: int, options):
    # Of the build in PYTHONPATH: another process has another one.
    import importlib

    from bn_jax.config import build, resolve
    from bn_jax.experiment import run as run_lib

    config = importlib.import_module(module).get_config('small').to_dict()
    config = resolve.experiment(config, {}).runs[options.run]
    dataset = build.source(config).load()
    self._program = run_lib.program(config, build.problem(config), dataset)
    self._number = options.steps
    states = [self._program.init(seed) for seed in range(count)]
    if count == 1:
      (self._state,), step = states, self._program.step

      def steps(state):
        for _ in range(self._number):
          state = step(state)
        return state

      looks = {probe.name: probe.look for probe in self._program.probes}
    else:
      from bn_jax.training import seeds

      self._state = seeds.joined(states, build.mesh(config))
      advance, part = self._program.together()

      def steps(state):
        for first in range(0, self._number, seeds.STEPS):
          state = advance(state, min(seeds.STEPS, self._number - first))
        return state

      looks = {
        probe.name: probe.look_at_all
        or (
          lambda state, look=probe.look: [
            look(part(state, i)) for i in range(count)
          ]
        )
        for probe in self._program.probes
      }
    self._steps = steps
    self.steps()
    self.looks = {
      name: lambda look=look: look(self._state) for name, look in looks.items()
    }
    for look in self.looks.values():
      look()

  def steps(self) -> None:
    import jax

    self._state = self._steps(self._state)
    jax.block_until_ready(self._state)

  def value(self) -> float:
    """Returns the newest objective of the first seed."""
    import numpy as np

    ring = np.asarray(self._state.ring['objective']).reshape(
      -1, self._state.ring['objective'].shape[-1]
    )
    return float(ring[0, (self._number - 1) % ring.shape[1]])


if __name__ == '__main__':
  main()
