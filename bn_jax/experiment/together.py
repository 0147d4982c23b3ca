"""Says which seeds, and which runs, are trained in one program, and how many.

The number is a rule of shapes, platform and memory, so that the same command
gives the same bits: a program for another number of seeds may round otherwise.
It stands in the manifest, and a seed that goes on keeps it. A group that lacks
seeds (the others are done) has copies in their places.
"""

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from bn_jax import errors, modules, types
from bn_jax.config import build
from bn_jax.config import numbers as numbers_lib
from bn_jax.config.run_config import RunConfig
from bn_jax.experiment import cost
from bn_jax.host import processes
from bn_jax.storage import run_folder
from bn_jax.training import seeds as seeds_lib

_log = logging.getLogger('bn_jax')
# Of the memory that is left, for what a group of seeds takes.
_SHARE = 0.5
# (Operations of a seed's step at most, seeds at a time on a device), the first
# row that fits; 1 beyond the last. By `python -m benchmarks seeds` on a CPU; on
# other platforms nothing was measured.
_AT_ONCE = ((1e9, 32),)
# Bytes of the state of a seed on a CPU: of more, not even a block stays in the
# caches of a processor.
_CACHED = 2e6
# The fewest seeds for which a program of several pays.
_FEWEST = 4


class Group(NamedTuple):
  """Seeds that are trained in one program, of one run or of a family.

  Attributes:
    folders: of the runs with these seeds.
    at_once: for how many the program is; 1 is the program of one.
    numbers: paths of those that are data of it, see `config.numbers`.
  """

  folders: Sequence[run_folder.RunFolder]
  at_once: int = 1
  numbers: tuple[str, ...] = ()


def of_family(
  family: numbers_lib.Family,
  configs: Mapping[str, RunConfig],
  problems: Mapping[str, types.Problem],
  left: Mapping[str, Sequence[run_folder.RunFolder]],
  asked: Mapping[str, Sequence[run_folder.RunFolder]],
  shares: int = 1,
) -> list[Group]:
  """Returns the groups of runs that differ in numbers alone, in their order.

  Seeds that were begun otherwise, such as without the other runs, are trained
  first, as they were begun. Runs that say another `seeds_at_once` are groups of
  their own.

  Args:
    configs: of all its runs, by their names.
    problems: of those that have seeds left.
    left, asked: their folders, see `groups`; runs without lack.
    shares: how many such groups share the memory.
  """
  folders_left, folders_asked = (
    _by_program(family, configs, folders) for folders in (left, asked)
  )
  every_group = []
  for key in sorted(folders_left, key=lambda key: key[0] == family.numbers):
    folders, (numbers, _) = folders_left[key], key
    name = folders[0].run
    every_group += [
      # A program of one has the numbers of its config.
      Group(seeds, at_once, numbers if at_once > 1 else ())
      for at_once, seeds in groups(
        configs[name], problems[name], folders, folders_asked[key], shares
      )
    ]
  return every_group


def _by_program(
  family: numbers_lib.Family,
  configs: Mapping[str, RunConfig],
  folders: Mapping[str, Sequence[run_folder.RunFolder]],
) -> dict[tuple[tuple[str, ...], Any], list[run_folder.RunFolder]]:
  """Returns (numbers, what else a program's seeds have in common) -> them."""
  alike = {}
  for name in filter(folders.__contains__, family.names):
    for folder in folders[name]:
      begun = _begun_with(configs[name], folder)
      numbers = family.numbers if begun is None else begun[1]
      is_apart = numbers != family.numbers
      key = numbers, name if is_apart else configs[name].seeds_at_once
      alike.setdefault(key, []).append(folder)
  return alike


