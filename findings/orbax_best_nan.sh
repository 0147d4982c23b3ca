#!/usr/bin/env bash
# One nan among the metrics makes orbax delete the best checkpoint.
#
# Versions: orbax-checkpoint 0.12.8, jax and jaxlib 0.10.2 on the CPU,
# numpy 2.4.6, Python 3.11.
#
# CheckpointManager with best_fn keeps the best max_to_keep checkpoints. It
# sorts the metrics as Python does; nan compares false with everything, so it
# stays where it stands and splits the order. A checkpoint whose loss is nan is
# taken for the best and the best is deleted; the next one then counts as the
# best. Nothing is logged above info.
#
# Expected: nan is worse than every number, or an error.
# Why it matters: one evaluation in many overflows, or a mean is over nothing.
# The run recovers, and the best weights are gone from the disk, while
# best_step() names others as the best.
#
# Output seen (best_mode='min'):
#   losses 1.2, 0.4, 0.7       keep 1: steps [1]      best 1
#   losses 1.2, 0.4, nan, 0.7  keep 1: steps [3]      best 3
#   losses 1.2, 0.4, nan, 0.7  keep 2: steps [2, 3]   best 3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - "$folder" <<'END'
import pathlib
import sys

import numpy as np
import orbax.checkpoint as ocp

folder = pathlib.Path(sys.argv[1])


def kept(losses, number):
  """Returns the steps left and the best one, after saves with these losses."""
  options = ocp.CheckpointManagerOptions(
    best_fn=lambda metrics: metrics['loss'],
    best_mode='min',
    max_to_keep=number,
  )
  name = f'{len(losses)}-{number}'
  with ocp.CheckpointManager(folder / name, options=options) as manager:
    for step, loss in enumerate(losses):
      weights = {'kernel': np.full(3, loss, np.float32)}
      manager.save(
        step,
        args=ocp.args.StandardSave(weights),
        metrics={'loss': loss},
      )
      manager.wait_until_finished()
    steps, best = list(manager.all_steps()), manager.best_step()
  text = ', '.join(map(str, losses))
  print(f'losses {text:19} keep {number}: steps {steps!s:8} best {best}')
  return steps, best


if kept([1.2, 0.4, 0.7], 1) != ([1], 1):
  raise SystemExit('changed: without nan, too')
one = kept([1.2, 0.4, float('nan'), 0.7], 1)
two = kept([1.2, 0.4, float('nan'), 0.7], 2)
if 1 in one[0] or 1 in two[0]:
  raise SystemExit('changed: the best checkpoint stays')
END
