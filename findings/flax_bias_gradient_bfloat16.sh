#!/usr/bin/env bash
# In bfloat16 the gradients of a convolution's bias and of an embedding stop
# growing, on the CPU, although the parameters are float32.
#
# Versions: flax 0.12.8, jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6,
# Python 3.11. Other devices were not tried.
#
# With dtype=bfloat16 flax casts float32 parameters to bfloat16 and computes
# there; the gradient comes back as float32. For the bias of Conv it is a sum
# over all examples and places, for a row of Embed a sum over its occurrences,
# and these sums are made in bfloat16: from 256 on, adding 1 changes nothing.
# The gradients of the kernel and of Dense's bias are right.
#
# Expected: bfloat16's rounding, under 1 %, as of the kernel; the gradient has
# the dtype float32, so nobody thinks of 8 bits.
# Why it matters: mixed precision on a CPU is how such code is tested. Networks
# without normalization have these biases and those with it have not: comparing
# the two, one side alone gets gradients of a third or less. A word that is
# frequent learns less than one that is rare.
#
# Output seen (32 images of 32 x 32; 5,000 times one word):
#   gradient                 of the outputs     float32  bfloat16
#   Conv bias                all 1                32768       256
#   Conv bias                mean 0.1, std 1       3154      1020
#   Conv kernel, norm        mean 0.1, std 1     7238.7    7238.9
#   Embed, one row           all 1                 5000       256
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

random = np.random.default_rng(0)


def gradients(layer, x, shape):
  """Returns those of the parameters: of ones and of random outputs' gradients.

  Each is a pair, computed in float32 and in bfloat16.
  """
  variables = layer(jnp.float32).init(jax.random.key(0), x)

  def of(dtype, outputs):
    def total(variables, x, outputs):
      y = layer(dtype).apply(variables, x)
      return (y.astype(jnp.float32) * outputs).sum()

    return jax.jit(jax.grad(total))(variables, x, outputs)['params']

  for outputs in (np.ones(shape), random.normal(0.1, 1, shape)):
    outputs = outputs.astype(np.float32)
    yield of(jnp.float32, outputs), of(jnp.bfloat16, outputs)


def show(name, outputs, pair, style='.0f'):
  pair = [float(number) for number in pair]
  print(f'{name:24} {outputs:16}', *(f'{value:9{style}}' for value in pair))
  return pair


print('gradient                 of the outputs     float32  bfloat16')
images = random.normal(size=(32, 32, 32, 3)).astype(np.float32)
ones, normal = gradients(
  lambda dtype: nn.Conv(64, (3, 3), dtype=dtype), images, (32, 32, 32, 64)
)
bias = show('Conv bias', 'all 1', (p['bias'][0] for p in ones))
usual = show('Conv bias', 'mean 0.1, std 1', (p['bias'][0] for p in normal))
kernel = show(
  'Conv kernel, norm',
  'mean 0.1, std 1',
  (np.linalg.norm(p['kernel']) for p in normal),
  '.1f',
)
words = np.zeros(5000, np.int32)
ones, _ = gradients(
  lambda dtype: nn.Embed(10, 4, dtype=dtype), words, (5000, 4)
)
row = show('Embed, one row', 'all 1', (p['embedding'][0, 0] for p in ones))

if normal[1]['bias'].dtype != jnp.float32:
  raise SystemExit('changed: the dtype')
if abs(kernel[1] / kernel[0] - 1) > 0.01:
  raise SystemExit('changed: the gradient of the kernel')
if bias[1] > bias[0] / 2 or abs(usual[1] / usual[0] - 1) < 0.1:
  raise SystemExit("changed: the gradient of Conv's bias")
if row != [5000, 256]:
  raise SystemExit("changed: the gradient of Embed's row")
END
