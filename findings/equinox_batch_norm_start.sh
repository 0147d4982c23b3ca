#!/usr/bin/env bash
# Equinox's BatchNorm infers, after t steps, with a variance that is too large
# by 0.99^t / (1 - 0.99^t): by 99 after one step, by 0.58 after a hundred.
#
# Versions: equinox 0.13.8, jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6,
# Python 3.11; mode='batch', which its warning recommends.
#
# The running variance starts at 1, and inference divides it by 1 - 0.99^t, the
# correction for an average that starts at 0. So the start is not taken out but
# made larger. The mean, which starts at 0, is right. The excess is the same
# whatever the data are, so small activations suffer most. The project's issue
# 1010, closed, speaks of inference before the first step alone.
#
# Expected: the variance of the data from the first step on, which is what such
# a correction is for (Haiku's, from which it was taken), or flax's and
# PyTorch's average without one.
# Why it matters: the training output is right, and the loss goes down. What is
# evaluated has activations a quarter as large behind each norm after a hundred
# steps: short runs, fine-tuning with fresh norms and the first points of curves
# are at chance, and it looks like overfitting.
#
# Output seen (batches of 256 numbers of mean 1 and standard deviation 0.2):
#   steps  mean   variance  true    std of the output: training, inference
#       1  1.000    99.041  0.041       1.000  0.020
#      10  0.993     9.498  0.040       1.000  0.061
#     100  1.001     0.617  0.039       1.000  0.238
#     500  1.000     0.047  0.040       1.000  0.900
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  equinox==0.13.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import equinox as eqx
import jax
import numpy as np

random = np.random.default_rng(0)
layer, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
  1, axis_name='batch', mode='batch'
)
evaluated = eqx.nn.inference_mode(layer)


@eqx.filter_jit
def apply(layer, x, state):
  return jax.vmap(layer, (0, None), (0, None), 'batch')(x, state)


print('steps  mean   variance  true    std of the output: training, inference')
means, variances = [], []
for step in range(1, 501):
  x = random.normal(1, 0.2, (256, 1)).astype(np.float32)
  means.append(x.mean())
  variances.append(x.var())
  y, state = apply(layer, x, state)
  if step not in (1, 10, 100, 500):
    continue
  # Inference is a linear map: two points tell the mean and the variance.
  points, _ = apply(evaluated, np.array([[0.0], [1.0]], np.float32), state)
  slope = (points[1, 0] - points[0, 0]).item()
  mean, variance = -points[0, 0].item() / slope, slope**-2 - layer.eps
  weights = 0.99 ** np.arange(step)[::-1]
  true = np.average(variances, weights=weights)
  inferred, _ = apply(evaluated, x, state)
  print(
    f'{step:5}  {mean:.3f}  {variance:8.3f}  {true:.3f}'
    f'  {y.std():10.3f}  {inferred.std():.3f}'
  )
  if abs(mean - np.average(means, weights=weights)) > 1e-3:
    raise SystemExit('changed: the mean')
  excess = 0.99**step / (1 - 0.99**step)
  if abs(variance - true - excess) > 0.01 * excess + 1e-4:
    raise SystemExit('changed: the variance is no longer too large by that')
END
