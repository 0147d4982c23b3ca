"""Chooses parameters by globs of their paths: decay, rates, what is trained.

A path is '/'-joined, such as 'conv1/kernel'; in a glob, '*' stands for any
characters, '/' too. Several globs are separated by commas.
"""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bn_jax import checks, trees

# Words for globs: the last part of a kernel's path is 'kernel'.
_WORDS = {'kernels': ('kernel', '*/kernel'), 'all': ('*',)}
_LISTED = 4  # paths that a message names: it stays one line


def check(name: str, globs: Any) -> None:
  """Checks that a keyword is a text of globs; raises checks.Refused."""
  if not isinstance(globs, str) or not all(map(str.strip, globs.split(','))):
    raise checks.Refused(
      name, globs, "globs of paths, such as '*norm*' or 'conv1/*,*/bias', or "
      "'kernels', 'all'"
    )  # fmt: skip


def chosen(params: Any, globs: str) -> Any:
  """Returns a tree of bool like params: which arrays one of the globs names."""
  patterns = _patterns(globs)
  return _by_path(
    params,
    lambda path: any(fnmatch.fnmatchcase(path, one) for one in patterns),
  )


def factors(params: Any, rates: Mapping[str, float]) -> Any:
  """Returns a tree of numbers like params: the product of all that fit.

  Args:
    rates: globs -> the factor of the arrays that one of them names.
  """
  tree = jax.tree.map(lambda _: 1.0, params)
  for globs, factor in rates.items():
    tree = jax.tree.map(
      lambda old, fits, factor=factor: old * factor if fits else old,
      tree,
      chosen(params, globs),
    )
  return tree


def check_found(name: str, params: Any, globs: str) -> None:
  """Raises ValueError for a glob that names none of the parameters."""
  paths = trees.paths(params)
  for glob in globs.split(','):
    if not any(jax.tree.leaves(chosen(params, glob))):
      more = f' and {len(paths) - _LISTED} more' if len(paths) > _LISTED else ''
      raise ValueError(
        f'{name}: {glob.strip()!r} names no parameter; '
        f'allowed: globs of {", ".join(paths[:_LISTED])}{more}'
      )


def weight_decay(
  *, weight_decay: float, weight_decay_on: str = 'kernels'
) -> Callable[[Any], jax.Array]:
  """Returns params -> weight_decay / 2 * |W|^2, a term of the objective.

  As its gradient passes through the optimizer, the decay is coupled with the
  learning rate, momentum and Adam's moments. Decay that is decoupled from them
  is a keyword of the optimizer.

  Args:
    weight_decay: the factor of |W|^2 / 2, 0 or more.
    weight_decay_on: 'kernels', 'all' parameters (biases and scales too), or
      globs of paths.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.number('weight_decay', weight_decay, least=0)
  check('weight_decay_on', weight_decay_on)

  def penalty(params):
    if not checks.is_traced(weight_decay) and not weight_decay:
      return jnp.zeros(())
    leaves = [
      leaf
      for leaf, fits in zip(
        jax.tree.leaves(params),
        jax.tree.leaves(chosen(params, weight_decay_on)),
      )
      if fits
    ]
    return 0.5 * weight_decay * trees.vdot(leaves, leaves)

  return penalty


def _patterns(globs: str) -> list[str]:
  """Returns the globs of a text, words replaced."""
  names = map(str.strip, globs.split(','))
  return [
    pattern for name in names for pattern in {name: (name,), **_WORDS}[name]
  ]


def _by_path(params: Any, function: Callable[[str], Any]) -> Any:
  structure = jax.tree.structure(params)
  return jax.tree.unflatten(structure, map(function, trees.paths(params)))
