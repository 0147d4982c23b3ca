"""Runs the training step on D devices, in one of three layouts.

All devices hold the parameters (or shares of them) and the data. A batch of B
is cut into equal parts, example i on device i * D // B. The layouts differ in
who cuts, and give the same numbers up to rounding:

  jit        one program over the whole batch; the compiler cuts it
  shard_map  one program for each device's part; the step averages over devices
  pmap       as shard_map, in JAX's older form

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
# Smaller arrays, up to 64 KiB, stay whole: memory is spent to save gathering.
_SMALLEST_SHARDED = 2**14

Step = Callable[[types.TrainState, types.Split], types.TrainState]


def mesh(count: int) -> sharding.Mesh:
  """Returns a mesh of the first devices, equally many of each process.

  Raises:
    ValueError: there are fewer than `count`, or the processes cannot have
      equally many.
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
  rows = [
    sorted((d for d in devices if d.process_index == p), key=lambda d: d.id)
    for p in range(processes)
  ]
  most = processes * min(map(len, rows))
  if count % processes or count > most:
    raise ValueError(
      f'devices is {count}; allowed: a multiple of the {processes} processes '
      f'that have joined, up to {most}: each needs as many as the others'
    )
  return [device for row in rows for device in row[: count // processes]]


_SIMULATE = (
  ' (to simulate more on a CPU, set '
  'XLA_FLAGS=--xla_force_host_platform_device_count=8)'
)


def whole(devices: sharding.Mesh) -> sharding.NamedSharding:
  """Returns the sharding of arrays that are whole on every device."""
  return sharding.NamedSharding(devices, _WHOLE)


def cut(devices: sharding.Mesh) -> sharding.NamedSharding:
  """Returns the sharding of arrays whose first axis is cut over devices."""
  return sharding.NamedSharding(devices, sharding.PartitionSpec(AXIS))


def in_sight(devices: sharding.Mesh) -> placement_lib.Spread:
  """Returns how a batch lies where a program sees all of it, as in measures."""
  if devices.size == 1:
    return placement_lib.ALONE
  return placement_lib.Spread(parts=devices.size, sharding=cut(devices))


def spread(layout: str, devices: sharding.Mesh) -> placement_lib.Spread:
  """Returns how batches lie in a layout's step; ValueError: an unknown one."""
  if errors.lookup('layout', LAYOUTS, layout) is _jit:
    return in_sight(devices)
  return placement_lib.Spread(parts=devices.size, axis_name=AXIS)


def step(
  layout: str, function: Step, devices: sharding.Mesh, shardings: Any
) -> Step:
  """Returns the compiled step of a layout; a call of it consumes the state.

  Args:
    layout: a key of `LAYOUTS`.
    function: a step for batches that lie as in `spread(layout, devices)`.
    shardings: those of the state, a tree like it.
  """
  return LAYOUTS[layout](function, devices, shardings)


def placement(state: Any, devices: sharding.Mesh, *, shard_state: bool) -> Any:
  """Returns the shardings of a state, a tree like it.

  Args:
    state: a TrainState, or its shapes.
    shard_state: whether parameters and the optimizer's arrays are cut along
      the longest axis that divides evenly, so that each device has a share.
      Small ones stay whole.
  """

  def of_parameter(leaf):
    axes = [
      axis for axis, size in enumerate(leaf.shape) if size % devices.size == 0
    ]
    if not shard_state or leaf.size < _SMALLEST_SHARDED or not axes:
      return whole(devices)
    longest = max(axes, key=lambda axis: leaf.shape[axis])
    spec = [None] * leaf.ndim
    spec[longest] = AXIS
    return sharding.NamedSharding(devices, sharding.PartitionSpec(*spec))

  shardings = jax.tree.map(lambda _: whole(devices), state)
  return shardings._replace(
    params=jax.tree.map(of_parameter, state.params),
    opt_state=jax.tree.map(of_parameter, state.opt_state),
    average=jax.tree.map(of_parameter, state.average),
  )


def laid(batch: types.Batch, devices: sharding.Mesh) -> types.Batch:
  """Puts a batch on the devices: cut if it divides evenly, else whole."""
  divides = len(batch.labels) % devices.size == 0
  return placement_lib.put(batch, cut(devices) if divides else whole(devices))


def placed(tree: Any, shardings: Any) -> Any:
  """Puts arrays of the host, the same in all processes, on devices.

  They are copied, since a step may consume the result.

  Args:
    tree: a tree of arrays.
    shardings: those of its arrays, a tree like it.
  """
  return jax.tree.map(
    lambda leaf, leaf_sharding: placement_lib.put(
      leaf, leaf_sharding, may_alias=False
    ),
    tree,
    shardings,
  )


def gathered(tree: Any, devices: sharding.Mesh) -> Any:
  """Returns the arrays in a form that every process can read whole.

  Every process must call it. Arrays that a process has whole stay as they are.
  """

  def replicated(leaf):
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
      return leaf
    return placement_lib.put(leaf, whole(devices))

  return jax.tree.map(replicated, tree)


def _jit(function: Step, devices: sharding.Mesh, shardings: Any) -> Step:
  return jax.jit(
    function,
    in_shardings=(shardings, whole(devices)),
    out_shardings=shardings,
    donate_argnums=0,
  )


def _shard_map(function: Step, devices: sharding.Mesh, shardings: Any) -> Step:
  # With check_vma=True gradients would silently be summed, not averaged.
  mapped = jax.shard_map(
    function,
    mesh=devices,
    in_specs=(_WHOLE, _WHOLE),
    out_specs=_WHOLE,
    check_vma=False,
  )
  return _jit(mapped, devices, shardings)


def _pmap(function: Step, devices: sharding.Mesh, shardings: Any) -> Step:
  mapped = jax.pmap(
    lambda _, state, split: function(state, split),
    axis_name=AXIS,
    in_axes=(0, None, None),
    out_axes=None,
    devices=list(devices.devices.flat),
  )
  if not whole(devices).is_fully_addressable:
    return _pmap_of_processes(mapped, devices)
  # pmap needs an argument that is cut. The jit around it keeps the state where
  # the other layouts have it, and frees the memory of the state before.
  numbers = np.arange(devices.size)
  return _jit(
    lambda state, split: mapped(numbers, state, split), devices, shardings
  )


def _pmap_of_processes(mapped: Callable, devices: sharding.Mesh) -> Step:
  """Returns the pmapped step for several processes.

  There is no jit around it: in one, pmap would use this process's devices only.
  """
  numbers = np.arange(devices.local_mesh.size)

  def step_of_all(state, split):
    local = jax.tree.map(lambda leaf: leaf.addressable_data(0), (state, split))
    return multihost_utils.host_local_array_to_global_array(
      mapped(numbers, *local), devices, _WHOLE
    )

  return step_of_all


LAYOUTS: dict[str, Callable[..., Step]] = {
  'jit': _jit,
  'pmap': _pmap,
  'shard_map': _shard_map,
}
