#!/usr/bin/env bash
# flax's BatchNorm with a mask and an axis_name averages over devices, not over
# the examples that the mask leaves.
#
# Versions: flax 0.12.8 (linen and NNX), jax and jaxlib 0.10.2 on four devices
# of the CPU, numpy 2.4.6, Python 3.11. vmap and shard_map were not tried.
#
# Each device takes the mean of its own valid examples, and lax.pmean then
# counts every device alike. If the last batch of an epoch fills three devices
# and leaves one example for the fourth, that example has a quarter of the
# weight: of 97 examples, 24 times what it should have. A device with nothing
# but padding makes the statistics of all of them nan, which running averages
# keep. Flax's issue 2417, closed, is of unequal batches; a maintainer answers
# that JAX has none. Masks make them.
#
# Expected: the statistics of all valid examples, as without axis_name: a mask
# is documented as "the positions for which the mean and variance" are computed.
# Why it matters: padding and a mask are there so that the last batch counts
# rightly. One device, and every full batch, agree with the mathematics, so
# tests pass; on four devices the last step of each epoch moves the averages by
# a few examples' numbers. Sequences of unequal lengths do it in every step.
#
# Output seen (mean and variance of 128 places on 4 devices):
#   valid  one device         four, linen        four, NNX
#     128    0.0843   0.9715    0.0843   0.9715    0.0843   0.9715
#     100    0.1095   1.0100    0.0676   1.5106    0.0676   1.5106
#      97    0.1472   0.9896    0.8381   2.2436    0.8381   2.2436
#      96    0.1175   0.9143       nan      nan       nan      nan
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=4 \
  "$folder/env/bin/python" - <<'END'
import flax.linen as nn
import jax
import numpy as np
from flax import nnx

x = np.random.default_rng(0).normal(size=(4, 32, 1)).astype(np.float32)
x[3, 0] = 3  # the one example that the last device has, of 97


def linen(x, mask, axis_name=None):
  """Returns the moments that the layer stores, for a momentum of 0."""
  layer = nn.BatchNorm(
    use_running_average=False, momentum=0.0, axis_name=axis_name
  )
  variables = {
    'params': {'scale': np.ones(1), 'bias': np.zeros(1)},
    'batch_stats': {'mean': np.zeros(1), 'var': np.ones(1)},
  }
  _, new = layer.apply(variables, x, mask=mask, mutable=['batch_stats'])
  return new['batch_stats']['mean'], new['batch_stats']['var']


def of_nnx(x, mask, axis_name=None):
  layer = nnx.BatchNorm(1, momentum=0.0, axis_name=axis_name, rngs=nnx.Rngs(0))
  layer(x, use_running_average=False, mask=mask)
  return layer.mean[...], layer.var[...]


print('valid  one device         four, linen        four, NNX')
rows = {}
for valid in (128, 100, 97, 96):
  mask = (np.arange(128) < valid).reshape(4, 32, 1)
  moments = [linen(x.reshape(128, 1), mask.reshape(128, 1))]
  for layer in (linen, of_nnx):
    synced = jax.pmap(
      lambda x, mask, layer=layer: layer(x, mask, 'devices'), 'devices'
    )
    moments.append([moment[0] for moment in synced(x, mask)])
  rows[valid] = [[float(m[0]), float(v[0])] for m, v in moments]
  print(
    f'{valid:5}',
    *(f' {mean:8.4f} {variance:8.4f}' for mean, variance in rows[valid]),
  )
  exact = [x[mask].mean(), x[mask].var()]
  if not np.allclose(rows[valid][0], exact, atol=1e-5):
    raise SystemExit('changed: one device is no longer right')
for column in (1, 2):
  if not np.allclose(rows[128][column], rows[128][0], atol=1e-5):
    raise SystemExit('changed: full batches differ, too')
  of_devices = [x[i].mean() for i in range(3)] + [x[3, 0].item()]
  if not np.isclose(rows[97][column][0], np.mean(of_devices), atol=1e-5):
    raise SystemExit('changed: the one example no longer counts a quarter')
  if not np.isnan(rows[96][column]).all():
    raise SystemExit('changed: a device of padding no longer gives nan')
END
