#!/usr/bin/env bash
# The gradient of a convolution's kernel computes all residual blocks before it
# once more, element by element in transposed order, on CPUs: the cost of L
# blocks grows as L * L, while each of their outputs lies in memory.
#
# Versions: jax and jaxlib 0.10.2, Python 3.11.
#
# XLA writes the gradient of a kernel as a convolution whose batch is the
# channels, and moves the channels of the layer's input to the front for it. The
# input of block 4, relu(x + conv(x)) of blocks 1 to 3, is an array in memory: it
# was the input of the forward convolution. But the compiler joins the move with
# all elementwise operations that made the array, back to the outputs of the
# convolutions of blocks 1, 2 and 3 and to the input of the network.
#
# Expected: a move that reads one array, as for the first block.
# Why it matters: a step of ResNet-20 of CIFAR-10 (batch 128, with norms) spent
# 110 of 320 ms in seven such moves, the longest 34 ms, beside 35 ms for the
# convolutions themselves (two cores; measured apart from this script).
# `optimization_barrier` around the convolution is no remedy: on CPUs it is
# removed before operations are joined.
#
# Output seen: arrays that the move for the kernel of each block reads: 1, 2, 3, 4
#              the same with barriers:                                  1, 2, 3, 4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import re

import jax
import jax.numpy as jnp

BLOCKS = 4


def convolve(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def loss(kernels, x, barrier):
  for kernel in kernels:
    x = jax.nn.relu(x + convolve(x, kernel))
    x = jax.lax.optimization_barrier(x) if barrier else x
  return (x * x).mean()


kernels = [jax.ShapeDtypeStruct((3, 3, 16, 16), jnp.float32)] * BLOCKS
x = jax.ShapeDtypeStruct((128, 32, 32, 16), jnp.float32)
for barrier in (False, True):
  gradient = jax.jit(jax.grad(loss), static_argnums=2)
  text = gradient.lower(kernels, x, barrier).compile().as_text()
  # Moves of a layer's input: [128, 32, 32, 16] -> [16, 32, 32, 128].
  moves = re.findall(
    r'= f32\[16,32,32,128\]\S* (?:fusion|transpose|copy)\((.*?)\)',
    text[text.index('ENTRY') :],
  )
  read = sorted(len(operands.split(', %')) for operands in moves)
  print('with' if barrier else 'without', 'barriers:', read)
  assert read == list(range(1, BLOCKS + 1)), read
END
