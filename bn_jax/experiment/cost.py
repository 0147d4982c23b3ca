"""Counts what a training step costs, in its program, traced and compiled.

FLOPs are counted by hand in the traced program: XLA counts the body of a loop
once, however often it runs; here it counts once a round. Matrix products and
convolutions alone are counted, two operations a multiplication and addition,
padding included.
"""

import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core

from bn_jax import analysis, errors
from bn_jax.config.run_config import RunConfig

# Bytes of a line of records, and of a file of arrays: a block of the disk. They
# may be more; a larger number might refuse what there is room for.
_LINE, _ARRAYS = 100, 4096
# XLA's types of numbers -> bytes.
_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's16': 2, 'u16': 2}
_BYTES |= {'f32': 4, 's32': 4, 'u32': 4, 'f64': 8, 's64': 8, 'u64': 8}
_KINDS = (
  'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all',
  'collective-permute', 'collective-broadcast',
)  # fmt: skip
_OPERATION = re.compile(
  rf'= (?P<shape>\(.*?\)|\S+) (?P<kind>{"|".join(_KINDS)})(?P<start>-start)?\('
)
_ARRAY = re.compile(r'(?P<dtype>[a-z]+\d*)\[(?P<sizes>[\d,]*)\]')
_COMPUTATION = re.compile(r'(?P<entry>ENTRY )?%(?P<name>[\w.-]+) .*\{$')
_LOOP = re.compile(r'while\(.*body=%(?P<body>[\w.-]+)')
_TIMES = re.compile(r'known_trip_count[^\d]*(\d+)')


class Collective(NamedTuple):
  """What devices tell each other at one place of a program.

  Attributes:
    kind: 'all-reduce' or another of XLA's names.
    sizes: numbers in each of the arrays that each device receives.
    bytes: of these arrays together.
    times: how often it runs in a step.
  """

  kind: str
  sizes: tuple[int, ...]
  bytes: int
  times: int = 1


class StepCost(NamedTuple):
  """What one step costs; all but `parameters` on each device.

  Attributes:
    parameters: their number in the network.
    flops: floating-point operations of its products, see `flops_of_products`.
    memory: 'arguments', 'outputs', 'temporaries' -> bytes; an output lies in
      the place of a donated argument of its shape.
    collectives: what devices tell each other.
  """

  parameters: int
  flops: int
  memory: dict[str, int]
  collectives: tuple[Collective, ...]


def of(traced: jax.stages.Traced, params: Any, devices: int) -> StepCost:
  """Compiles a step and returns what it costs.

  Args:
    traced: the step, as `jit(...).trace(...)` returns it.
    params: the parameters, or their shapes.
    devices: the number of them over which the batch lies.
  """
  compiled = traced.lower().compile()
  memory = compiled.memory_analysis()
  jaxpr = traced.jaxpr.jaxpr
  flops = flops_of_products(jaxpr)
  if not is_mapped(jaxpr):
    flops //= devices
  return StepCost(
    parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
    flops=flops,
    memory={
      'arguments': memory.argument_size_in_bytes,
      'outputs': memory.output_size_in_bytes,
      'temporaries': memory.temp_size_in_bytes,
    },
    collectives=tuple(collectives(compiled.as_text())),
  )


def flops_of_products(jaxpr: core.Jaxpr) -> int:
  """Counts the operations of all products in a traced program.

  Of the branches of a condition the costliest counts; a loop whose length the
  program does not tell counts once. Inside shard_map and pmap the operations
  are those of one device.
  """
  return sum(_flops(equation) for equation in jaxpr.eqns)


def convolves(jaxpr: core.Jaxpr) -> bool:
  """Returns whether a program, or one that it calls, has a convolution."""
  return any(
    equation.primitive.name == 'conv_general_dilated'
    or any(map(convolves, _jaxprs(equation.params)))
    for equation in jaxpr.eqns
  )


def is_mapped(jaxpr: core.Jaxpr) -> bool:
  """Returns whether a program, or one that it calls, is one device's part."""
  return any(
    equation.primitive.name == 'shard_map'
    or any(map(is_mapped, _jaxprs(equation.params)))
    for equation in jaxpr.eqns
  )


