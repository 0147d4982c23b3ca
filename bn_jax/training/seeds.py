"""Trains several seeds in one program.

Their states are one `TrainState`, whose arrays have the seeds as their first
axis: what a small network waits for, some hundred small operations a step, is
then shared. Over several devices the seeds are spread, and no batch is cut: a
device has whole seeds, and none tells another anything.

A call takes several steps. A program of XLA allocates its memory anew whenever
it is called, and on a CPU the system clears each page of it: for 32 seeds of
the deep linear network 66 MB, half of the time of a step (2026-11-30).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from bn_jax import types
from bn_jax.training import devices as devices_lib

# In one call: most of what there is to gain, and a signal waits for no more.
STEPS = 16


def steps(
  function: devices_lib.Step, devices: jax.sharding.Mesh
) -> Callable[[types.TrainState, types.Split, int], types.TrainState]:
  """Returns (state of several seeds, split, number) -> after so many steps.

  It is one program, and so has the same bits however steps are divided into
  calls. It consumes the state.

  Args:
    function: the step of one seed, for whole batches.
    devices: over which the seeds are cut; their number divides that of seeds.
  """
  step = jax.vmap(function, in_axes=(0, None))

  def several(states, split_and_number):
    split, number = split_and_number
    return lax.fori_loop(0, number, lambda _, s: step(s, split), states)

  compiled = _compiled(several, devices, donate_argnums=0)

  def steps_of(states, split, number):
    number = jax.device_put(np.int32(number), devices_lib.whole(devices))
    return compiled(states, (split, number))

  return steps_of


def mapped(
  function: Callable[..., Any], devices: jax.sharding.Mesh
) -> Callable[..., Any]:
  """Returns a function of several seeds, compiled, from that of one.

  Args:
    function: (what is of one seed, what all share) -> what is of one seed.
    devices: over which the seeds are cut.
  """
  return _compiled(jax.vmap(function, in_axes=(0, None)), devices)


def _compiled(
  function: Callable[..., Any], devices: jax.sharding.Mesh, **settings: Any
) -> Callable[..., Any]:
  """Returns a compiled function of what all seeds have, and of what they share.

  Args:
    devices: over which the seeds are cut.
    **settings: further keywords of `jax.jit`.
  """
  if devices.size > 1:
    by_seed = devices_lib.cut(devices).spec
    function = jax.shard_map(
      function,
      mesh=devices,
      in_specs=(by_seed, devices_lib.whole(devices).spec),
      out_specs=by_seed,
      # Nothing is exchanged, so there is nothing to check.
      check_vma=False,
    )
  cut = devices_lib.cut(devices)
  return jax.jit(
    function,
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
