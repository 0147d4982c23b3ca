"""Times the wait for a save: python benchmarks/saves.py [--saves=9]

Saves a state of the size of VGG-16 with momentum (126 MB of random numbers) as
training does. Prints how long `save` delays training, and how long it takes
until the checkpoint is on the disk with its digests.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

import jax
import results

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from bn_jax.storage import checkpoint

_ARRAYS = 30  # about as many as VGG-16 has


def state(megabytes: int) -> dict[str, jax.Array]:
  size = megabytes * 10**6 // 4 // _ARRAYS  # 4 bytes a number
  keys = jax.random.split(jax.random.key(0), _ARRAYS)
  return {
    f'w{i}': jax.random.normal(key, (size,)) for i, key in enumerate(keys)
  }


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--saves', type=int, default=9)
  parser.add_argument('--megabytes', type=int, default=126)
  options = parser.parse_args()
  arrays = jax.block_until_ready(state(options.megabytes))
  waits, totals = [], []
  with tempfile.TemporaryDirectory() as folder:
    saved = checkpoint.Checkpoints(pathlib.Path(folder) / 'checkpoints')
    saved.save(0, arrays)  # training waits for this one
    saved.wait()
    for step in range(1, options.saves + 1):
      start = time.perf_counter()
      saved.save(step, arrays)
      waits.append(time.perf_counter() - start)
      saved.wait()
      totals.append(time.perf_counter() - start)
    saved.close()
  for name, seconds, limit in (
    ('held up', waits, 0.1), ('whole after', totals, None)
  ):  # fmt: skip
    median = statistics.median(seconds)
    results.add(
      name, ours=median, unit='s', limit=limit,
      holds=None if limit is None else median <= limit,
    )  # fmt: skip
    print(
      f'{name:12} {median:.3f} s '
      f'({min(seconds):.3f} to {max(seconds):.3f} in {len(seconds)} saves)'
    )


if __name__ == '__main__':
  main()
