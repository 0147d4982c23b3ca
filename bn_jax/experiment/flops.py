"""Floating-point operations of a program's products, counted by hand.

XLA counts the body of a loop once, however often it runs; here a loop counts as
often as it does. Matrix products and convolutions alone are counted, two
operations a multiplication and addition, padding included.
"""

import math

from jax.extend import core


def of_products(jaxpr: core.Jaxpr) -> int:
  """The operations of all products in a traced program.

  Of the branches of a condition the costliest counts; a loop whose length is
  not known to the program counts once. Inside shard_map and pmap the operations
  are those of one device.
  """
  return sum(_of(equation) for equation in jaxpr.eqns)


def is_mapped(jaxpr: core.Jaxpr) -> bool:
  """Whether a program, or one that it calls, is one device's part."""
  return any(
    equation.primitive.name == 'shard_map'
    or any(map(is_mapped, _jaxprs(equation.params)))
    for equation in jaxpr.eqns
  )


def _of(equation) -> int:
  name, params = equation.primitive.name, equation.params
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    shape = equation.invars[0].aval.shape
    terms = math.prod(shape[axis] for axis in contracted)
    return 2 * terms * equation.outvars[0].aval.size
  if name == 'conv_general_dilated':
    kernel = equation.invars[1].aval
    features = kernel.shape[params['dimension_numbers'].rhs_spec[0]]
    terms = kernel.size // features
    return 2 * terms * equation.outvars[0].aval.size
  inner = [of_products(jaxpr) for jaxpr in _jaxprs(params)]
  if name == 'cond':
    return max(inner)
  return sum(inner) * (params['length'] if name == 'scan' else 1)


def _jaxprs(params) -> list[core.Jaxpr]:
  """The programs that an equation calls."""
  found = []
  for value in params.values():
    values = value if isinstance(value, (tuple, list)) else (value,)
    found += [
      getattr(inner, 'jaxpr', inner)
      for inner in values
      if isinstance(inner, (core.Jaxpr, core.ClosedJaxpr))
    ]
  return found
