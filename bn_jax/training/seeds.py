"""Trains several seeds in one program.

Their states are one `TrainState`, whose arrays have the seeds as their first
axis: what a small network waits for, some hundred small operations a step, is
then shared. Over several devices the seeds are spread, and no batch is cut: a
device has whole seeds, and none tells another anything.

A call takes several steps. A program of XLA allocates its memory anew whenever
it is called, and on a CPU the system clears each page of it: for 32 seeds of
the deep linear network 66 MB, half of the time of a step (2026-11-30).

There seeds also go in blocks, the next when one has taken these steps, since
what fits into the caches of a processor is worth more than larger operations.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bn_jax import types
from bn_jax.training import devices as devices_lib

# In one call: most of what there is to gain, and a signal waits for no more.
STEPS = 16
# Seeds of a block on a CPU. Processor time of a step of a seed, 32 seeds, deep
# linear network and MLP (alone 2.0 and 0.49 ms; 2026-11-30, two cores in use):
# 0.42 and 0.34 ms; in blocks of 8 0.48 and 0.40, of 32 0.60 and 0.54.
_BLOCK = 4


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

  def several(state, split_and_number):
    split, number = split_and_number
    return lax.fori_loop(0, number, lambda _, s: function(s, split), state)

  compiled = mapped(several, devices, donate_argnums=0)

  def steps_of(states, split, number):
    number = jax.device_put(np.int32(number), devices_lib.whole(devices))
    return compiled(states, (split, number))

  return steps_of


def places(count: int, devices: int, platform: str) -> int:
  """Returns how many seeds a program for `count` has: all blocks are as large.

  So no bit of a seed hangs on its place.

  Args:
    devices: their number.
    platform: of them, such as 'cpu'.
  """
  own = -(-count // devices)
  blocks = _blocks(own, platform)
  return devices * blocks * -(-own // blocks)


def _blocks(own: int, platform: str) -> int:
  """Returns into how many blocks the seeds of a device are cut."""
  return -(-own // _BLOCK) if platform == 'cpu' else 1


def mapped(
  function: Callable[..., Any], devices: jax.sharding.Mesh, **settings: Any
) -> Callable[..., Any]:
  """Returns a function of several seeds, compiled, from that of one.

  Args:
    function: (what is of one seed, what all share) -> what is of one seed.
    devices: over which the seeds are cut.
    **settings: further keywords of `jax.jit`.
  """
  function = functools.partial(_in_blocks, function, devices)
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


def _in_blocks(function, devices, own, shared):
  """Returns function(what is of one seed, shared) for each of `own`."""
  count = len(jax.tree.leaves(own)[0])
  blocks = _blocks(count, devices.devices.flat[0].platform)
  if blocks == 1:
    return jax.vmap(function, in_axes=(0, None))(own, shared)
  size = -(-count // blocks)
  middle = blocks // 2 * size
  # XLA computes two loops that need nothing of each other at the same time.
  halves = [
    lax.map(
      lambda one: function(one, shared),
      jax.tree.map(operator.itemgetter(half), own),
      batch_size=size,
    )
    for half in (slice(middle), slice(middle, None))
  ]
  return jax.tree.map(lambda *x: jnp.concatenate(x), *halves)


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