def _flops(equation) -> int:
  """Counts the operations of an equation and of the programs that it calls."""
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
  inner = [flops_of_products(jaxpr) for jaxpr in _jaxprs(params)]
  if name == 'cond':
    return max(inner)
  return sum(inner) * (params['length'] if name == 'scan' else 1)


def _jaxprs(params) -> list[core.Jaxpr]:
  """Returns the programs that an equation calls."""
  programs = []
  for value in params.values():
    values = value if isinstance(value, (tuple, list)) else (value,)
    programs += [
      getattr(inner, 'jaxpr', inner)
      for inner in values
      if isinstance(inner, (core.Jaxpr, core.ClosedJaxpr))
    ]
  return programs


def collectives(text: str) -> Iterator[Collective]:
  """Yields the collectives of an optimized HLO module."""
  lines, entry = _computations(text)
  times = {name: 0 for name in lines} | {entry: 1}
  _count_calls(lines, entry, 1, times)
  for name, body in lines.items():
    for line in body:
      match = _OPERATION.search(line)
      if match and times[name]:
        arrays = list(_ARRAY.finditer(match['shape']))
        if match['start'] and match['kind'] != 'all-reduce':
          arrays = arrays[-1:]  # what is sent stands before what is received
        sizes = tuple(_size(array['sizes']) for array in arrays)
        num_bytes = sum(
          _BYTES[array['dtype']] * length
          for array, length in zip(arrays, sizes)
        )
        yield Collective(match['kind'], sizes, num_bytes, times[name])


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """Returns name of each computation -> its lines, and the entry's name."""
  lines, entry, name = {}, '', None
  for line in text.splitlines():
    match = _COMPUTATION.match(line)
    if match:
      name = match['name']
      lines[name] = []
      entry = name if match['entry'] else entry
    elif name is not None:
      lines[name].append(line)
  return lines, entry


def _count_calls(
  lines: Mapping[str, list[str]], name: str, factor: int, times: dict[str, int]
) -> None:
  """Adds to `times` how often the callees of `name` run, loops multiplied."""
  for line in lines[name]:
    loop = _LOOP.search(line)
    for called in re.findall(r'[=,{ ]%([\w.-]+)', line.partition('(')[2]):
      if called not in lines:
        continue
      trips = 1
      if loop and called == loop['body']:
        trip_count = _TIMES.search(line)
        trips = int(trip_count[1]) if trip_count else 1
      times[called] += factor * trips
      _count_calls(lines, called, factor * trips, times)


def _size(sizes: str) -> int:
  return math.prod(int(size) for size in sizes.split(',') if size)


def record_bytes(config: RunConfig) -> float:
  """Returns the bytes on the disk that the records of a step take at least."""
  looks = sum(
    (_ARRAYS if analysis.kind_of(section['name']).arrays else _LINE)
    / section['every_steps']
    for section in config.measures.values()
  )
  return _LINE + looks


def check_batch(where: str, size: int, shape: Sequence[int]) -> None:
  """Refuses a batch whose examples alone do not fit into the memory left.

  Args:
    where: the path of `size` in a config, or a flag.
    shape: of one example, float32.

  Raises:
    ConfigError: it does not fit.
  """
  needed = 4 * size * math.prod(shape)
  device = jax.local_devices()[0]
  # The devices of a CPU share its memory; each process may have its own.
  is_cpu = device.platform == 'cpu'
  shares = jax.process_count() if is_cpu else jax.device_count()
  left = memory_left(device) * shares
  if needed > left:
    raise errors.ConfigError(
      f'{where}: {size}; so many examples of {" x ".join(map(str, shape))} '
      f'numbers take {needed / 1e9:,.1f} GB, {left / 1e9:,.1f} GB are left; '
      'give fewer, or smaller ones'
    )


def memory_left(device: jax.Device) -> int:
  """Returns the bytes that a device has left, by what it or the system says.

  Of a CPU, what the system could give without swapping; on systems that do not
  say, half of all memory: the other half may be in use.
  """
  stats = device.memory_stats()
  if stats and 'bytes_limit' in stats:
    return stats['bytes_limit'] - stats['bytes_in_use']
  meminfo = pathlib.Path('/proc/meminfo')
  if meminfo.exists():
    for line in meminfo.read_text().splitlines():
      name, _, amount = line.partition(':')
      if name == 'MemAvailable':
        return 1024 * int(amount.split()[0])
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2
