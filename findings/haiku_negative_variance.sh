#!/usr/bin/env bash
# Haiku's BatchNorm computes variances below zero where the mean is large beside
# the deviation, and then returns nan.
#
# Versions: dm-haiku 0.0.17, jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6,
# Python 3.11.
#
# The variance is E[x^2] - E[x]^2 in the input's dtype, without a bound at 0:
# float32 has 7 digits, so a difference of two numbers near 10,000 is off by
# 0.001. flax computes the same and takes the larger of it and 0: its variance
# is as wrong, and its output finite. epsilon, 1e-5, saves neither.
#
# Expected: a variance of 0 or more. PyTorch 2.13.0 and Keras 3.15.1 take the
# mean off first, and have three digits of it here.
# Why it matters: temperatures in kelvin, times and coordinates come so, and a
# channel that is nearly constant does within a network. It looks like a rate
# that is too high; the running variance keeps the negative number, so that
# inference gives nan as well, of that channel alone.
#
# Output seen (256 numbers in 8 channels, of this mean and standard deviation):
#   mean   std   least variance, true     channels with nan: training, inference
#     10  0.01       9.155e-05  8.869e-05       0  0
#    100  0.01      -9.766e-04  9.651e-05       2  2
#   1000  0.01      -1.250e-01  8.528e-05       2  2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  dm-haiku==0.0.17 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import haiku as hk
import jax
import numpy as np

layer = hk.transform_with_state(
  lambda x, is_training: hk.BatchNorm(True, True, decay_rate=0.9)(
    x, is_training
  )
)
print('  mean   std   least variance, true     channels with nan: '
      'training, inference')
for mean in (10, 100, 1000):
  x = np.random.default_rng(0).normal(mean, 0.01, (256, 8)).astype(np.float32)
  params, state = layer.init(jax.random.key(0), x, True)
  y, state = layer.apply(params, state, None, x, True)
  inferred, _ = layer.apply(params, state, None, x, False)
  variance = np.asarray(state['batch_norm/~/var_ema']['average']).ravel()
  true = np.float64(x).var(axis=0)
  lost = [int(np.isnan(z).any(axis=0).sum()) for z in (y, inferred)]
  least = variance.argmin()
  print(f'{mean:6}  0.01  {variance[least]:14.3e}  {true[least]:.3e}'
        f'{lost[0]:8}  {lost[1]}')
  if (mean >= 100) != (lost[0] > 0 and variance[least] < 0):
    raise SystemExit('changed: negative variances, or none')
END
