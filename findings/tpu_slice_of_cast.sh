#!/usr/bin/env bash
# The program that the compiler for TPUs makes of "cast to float32, then take
# every 16th row" moves 8 times the bytes of "take every 16th row, then cast":
# beside a reduction of the whole array it writes all of it, in float32.
#
# Versions: jax and jaxlib 0.10.2, libtpu 0.0.52, Python 3.11. libtpu compiles
# without a TPU, for a v5e; nothing is run.
#
# The two functions below give the same values, and differ in the place of one
# astype. Both compute a variance around the mean of a sample of the rows, as
# exact statistics of bfloat16 activations do. Without the sample the cast is a
# part of the loop that reduces, and nothing is written; with a slice of the
# cast array the compiler keeps that array, twice as large as the input.
#
# Expected: that the slice is taken through the cast, as XLA's compilers for
# other devices do with elementwise operations, or that the cast is computed
# twice, as it is where there are two reductions.
# Why it matters: normalization layers compute statistics in float32 of
# activations in bfloat16, and are bound by the memory's bandwidth. Nothing in
# the JAX program shows the difference; a network of such layers had a float32
# copy of an activation map for each.
#
# Output seen (an input of [1024, 256, 128], 67 MB in bfloat16):
#   cast, then slice   545 MB accessed, 134 MB of temporaries
#   slice, then cast    71 MB accessed,   0 MB of temporaries
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 libtpu==0.0.52
# libtpu would ask the cloud, and write logs.
export JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 TPU_WORKER_HOSTNAMES=localhost
export TPU_ACCELERATOR_TYPE=v5e-4 TPU_LOG_DIR=disabled
"$folder/env/bin/python" - <<'END'
import jax
import jax.numpy as jnp
from jax.experimental import topologies


def variance(x, sample):
  x = x.astype(jnp.float32) - sample.mean((0, 1))
  return (x * x).mean((0, 1)) - x.mean((0, 1)) ** 2


def cast_then_slice(x):
  return variance(x, x.astype(jnp.float32)[::16])


def slice_then_cast(x):
  return variance(x, x[::16].astype(jnp.float32))


topology = topologies.get_topology_desc(
  platform='tpu', topology_name='v5e:2x2'
)
sharding = jax.sharding.SingleDeviceSharding(topology.devices[0])
x = jax.ShapeDtypeStruct((1024, 256, 128), jnp.bfloat16, sharding=sharding)
accessed, temporary = [], []
for function in (cast_then_slice, slice_then_cast):
  program = jax.jit(function).lower(x).compile()
  accessed.append(program.cost_analysis()['bytes accessed'] / 1e6)
  temporary.append(program.memory_analysis().temp_size_in_bytes / 1e6)
  name = function.__name__.replace('_then_', ', then ')
  print(
    f'{name:18s} {accessed[-1]:3.0f} MB accessed, '
    f'{temporary[-1]:3.0f} MB of temporaries'
  )
assert accessed[0] > 5 * accessed[1], accessed
assert temporary[0] > 130 > 1 > temporary[1], temporary
END