def groups(
  config: RunConfig,
  problem: types.Problem,
  folders: Sequence[run_folder.RunFolder],
  asked: Sequence[run_folder.RunFolder],
  shares: int = 1,
) -> list[tuple[int, list[run_folder.RunFolder]]]:
  """Returns (seeds that the program is for, the seeds) in the order to train.

  Args:
    folders: of one run, or of runs that differ in numbers alone, with the seeds
      that are left to train.
    asked: of them, with all seeds that were asked for, in their order; those
      that begin after a kill are in groups as large as without it.
    shares: how many such groups share the memory.
  """
  begun_with = {folder: _begun_with(config, folder) for folder in asked}
  numbers = {folder: begun and begun[0] for folder, begun in begun_with.items()}
  new = sum(numbers[folder] is None for folder in folders)
  usual = 1
  if new:
    begun = [number for number in numbers.values() if number is not None]
    usual = at_once(config, problem, new, begun, shares)
  # A seed may go on with other settings than it was begun with; several
  # processes have a part of the batch each, as for one seed.
  largest = max([usual, *(numbers[folder] or 1 for folder in folders)])
  is_apart = largest > 1 and (processes.count() > 1 or _apart(config, problem))
  by_number = {}
  for folder in folders:
    number = 1 if is_apart else numbers[folder] or usual
    by_number.setdefault(number, []).append(folder)
  return [
    (number, seeds[first : first + number])
    for number, seeds in by_number.items()
    for first in range(0, len(seeds), number)
  ]


def check(config: RunConfig, problem: types.Problem) -> None:
  """Refuses a number of seeds at once that cannot be; compiles nothing.

  Raises:
    ConfigError: more seeds than the memory holds, or data of which each seed
      needs a stream of its own.
  """
  number = config.seeds_at_once
  if number in ('auto', 1):
    return
  where = f'config.seeds_at_once: {number}'
  if reason := _apart(config, problem):
    raise errors.ConfigError(f"{where}; {reason}; allowed: 1, 'auto'")
  most = _fitting(config, problem)
  if number > most:
    places = seeds_lib.places(number, config.devices, jax.default_backend())
    size = places * bytes_of_seed(config, problem)
    raise errors.ConfigError(
      f'{where}; so many seeds take about {1e-9 * size:,.1f} GB, '
      f'{1e-9 * _room(config):,.1f} GB may be used; allowed: up to '
      f"{max(1, most)}, or 'auto'"
    )


def at_once(
  config: RunConfig,
  problem: types.Problem,
  count: int,
  begun: Sequence[int] = (),
  shares: int = 1,
) -> int:
  """Returns how many of `count` seeds are trained in one program.

  All groups have about as many, so that few places are empty.

  Args:
    count: of the seeds that have not begun.
    begun: the number of each seed that has, in their order. Where the rule has
      the last of these numbers for the seeds that had it, or for some whole
      groups of them, and the rest, a kill came between: the rest has it too.
    shares: how many such groups share the memory.
  """
  if config.seeds_at_once != 'auto':
    return config.seeds_at_once
  if count + len(begun) < _FEWEST or processes.count() > 1:
    return 1
  wanted = _by_table(config, problem)
  if wanted < _FEWEST:
    return 1
  if reason := _apart(config, problem):
    if config.modules:
      _log.info('seeds are trained one after the other: %s', reason)
    return 1
  most = min(wanted, _fitting(config, problem, shares))
  if most < min(wanted, count):
    _log.info(
      '%d seeds at a time: one takes about %.2f GB, %.1f GB may be used',
      max(1, most), 1e-9 * bytes_of_seed(config, problem),
      1e-9 * _room(config) / shares,
    )  # fmt: skip
  last = begun[-1] if begun else 1
  alike = len(list(itertools.takewhile(last.__eq__, reversed(begun))))
  # A kill may come while a group begins; earlier seeds may have had as many.
  for trained in (alike, *range(last, alike, last)):
    if _even(trained + count, most) == last:
      return last
  return _even(count, most)


