"""Makes operators of a loss's second derivatives: vector -> matrix * vector.

Two matrices at one point, never formed:

  Hessian       H v = d/de gradient(params + e v) at e = 0
  Gauss-Newton  G v = J' C J v: J is the Jacobian of a network's outputs by its
                parameters, C the Hessian of the loss by the outputs; the
                Hessian of a penalty is added.

Vectors are flat, in the order of `jax.tree.leaves`. A loss in one part is
linearised once, and a product is what is left of it: on a VGG-11 of quarter
width 1.6 gradients instead of 3.4, in the same memory. A loss in chunks is
differentiated anew in each product, as the linear parts of all chunks together
would not fit. The linear part of a small network has fifty arrays, and to hand
them to a program takes as long as a product: so a program of many products
makes it itself.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bn_jax import types
from bn_jax.analysis import chunks, gradients
from bn_jax.analysis.curvature import blocks, lanczos
from bn_jax.analysis.curvature import linearisations as forms

Split = types.SplitLoss
# () -> (product, gradient [n]), in a program of many products.
Linearise = Callable[[], tuple[Callable, jax.Array]]
# Numbers of a product that is small: its dispatch takes most of the time.
_NUMBERS = 2**20


class Operator(NamedTuple):
  """A symmetric matrix [n, n], by its products.

  Attributes:
    size: n, the number of parameters of the block.
    product: [n] -> [n].
    products: [p, n] -> [p, n], side by side in one program.
    flatten: a tree like params, or like what `unflatten` returns -> [n].
    unflatten: ([n], whole=False) -> a tree like params with None outside of the
      block; with whole=True zeros.
    dtype: of the vectors: float32, or float64 where parameters are.
    numbers: how many a product computes; inf with a convolution.
    is_exact: whether it computes them all in the precision of the vectors.
    gradient: () -> [n], of the loss.
    linearise: what a program of many products calls; None where each should be
      a program: large ones, those with a convolution, sums over chunks.
  """

  size: int
  product: Callable[[jax.Array], jax.Array]
  products: Callable[[jax.Array], jax.Array]
  flatten: Callable[[Any], jax.Array]
  unflatten: Callable[..., Any]
  dtype: Any
  numbers: float
  is_exact: bool
  gradient: Callable[[], jax.Array]
  linearise: Linearise | None


def hessian(
  loss: chunks.Loss, params: Any, block: blocks.Block | None = None
) -> Operator:
  """Returns the Hessian of a loss at params, or the block of some parameters.

  Args:
    loss: params -> a real scalar; what `chunked` returns; or a Split.
    params: any tree of floating-point arrays.
    block: the parameters; None is all.

  Raises:
    ValueError: parameters that are not floating point, a block without any; a
      loss that is no real scalar or that JAX cannot differentiate twice.
  """
  return _made(forms.HESSIAN, chunks.parts_of(loss), params, block)


def gauss_newton(
  split: Split | chunks.Chunks, params: Any, block: blocks.Block | None = None
) -> Operator:
  """Returns the Gauss-Newton matrix of a loss at params, or a block of it.

  Args:
    split: a Split, or Chunks of such.
    params, block: see `hessian`.

  Raises:
    ValueError: a loss that is no Split; otherwise as `hessian`.
  """
  parts, shares = chunks.parts_of(split)
  if not all(isinstance(part, Split) for part in parts):
    raise ValueError(
      f'the loss is a {type(split).__name__}; gauss_newton needs a Split: '
      'analysis.Split(outputs, convex), the outputs as a function of params '
      'and the loss as a function of the outputs'
    )
  return _made(forms.GAUSS_NEWTON, (parts, shares), params, block)


def _made(kinds, parts_and_shares, params, block) -> Operator:
  params = gradients.checked(params)
  own = blocks.indices(params, block)
  parts, shares = parts_and_shares
  leaves = jax.tree.leaves(params)
  dtype = _dtype([leaves[i] for i in own])
  structure = jax.tree.structure(params)
  kind, operations = gradients.explained(
    functools.partial(_kind, kinds, own), parts[0], params
  )
  numbers = operations.numbers * len(parts)
  linear = None
  if len(parts) == 1:
    linear = functools.cache(
      functools.partial(_linearised, kind, own, parts[0], params)
    )
    product, products = (
      functools.partial(
        _multiplied, kind, own, is_many, linear, parts[0], params
      )
      for is_many in (False, True)
    )
  else:
    product, products = (
      functools.partial(_summed, kind, own, is_many, parts, shares, params)
      for is_many in (False, True)
    )
  is_small = len(parts) == 1 and numbers <= _NUMBERS

  def flatten(tree):
    # With None outside of a block a tree has the block's leaves alone.
    tree_leaves = jax.tree.leaves(tree)
    if jax.tree.structure(tree) == structure:
      tree_leaves = [tree_leaves[i] for i in own]
    return forms.flat(tree_leaves, dtype)

  def gradient():
    if linear is not None:
      return _gradient_of(kind, own, linear(), parts[0], params)
    whole = chunks.Chunks(parts, shares)
    return flatten(gradients.value_and_gradient(whole, params)[1])

  def unflatten(vector, whole=False):
    pieces = dict(zip(own, forms.pieces([leaves[i] for i in own], vector)))
    rest = jnp.zeros_like if whole else lambda leaf: None
    return jax.tree.unflatten(
      structure,
      [
        pieces[i] if i in pieces else rest(leaf)
        for i, leaf in enumerate(leaves)
      ],
    )

  return Operator(
    size=sum(leaves[i].size for i in own),
    product=_precise(product),
    products=_precise(products),
    flatten=flatten,
    unflatten=unflatten,
    dtype=dtype,
    numbers=numbers,
    is_exact=operations.rounding <= jnp.finfo(dtype).eps,
    gradient=gradient,
    # Of a function that is made once: a program may take it.
    linearise=jax.tree_util.Partial(_within(kind, own), parts[0], params)
    if is_small
    else None,
  )


def _precise(product):
  """Returns a product whose matrix products are in full precision."""

  def precise(vector):
    with jax.default_matmul_precision('highest'):
      return product(vector)

  return precise


def _kind(kinds, own, part, params) -> tuple[forms.Kind, '_Operations']:
  """Returns how to multiply, and what a product then does.

  Where JAX has no forward mode, reverse over reverse needs none.
  """
  leaves, structure = jax.tree.flatten((part, params))
  shapes = tuple(map(_shape, leaves))
  forward, backward = kinds
  try:
    operations = _operations(forward, own, structure, shapes)
    # `jax.linearize` lets a custom_vjp pass; the first product would fail.
    if 'custom_lin' not in operations.names:
      return forward, operations
  except TypeError as error:
    if 'custom_vjp' not in str(error):
      raise
  return backward, _operations(backward, own, structure, shapes)


def _shape(x) -> tuple[tuple[int, ...], Any]:
  if isinstance(x, jax.Array):  # much faster
    return x.shape, x.dtype
  return jnp.shape(x), jnp.result_type(x)


class _Operations(NamedTuple):
  """What a product does.

  Attributes:
    names: of its operations.
    numbers: how many they compute.
    rounding: the largest unit of rounding of all numbers.
  """

  names: frozenset[str]
  numbers: float
  rounding: float


@functools.lru_cache(maxsize=64)
def _operations(kind, own, structure, shapes) -> _Operations:
  """Traces a product once for its kind: it takes longer than many products."""
  leaves = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
  part, params = jax.tree.unflatten(structure, leaves)
  own_leaves = [jax.tree.leaves(params)[i] for i in own]
  vector = jax.ShapeDtypeStruct(
    (sum(leaf.size for leaf in own_leaves),), _dtype(own_leaves)
  )
  with jax.default_matmul_precision('highest'):
    linear = jax.eval_shape(
      functools.partial(_linearised, kind, own), part, params
    )
    product = jax.make_jaxpr(_applied(kind, own, False))
    jaxpr = product(linear, part, params, vector).jaxpr
  return _Operations(
    frozenset(lanczos.primitives(jaxpr)),
    lanczos.computed(jaxpr),
    lanczos.rounding(jaxpr),
  )


def _dtype(leaves):
  """Returns the dtype of vectors of leaves."""
  dtypes = {leaf.dtype for leaf in leaves}  # fewer, as JAX is slow with them
  return jnp.result_type(jnp.float32, *dtypes)


@functools.lru_cache(maxsize=256)  # a function for each block
def _within(kind, own):
  """Returns (part, params) -> (product, gradient), within a program."""

  def within(part, params):
    with jax.default_matmul_precision('highest'):
      linear = _linearised(kind, own, part, params)
      gradient = _gradient_of(kind, own, linear, part, params)
    product = functools.partial(
      _applied(kind, own, False), linear, part, params
    )
    return product, gradient

  return within


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradient_of(kind, own, linear, part, params):
  leaves = kind.gradient(linear, part, params, own)
  return forms.flat(leaves, _dtype(leaves))


def _multiplied(kind, own, is_many, linear, part, params, vector):
  """Returns the product; `linear` computes once what all products need."""
  return _applied(kind, own, is_many)(linear(), part, params, vector)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _linearised(kind, own, part, params):
  return kind.linearise(part, params, own)


@functools.lru_cache(maxsize=256)  # a function for each block
def _applied(kind, own, is_many):
  """Returns a jitted (linear, part, params, vector) -> product."""

  @jax.jit
  def applied(linear, part, params, vector):
    with jax.default_matmul_precision('highest'):
      return _mapped(
        lambda v: kind.apply(linear, part, params, own, v), is_many, vector
      )

  return applied


def _summed(kind, own, is_many, parts, shares, params, vector) -> Any:
  """Returns the product as a sum over chunks, one after the other."""
  total = None
  for part, share in zip(parts, shares):
    prior = total
    term = _direct(kind, own, is_many, part, params, vector)
    total = share * term if prior is None else prior + share * term
    # Else Python runs ahead of the device, with a gradient for each chunk.
    jax.block_until_ready(prior)
  return total


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _direct(kind, own, is_many, part, params, vector):
  def product(v):
    linear = kind.linearise(part, params, own)
    return kind.apply(linear, part, params, own, v)

  return _mapped(product, is_many, vector)


def _mapped(product, is_many, vector):
  """Returns product(vector) in the vector's dtype, or that of each row."""

  def cast(v):
    return product(v).astype(v.dtype)

  return jax.vmap(cast)(vector) if is_many else cast(vector)
