#!/usr/bin/env bash
# A compiled program of JAX maps the memory of its temporaries anew in every call
# on a CPU, if they are larger than 32 MiB: each call has a page fault for each 4
# kB of them, and not the first call alone.
#
# Versions: jax and jaxlib 0.10.2, Python 3.11, glibc 2.36 on Linux.
#
# XLA allocates the temporaries when a program is called, and frees them at its
# end. glibc takes small blocks from its heap, where they stay; but the size from
# which it asks the system, which grows with what is freed, ends at 32 MiB. Then
# the system clears each page at its first touch, in every call.
#
# Expected: page faults in the first calls, and hardly any later, as for
# temporaries of 25 MB; the sizes are known when the program is compiled.
# Why it matters: a training step of VGG-16 (batch 128) had 226,511 page faults,
# and a third of its CPU seconds were the system's (two cores; measured apart
# from this script). What helps where huge pages are for programs that ask:
# GLIBC_TUNABLES=glibc.malloc.hugetlb=1, set before Python starts: 34,299 faults
# and 0.74 of the time. MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ of some
# GB helped here in part, and not at all in the training step.
#
# Output seen: page faults in each of the calls 5 to 10:
#    25 MB of temporaries: 0, but 5001 once
#   134 MB of temporaries: at least 32764 (134 MB are 32768 pages)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2
env -u GLIBC_TUNABLES -u MALLOC_MMAP_THRESHOLD_ -u MALLOC_TRIM_THRESHOLD_ \
  JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import ctypes
import resource

import jax
import jax.numpy as jnp

# Pages of 4 kB for this process, whatever the system gives by default.
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE


@jax.jit
def function(x):  # the product is a temporary
  return jnp.tanh(x @ x.T).max(axis=0)


def faults():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


counts = {}
for rows in (2500, 5792):
  x = jnp.ones((rows, 16))
  calls = []
  for _ in range(10):
    before = faults()
    function(x).block_until_ready()
    calls.append(faults() - before)
  counts[rows] = calls[4:]
  print(f'{rows * rows * 4 / 1e6:4.0f} MB of temporaries: {calls[4:]}')
assert sorted(counts[2500])[3] < 100, counts
assert min(counts[5792]) > 32000, counts
END