def _even(count: int, most: int) -> int:
  """Returns the size of about equal groups, `most` at most."""
  if min(count, most) < _FEWEST:
    return 1
  return -(-count // -(-count // most))


def _begun_with(
  config: RunConfig, folder: run_folder.RunFolder
) -> tuple[int, tuple[str, ...]] | None:
  """Returns for how many seeds a seed's program was, and which numbers it took.

  None of a seed that has not begun. Over other devices it is another program,
  and may need other memory.
  """
  if not folder.manifest:
    return None
  # Earlier versions trained one seed after the other.
  earlier = {'seeds_at_once': 1, 'numbers': [], 'device': {'count': 1}}
  manifest = {**earlier, **folder.manifest}
  if manifest['device']['count'] != config.devices:
    return None
  return manifest['seeds_at_once'], tuple(manifest['numbers'])


def bytes_of_seed(config: RunConfig, problem: types.Problem) -> int:
  """Returns the bytes that a seed takes in its step, by shapes.

  They are the state before and after, a gradient, and what the forward pass
  keeps for the backward pass.
  """
  state = jax.eval_shape(problem.init, 0)
  batch = build.shapes(config, config.examples_at_a_time)

  def backward(state: types.TrainState, batch: types.Batch) -> Any:
    loss = problem.loss(state, batch, 'batch')
    return jax.vjp(loss, state.params)[1]

  residuals = jax.eval_shape(backward, state, batch)
  return sum(
    leaf.size * leaf.dtype.itemsize
    for tree in (state, state, state.params, residuals)
    for leaf in jax.tree.leaves(tree)
  )


def _by_table(config: RunConfig, problem: types.Problem) -> int:
  """Returns the number of `_AT_ONCE`, for as many devices as there are."""
  # Convolutions with a kernel for each seed are slower than one after another.
  if 'lowering' in config.model:
    return config.devices
  state = jax.eval_shape(problem.init, 0)
  split = build.source(config).shapes(config.batch_size)
  jaxpr = jax.make_jaxpr(problem.step)(state, split).jaxpr
  if cost.convolves(jaxpr):
    return config.devices
  operations = cost.flops_of_products(jaxpr)
  number = next((n for most, n in _AT_ONCE if operations <= most), 1)
  if jax.default_backend() == 'cpu':
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    number = number if size <= _CACHED else 1
  return number * config.devices


def _apart(config: RunConfig, problem: types.Problem) -> str | None:
  """Returns why seeds of a run cannot be trained together; None if they can."""
  if build.source(config).shapes(1).images.shape[0] == 1:
    return f'{config.data["name"]} is streamed, for one seed at a time'
  if config.shard_state:
    return 'shard_state cuts the state of one seed over the devices'
  # What is not a user's can be mapped; tracing a step takes a second.
  return _unmapped(config, problem) if config.modules else None


def _unmapped(config: RunConfig, problem: types.Problem) -> str | None:
  """Returns why JAX cannot map the step of a run over seeds, or None."""
  config = config.replace(devices=1, layout='jit')
  states = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype),
    jax.eval_shape(problem.init, 0),
  )
  split = build.source(config).shapes(config.batch_size)
  try:
    with modules.bound(config.modules):
      step = build.step_of_one(config, problem)
      jax.eval_shape(jax.vmap(step, in_axes=(0, None)), states, split)
  except Exception as error:  # whatever a user's function raises
    return f'jax.vmap cannot map its step: {modules.described(error)}'
  return None


def _fitting(config: RunConfig, problem: types.Problem, shares: int = 1) -> int:
  """Returns how many seeds fit into the memory that may be used."""
  most = int(_room(config) / shares // bytes_of_seed(config, problem))
  # Places without a seed take as much as the others.
  on = config.devices, jax.default_backend()
  while most and seeds_lib.places(most, *on) > most:
    most -= 1
  return most


def _room(config: RunConfig) -> float:
  device = jax.local_devices()[0]
  # The devices of a CPU share its memory.
  devices = 1 if device.platform == 'cpu' else config.devices
  return _SHARE * cost.memory_left(device) * devices
