"""Compares our curvatures and surfaces with those of `curvature_torch`."""

from collections.abc import Callable

import curvature_cases
import curvature_torch
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from bn_jax import analysis
from bn_jax.analysis.curvature import lanczos, operators

_TOLERANCE = 1e-6  # relative, in float64: far above rounding, below any mistake
_STEPS = 12  # of Lanczos' method from one start vector
_POINTS = 7  # of a side of a surface


def compare(make: Callable[..., curvature_cases.Case], options) -> bool:
  """Prints the largest differences; returns whether float64's are small enough.

  Args:
    make: (name, dtype, options) -> a network.
  """
  worst = {}
  for name in options.networks:
    dtype = jnp.float64 if name == 'mlp' else jnp.float32
    with jax.enable_x64(dtype is jnp.float64):
      case = make(name, dtype, options)
      for mode in curvature_cases.STATISTICS:
        for quantity, difference in _of_mode(case, mode).items():
          worst[name, mode, quantity] = difference
          print(f'  {name}, {mode}, {quantity}: {difference:.1e}', flush=True)
  largest = max((x for (n, *_), x in worst.items() if n == 'mlp'), default=0.0)
  holds = largest <= _TOLERANCE
  print(
    f'float64, the largest of all: {largest:.1e}; limit at most '
    f'{_TOLERANCE:.0e}: {"holds" if holds else "does not hold"}'
  )
  return holds


def _of_mode(case: curvature_cases.Case, mode: str) -> dict[str, float]:
  """Returns quantity -> its largest relative difference."""
  own, loss, params = case.peer(mode), case.loss(mode), case.state.params
  is_small = case.name == 'mlp'
  differences = {'loss': _relative(float(loss(params)), own.loss().item())}
  tolerance = 1e-6 if is_small else 1e-3
  ours = analysis.top_eigenvalues(
    loss, params, tolerance=tolerance, key=jax.random.key(0)
  )['eigenvalues'][0]
  if is_small:
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    exact = np.linalg.eigvalsh(jax.hessian(lambda x: loss(unflatten(x)))(flat))
    differences['largest eigenvalue, exact'] = _relative(ours, exact[-1])
  if mode == 'batch':
    theirs = curvature_torch.largest_by_eigenthings(own, tolerance, 0, 40)
    differences['largest eigenvalue, hessian-eigenthings'] = _relative(
      ours, theirs.value
    )
  else:
    theirs = curvature_torch.largest_by_curvlinops(own, tolerance, 0)
    differences['largest eigenvalue, curvlinops'] = _relative(
      ours, theirs.value
    )
  differences['Lanczos matrix, hessian-eigenthings'] = _of_lanczos(
    case, mode, own
  )
  differences['surface, loss-landscapes'] = _of_surface(case, mode, own)
  return differences


def _of_lanczos(case, mode, own) -> float:
  """Returns the difference of Lanczos' matrices from one start vector."""
  params = case.state.params
  generator = np.random.default_rng(0)
  start = jax.tree.map(
    lambda x: jnp.asarray(generator.normal(size=x.shape), x.dtype), params
  )
  operator = operators.hessian(case.loss(mode), params)
  ours = lanczos.tridiagonal(operator, operator.flatten(start), _STEPS)
  alphas, betas = curvature_torch.tridiagonal_by_eigenthings(
    own, curvature_torch.flat(own.module, start), _STEPS
  )
  scale = np.abs(alphas).max()
  return max(
    np.abs(ours.alphas - alphas).max() / scale,
    np.abs(ours.betas - betas[: _STEPS - 1]).max() / scale,
  )


def _of_surface(case, mode, own) -> float:
  """Returns the difference over loss-landscapes' cells, each in its place.

  Even rows of its plane hold 1 to n steps of the second direction, odd ones 0
  to n - 1.
  """
  params = case.state.params
  plane = curvature_torch.plane(own, _POINTS)
  origin, *directions = (
    jax.tree.map(
      lambda x, like: jnp.asarray(x, like.dtype),
      curvature_torch.tree_of(own.module, arrays, params),
      params,
    )
    for arrays in (plane.origin, *plane.steps)
  )
  ours = analysis.surface(
    case.loss(mode), origin, directions,
    [np.arange(_POINTS), np.arange(_POINTS + 1)],
  )['loss']  # fmt: skip
  shifted = np.stack(
    [row[1:] if i % 2 == 0 else row[:-1] for i, row in enumerate(ours)]
  )
  return float(np.max(np.abs(shifted - plane.losses) / np.abs(plane.losses)))


def _relative(x: float, y: float) -> float:
  return float(abs(x - y) / abs(y))
