#!/usr/bin/env bash
# With weights that do nothing, matfree finds eigenvalues far above the largest.
#
# Versions: matfree 0.6.3, jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6,
# Python 3.11.
#
# Where d eigenvalues are distinct, Lanczos' method is at its end after d steps:
# the remainder is rounding. tridiag_sym with reortho='full' divides it by its
# length and goes on. Where rounding is the same in many coordinates, as in
# those of weights whose row of the matrix is 0, this vector lies in the space
# that is used up, and is not taken out of it. The vectors that follow are not
# orthogonal, and the eigenvalues of the tridiagonal matrix grow with the steps,
# in float64 as in float32. There is no flag.
#
# Expected: no new eigenvalues after step 7, or a sign of the breakdown. A
# matrix of the same rank without rows of zeros does give that.
# Why it matters: dead units and inputs that are always 0 give Hessians of this
# kind. The largest eigenvalue is then read as a sharpness, and log-determinants
# and densities by Lanczos quadrature use the same nodes. More steps, the usual
# remedy, make it worse.
#
# Output seen (least squares, 60 weights, 54 of them of inputs that are 0; the
# eigenvalues are 0 and six up to 38.753):
#   steps   float32: smallest   largest   float64: smallest   largest
#   7                   0.000    38.753               0.000    38.753
#   12                 -0.050    38.753              -0.000    38.753
#   16               -231.304   262.567             -94.639   115.793
#   30              -4280.385  4311.649           -2579.150  2600.304
#   50             -19705.883 19737.150          -12624.400 12645.554
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  matfree==0.6.3 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import jax
import jax.numpy as jnp
import numpy as np
from matfree import decomp, eig

jax.config.update('jax_enable_x64', True)
random = np.random.default_rng(0)
inputs = np.zeros((40, 60))
inputs[:, :6] = random.normal(size=(40, 6)) * (1, 2, 3, 4, 5, 6)
targets, start = random.normal(size=40), random.normal(size=60)
exact = np.linalg.eigvalsh(inputs.T @ inputs / 40)


def ends(steps, dtype):
  def loss(weights):
    x, y = jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype)
    return ((x @ weights - y) ** 2).mean() / 2

  def product(v):
    return jax.jvp(jax.grad(loss), (jnp.zeros(60, dtype),), (v,))[1]

  partial = eig.eigh_partial(decomp.tridiag_sym(steps, reortho='full'))
  values, _ = partial(product, jnp.asarray(start, dtype))
  return float(values.min()), float(values.max())


print(f'exact: 0 and {exact[-6]:.3f} to {exact[-1]:.3f}')
print('steps   float32: smallest   largest   float64: smallest   largest')
seen = {}
for steps in (7, 12, 16, 30, 50):
  seen[steps] = (*ends(steps, jnp.float32), *ends(steps, jnp.float64))
  a, b, c, d = seen[steps]
  print(f'{steps:<7} {a:17.3f} {b:9.3f} {c:19.3f} {d:9.3f}')
if not np.allclose(seen[7][1::2], exact[-1], rtol=1e-4):
  raise SystemExit('changed: seven steps do not give the largest eigenvalue')
if np.allclose(seen[30][1::2], exact[-1], rtol=0.1):
  raise SystemExit('changed: eigenvalues stay in the spectrum')
END
