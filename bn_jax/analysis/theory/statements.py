"""Both sides of each statement about Batch Normalization, for a given network.

Santurkar, Tsipras, Ilyas and Madry (2018), "How Does Batch Normalization Help
Optimization?", arXiv:1805.11604, section 4 and appendix C, corrected where
deriving them again showed misprints. All are about one unit of one layer; the
notation (s, yhat, z, P, g, H, q, G) is that of
`bn_jax.analysis.theory.one_layer`.

The left sides differentiate the normalization as it is written out there, the
right sides are made of g, H times a vector, and y; no m x m matrix is formed.
The paper calls g the gradient of *the network without normalization*, which it
is where both are at the same z: see `observation_4_3`.

Every function may be called under jit and vmap, at any epsilon. Where several
are asked about one unit, give them `point(unit)` in its place: it holds the two
gradients that all of them need. They raise ValueError where y is not floating
point of one axis, or another argument has not its shape.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bn_jax import trees
from bn_jax.analysis.theory import one_layer, sides

Unit, Point, point = one_layer.Unit, one_layer.Point, one_layer.point


def algorithm_1(unit: Unit | Point, output_M: jax.Array) -> sides.Equality:
  """output = scale yhat + bias, [m] each: the layer is Batch Normalization.

  Ioffe and Szegedy (2015), arXiv:1502.03167, Algorithm 1, at any epsilon. All
  that follows is about this function; this says whether it is the layer's.

  Args:
    unit: with the epsilon of the layer.
    output_M: [m], what the layer made of its y.
  """
  at = point(unit)
  _check_like_y('output', output_M, at)
  largest = jnp.abs(at.unit.scale) + jnp.abs(at.unit.bias)
  return sides.Equality(output_M, at.z, largest * at.m**0.5)


def fact_c1(unit: Unit | Point) -> sides.Equality:
  """q = (scale / s) P g, [m] each: the gradient through a normalization.

  Fact C.1; exact at any epsilon, with s in the place of sigma.
  """
  at = point(unit)
  factor = at.unit.scale / at.s
  size = jnp.abs(factor) * trees.norm(at.g)
  return sides.Equality(at.q, factor * at.projected(at.g), size)


def fact_c2(unit: Unit | Point, v_M: jax.Array) -> sides.Equality:
  """(d yhat / d y) v = P v / s, [m] each: the Jacobian times a vector v.

  Fact C.2, whose entry (b, k) is (1[b = k] - 1/m - yhat_b yhat_k / m) / s; that
  of z is scale times it. Exact at any epsilon.
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
  """|q|^2 = (scale/s)^2 (|g|^2 - <1,g>^2/m - c <g,yhat>^2/m).

  Theorem 4.1, with c = 2 - |yhat|^2/m = 1 + epsilon/s^2. At epsilon = 0, c = 1;
  there the paper prints "<=", and its proof gives equality.
  """
  at = point(unit)
  factor = 2 - trees.vdot(at.yhat, at.yhat) / at.m
  right, size = _shortened(at, factor)
  return sides.Equality(trees.vdot(at.q, at.q), right, size)


def theorem_4_1_bound(unit: Unit | Point) -> sides.AtMost:
  """|q|^2 <= (scale/s)^2 (|g|^2 - <1,g>^2/m - <g,yhat>^2/m), at any epsilon.

  Theorem 4.1 with its printed "<=", and s in the place of sigma: for epsilon >
  0 it is true, and no equality. Hence |q| <= |scale|/s |g|.
  """
  at = point(unit)
  right, size = _shortened(at, 1)
  return sides.AtMost(trees.vdot(at.q, at.q), right, size)


