#!/usr/bin/env bash
# optax.ema's debiased average of ones is 0.9986 at a decay of 0.99999.
#
# Versions: optax 0.2.8, jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6,
# Python 3.11.
#
# Each value enters with 1 - decay, computed in float64, 1.0000e-5. The sum is
# divided by 1 - decay**t, computed in float32, where 0.99999 is another number
# and 1 - 0.99999 is 1.0014e-5. The two do not cancel: the average is too small
# by the same share for the first 1 / (1 - decay) steps and more. The correction
# of Adam's moments is the same code.
#
# Expected: 1, to float32's 1e-7.
# Why it matters: averages of weights are kept with decays of 0.9999 and above.
# All weights shrink by one share, which Batch Normalization hides for kernels
# and nothing hides for the last layer, for biases and for running statistics.
#
# Output seen:
#   decay        after 1 step   after 1000
#   0.99            1.0000010    0.9999999
#   0.9999          0.9998341    0.9998453
#   0.99999         0.9986438    0.9986424
#   0.999999        0.9868951    0.9869215
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import jax
import jax.numpy as jnp
import optax

print('decay        after 1 step   after 1000')
averages = {}
for decay in (0.99, 0.9999, 0.99999, 0.999999):
  transformation = optax.ema(decay, debias=True)
  update = jax.jit(transformation.update)
  ones = jnp.ones(())
  state = transformation.init(ones)
  means = []
  for _ in range(1000):
    mean, state = update(ones, state)
    means.append(float(mean))
  averages[decay] = means[-1]
  print(f'{decay:<12} {means[0]:13.7f} {means[-1]:12.7f}')
if abs(averages[0.99] - 1) > 1e-5:
  raise SystemExit('changed: a decay of 0.99 is off too')
if abs(averages[0.99999] - 1) < 1e-4:
  raise SystemExit('changed: a decay of 0.99999 gives 1')
END
