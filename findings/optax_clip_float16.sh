#!/usr/bin/env bash
# optax.clip_by_global_norm turns finite float16 gradients into zeros.
#
# Versions: optax 0.2.8, jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6,
# Python 3.11.
#
# The norm is made in the dtype of the gradients. Above a norm of 256 the sum
# of squares leaves float16 (65,504) and is infinite, though the norm itself
# would fit; everything divided by it is 0. No infinity and no nan is left:
# apply_if_finite lets the step through and counts no failure, and the norm
# after clipping is 0. Momentum and Adam go on from zeros.
#
# Expected: gradients of norm 1, or infinity passed on, so that a step is
# skipped as overflow.
# Why it matters: float16 is trained with a loss scale, which makes such norms
# usual before it is divided out, and without one a large network has them at
# the start. Training stands still, and the loss curve shows a plateau.
#
# Output seen:
#   gradients: 1,000,000 of 0.3, norm 300, max_norm 1
#                          float32      float16
#   norm by optax            300.0          inf
#   norm after clipping        1.0          0.0
#   failures counted             0            0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import jax.numpy as jnp
import numpy as np
import optax

print('gradients: 1,000,000 of 0.3, norm 300, max_norm 1')
columns = {}
for dtype in ('float32', 'float16'):
  gradients = {'kernel': jnp.full(1_000_000, 0.3, dtype)}
  chain = optax.apply_if_finite(
    optax.clip_by_global_norm(1.0), max_consecutive_errors=5
  )
  updates, state = chain.update(gradients, chain.init(gradients))
  columns[dtype] = (
    optax.tree.norm(gradients).item(),
    np.linalg.norm(np.asarray(updates['kernel'], np.float64)),
    state.total_notfinite.item(),
  )
print('                       float32      float16')
for index, (name, style) in enumerate(
  (
    ('norm by optax', '.1f'),
    ('norm after clipping', '.1f'),
    ('failures counted', 'd'),
  )
):
  row = [columns[dtype][index] for dtype in ('float32', 'float16')]
  print(f'{name:19} {row[0]:10{style}} {row[1]:12{style}}')
if abs(columns['float32'][1] - 1) > 0.01:
  raise SystemExit('changed: float32 is no longer clipped to 1')
if columns['float16'] != (np.inf, 0, 0):
  raise SystemExit('changed: float16 no longer becomes zeros')
END
