"""Trains several seeds in one program.

Their states are one `TrainState`, whose arrays have the seeds as their first
axis: what a small network waits for, some hundred small operations a step, is
then shared. Over several devices the seeds are spread, and no batch is cut: a
device has whole seeds, and none tells another anything.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import types
from bn_jax.training import devices as devices_lib

Step = devices_lib.Step


def step(function: Step, devices: jax.sharding.Mesh) -> Step:
  """Returns the compiled step of several seeds; it consumes their state.

  Args:
    function: the step of one seed, for whole batches.
    devices: over which the seeds are cut; their number divides that of seeds.
  """
  return mapped(function, devices, donate_argnums=0)


def mapped(
  function: Callable[..., Any], devices: jax.sharding.Mesh, **settings: Any
) -> Callable[..., Any]:
  """Returns a function of several seeds, compiled, from that of one.

  Args:
    function: (what is of one seed, what all share) -> what is of one seed.
    devices: over which the seeds are cut.
    **settings: further keywords of `jax.jit`.
  """
  mapped = jax.vmap(function, in_axes=(0, None))
  if devices.size > 1:
    by_seed = devices_lib.cut(devices).spec
    mapped = jax.shard_map(
      mapped,
      mesh=devices,
      in_specs=(by_seed, devices_lib.whole(devices).spec),
      out_specs=by_seed,
      # Nothing is exchanged, so there is nothing to check.
      check_vma=False,
    )
  cut = devices_lib.cut(devices)
  return jax.jit(
    mapped,
    in_shardings=(cut, devices_lib.whole(devices)),
    out_shardings=cut,
    **settings,
  )


def joined(
  states: Sequence[types.TrainState], devices: jax.sharding.Mesh
) -> types.TrainState:
  """Returns one state of several seeds, cut over devices.

  Args:
    states: of the seeds, which may be at different steps.
  """
  on_host = jax.device_get(list(states))
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *on_host)
  cut = devices_lib.cut(devices)
  return devices_lib.placed(stacked, jax.tree.map(lambda _: cut, stacked))


def part(shardings: Any) -> Callable[[types.TrainState, int], types.TrainState]:
  """Returns (state of several seeds, number of one) -> a copy of its state.

  Args:
    shardings: where the state of one seed lies, a tree like it.
  """
  # The number is an argument, so that all seeds have one program.
  return jax.jit(
    lambda state, number: jax.tree.map(lambda leaf: leaf[number], state),
    out_shardings=shardings,
  )
