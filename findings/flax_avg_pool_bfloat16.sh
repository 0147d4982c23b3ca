#!/usr/bin/env bash
# flax's avg_pool over a whole bfloat16 map is wrong by a half, on the CPU.
#
# Versions: flax 0.12.8, jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6,
# Python 3.11. Other devices were not tried.
#
# avg_pool adds up a window in the dtype of its input and divides by the size.
# Up to 16 x 16 the sum of numbers near 1 is about right; from 32 x 32 on it
# stops growing. How far off it is depends on the size in no plain way. jnp.mean
# over the same axes adds up in float32 and is right. jit changes nothing.
#
# Expected: the mean to bfloat16's 3 digits; the two usual ways to write a
# global pooling agree.
# Why it matters: mixed precision (dtype=bfloat16 in every layer) is the usual
# recipe, and pooling over the whole map the last layer before the logits.
# Features come out at a half or a third, by a factor that changes with the
# resolution: a network tested on larger images than it was trained on fails,
# and the loss of resolution is blamed on the network.
#
# Output seen (numbers from 0 to 1, equally likely):
#   window      avg_pool  jnp.mean  avg_pool in float32
#     8 x   8      0.496     0.494     0.494
#    16 x  16      0.555     0.551     0.552
#    32 x  32      0.250     0.494     0.494
#    56 x  56      0.326     0.494     0.495
#    64 x  64      0.250     0.498     0.498
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import flax.linen as nn
import jax.numpy as jnp
import numpy as np

random = np.random.default_rng(0)
error = {}
print('window      avg_pool  jnp.mean  avg_pool in float32')
for size in (8, 16, 32, 56, 64):
  image = jnp.asarray(random.uniform(size=(1, size, size, 1)), jnp.bfloat16)
  pooled = nn.avg_pool(image, (size, size)).item()
  mean = image.mean().item()
  exact = nn.avg_pool(image.astype(jnp.float32), (size, size)).item()
  print(f'{size:3} x {size:3}  {pooled:9.3f} {mean:9.3f} {exact:9.3f}')
  error[size] = abs(pooled / exact - 1)
  if abs(mean / exact - 1) > 0.01:
    raise SystemExit('changed: jnp.mean is no longer right')
if error[16] > 0.02 or error[32] < 0.3 or error[64] < 0.3:
  raise SystemExit('changed: the sums no longer stop from 32 x 32 on')
END
