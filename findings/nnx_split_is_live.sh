#!/usr/bin/env bash
# The parameters that flax.nnx.split returns go on changing with the module.
#
# Versions: flax 0.12.8, optax 0.2.8, jax and jaxlib 0.10.2 on the CPU,
# Python 3.11.
#
# The State of `graphdef, before = nnx.split(net)` and of `nnx.state(net)` holds
# the module's own Variables. nnx.Optimizer.update assigns to them, so that
# `before` has the new numbers, though split is described as the way from a
# stateful to a stateless form, whose parameters linen leaves alone.
# `nnx.to_pure_dict` gives arrays that stay.
#
# Expected: parameters of before the step; a distance moved above 0.
# Why it matters: distances from the initial weights, differences of two steps,
# "the best weights so far" and a checkpoint that is written by a thread all
# take parameters of before. Each comes out as if training had not moved, or as
# the newest weights, without a word.
#
# Output seen:
#   distance moved by one step of SGD with rate 1
#     from nnx.split            0.0
#     from nnx.state            0.0
#     from nnx.to_pure_dict     2.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  flax==0.12.8 optax==0.2.8 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import jax
import jax.numpy as jnp
import optax
from flax import nnx


def parameters(net):
  return jax.tree.leaves(nnx.to_pure_dict(nnx.state(net, nnx.Param)))


def moved(take):
  """Returns |w - w before|, w before as `take` gave it before the step."""
  net = nnx.Linear(4, 1, use_bias=False, rngs=nnx.Rngs(0))
  optimizer = nnx.Optimizer(net, optax.sgd(1.0), wrt=nnx.Param)
  before = take(net)
  # The loss is the sum of the weights: each of the four moves by 1.
  gradient = nnx.grad(lambda net: net.kernel[...].sum())(net)
  optimizer.update(net, gradient)
  (old,), (new,) = jax.tree.leaves(before), parameters(net)
  return float(jnp.linalg.norm(new - jnp.asarray(old)))


distances = {
  'nnx.split': moved(lambda net: nnx.split(net)[1]),
  'nnx.state': moved(nnx.state),
  'nnx.to_pure_dict': moved(lambda net: nnx.to_pure_dict(nnx.state(net))),
}
print('distance moved by one step of SGD with rate 1')
for name, distance in distances.items():
  print(f'  from {name:17} {distance:7.1f}')
if distances['nnx.to_pure_dict'] != 2:
  raise SystemExit('changed: the pure dict is no longer that of before')
if distances['nnx.split'] or distances['nnx.state']:
  raise SystemExit('changed: split or state gives parameters that stay')
END
