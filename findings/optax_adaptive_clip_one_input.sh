#!/usr/bin/env bash
# optax.adaptive_grad_clip takes a kernel with one input as one single unit.
#
# Versions: optax 0.2.8, jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6,
# Python 3.11.
#
# The clipping is by unit: each output of a kernel has the norm of its own
# weights. Which axes make a unit is found after axes of length 1 are dropped,
# so a kernel [1, 8], or [1, 1, 1, 8] of a convolution, is taken as a vector,
# whose norm is that of the whole array. A second input, of weights and
# gradients that are all zero, changes nothing in the network, and brings the
# units back.
#
# Expected: the same for [1, 8] as for [2, 8] with zeros.
# Why it matters: one large output lets the gradients of the others pass, and
# one large gradient scales down those of all: a depthwise kernel, a first layer
# of one input, or a layer on one pooled feature. `axis=0` says the axis.
#
# Output seen (norms of two outputs' gradients, 1 and 1; of weights 1 and 100;
# clipping 0.1, so 0.1 and 1 are expected):
#   kernel          output 0   output 1
#   [1, 2]            1.0000     1.0000
#   [1, 1, 1, 2]      1.0000     1.0000
#   [2, 2] zeros      0.1000     1.0000
#   [1, 2] axis=0     0.1000     1.0000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import jax.numpy as jnp
import numpy as np
import optax


def clipped(shape, **keywords):
  """Norms of two outputs' gradients after clipping to 0.1 of the weights'."""
  weights, gradients = jnp.zeros(shape), jnp.zeros(shape)
  first = (0,) * (len(shape) - 1)
  weights = weights.at[first].set(jnp.array([1.0, 100.0]))
  gradients = gradients.at[first].set(1.0)
  clip = optax.adaptive_grad_clip(0.1, **keywords)
  updates, _ = clip.update(gradients, clip.init(weights), weights)
  return np.linalg.norm(np.asarray(updates).reshape(-1, 2), axis=0)


rows = {
  '[1, 2]': clipped((1, 2)),
  '[1, 1, 1, 2]': clipped((1, 1, 1, 2)),
  '[2, 2] zeros': clipped((2, 2)),
  '[1, 2] axis=0': clipped((1, 2), axis=0),
}
print('kernel          output 0   output 1')
for name, norms in rows.items():
  print(f'{name:14} {norms[0]:9.4f} {norms[1]:10.4f}')
if not np.allclose(list(rows.values())[2:], [0.1, 1.0]):
  raise SystemExit('changed: units are no longer clipped by themselves')
if not np.allclose(list(rows.values())[:2], 1.0):
  raise SystemExit('changed: one input no longer makes one unit')
END
