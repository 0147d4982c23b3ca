#!/usr/bin/env bash
# jnp.histogram counts in the dtype of the data: in bfloat16 only up to 256.
#
# Versions: jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6, Python 3.11.
#
# Without weights every number counts 1, in the dtype of the data, and the ones
# are added up in it. 256 + 1 is 256 in bfloat16 and 2048 + 1 is 2048 in
# float16, so a bin stays at 256 or 2048 however many fall into it; in float32
# it stays at 16,777,216. np.histogram on the same array counts in integers.
#
# Expected: the counts of NumPy, whose function it says it implements.
# Why it matters: histograms of activations, the usual figure for covariate
# shift, are made of exactly such arrays. A bell becomes a box: every bin but
# the tails is equally high, before and after normalization alike. density=True
# divides by the sum of these counts, so that the area is 1 all the same.
#
# Output seen (100,000 normal numbers, 8 bins from -4 to 4):
#   bfloat16 jnp   145   256   256   256   256   256   256   142  sum   1823
#   bfloat16 np    145  2105 13515 34404 34035 13520  2129   142  sum  99995
#   float16  jnp   150  2048  2048  2048  2048  2048  2048   137  sum  12575
#   float32  jnp   150  2133 13567 34319 34072 13502  2115   137  sum  99995
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import jax.numpy as jnp
import numpy as np

normal = np.random.default_rng(0).normal(size=100_000)


def show(dtype, library):
  values = jnp.asarray(normal, dtype)
  values = np.asarray(values) if library is np else values
  counts = library.histogram(values, bins=8, range=(-4, 4))[0]
  counts = [int(count) for count in counts]
  print(
    f'{dtype:8} {"np" if library is np else "jnp":3}',
    *(f'{count:5}' for count in counts),
    f' sum {sum(counts):6}',
  )
  return counts


low = show('bfloat16', jnp)
true = show('bfloat16', np)
half = show('float16', jnp)
show('float32', jnp)
if low != [min(count, 256) for count in true] or max(half) != 2048:
  raise SystemExit('changed: the counts no longer stop')
END
