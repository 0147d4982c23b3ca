"""The training step on several devices, in one of three layouts.

All devices hold the parameters (or shares of them) and the data. A batch is cut
into equal parts, example i of B on device i * D // B. The layouts differ in who
cuts, and give the same numbers:

  jit        one program over the whole batch; the compiler cuts it
  shard_map  one program for each device's part, averaged by hand
  pmap       the same in JAX's older form

Measures see the whole batch, as under `jit`, in every layout.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import sharding
from jax.experimental import multihost_utils

from bn_jax import errors, types
from bn_jax import placement as placement_lib

AXIS = 'data'
_WHOLE = sharding.PartitionSpec()
# Below this many numbers, gathering an array costs more than keeping it whole.
_SMALLEST_SHARDED = 2**14

Step = Callable[[types.TrainState, types.Split], types.TrainState]


def mesh(count: int) -> sharding.Mesh:
  """Returns a mesh of the first devices, equally many of each process.

  Raises:
    ValueError: there are fewer, or some process would have fewer than another.
  """
  devices, processes = jax.devices(), jax.process_count()
  if not 1 <= count <= len(devices):
    raise ValueError(
      f'devices is {count}; allowed: 1 to {len(devices)}, which are here'
      f'{_SIMULATE if devices[0].platform == "cpu" else ""}'
    )
  if processes > 1:
    devices = _in_rows(devices, count, processes)
  return sharding.Mesh(
    np.array(devices[:count]),
    (AXIS,),
    axis_types=(sharding.AxisType.Auto,),
  )


def _in_rows(devices: list, count: int, processes: int) -> list:
  """Returns equally many devices of each process, process after process."""
  of = [
    sorted((d for d in devices if d.process_index == p), key=lambda d: d.id)
    for p in range(processes)
  ]
  most = processes * min(map(len, of))
  if count % processes or count > most:
    raise ValueError(
      f'devices is {count}; allowed: a multiple of the {processes} processes '
      f'that have joined, up to {most}: each needs as many as the others'
    )
  return [device for row in of for device in row[: count // processes]]


_SIMULATE = (
  ' (to simulate more on a CPU, set '
  'XLA_FLAGS=--xla_force_host_platform_device_count=8)'
)


def whole(mesh: sharding.Mesh) -> sharding.NamedSharding:
  """Returns the sharding of arrays that are whole on every device."""
  return sharding.NamedSharding(mesh, _WHOLE)


def cut(mesh: sharding.Mesh) -> sharding.NamedSharding:
  """Returns the sharding of arrays whose first axis is cut over devices."""
  return sharding.NamedSharding(mesh, sharding.PartitionSpec(AXIS))


def in_sight(mesh: sharding.Mesh) -> placement_lib.Spread:
  """Returns how a batch lies where a program sees all of it, as in measures."""
  if mesh.size == 1:
    return placement_lib.ALONE
  return placement_lib.Spread(parts=mesh.size, sharding=cut(mesh))


def spread(layout: str, mesh: sharding.Mesh) -> placement_lib.Spread:
  """Returns how batches lie in the step of a layout.

  Raises:
    ValueError: an unknown layout.
  """
  if errors.lookup('layout', LAYOUTS, layout) is _jit:
    return in_sight(mesh)
  return placement_lib.Spread(parts=mesh.size, axis_name=AXIS)


def step(
  layout: str, function: Step, mesh: sharding.Mesh, placement: Any
) -> Step:
  """Returns the compiled step of a layout; it consumes the state.

  Args:
    layout: a key of `LAYOUTS`.
    function: a step for `spread(layout, mesh)`.
    placement: the shardings of the state, a tree like it.
  """
  return LAYOUTS[layout](function, mesh, placement)


def placement(state: Any, mesh: sharding.Mesh, *, shard_state: bool) -> Any:
  """Returns the shardings of a state, a tree like it.

  Args:
    state: a TrainState, or its shapes.
    shard_state: whether parameters and the optimizer's arrays are cut along
      their longest axis that the devices divide, so that each device has a
      share. Small ones stay whole.
  """

  def of_parameter(leaf):
    axes = [
      axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0
    ]
    if not shard_state or leaf.size < _SMALLEST_SHARDED or not axes:
      return whole(mesh)
    longest = max(axes, key=lambda axis: leaf.shape[axis])
    spec = [None] * leaf.ndim
    spec[longest] = AXIS
    return sharding.NamedSharding(mesh, sharding.PartitionSpec(*spec))

  shardings = jax.tree.map(lambda _: whole(mesh), state)
  return shardings._replace(
    params=jax.tree.map(of_parameter, state.params),
    opt_state=jax.tree.map(of_parameter, state.opt_state),
  )


def laid(batch: types.Batch, mesh: sharding.Mesh) -> types.Batch:
  """Puts a batch on the devices: cut if it divides, else whole on each."""
  divides = len(batch.labels) % mesh.size == 0
  return placement_lib.put(batch, cut(mesh) if divides else whole(mesh))


def placed(tree: Any, placement: Any) -> Any:
  """Puts arrays of the host, the same in all processes, on devices.

  The result shares no memory with them, since a step may consume it.

  Args:
    tree: a tree of arrays.
    placement: their shardings, a tree like it.
  """
  return jax.tree.map(
    lambda leaf, sharding: placement_lib.put(leaf, sharding, may_alias=False),
    tree,
    placement,
  )


def gathered(tree: Any, mesh: sharding.Mesh) -> Any:
  """Returns the arrays in a form that every process can read whole.

  Every process must call it. Arrays that a process has whole stay as they are.
  """

  def of(leaf):
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
      return leaf
    return placement_lib.put(leaf, whole(mesh))

  return jax.tree.map(of, tree)


def _jit(function: Step, mesh: sharding.Mesh, placement: Any) -> Step:
  return jax.jit(
    function,
    in_shardings=(placement, whole(mesh)),
    out_shardings=placement,
    donate_argnums=0,
  )


def _shard_map(function: Step, mesh: sharding.Mesh, placement: Any) -> Step:
  # With check_vma=True gradients would silently be summed, not averaged.
  mapped = jax.shard_map(
    function,
    mesh=mesh,
    in_specs=(_WHOLE, _WHOLE),
    out_specs=_WHOLE,
    check_vma=False,
  )
  return _jit(mapped, mesh, placement)


def _pmap(function: Step, mesh: sharding.Mesh, placement: Any) -> Step:
  mapped = jax.pmap(
    lambda _, state, split: function(state, split),
    axis_name=AXIS,
    in_axes=(0, None, None),
    out_axes=None,
    devices=list(mesh.devices.flat),
  )
  if not whole(mesh).is_fully_addressable:
    return _pmap_of_processes(mapped, mesh)
  # pmap needs an argument that is cut. The jit around it keeps the state where
  # the other layouts have it, and frees the memory of the old one.
  numbers = np.arange(mesh.size)
  return _jit(
    lambda state, split: mapped(numbers, state, split), mesh, placement
  )


def _pmap_of_processes(mapped: Callable, mesh: sharding.Mesh) -> Step:
  """Returns the pmapped step for several processes.

  It has no jit around it, in which a pmap would use the devices of this process
  alone.
  """
  numbers = np.arange(mesh.local_mesh.size)

  def step(state, split):
    local = jax.tree.map(lambda leaf: leaf.addressable_data(0), (state, split))
    return multihost_utils.host_local_array_to_global_array(
      mapped(numbers, *local), mesh, _WHOLE
    )

  return step


LAYOUTS: dict[str, Callable[..., Step]] = {
  'jit': _jit,
  'pmap': _pmap,
  'shard_map': _shard_map,
}
