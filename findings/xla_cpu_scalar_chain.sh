#!/usr/bin/env bash
# A step that keeps the old parameters if any new one is not finite compiles, on a
# CPU, to a program that grows as the square of the number of parameter arrays:
# the `and` of all arrays' flags is copied into the loop of every array.
#
# Versions: jax and jaxlib 0.10.2, Python 3.11.
#
# The flag of each array is computed once. Their `and`, a chain of n scalars,
# belongs to the cheap operations, which XLA joins with each of their consumers;
# there are n, one `select` for each array. `jnp.stack(flags).all()` is no
# remedy: it is rewritten as the same chain. The place of the first False
# (`argmin`) is a loop of its own, and the program grows with n.
#
# Expected: one scalar, which the n loops read.
# Why it matters: leaving out an update that is not finite is a usual part of a
# training step. The step of a ResNet-20 (59 parameters; 156 arrays) had 77,174
# instructions, and 25,526 with `argmin`; it compiled in two thirds of the time,
# in 793 MB instead of 1,040 (measured apart from this script).
#
# Output seen: instructions for 40 and 160 arrays of 64 numbers
#   and            4402  56002   (12.7 times)
#   stack, all     4402  56002   (12.7 times)
#   stack, argmin  1423   5623   (4.0 times)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import functools
import re

import jax
import jax.numpy as jnp

WAYS = {
  'and': lambda flags: functools.reduce(jnp.logical_and, flags),
  'stack, all': lambda flags: jnp.stack(flags).all(),
  'stack, argmin': lambda flags: (
    jnp.argmin(jnp.stack([*flags, jnp.zeros((), bool)])) == len(flags)
  ),
}


def instructions(of_all, count):
  def step(params, gradients):
    new = [p - 0.1 * g for p, g in zip(params, gradients)]
    is_good = of_all([jnp.isfinite(array).all() for array in new])
    return [jnp.where(is_good, n, p) for n, p in zip(new, params)]

  arrays = [jax.ShapeDtypeStruct((64,), jnp.float32)] * count
  text = jax.jit(step).lower(arrays, arrays).compile().as_text()
  return len(re.findall(r'^\s+(?:ROOT )?%?\S+ = ', text, re.MULTILINE))


for name, of_all in WAYS.items():
  few, many = instructions(of_all, 40), instructions(of_all, 160)
  print(f'{name:14s} {few:5d}  {many:5d}  ({many / few:.1f} times)')
  assert many > 10 * few if name != 'stack, argmin' else many < 5 * few
END
