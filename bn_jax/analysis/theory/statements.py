"""Computes both sides of each statement about Batch Normalization.

Santurkar, Tsipras, Ilyas and Madry (2018), "How Does Batch Normalization Help
Optimization?", arXiv:1805.11604, section 4 and appendix C, with misprints
corrected by deriving them again. All but Lemma 4.5 are about one unit of one
layer; the notation (s, yhat, z, P, g, H, q, G) is that of
`bn_jax.analysis.theory.one_layer`.

Left sides with q or G differentiate the normalization in `one_layer`; right
sides are computed from y, g and H times a vector, and from q where they name
it. No m x m matrix is formed. The paper calls g the gradient of *the network
without normalization*; that is true where both networks are at the same z, see
`observation_4_3`.

Every function works under jit and vmap, at any epsilon. To compute several for
one unit, pass `point(unit)` in its place: it has the gradients g and q. A
ValueError says that y is not a floating-point vector, or that another argument
does not have the right shape.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bn_jax import trees
from bn_jax.analysis import gradients
from bn_jax.analysis.theory import one_layer, sides
from bn_jax.analysis.theory.one_layer import Point, Unit, point


def algorithm_1(unit: Unit | Point, output_M: jax.Array) -> sides.Equality:
  """States output = scale yhat + bias, [m]: a layer's Batch Normalization.

  Ioffe and Szegedy (2015), arXiv:1502.03167, Algorithm 1, at any epsilon. All
  other statements are about the right side as a function of y; this one checks
  that the layer computes it.

  Args:
    unit: with the epsilon of the layer.
    output_M: [m], the output of the layer for y.
  """
  at = point(unit)
  _check_like_y('output', output_M, at)
  largest = jnp.abs(at.unit.scale) + jnp.abs(at.unit.bias)
  return sides.Equality(output_M, at.z, largest * at.m**0.5)


def fact_c1(unit: Unit | Point) -> sides.Equality:
  """States q = (scale / s) P g, [m]: the gradient through a normalization.

  Fact C.1; exact at any epsilon, with s instead of sigma.
  """
  at = point(unit)
  factor = at.unit.scale / at.s
  size = jnp.abs(factor) * trees.norm(at.g)
  return sides.Equality(at.q, factor * at.projected(at.g), size)


def fact_c2(unit: Unit | Point, v_M: jax.Array) -> sides.Equality:
  """States (d yhat / d y) v = P v / s, [m]: the Jacobian times a vector v.

  Fact C.2: entry (b, k) of the Jacobian is
  (1[b = k] - 1/m - yhat_b yhat_k / m) / s, and that of z is scale times it.
  Exact at any epsilon.
  """
  at = point(unit)
  _check_like_y('v', v_M, at)
  _, left_M = jax.jvp(
    lambda y_M: one_layer.normalized(y_M, at.unit.epsilon)[0],
    (at.unit.y,),
    (v_M,),
  )
  return sides.Equality(
    left_M, at.projected(v_M) / at.s, trees.norm(v_M) / at.s
  )


def theorem_4_1(unit: Unit | Point) -> sides.Equality:
  """States |q|^2 = (scale/s)^2 (|g|^2 - <1,g>^2/m - c <g,yhat>^2/m).

  Theorem 4.1, with c = 2 - |yhat|^2/m = 1 + epsilon/s^2. At epsilon = 0, c = 1;
  there the paper prints "<=", and its proof gives equality.
  """
  at = point(unit)
  factor = 2 - trees.vdot(at.yhat, at.yhat) / at.m
  right, size = _shortened(at, factor)
  return sides.Equality(trees.vdot(at.q, at.q), right, size)


def theorem_4_1_bound(unit: Unit | Point) -> sides.AtMost:
  """States |q|^2 <= (scale/s)^2 (|g|^2 - <1,g>^2/m - <g,yhat>^2/m).

  Theorem 4.1 with its printed "<=", and s instead of sigma. For epsilon > 0 it
  is true, and no equality. Hence |q| <= |scale|/s |g|.
  """
  at = point(unit)
  right, size = _shortened(at, 1)
  return sides.AtMost(trees.vdot(at.q, at.q), right, size)


def hessian_identity(unit: Unit | Point, v_M: jax.Array) -> sides.Equality:
  """States G v, [m], the Hessian through a normalization times a vector:

    G = (scale/s)^2 P H P - scale/(m s^2) (Pg yhat' + yhat (Pg)' + <g,yhat> P)

  At any epsilon. Appendix C, equations 38 to 42 (40 is misprinted). At epsilon
  = 0 this is the paper's form, with c = g - mean(g): its bracket is
  c yhat' + yhat c' - 3/m <g,yhat> yhat yhat' + <g,yhat> (I - 1 1'/m).
  """
  at = point(unit)
  _check_like_y('v', v_M, at)
  pv_M, pg_M = at.projected(v_M), at.projected(at.g)
  curved_M = one_layer.hessian_times(at.unit.loss, at.z, pv_M)
  first, second = _factors(at)
  bracket_M = (
    pg_M * trees.vdot(at.yhat, v_M)
    + at.yhat * trees.vdot(pg_M, v_M)
    + pv_M * trees.vdot(at.g, at.yhat)
  )
  return sides.Equality(
    one_layer.hessian_times(one_layer.through(at.unit), at.unit.y, v_M),
    first * at.projected(curved_M) - second * bracket_M,
    _size_of_product(at, v_M, curved_M),
  )


def theorem_4_2_line_1(unit: Unit | Point) -> sides.Equality:
  """States q'G q, the curvature along the gradient, at any epsilon:

    q'G q = (scale/s)^2 (Pq)'H(Pq)
            - scale/(m s^2) (<g,yhat> <q,Pq> + 2 <yhat,q> <q,Pg>)

  Theorem 4.2, first line. At epsilon = 0, Pq = q and <yhat,q> = 0, which leaves
  (scale/s)^2 q'H q - scale/(m s^2) <g,yhat> |q|^2. The paper prints "<="; it is
  an equality.
  """
  at = point(unit)
  pq_M, pg_M = at.projected(at.q), at.projected(at.g)
  curved_M = one_layer.hessian_times(at.unit.loss, at.z, pq_M)
  along = trees.vdot(at.g, at.yhat) * trees.vdot(at.q, pq_M)
  across = 2 * trees.vdot(at.yhat, at.q) * trees.vdot(at.q, pg_M)
  first, second = _factors(at)
  return sides.Equality(
    _curvature_along_q(at),
    first * trees.vdot(pq_M, curved_M) - second * (along + across),
    trees.norm(at.q) * _size_of_product(at, at.q, curved_M),
  )


def theorem_4_2_line_2(unit: Unit | Point) -> sides.Conditional:
  """States q'G q <= (scale/s)^2 g'H g - scale/(m s^2) <g,yhat> |q|^2.

  Theorem 4.2, second line. As printed it is false in general: it replaces
  q'H q by g'H g, so it needs the condition q'H q <= g'H g, which at epsilon = 0
  is equivalent to it, by line 1. The paper's "H preserves the relative norms"
  implies that condition only together with |q| <= |g|, but |scale|/s may be
  large. The bound is at most (scale/s)^2 g'H g where 0 <= scale <g,yhat>; the
  paper assumes this, with scale > 0.
  """
  at = point(unit)
  curved_g_M, curved_q_M = (
    one_layer.hessian_times(at.unit.loss, at.z, v_M) for v_M in (at.g, at.q)
  )
  curvature = trees.vdot(at.g, curved_g_M)
  alignment = trees.vdot(at.g, at.yhat)
  first, second = _factors(at)
  length = trees.norm(at.q)
  size_g = trees.norm(at.g) * trees.norm(curved_g_M)
  size_q = length * trees.norm(curved_q_M)
  bound = sides.AtMost(
    _curvature_along_q(at),
    first * curvature - second * alignment * trees.vdot(at.q, at.q),
    first * size_g + length * _size_of_product(at, at.q, curved_q_M),
  )
  condition = sides.AtMost(
    trees.vdot(at.q, curved_q_M), curvature, size_g + size_q
  )
  improvement = sides.AtMost(
    jnp.zeros_like(alignment),
    at.unit.scale * alignment,
    jnp.abs(at.unit.scale) * trees.norm(at.g) * trees.norm(at.yhat),
  )
  return sides.Conditional(bound, condition, improvement)


def observation_4_3(unit: Unit | Point) -> sides.Equality:
  """States z = y, [m], for scale s and bias mean(y).

  Observation 4.3 (in the paper with epsilon = 0): on a batch, a network with
  normalization can compute what any network without it computes, so both have
  the same optima.
  """
  at = point(unit)
  left_M = at.s * at.yhat + at.unit.y.mean()
  return sides.Equality(left_M, at.unit.y, trees.norm(at.unit.y))


def theorem_4_4(
  unit: Unit | Point, x_MD: jax.Array, *, spectral_norm: jax.Array | None = None
) -> sides.Equality:
  """States the largest |X'q|^2 over all X with spectral norm l:

    l^2 |q|^2 = (scale/s)^2 (l^2 |g|^2 - l^2 <1,g>^2/m - l^2 c <g,yhat>^2/m)

  with c of `theorem_4_1`, 1 at epsilon = 0. This corrects Theorem 4.4, which
  prints the square of l^2 |g|^2 (already a square), no l^2 in the second term
  and no 1/m in the third. The maximum is formal: y is fixed while X varies,
  although y = X w. For the actual X, see `theorem_4_4_pointwise`.

  Args:
    unit: its y is X w.
    x_MD: X, [m, d], the input of the layer whose output is y.
    spectral_norm: l of X, []; None computes it.
  """
  at = point(unit)
  square = _square_norm(x_MD, spectral_norm, at)
  return sides.Equality(*(square * value for value in theorem_4_1(at)))


def theorem_4_4_pointwise(
  unit: Unit | Point, x_MD: jax.Array, *, spectral_norm: jax.Array | None = None
) -> sides.AtMost:
  """States |X'q|^2 <= l^2 |q|^2; X'q is the gradient by the unit's weights.

  This is Theorem 4.4 for the actual X. It does not say that normalization makes
  the gradient by the weights shorter: |X'Pg| may exceed |X'g|. Arguments are
  those of `theorem_4_4`.
  """
  at = point(unit)
  bound = _square_norm(x_MD, spectral_norm, at) * trees.vdot(at.q, at.q)
  gradient_D = jnp.matmul(at.q, x_MD, precision='highest')
  return sides.AtMost(trees.vdot(gradient_D, gradient_D), bound, bound)


def lemma_4_5(w_0: Any, w_star: Any) -> sides.Ray:
  """States |w_0 - k w*|^2 - |w_0 - w*|^2 = -(|w*|^2 - <w*,w_0>)^2 / |w*|^2

  for k = <w*,w_0> / |w*|^2. Lemma 4.5: weights before a normalization may be
  multiplied by any k > 0 (see `scale_invariance`), so if w* is optimal, so is
  its whole ray, and the start w_0 is nearer to the ray than to w*. The equation
  is exact for the nearest point of the line; nothing ensures that k > 0.

  Args:
    w_0: the weights at the start, a tree of floating-point arrays.
    w_star: the weights of an optimum, a tree like w_0, not zero.

  Raises:
    ValueError: weights that are not floating point.
  """
  gradients.check(w_0, 'w_0')
  gradients.check(w_star, 'w_star')
  square = trees.vdot(w_star, w_star)
  factor = trees.vdot(w_star, w_0) / square
  away = trees.subtract(w_0, w_star)
  across = trees.add_scaled(w_0, -factor, w_star)
  far, near = trees.vdot(away, away), trees.vdot(across, across)
  # <w*, w_0 - w*>^2 is (|w*|^2 - <w*,w_0>)^2 without its cancellation.
  right = -(trees.vdot(w_star, away) ** 2) / square
  return sides.Ray(sides.Equality(near - far, right, near + far), factor)


def scale_invariance(
  unit: Unit | Point, factor: jax.Array | float
) -> sides.Equality:
  """States that the gradient at factor y is 1 / factor of that at y, [m].

  Ioffe and Szegedy (2015), section 3.3, for factor > 0: larger weights get
  smaller gradients. Exact at epsilon = 0. For epsilon > 0 the right side has
  epsilon / factor^2, which makes both the same function.
  """
  at = point(unit)
  left_M = jax.grad(one_layer.through(at.unit))(factor * at.unit.y)
  other = at.unit._replace(epsilon=at.unit.epsilon / factor**2)
  right_M = jax.grad(one_layer.through(other))(at.unit.y) / factor
  size = jnp.abs(at.unit.scale) / (factor * at.s) * trees.norm(at.g)
  return sides.Equality(left_M, right_M, size)


def largest_singular_value(x_MD: jax.Array) -> jax.Array:
  """Returns |X|_2, the spectral norm of a matrix, [].

  Raises:
    ValueError: X that is not floating point.
  """
  trees.check_floating('X', x_MD)
  x_MD = x_MD if x_MD.shape[0] >= x_MD.shape[1] else x_MD.T
  gram_DD = jnp.matmul(x_MD.T, x_MD, precision='highest')
  # Rounding may leave the eigenvalue of a zero matrix below 0.
  return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram_DD)[-1], 0))


def _factors(at: Point) -> tuple[jax.Array, jax.Array]:
  """Returns (scale/s)^2 and scale/(m s^2), factors of second-order terms."""
  return (at.unit.scale / at.s) ** 2, at.unit.scale / (at.m * at.s**2)


def _shortened(
  at: Point, factor: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
  """Returns the right side of Theorem 4.1 with c = factor, and the size."""
  square_g, factor_2 = trees.vdot(at.g, at.g), _factors(at)[0]
  of_mean = at.g.sum() ** 2 / at.m
  of_yhat = factor * trees.vdot(at.g, at.yhat) ** 2 / at.m
  return factor_2 * (square_g - of_mean - of_yhat), factor_2 * square_g


def _curvature_along_q(at: Point) -> jax.Array:
  """Returns q'G q, the left side of Theorem 4.2."""
  curved_M = one_layer.hessian_times(
    one_layer.through(at.unit), at.unit.y, at.q
  )
  return trees.vdot(at.q, curved_M)


def _size_of_product(
  at: Point, v_M: jax.Array, curved_M: jax.Array
) -> jax.Array:
  """Returns the size of the terms of G v, from H v in curved_M."""
  first, second = _factors(at)
  bracket = 3 * trees.norm(at.g) * trees.norm(at.yhat) * trees.norm(v_M)
  return first * trees.norm(curved_M) + jnp.abs(second) * bracket


def _square_norm(
  x_MD: jax.Array, spectral_norm: jax.Array | None, at: Point
) -> jax.Array:
  """Returns the square of the spectral norm of X, computed if it is None."""
  if x_MD.ndim != 2 or x_MD.shape[0] != at.m:
    raise ValueError(
      f'X has shape {x_MD.shape}; allowed: ({at.m}, d), a row for each of y'
    )
  if spectral_norm is None:
    spectral_norm = largest_singular_value(x_MD)
  return spectral_norm**2


def _check_like_y(name: str, vector_M: jax.Array, at: Point) -> None:
  if vector_M.shape != (at.m,):
    raise ValueError(
      f'{name} has shape {vector_M.shape}; allowed: ({at.m},), that of y'
    )
