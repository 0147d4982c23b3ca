#!/usr/bin/env bash
# In programs for a GPU the gradient of flax's max pooling keeps a float32 and
# four 32-bit integers of each window, whatever the dtype: for 2 x 2 windows of
# bfloat16 five times the memory of a maximum over a reshaped array.
#
# Versions: jax, jaxlib, jax-cuda12-plugin and jax-cuda12-pjrt 0.10.2, flax
# 0.12.8, Python 3.11. The compiler for GPUs works without one, for an H200
# described to it; nothing is run.
#
# XLA takes the gradient (select_and_scatter) apart into a pool of five arrays:
# the maximum, and its place along each of the four axes, batch and channels
# among them, although no window reaches over those. They are written to memory
# and read again by a scatter. In a program for a TPU it stays one operation.
#
# Expected: one place in each window, as PyTorch's max_pool2d keeps it, or none.
# Why it matters: VGGs and ResNets pool their largest maps. For overlapping
# windows (3 x 3 at stride 2, as in Inception) the same happens; there maxima of
# shifted slices took a third of the memory.
#
# Output seen (an input of [256, 32, 32, 128], 67 MB in bfloat16):
#   flax.linen.max_pool  168 MB of temporaries, 4 arrays of int32 a window
#   reshape and max       34 MB of temporaries, 0 arrays of int32 a window
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 jax-cuda12-plugin==0.10.2 \
  jax-cuda12-pjrt==0.10.2 flax==0.12.8
# Without a GPU no kernels can be tried.
export JAX_PLATFORMS=cpu XLA_FLAGS=--xla_gpu_autotune_level=0
"$folder/env/bin/python" - 2> "$folder/log" <<'END' || { tail -3 "$folder/log"; exit 1; }
import re

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.experimental import topologies

# An H200, in the words of XLA's description of devices.
H200 = """
platform_name: "CUDA" device_description_str: "NVIDIA H200"
dnn_version_info { major: 9 minor: 10 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024
  threads_per_core_limit: 2048 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_core: 233472 shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448 l2_cache_size: 62914560
  memory_bandwidth: 4800000000000 device_memory_size: 151397597184
}
"""


def pooled(x):
  return nn.max_pool(x, (2, 2), (2, 2))


def reshaped(x):
  n, height, width, channels = x.shape
  x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
  return x.max((2, 4))


topology = topologies.get_topology_desc(
  platform='cuda', topology_name='one H200', topology='1 x 1 x 1',
  target_config=H200,
)  # fmt: skip
sharding = jax.sharding.SingleDeviceSharding(topology.devices[0])
x = jax.ShapeDtypeStruct((256, 32, 32, 128), jnp.bfloat16, sharding=sharding)
y = jax.ShapeDtypeStruct((256, 16, 16, 128), jnp.bfloat16, sharding=sharding)
temporary, places = [], []
for name, pool in (('flax.linen.max_pool', pooled), ('reshape and max', reshaped)):
  gradient = jax.jit(lambda x, dy: jax.vjp(pool, x)[1](dy))
  program = gradient.lower(x, y).compile()
  temporary.append(program.memory_analysis().temp_size_in_bytes / 1e6)
  entry = program.as_text().partition('\nENTRY')[2]
  written = re.findall(r's32\[256,16,16,128\][^()]*get-tuple-element\(', entry)
  places.append(len(written))
  print(
    f'{name:20s} {temporary[-1]:3.0f} MB of temporaries, {places[-1]} arrays '
    'of int32 a window'
  )
assert places == [4, 0], places
assert temporary[0] > 4 * temporary[1], temporary
END
