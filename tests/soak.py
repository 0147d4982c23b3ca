"""A long run, by hand: python -m tests.soak [--steps=10000] [--every=10]

Trains the tiny network of saving_config.py in one process, saves every so many
steps, and looks at the process once a second: resident memory, threads, open
files. Of the first and the last quarter of the looks after the first tenth, it
prints the mean memory and the fewest threads and files (a save has some of its
own), and whether memory grew by less than 5 % and the others not at all.
"""

import argparse
import pathlib
import re
import statistics
import sys
import tempfile
import time

from tests.fixtures import spawned

_GROWTH = 0.05  # of memory, that is allowed


def looked(pid: int) -> dict[str, int]:
  """What a process holds now: kilobytes, threads, open files."""
  process = pathlib.Path('/proc') / str(pid)
  status = (process / 'status').read_text()
  return {
    'memory (kB)': int(re.search(r'VmRSS:\s+(\d+)', status)[1]),
    'threads': int(re.search(r'Threads:\s+(\d+)', status)[1]),
    'open files': len(list((process / 'fd').iterdir())),
  }


def watched(
  process: spawned.Process, folder: pathlib.Path, steps: int
) -> list[dict]:
  """What the process held, once a second while it trained, after a tenth."""
  seen = []
  while process.poll() is None:
    saved = [int(p.name) for p in folder.glob('*') if p.name.isdecimal()]
    if max(saved, default=0) >= steps:
      break
    if max(saved, default=0) > steps / 10:
      try:
        seen.append(looked(process.pid))
      except (OSError, TypeError):  # it has just ended
        break
    time.sleep(1)
  return seen


def report(seen: list[dict]) -> bool:
  """Prints the table; whether nothing grew."""
  quarter = max(1, len(seen) // 4)
  fine = True
  print(f'{"":14}   first quarter   last quarter      growth')
  for name in seen[0]:
    memory = name.startswith('memory')
    first, last = (
      (statistics.mean if memory else min)(one[name] for one in part)
      for part in (seen[:quarter], seen[-quarter:])
    )
    growth = last / first - 1
    fine &= growth < (_GROWTH if memory else 1e-9)
    print(f'{name:14} {first:15,.1f} {last:14,.1f} {100 * growth:9.2f} %')
  return fine


def main() -> int:
  parser = argparse.ArgumentParser()
  parser.add_argument('--steps', type=int, default=10_000)
  parser.add_argument('--every', type=int, default=10)
  given = parser.parse_args()
  server = spawned.Server(JAX_DISABLE_MOST_OPTIMIZATIONS='0')
  with tempfile.TemporaryDirectory() as root:
    begun = time.monotonic()
    process = server.start(
      'train', '--config=tests/fixtures/saving_config.py',
      f'--workdir={root}/soak',
      f'--data_dir={root}/data', f'--config.steps={given.steps}',
      f'--config.checkpoint.every_steps={given.every}',
    )  # fmt: skip
    folder = pathlib.Path(root, 'soak', 'batchnorm', 'seed0', 'checkpoints')
    seen = watched(process, folder, given.steps)
    code = process.wait(600)
    if code or len(seen) < 8:
      print(process.text())
      return 1
    print(
      f'{given.steps:,} steps, {given.steps // given.every:,} saves, '
      f'{time.monotonic() - begun:.0f} s, {len(seen)} looks'
    )
    fine = report(seen)
  server.close()
  return 0 if fine else 1


if __name__ == '__main__':
  sys.exit(main())
