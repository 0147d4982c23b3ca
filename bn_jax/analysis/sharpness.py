"""Measures by how much the loss rises within a radius of the parameters.

Foret et al. (2021), "Sharpness-Aware Minimization", arXiv:2010.01412: the
largest loss within a ball. Kwon et al. (2021), "ASAM", arXiv:2102.11600: a ball
in units of each weight, so that a rescaling that leaves the function leaves the
sharpness too. Andriushchenko et al. (2023), arXiv:2302.07011: both, and the
average over Gaussian perturbations.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, keys, trees, types
from bn_jax.analysis import chunks, gradients
from bn_jax.analysis import kind as kind_lib

CASES = ('worst', 'average')
RADII = (0.01, 0.02, 0.05, 0.1)


def sharpness(
  loss: chunks.Loss,
  params: Any,
  radii: Sequence[float] = RADII,
  *,
  case: str = 'worst',
  adaptive: bool = False,
  ascent_steps: int = 1,
  samples: int = 10,
  key: jax.Array | None = None,
  journal: types.Journal | None = None,
) -> dict[str, np.ndarray]:
  """Computes how far the loss at params + d lies above that at params.

  Case 'worst': the largest of the increases that `ascent_steps` steps come to
  within |d|_2 <= r. Each step goes to the point of the ball that lies farthest
  along the gradient at the point before, d = r g / |g|; the first is that of
  SAM. Where the loss is convex each step is above the last; elsewhere the
  largest is still a lower bound of the maximum. From a gradient of 0 there is
  no way up, and the increase is 0.

  Case 'average': the mean over d ~ N(0, r^2) for each parameter, whose length
  is about r sqrt(n) for n parameters: radii are of another scale. Each sample
  is the mean of the loss at +d and -d, without the slope along d, so that a
  quadratic's increase is r^2 d'Hd / 2 and its expectation r^2 tr(H) / 2.

  With adaptive the ball is |d / |w||_2 <= r, the division elementwise; a weight
  of 0 stays. In units u = d / |w| the above holds with |w| g for the gradient.

  Args:
    loss: params -> a real scalar; or what `chunked` returns.
    params: any tree of floating-point arrays, all of which are moved.
    radii: R radii r, each above 0.
    case: 'worst' or 'average'.
    adaptive: whether perturbations are in units of each weight.
    ascent_steps: of the worst case.
    samples: S of the average, the same directions for all radii.
    key: a random key, which the average needs.
    journal: keeps each gradient and loss as soon as it is computed.

  Returns:
    radius, loss (the largest, or the mean), increase = loss - loss_0: [R];
    loss_0: []; of the average standard_error: [R], nan for one sample. The
    worst case costs 1 + R (ascent_steps - 1) gradients and R values, the
    average 1 + 2 R S values.

  Raises:
    ValueError: no radii, or one that is not above 0 and finite; an unknown
      case, or the average without a key; parameters that are not floating
      point; a loss that is not a real scalar or that JAX cannot differentiate.
  """
  radii = kind_lib.checked_sizes('radii', radii)
  _check(case, adaptive, ascent_steps, samples)
  params = gradients.checked(params)
  if case == 'average' and key is None:
    raise ValueError("case is 'average'; give a key too")
  if case == 'worst':
    loss_0, rows = _worst(loss, params, radii, adaptive, ascent_steps, journal)
  else:
    loss_0, rows = _average(
      loss, params, radii, adaptive, samples, key, journal
    )
  return _reduced(np.asarray(loss_0), np.asarray(rows, np.float64), radii, case)


def measure(
  *,
  radii: Sequence[float] = RADII,
  case: str = 'worst',
  adaptive: bool = False,
  ascent_steps: int = 1,
  samples: int = 10,
  statistics: str = 'batch',
  penalised: bool = False,
  chunk_size: int | str | None = 'auto',
  group_size: int | None = None,
) -> types.Measure:
  """Measures how far the loss of one batch rises within a radius.

  Args:
    radii: of the ball; by default about those that SAM trains with. With
      adaptive, ASAM has 0.5 to 2; the average is of another scale, see
      `sharpness`.
    case: 'worst', the largest rise that is reached, or 'average', the mean over
      Gaussian perturbations.
    adaptive: whether perturbations are in units of each weight, which makes the
      rise independent of the scale of weights before a norm.
    ascent_steps: of the worst case; 1 is SAM's step.
    samples: of the average.
    statistics: 'batch' (the function that training descends) or 'running'.
    penalised: whether the loss has its penalty, which is of the weights' scale.
    chunk_size: examples at a time; 'auto' is as many as fit, None is all.
    group_size: examples that share batch statistics; None: as in the network.

  Returns:
    A measure of exactly one batch; its arrays are those of `sharpness`.
  """
  radii = kind_lib.checked_sizes('radii', radii)
  _check(case, adaptive, ascent_steps, samples)
  objective = chunks.Objective(statistics, chunk_size, group_size, penalised)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal):
    return sharpness(
      objective.of(problem, state, batch),
      state.params,
      radii,
      case=case,
      adaptive=adaptive,
      ascent_steps=ascent_steps,
      samples=samples,
      key=keys.of(keys.of_step(state), types.Purpose.MEASURE),
      journal=journal,
    )

  return look


def _check(case, adaptive, ascent_steps, samples) -> None:
  checks.one_of('case', case, CASES)
  checks.flag('adaptive', adaptive)
  checks.count('ascent_steps', ascent_steps)
  checks.count('samples', samples)


def _worst(loss, params, radii, adaptive, steps, journal):
  """Returns loss_0, [], and the losses after each step, [R][steps]."""
  loss_0, gradient_0 = gradients.value_and_gradient(
    loss, params, journal, 'point_0'
  )
  rows = []
  for i, radius in enumerate(radii):
    values, gradient = [], gradient_0
    for k in range(1, steps + 1):
      point = _farthest(params, gradient, radius, adaptive)
      name = f'point_{i + 1}_{k}'
      if k < steps:
        value, gradient = gradients.value_and_gradient(
          loss, point, journal, name
        )
      else:
        value = gradients.value(loss, point, journal, name)
      values.append(value)
    # Else Python runs ahead of the device, with a point for each radius.
    rows.append(jax.device_get(values))
  return jax.device_get(loss_0), rows


def _average(loss, params, radii, adaptive, samples, key, journal):
  """Returns loss_0, [], and the mean loss of each pair +-d, [R][S]."""
  loss_0 = jax.device_get(gradients.value(loss, params, journal, 'point_0'))
  rows = []
  for i, radius in enumerate(radii):
    row = []
    for j in range(samples):
      key_of_sample = jax.random.fold_in(key, j)
      ends = [
        gradients.value(
          loss,
          _moved(params, key_of_sample, sign * radius, adaptive),
          journal,
          f'point_{i + 1}_{j + 1}{end}',
        )
        for sign, end in ((1, '+'), (-1, '-'))
      ]
      row.append(np.float64(jax.device_get(ends)).mean())
    rows.append(row)
  return loss_0, rows


def _reduced(loss_0, loss_RS, radii, case) -> dict[str, np.ndarray]:
  """Returns the arrays of `sharpness`, from the losses at all points."""
  # In float64: a rise is often small beside the loss itself.
  with np.errstate(invalid='ignore', divide='ignore'):
    rise_RS = loss_RS - np.float64(loss_0)
    if case == 'worst':  # d = 0 is in the ball; nan stays nan
      rise_R = np.maximum(rise_RS.max(1), 0)
      loss_R = np.maximum(loss_RS.max(1), loss_0)
    else:
      rise_R, loss_R = rise_RS.mean(1), loss_RS.mean(1)
    arrays = {'increase': rise_R, 'loss_0': loss_0, 'loss': loss_R}
    if case == 'average':
      # Of one sample there is no spread: 0 / 0.
      others = np.float64(loss_RS.shape[1] - 1)
      arrays['standard_error'] = np.sqrt(rise_RS.var(1) / others)
    arrays['radius'] = radii
  return {
    name: np.asarray(array, loss_0.dtype) for name, array in arrays.items()
  }


@jax.jit
def _farthest(params, gradient, radius, adaptive):
  """Returns the point of the ball that lies farthest along the gradient."""
  units = _units(params, adaptive)
  direction = jax.tree.map(jnp.multiply, units, gradient)
  length = trees.norm(direction)
  # Of a gradient of 0 the point is params; of one that is not finite, nan.
  factor = jnp.where(length == 0, 0, radius / length)
  return trees.add_scaled(
    params, factor, jax.tree.map(jnp.multiply, units, direction)
  )


@jax.jit
def _moved(params, key, radius, adaptive):
  """Returns a Gaussian perturbation of the parameters."""
  leaves, structure = jax.tree.flatten(params)
  normal = [
    jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
    for i, leaf in enumerate(leaves)
  ]
  units = _units(params, adaptive)
  direction = jax.tree.map(
    jnp.multiply, units, jax.tree.unflatten(structure, normal)
  )
  return trees.add_scaled(params, radius, direction)


def _units(params, adaptive):
  """Returns |w| for each parameter where adaptive, else 1, a tree."""
  return jax.tree.map(lambda w: jnp.where(adaptive, jnp.abs(w), 1), params)


def _cost(section: kind_lib.Section, layers: int) -> kind_lib.Cost:
  del layers
  count = len(section['radii'])
  if section['case'] == 'average':
    return kind_lib.Cost(values=1 + 2 * count * section['samples'])
  return kind_lib.Cost(1 + count * (section['ascent_steps'] - 1), values=count)


KIND = kind_lib.Kind(
  make=measure,
  title='Sharpness within a radius',
  quantities={
    'increase': 'Rise within a radius',
    'loss_0': 'Loss at the parameters',
    'loss': 'Loss within a radius',
    'standard_error': 'Standard error of the rise',
    'radius': 'Radius',
  },
  cost=_cost,
)
