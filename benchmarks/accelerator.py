"""Runs on a GPU or TPU what cannot be measured without one, in some minutes.

In this order, until the time is over: a whole run against one that was stopped
and went on, bit for bit; tests of norms and of the landscape; training steps of
VGG-16 (batch 1,024) and BN-Inception (256) in bfloat16 beside stock flax and,
where PyTorch is installed, torch.compile; 32 seeds in one program; what looks
at the quickstart cost. Each part is a process of its own, which ends with its
share of the time, so that one that hangs does not take that of the others.

  python -m benchmarks accelerator [--minutes=8] [--only=resume,seeds] [--small]

`--small` is for a try without an accelerator. Results are written as by
`python -m benchmarks --write`, and so are parts that failed or took too long.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import results
import turns

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Part(NamedTuple):
  """A command of Python.

  Attributes:
    words: after `python`.
    share: of the minutes, at most.
  """

  words: tuple[str, ...]
  share: float


def main() -> None:
  options = _options()
  if options.resumes:
    _compare_resumed()
    return
  parts = _parts(is_small=options.small)
  chosen = options.only.split(',') if options.only else list(parts)
  for name in chosen:
    if name not in parts:
      raise SystemExit(
        f'error: there is no part {name!r}; allowed: {", ".join(parts)}'
      )
  machine = results.machine()
  path = results.path(machine['device'], machine['date'])
  end = time.perf_counter() + 60 * options.minutes
  failed = []
  for name in chosen:
    left = end - time.perf_counter()
    limit = min(60 * options.minutes * parts[name].share, left)
    code = results.measure(
      path, f'accelerator, {name}', parts[name].words, machine, limit=limit
    )
    failed += [name] if code else []
  print(f'results: {path.relative_to(ROOT)}')
  if failed:
    raise SystemExit(f'error: these failed: {", ".join(failed)}')


def _options() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--minutes', type=float, default=8.0)
  parser.add_argument('--only', help='parts, instead of all')
  parser.add_argument('--small', action='store_true')
  parser.add_argument(
    '--resumes', action='store_true', help='the part resume, in this process'
  )
  return parser.parse_args()


def _parts(*, is_small: bool) -> dict[str, Part]:
  """Returns name -> part, the most telling first."""
  peers = 'flax'
  if importlib.util.find_spec('torch') is not None:
    peers = 'flax,channels_last,compiled'
  step = ('-m', 'benchmarks', 'train_step', '--dtype=bfloat16')
  sizes = {'vgg16': 1024, 'bn_inception': 256}
  few = ('--rounds=6', f'--peers={peers}')
  if is_small:
    sizes = {'vgg16': 4, 'bn_inception': 2}
    few = ('--rounds=1', '--seconds=0.1', '--peers=flax')
  tests = ('tests/norms', 'tests/analysis')
  if is_small:
    tests = ('tests/norms/batch_test.py',)
  seeds = ('--seeds=4', '--rounds=1') if is_small else ('--seeds=32',)
  return {
    'resume': Part(('-m', 'benchmarks', 'accelerator', '--resumes'), 0.25),
    **{
      name: Part(
        (*step, f'--networks={name}', f'--batch_size={size}', *few), 0.3
      )
      for name, size in sizes.items()
    },
    'seeds': Part(('-m', 'benchmarks', 'seeds', *seeds), 0.25),
    'probes': Part(('-m', 'benchmarks', 'probes', '--pairs=3'), 0.2),
    'tests': Part(('-m', 'pytest', '-q', '-x', '-n0', *tests), 0.4),
  }


def _compare_resumed() -> None:
  """Compares the steps of a run with those of one that was stopped halfway."""
  with tempfile.TemporaryDirectory() as folder:
    base = pathlib.Path(folder)
    _train(base / 'whole', 20)
    _train(base / 'resumed', 10)
    _train(base / 'resumed', 20)
    whole, resumed = (
      _steps(base / name / 'batchnorm/seed0') for name in ('whole', 'resumed')
    )
  same = [a == b for a, b in zip(whole, resumed, strict=True)]
  turns.say(
    'steps that are the same after a stop, of 20', [len(same)], [sum(same)],
    limit=1.0, at_least=True, unit='steps',
  )  # fmt: skip
  if not all(same):
    raise SystemExit(f'error: step {same.index(False)} differs')


def _train(workdir: pathlib.Path, steps: int) -> None:
  subprocess.run(
    [sys.executable, 'train.py', '--config=configs/quickstart.py',
     '--only=batchnorm/seed0', f'--config.steps={steps}',
     '--config.checkpoint.every_steps=5', f'--workdir={workdir}'],
    cwd=ROOT, check=True, env=dict(os.environ),
  )  # fmt: skip


def _steps(folder: pathlib.Path) -> list[str]:
  """Returns the rows of training steps, whose floats are written in full."""
  lines = (folder / 'scalars.jsonl').read_text().splitlines()
  return [line for line in lines if json.loads(line)['name'] == 'train']


if __name__ == '__main__':
  main()
