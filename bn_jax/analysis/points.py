"""Computes a loss at many points, side by side and spread over devices.

What is computed is a dict: the loss, and what a loss has beside it, such as the
accuracy.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, placement, types
from bn_jax.analysis import chunks, gradients

# Bytes that the points of one program may take together. Small networks cost
# less than the call of a program; beyond the caches of a processor, points side
# by side are no faster.
_ROOM = 2**24
_VALUES, _TOTAL = 'values/', 'total/'  # in a journal, before the names
# Side by side each point has kernels of its own: for a convolution that is one
# of as many groups, which no library has fast code for. A callback may have no
# rule for it.
_ALONE = ('conv_general_dilated', 'pure_callback', 'io_callback')


def check_spread(spread: str, chunk_size: int | None) -> None:
  """Raises ValueError for an unknown spread, or one that has no chunks."""
  checks.one_of('spread', spread, ('batch', 'points'))
  if spread == 'points' and chunk_size is not None:
    raise ValueError(
      f"chunk_size is {chunk_size} with spread 'points'; allowed: None, each "
      "device has the whole batch; or spread='batch'"
    )


def devices_of(array: jax.Array) -> tuple[jax.Device, ...]:  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no types
  """Returns the devices that an array lies on, in the order of its mesh."""
  mesh = getattr(array.sharding, 'mesh', None)
  if isinstance(mesh, jax.sharding.Mesh):
    return tuple(mesh.devices.flat)
  return tuple(array.devices())


def rounds(points: Sequence | np.ndarray, size: int) -> list[np.ndarray]:
  """Splits points into rounds of `size`; fills the last with its last point."""
  rows = np.asarray(points)
  split = [rows[i : i + size] for i in range(0, len(rows), size)]
  missing = size - len(split[-1])
  split[-1] = np.concatenate([split[-1], split[-1][-1:].repeat(missing, 0)])
  return split


def values(
  loss: chunks.Loss,
  params: Any,
  directions: Sequence[Any],
  points_PK: np.ndarray,
  *,
  together: int | str = 'auto',
  devices: Sequence[jax.Device] = (),  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no types
  journal: types.Journal | None = None,
) -> dict[str, np.ndarray]:
  """Computes loss(params + sum_k c_k d_k) for each row c of points, [P].

  Args:
    loss: see `surface`.
    params: of `gradients.checked`.
    directions: K trees like params.
    points_PK: P rows of coordinates.
    together, devices: see `surface`.
    journal: keeps the values so far, under the name 'points'.
  """
  dtype = jnp.result_type(*jax.tree.leaves(params), jnp.float32)
  points_PK = points_PK.astype(dtype)
  parts, shares = chunks.parts_of(loss)
  count = max(1, len(devices))
  mesh = jax.sharding.Mesh(np.array(devices), ('points',)) if devices else None
  with jax.default_matmul_precision('highest'):
    side_by_side = (
      _fitting(parts[0], params, directions, points_PK)
      if isinstance(together, str)
      else together
    )
    side_by_side = min(side_by_side, -(-len(points_PK) // count))
    every = _values(
      lambda part, coordinates: gradients.explained(
        _round, part, params, directions, coordinates, mesh
      ),
      (parts, shares),
      rounds(points_PK, side_by_side * count),
      journal,
    )
  # A program of JAX sorts the names.
  names = sorted(every, key=lambda name: name != 'loss')
  return {name: every[name][: len(points_PK)] for name in names}


def _fitting(part, params, directions, points_PK) -> int:
  """Returns how many points are best taken side by side; see `surface`."""
  traced = gradients.explained(
    _point.trace, part, params, directions, points_PK[0]
  )
  names, size = _contents(traced.jaxpr.jaxpr)
  if names.intersection(_ALONE):
    return 1
  return max(1, min(_ROOM // max(size, 1), len(points_PK)))


def _contents(jaxpr) -> tuple[set[str], int]:
  """Returns the names of all operations, and the bytes of all they compute."""
  names, size = set(), 0
  for equation in jaxpr.eqns:
    names.add(equation.primitive.name)
    size += sum(_bytes(variable.aval) for variable in equation.outvars)
    for program in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')
    ):
      if hasattr(program, 'eqns'):
        inner, inner_size = _contents(getattr(program, 'jaxpr', program))
        names, size = names | inner, size + inner_size
  return names, size


def _bytes(aval) -> int:
  return getattr(aval, 'size', 0) * getattr(aval.dtype, 'itemsize', 0)


def _values(value_of, loss_parts, groups, journal) -> dict[str, np.ndarray]:
  """Returns the loss of all points of all groups, one after the other.

  Args:
    value_of: (part of the loss, points of a group [C, K]) -> {name: [C]}.
    loss_parts: (parts, shares) of the loss.
    journal: keeps what is computed after each part of each group.
  """
  parts, shares = loss_parts
  size = len(groups[0])
  values, count, total = _resumed(journal, size)
  done = sum(len(one['loss']) for one in values) // size
  for group in groups[done:]:
    for k in range(count, len(parts)):
      term = value_of(parts[k], group)
      if len(parts) > 1:
        term = _added(total, shares[k], term)
      # Else Python runs ahead of the device, with the memory of many points.
      jax.block_until_ready(total or values[-1:])
      total = term
      if journal is not None and k + 1 < len(parts):
        _keep(journal, size, values, k + 1, total)
    values.append(total or {})
    count, total = 0, None
    if journal is not None:
      values = [_joined(values)]
      _keep(journal, size, values)
  return _joined(values)


def _added(total, share, term) -> dict[str, Any]:
  """Returns total + share * term, of each name; the total may be nothing."""
  if not total:
    return {name: share * x for name, x in term.items()}
  return {name: total[name] + share * x for name, x in term.items()}


def _joined(values) -> dict[str, np.ndarray]:
  """Returns {name: [P]} of the dicts of rounds, one after the other."""
  values = placement.host(values)
  return {
    name: np.concatenate([one[name] for one in values]) for name in values[0]
  }


def _resumed(journal, size: int) -> tuple[list, int, Any]:
  """Returns the points of a journal, and how many parts of others it summed.

  Of rounds of another size, on other devices or of other `together`, nothing.
  """
  arrays = None if journal is None else journal.kept('points')
  if arrays is None or int(arrays['round']) != size:
    return [], 0, None
  values, total = (
    {
      name.removeprefix(of): array
      for name, array in arrays.items()
      if name.startswith(of)
    }
    for of in (_VALUES, _TOTAL)
  )
  # Without names, as they once were kept, there are none.
  return [values] if values else [], int(arrays['parts']) * bool(total), total


def _keep(journal, size, values, count: int = 0, total: Any = None) -> None:
  """Keeps the points so far, and the sum over parts of those in progress."""
  arrays = {'round': np.array(size), 'parts': np.array(count)}
  for of, every in ((_VALUES, values[0] if values else {}), (_TOTAL, total)):
    every = placement.host(every or {})
    arrays |= {f'{of}{name}': array for name, array in every.items()}
  journal.keep('points', arrays)


@functools.partial(jax.jit, static_argnums=4)
def _round(loss, params, directions, coordinates_CK, mesh):
  """Returns {name: its values at C points, [C]}, in float32 at least."""
  if mesh is None:
    return _side_by_side(loss, params, directions, coordinates_CK)
  replicated, by_point = (
    jax.sharding.PartitionSpec(),
    jax.sharding.PartitionSpec('points'),
  )
  # No sums over devices, so the check of replicated values is not needed.
  return jax.shard_map(
    _side_by_side,
    mesh=mesh,
    in_specs=(*(replicated,) * 3, by_point),
    out_specs=by_point,
    check_vma=False,
  )(loss, params, directions, coordinates_CK)


def _side_by_side(loss, params, directions, coordinates_CK):
  if coordinates_CK.shape[0] == 1:
    values = _point(loss, params, directions, coordinates_CK[0])
    return jax.tree.map(lambda x: x[None], values)
  by_row = (None, None, None, 0)
  return jax.vmap(_point, by_row)(loss, params, directions, coordinates_CK)


@jax.jit
def _point(loss, params, directions, coordinates_K):
  """Returns {name: its value at params + sum_k c_k d_k, []}, likewise."""

  def moved(p, *d_K):
    dtype = jnp.promote_types(p.dtype, jnp.float32)
    moves = [c.astype(dtype) * d for c, d in zip(coordinates_K, d_K)]
    return sum(moves, start=p.astype(dtype)).astype(p.dtype)

  values = gradients.real_scalars(
    loss(jax.tree.map(moved, params, *directions))
  )
  return {
    name: x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for name, x in values.items()
  }
