"""Times a second start against the first: what the compilation cache saves.

train.py starts with an empty folder of compiled programs, then again with the
same folder and a new working directory. The seconds are those from the start of
the process to the line that reports the first step. They include all that a
person waits for: imports, data, tracing, compiling or reading programs, all
measures at step 0, and the step, but not the report at the end. Each pair has
an empty folder of its own; the medians are printed with their ranges.

  python benchmarks/second_start.py [--pairs=3] [--only=quickstart]
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import turns

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT = 0.3  # second / first start must not exceed this
CASES = {
  'quickstart': ('--config=configs/quickstart.py', '--only=batchnorm/seed0'),
  'vgg16': (
    '--config=configs/quickstart.py', '--only=batchnorm/seed0',
    '--config.model.name=vgg16', '--config.batch_size=8',
  ),
}  # fmt: skip


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--pairs', type=int, default=3)
  parser.add_argument('--only', choices=CASES)
  parser.add_argument(
    'changes', nargs='*', help='further words for train.py, after --'
  )
  options = parser.parse_args()
  for name, words in CASES.items():
    if options.only in (None, name):
      pairs = [_pair((*words, *options.changes)) for _ in range(options.pairs)]
      _print(name, *zip(*pairs))


def _pair(words) -> tuple[float, float]:
  """Returns seconds of a first and of a second start."""
  with tempfile.TemporaryDirectory() as folder:
    base = pathlib.Path(folder)
    first = _start(base, 'first', words)
    if not list(base.glob('cache/xla/*/*-cache')):
      sys.exit(
        'error: no compiled program was kept; see '
        'bn_jax/host/compilation_cache.py'
      )
    return first, _start(base, 'second', words)


def _start(base: pathlib.Path, name: str, words) -> float:
  """Returns seconds from the start of train.py to its first step."""
  environment = {
    key: value
    for key, value in os.environ.items()
    if key not in ('JAX_COMPILATION_CACHE_DIR', 'BN_JAX_COMPILATION_CACHE')
  }
  start, seconds, lines = time.perf_counter(), None, []
  process = subprocess.Popen(
    [sys.executable, 'train.py', *words, '--config.steps=1',
     f'--workdir={base / name}'],
    cwd=ROOT, stderr=subprocess.PIPE, text=True,
    env={**environment, 'BN_JAX_CACHE_DIR': str(base / 'cache')},
  )  # fmt: skip
  with process:
    for line in process.stderr:
      lines.append(line)
      if seconds is None and 'step 1/1, ' in line:
        seconds = time.perf_counter() - start
  if process.returncode or seconds is None:
    sys.exit(f'error: train.py ended with {process.returncode}: {lines[-1:]}')
  return seconds


def _print(name, first, second) -> None:
  print(
    f'{name}: seconds to the first step: {_text(first)} at the first start, '
    f'{_text(second)} at the second'
  )
  turns.say(f'  {name}, second / first', first, second, limit=LIMIT)


def _text(seconds) -> str:
  median = statistics.median(seconds)
  return f'{median:.1f} ({min(seconds):.1f} to {max(seconds):.1f})'


if __name__ == '__main__':
  main()
