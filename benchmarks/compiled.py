"""Compiles training steps for devices that are not there; reads the programs.

The compilers of TPUs and GPUs work without one: `pip install libtpu` brings the
first, `pip install "jax[cuda12]"` the second. So the program that a v5e or an
H200 would run can be read here: what it takes of the memory, what its devices
tell each other, which float32 copies of activation maps it writes although
training computes in bfloat16, and whether it speaks to the host. Nothing runs,
and nothing is timed but the compiler.

  python -m benchmarks compiled --device=h200 [--networks=vgg16,inception]
      [--layouts=jit] [--batch_size=256] [--width=1.0] [--devices=4]

The networks are those of configs/santurkar2018/vgg.py and configs/inception.py
with BN, the batch is that of all devices together. A compilation of a network
of full width takes minutes.
"""

import argparse
import math
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from jax.experimental import topologies

from bn_jax.config import build, files, resolve
from bn_jax.experiment import cost
from bn_jax.training import devices as devices_lib

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What the compiler asks of a GPU of compute capability 9.0, by its data sheet.
_H200 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
dnn_version_info { major: 9 minor: 10 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_core: 233472 shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  l2_cache_size: 62914560
  memory_bandwidth: 4800000000000 device_memory_size: 151397597184
}
"""
# Device -> its platform, whose package has the compiler, and what describes
# four of them to it.
DEVICES = {
  'v5e': ('tpu', 'libtpu', dict(topology_name='v5e:2x2')),
  'h200': (
    'cuda',
    '"jax[cuda12]"',
    dict(topology_name='h200', topology='1 x 1 x 4', target_config=_H200),
  ),
}
CASES = {
  'vgg11': ('configs/santurkar2018/vgg.py', dict(name='vgg11')),
  'vgg16': ('configs/santurkar2018/vgg.py', dict(name='vgg16')),
  'inception': ('configs/inception.py', {}),
}
_HOST = re.compile(r'\b(infeed|outfeed|send|recv)\(')
_WRITTEN = re.compile(r'^\s+(?:ROOT )?%\S+ = (\(.*?\)|\S+) ([\w-]+)\(')
# They name what is there, and write nothing.
_NAMES = ('parameter', 'bitcast', 'tuple', 'get-tuple-element')


class Program(NamedTuple):
  """What a compiled step says of itself.

  Attributes:
    memory: bytes of arguments and temporaries on each device.
    messages: the numbers in each array of each collective.
    wide: shapes of the float32 arrays as large as activation maps that it
      writes to memory.
    transfers: instructions that speak to the host.
    seconds: of compiling.
  """

  memory: int
  messages: tuple[tuple[int, ...], ...]
  wide: tuple[str, ...]
  transfers: tuple[str, ...]
  seconds: float


def compiled(config, device: str, count: int) -> Program:
  """Compiles the step of a resolved run for so many devices of a kind."""
  platform, package, description = DEVICES[device]
  try:
    topology = topologies.get_topology_desc(platform=platform, **description)
  except (RuntimeError, NotImplementedError) as error:
    raise SystemExit(
      f'error: the compiler for {device} is not there: {error}; '
      f'pip install {package}'
    ) from error
  mesh = jax.sharding.Mesh(
    np.array(topology.devices[:count]), (devices_lib.AXIS,),
    axis_types=(jax.sharding.AxisType.Auto,),
  )  # fmt: skip
  # The devices of a run are those that are there; these are not.
  with mock.patch.object(build, 'mesh', lambda _: mesh):
    problem = build.problem(config)
    state = jax.eval_shape(problem.init, 0)
    split = build.source(config).shapes(config.batch_size)
    traced = build.step(config, problem).trace(state, split)
  start = time.perf_counter()
  program = traced.lower(lowering_platforms=(platform,)).compile()
  seconds = time.perf_counter() - start
  memory, text = program.memory_analysis(), program.as_text()
  return Program(
    memory.argument_size_in_bytes + memory.temp_size_in_bytes,
    tuple(c.sizes for c in cost.collectives(text)),
    tuple(wide_maps(text, config.batch_size // count, state.params)),
    tuple(_HOST.findall(text)),
    seconds,
  )


def wide_maps(text: str, examples: int, params: Any) -> Iterator[str]:
  """Yields shapes of float32 activation maps that a program writes to memory.

  Those are arrays of no parameter's shape with an axis of examples, then at
  least two of places and channels, at least 64 numbers an example. What is
  computed within a fusion is not written.
  """
  parameters = {leaf.shape for leaf in jax.tree.leaves(params)}
  entry = text[text.index('\nENTRY') :]
  for line in entry.splitlines():
    match = _WRITTEN.match(line)
    if not match or match[2] in _NAMES:
      continue
    for shape in re.findall(r'f32\[([\d,]+)\]', match[1]):
      whole = tuple(int(size) for size in shape.split(','))
      sizes = [size for size in whole if size > 1]
      is_map = len(sizes) > 2 and sizes[0] % examples == 0
      is_large = math.prod(sizes) >= 64 * examples
      if is_map and is_large and whole not in parameters:
        yield shape


def resolved(name: str, options):
  """Returns the run of a network with BN that is compiled."""
  file, model = CASES[name]
  config = files.load(str(ROOT / file)).to_dict()
  runs = resolve.experiment(config, {}).runs
  run = runs['batchnorm'] if 'batchnorm' in runs else next(iter(runs.values()))
  model = {**run.model, **model, 'lowering': 'library', 'width': options.width}
  return run.replace(
    batch_size=options.batch_size, compute_dtype='bfloat16', model=model
  )


def _prepare() -> None:
  """Tells the compilers that no device is there."""
  # libtpu would ask the cloud that it runs in what it is.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5e-4')
  # That of GPUs would try which of several kernels is fastest.
  flags = os.environ.get('XLA_FLAGS', '')
  os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_autotune_level=0'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--networks', default='vgg16,inception')
  parser.add_argument('--layouts', default='jit')
  parser.add_argument('--batch_size', type=int, default=256)
  parser.add_argument('--width', type=float, default=1.0)
  parser.add_argument('--device', choices=DEVICES, default='h200')
  parser.add_argument('--devices', type=int, default=4, choices=(1, 2, 4))
  options = parser.parse_args()
  _prepare()
  for name in options.networks.split(','):
    if name not in CASES:
      raise SystemExit(
        f'error: there is no network {name!r}; allowed: {", ".join(CASES)}'
      )
  print(f'{options.devices} x {options.device}, jax {jax.__version__}')
  for name in options.networks.split(','):
    for layout in options.layouts.split(','):
      config = resolved(name, options).replace(layout=layout)
      _print(name, config, compiled(config, options.device, options.devices))


def _print(name: str, config, program: Program) -> None:
  largest = max(map(sum, program.messages), default=0)
  small = [sum(sizes) for sizes in program.messages if sum(sizes) < largest]
  print(
    f'{name}, width {config.model["width"]}, batch {config.batch_size}, '
    f'{config.compute_dtype}, layout {config.layout}:\n'
    f'  memory     {program.memory / 1e6:,.0f} MB on each device\n'
    f'  messages   {len(program.messages)}: one of {largest:,} numbers, '
    f'{len(small)} of {max(small, default=0):,} or fewer\n'
    f'  float32    {len(program.wide)} activation maps are written in float32 '
    f'{sorted(set(program.wide)) or ""}\n'
    f'  host       {len(program.transfers)} transfers\n'
    f'  compiled   in {program.seconds:.0f} s',
    flush=True,
  )


if __name__ == '__main__':
  main()