def hessian_identity(unit: Unit | Point, v_M: jax.Array) -> sides.Equality:
  """G v, [m] each, of the Hessian through a normalization, at any epsilon:

    G = (scale/s)^2 P H P - scale/(m s^2) (Pg yhat' + yhat (Pg)' + <g,yhat> P)

  Appendix C, equations 38 to 42 (40 is misprinted). At epsilon = 0 this is the
  paper's form, with c = g - mean(g): its bracket is
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
  """q'G q, the curvature along the gradient, at any epsilon:

    q'G q = (scale/s)^2 (Pq)'H(Pq)
            - scale/(m s^2) (<g,yhat> <q,Pq> + 2 <yhat,q> <q,Pg>)

  Theorem 4.2, first line. At epsilon = 0, Pq = q and <yhat,q> = 0, which leaves
  (scale/s)^2 q'H q - scale/(m s^2) <g,yhat> |q|^2. Printed is "<="; it is an
  equality.
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
  """q'G q <= (scale/s)^2 g'H g - scale/(m s^2) <g,yhat> |q|^2, if it holds.

  Theorem 4.2, second line. As printed it is false: it puts g'H g for q'H q, so
  it needs q'H q <= g'H g; at epsilon = 0, where line 1 is an equality, the two
  say the same. The paper's "H preserves the relative norms" gives it only
  together with |q| <= |g|, while |scale|/s may be large. The bound improves on
  (scale/s)^2 g'H g where 0 <= scale <g,yhat>; the paper, which takes scale > 0,
  assumes so.
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
  """z = y, [m] each, if scale were s and bias mean(y).

  Observation 4.3 (there with epsilon = 0): on a batch, a network with
  normalization can be what any network without it is, its optima included.
  """
  at = point(unit)
  left_M = at.s * at.yhat + at.unit.y.mean()
  return sides.Equality(left_M, at.unit.y, trees.norm(at.unit.y))


def theorem_4_4(
  unit: Unit | Point, x_MD: jax.Array, *, spectral_norm: jax.Array | None = None
) -> sides.Equality:
  """The largest |X'q|^2 over all X with the spectral norm l of the given one:

    l^2 |q|^2 = (scale/s)^2 (l^2 |g|^2 - l^2 <1,g>^2/m - l^2 c <g,yhat>^2/m)

  with c as of `theorem_4_1`, 1 at epsilon = 0. Theorem 4.4 corrected: printed
  are the square of l^2 |g|^2 (which is one already), no l^2 in the second term
  and no 1/m in the third. The maximum is formal: y stands still while X varies,
  although y = X w. Of the X at hand, see `theorem_4_4_pointwise`.

  Args:
    unit: of a layer before which y = X w.
    x_MD: [m, d], what enters the layer that makes y.
    spectral_norm: l, if it is known; finding it is an eigenvalue problem.
  """
  at = point(unit)
  square = _square_norm(x_MD, spectral_norm, at)
  return sides.Equality(*(square * value for value in theorem_4_1(at)))


def theorem_4_4_pointwise(
  unit: Unit | Point, x_MD: jax.Array, *, spectral_norm: jax.Array | None = None
) -> sides.AtMost:
  """|X'q|^2 <= l^2 |q|^2, where X'q is the gradient by the unit's weights.

  What Theorem 4.4 says of the X at hand. It does not say that normalization
  makes the gradient by the weights shorter: |X'Pg| may exceed |X'g|.

  Args:
    unit: of a layer before which y = X w.
    x_MD: [m, d], what enters the layer that makes y.
    spectral_norm: l, if it is known.
  """
  at = point(unit)
  bound = _square_norm(x_MD, spectral_norm, at) * trees.vdot(at.q, at.q)
  gradient_D = jnp.matmul(at.q, x_MD, precision='highest')
  return sides.AtMost(trees.vdot(gradient_D, gradient_D), bound, bound)


def lemma_4_5(w_0: Any, w_star: Any) -> sides.Ray:
  """|w_0 - k w*|^2 - |w_0 - w*|^2 = -(|w*|^2 - <w*,w_0>)^2 / |w*|^2

  for k = <w*,w_0> / |w*|^2. Lemma 4.5: weights before a normalization may be
  multiplied by any k > 0 (see `scale_invariance`), so a whole ray is optimal if
  w* is, and the start w_0 is nearer to it than to w*. Exact for this point, the
  nearest of the line; nothing makes k > 0.

  Args:
    w_0: the weights at the start, a tree of floating-point arrays.
    w_star: a tree like it, not zero: the weights of an optimum.
  """
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
  """The gradient at factor y is 1 / factor of that at y, [m] each.

  Ioffe and Szegedy (2015), section 3.3, for factor > 0: larger weights get
  smaller gradients. Exact at epsilon = 0; for epsilon > 0 the right side is
  taken with epsilon / factor^2, with which both are the same function.
  """
  at = point(unit)
  left_M = jax.grad(one_layer.through(at.unit))(factor * at.unit.y)
  other = at.unit._replace(epsilon=at.unit.epsilon / factor**2)
  right_M = jax.grad(one_layer.through(other))(at.unit.y) / factor
  size = jnp.abs(at.unit.scale) / (factor * at.s) * trees.norm(at.g)
  return sides.Equality(left_M, right_M, size)


def largest_singular_value(x_MD: jax.Array) -> jax.Array:
  """|X|_2, the spectral norm of a matrix, []."""
  x_MD = x_MD if x_MD.shape[0] >= x_MD.shape[1] else x_MD.T
  gram_DD = jnp.matmul(x_MD.T, x_MD, precision='highest')
  # Rounding may leave the eigenvalue of a zero matrix below 0.
  return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram_DD)[-1], 0))


def _factors(at: Point) -> tuple[jax.Array, jax.Array]:
  """(scale/s)^2 and scale/(m s^2), of the terms of second order."""
  return (at.unit.scale / at.s) ** 2, at.unit.scale / (at.m * at.s**2)


def _shortened(
  at: Point, factor: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
  """The right side of Theorem 4.1, `factor` in its last term, and its size."""
  whole, square = trees.vdot(at.g, at.g), _factors(at)[0]
  of_mean = at.g.sum() ** 2 / at.m
  of_yhat = factor * trees.vdot(at.g, at.yhat) ** 2 / at.m
  return square * (whole - of_mean - of_yhat), square * whole


def _curvature_along_q(at: Point) -> jax.Array:
  """q'G q, the left side of Theorem 4.2."""
  curved_M = one_layer.hessian_times(
    one_layer.through(at.unit), at.unit.y, at.q
  )
  return trees.vdot(at.q, curved_M)


def _size_of_product(
  at: Point, v_M: jax.Array, curved_M: jax.Array
) -> jax.Array:
  """How large the terms of G v are, where those of H v are as given."""
  first, second = _factors(at)
  bracket = 3 * trees.norm(at.g) * trees.norm(at.yhat) * trees.norm(v_M)
  return first * trees.norm(curved_M) + jnp.abs(second) * bracket


def _square_norm(
  x_MD: jax.Array, spectral_norm: jax.Array | None, at: Point
) -> jax.Array:
  """The square of the spectral norm of X, given or found."""
  if x_MD.ndim != 2 or x_MD.shape[0] != at.m:
    raise ValueError(
      f'X has shape {x_MD.shape}; allowed: ({at.m}, d), a row for each of y'
    )
  if spectral_norm is None:
    spectral_norm = largest_singular_value(x_MD)
  return spectral_norm**2


def _check_like_y(name: str, given_M: jax.Array, at: Point) -> None:
  if given_M.shape != (at.m,):
    raise ValueError(
      f'{name} has shape {given_M.shape}; allowed: ({at.m},), that of y'
    )
