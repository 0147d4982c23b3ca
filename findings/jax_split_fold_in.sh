#!/usr/bin/env bash
# jax.random.split and fold_in give the same keys, so that nnx.Rngs(0) begins a
# network with the numbers of split(key(0)).
#
# Versions: flax 0.12.8, jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6,
# Python 3.11.
#
# split(key, n)[i] is fold_in(key, i), bit for bit, for the key that is the
# default. So a step's key, fold_in(key, step), is in step 0 that of the first
# half of split(key). It is meant so (jax's pull request 13341), and neither
# function's documentation tells; fold_in's calls the key "statistically safe".
# jax_debug_key_reuse lets it pass, for fold_in does not use a key up.
# nnx.Rngs takes its keys by fold_in(key, 0), fold_in(key, 1) and so on; linen
# folds in the path, too, and is not concerned.
#
# Expected: keys that have nothing to do with one another, or a KeyReuseError.
# Why it matters: most programs begin with seed 0. Below, data come from the
# parts of split(key(0)), and an untrained network of nnx.Rngs(0) explains 99 %
# of what it is to learn. Likewise noise, dropout or augmentation of step 0 are
# the weights, and those of step 1 the data.
#
# Output seen (a linear map of 1,000 inputs, to be learnt from 500 examples):
#   weights by split(key)[0], noise of step 0 by fold_in: corr.   1.00
#   untrained nnx.Linear, data and network of seed 0:     R^2     0.99
#   untrained nnx.Linear, network of seed 1:              R^2    -1.36
#   untrained linen Dense, data and network of seed 0:    R^2    -1.04
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu JAX_DEBUG_KEY_REUSE=true "$folder/env/bin/python" - <<'END'
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

if not jax.config.jax_debug_key_reuse:
  raise SystemExit('changed: the keys are not checked')


@jax.jit
def noise(key, step):
  return jax.random.normal(jax.random.fold_in(key, step), (1000, 1))


key = jax.random.key(0)
teacher_key, data_key, target_key = jax.random.split(key, 3)
teacher = jax.random.normal(teacher_key, (1000, 1))
x = jax.random.normal(data_key, (500, 1000))
y = x @ teacher / 1000**0.5 + 0.05 * jax.random.normal(target_key, (500, 1))
same = jnp.corrcoef(teacher[:, 0], noise(key, 0)[:, 0])[0, 1].item()


def explained(prediction):
  return (1 - jnp.sum((prediction - y) ** 2) / jnp.sum(y**2)).item()


zero, one = (
  explained(nnx.Linear(1000, 1, rngs=nnx.Rngs(seed))(x)) for seed in (0, 1)
)
dense = nn.Dense(1)
linen = explained(dense.apply(dense.init(jax.random.key(0), x), x))

for name, kind, number in (
  ('weights by split(key)[0], noise of step 0 by fold_in:', 'corr.', same),
  ('untrained nnx.Linear, data and network of seed 0:', 'R^2', zero),
  ('untrained nnx.Linear, network of seed 1:', 'R^2', one),
  ('untrained linen Dense, data and network of seed 0:', 'R^2', linen),
):
  print(f'{name:53} {kind:6} {number:5.2f}')
if same < 0.999 or zero < 0.9:
  raise SystemExit('changed: the keys are no longer the same')
if one > 0 or linen > 0:
  raise SystemExit('changed: other seeds, or linen, are concerned')
END
