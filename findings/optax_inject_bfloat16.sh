#!/usr/bin/env bash
# optax.inject_hyperparams(optax.adam) makes nan of bfloat16 parameters.
#
# Versions: optax 0.2.8, jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6,
# Python 3.11.
#
# It stores every number of the optimizer, defaults too, in the dtype of the
# parameters, unless hyperparam_dtype is given. In bfloat16 b2 = 0.999 is 1.0:
# no square enters the second moment, and its correction divides 0 by 0.
#
# Expected: the first update of optax.adam itself, -0.001 times the sign.
# Why it matters: injecting is how a program reads or sets the learning rate.
# The same optimizer trains with bfloat16 parameters without it.
#
# Output seen:
#                        float32     bfloat16
#   adam                  -0.001    -0.000999
#   adam, injected        -0.001          nan
#   b2 in the state        0.999            1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import math

import jax.numpy as jnp
import optax

rows = {'adam': [], 'adam, injected': [], 'b2 in the state': []}
for dtype in (jnp.float32, jnp.bfloat16):
  params = {'w': jnp.ones(2, dtype)}
  gradient = {'w': jnp.full(2, 0.5, dtype)}
  for name, optimizer in (
    ('adam', optax.adam(1e-3)),
    ('adam, injected', optax.inject_hyperparams(optax.adam)(1e-3)),
  ):
    updates, state = optimizer.update(gradient, optimizer.init(params), params)
    rows[name].append(float(updates['w'][0]))
  rows['b2 in the state'].append(float(state.hyperparams['b2']))
print('                     float32     bfloat16')
for name, (first, second) in rows.items():
  print(f'{name:16} {first:11.3g} {second:12.3g}')
if abs(rows['adam, injected'][0] + 1e-3) > 1e-6:
  raise SystemExit('changed: float32 is off too')
if not math.isnan(rows['adam, injected'][1]):
  raise SystemExit('changed: bfloat16 is not nan')
END
