"""Checks the measures of the 2018 paper against PyTorch, and times them.

The network is VGG-11 at CIFAR's shape, on random images; all runs in one
process.

values: the landscape along a direction and internal covariate shift, with and
without BN, at the initial weights and after three steps of training, against
`benchmarks/analysis_torch.py`, which shares no code with ours. In float64 they
must agree to 1e-4 relative, or the program exits with 1; float32 is only shown.

speed, with BN, in float32, with both sides of each ratio in turns: a look at E
points against E + 1 gradients, and against PyTorch's loop; the memory of looks;
covariate shift of k layers, with the update that it needs, against k + 2
gradients; training with a look at 4 points every --every steps against
training without.

  python benchmarks/analysis.py [--only=values|speed] [--pairs=5]

Only this benchmark needs PyTorch (2.13.0, the CPU build).
"""

import argparse
import ctypes
import functools
import importlib.util
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import turns

from bn_jax import analysis, models, optim, types
from bn_jax.data.batches import order
from bn_jax.training import problem

_RATE = 0.1  # the paper's learning rate of VGG
# Examples whose values are compared, at most: PyTorch's double precision and
# second derivatives take minutes even for these.
_COMPARED = 16
_WITHOUT_TORCH = (
  'PyTorch is not installed here: pip install torch==2.13.0 (the CPU build)'
)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--pairs', type=int, default=5)
  parser.add_argument('--points', default='4,16,64', help='of a look')
  parser.add_argument('--every', type=int, default=100, help='steps to a look')
  parser.add_argument('--width', type=float, default=1.0)
  parser.add_argument('--lowering', default='auto', choices=models.LOWERINGS)
  parser.add_argument('--only', choices=('values', 'speed'), default=None)
  options = parser.parse_args()
  jax.config.update('jax_default_matmul_precision', 'highest')
  make = functools.partial(_problem, options.width, options.lowering)
  _print_machine(options)
  if options.only != 'speed':
    num_compared = min(options.batch_size, _COMPARED)
    _values(functools.partial(make, num_compared), num_compared, options.width)
  if options.only != 'values':
    _speed(functools.partial(make, options.batch_size), options)


def _values(make, batch_size: int, width: float) -> None:
  if not _has_torch():
    raise SystemExit(_WITHOUT_TORCH)
  import analysis_values

  print(f'Values of the measures, of a batch of {batch_size}.', end=' ')
  if not analysis_values.compare(make, width):
    raise SystemExit(1)


def _speed(make, options: argparse.Namespace) -> None:
  """Prints each ratio beside its limit."""
  vgg, split = make('batch', jnp.float32)
  state = vgg.init(0)
  batch = vgg.batch(state, split)
  loss, params = vgg.loss(state, batch, 'batch'), state.params
  gradient = jax.jit(lambda loss, params: jax.value_and_grad(loss)(params))

  def gradients(count):
    for _ in range(count):
      jax.block_until_ready(gradient(loss, params))

  gradients(1)
  looks = {
    points: functools.partial(
      analysis.along_gradient, loss, params,
      np.geomspace(_RATE / 2, 4 * _RATE, points),
    )
    for points in map(int, options.points.split(','))
  }  # fmt: skip
  next(iter(looks.values()))()
  for points, look in looks.items():
    count = points + 1
    times, _ = turns.alternating(
      options.pairs, functools.partial(gradients, count), look
    )
    turns.say(
      f'a look at {points} points / {count} gradients', *times, limit=1.05
    )
  _memory(looks)
  if _has_torch():
    _against_torch(options, looks, params, batch)
  else:
    print(_WITHOUT_TORCH)
  _shift(options.pairs, vgg, state, batch, gradients)
  _training(options, vgg, split)


def _memory(looks: dict[int, Callable[[], Any]]) -> None:
  """Prints the peak memory of each look, the largest resident set of Linux."""
  status, reset = (
    pathlib.Path('/proc/self') / name for name in ('status', 'clear_refs')
  )
  if not reset.exists():
    print('peak memory of a look: measured on Linux alone')
    return
  peaks = []
  for points, look in looks.items():
    ctypes.CDLL(None).malloc_trim(0)
    reset.write_text('5')
    look()
    (line,) = (x for x in status.read_text().split('\n') if 'VmHWM' in x)
    peaks.append(int(line.split()[1]) / 1024)
    print(f'peak memory, a look at {points} points: {peaks[-1]:.0f} MiB')
  few, *_, many = looks
  what = f'peak memory, {many} points / {few} points'
  turns.say(what, [peaks[0]], [peaks[-1]], limit=1.05)


def _against_torch(options, looks, params, batch) -> None:
  """Times PyTorch's loop of the same looks, in its faster memory format."""
  import analysis_torch
  import analysis_values
  import torch

  loops = {}
  for name in ('contiguous_format', 'channels_last'):
    memory_format = getattr(torch, name)
    model = analysis_torch.VGG11(batch_norm=True, width=options.width)
    analysis_torch.load(model, params).to(memory_format=memory_format)
    objective = analysis_torch.Objective(
      batch.images, batch.labels, model, memory_format=memory_format
    )
    loops[name] = functools.partial(
      analysis_torch.along_direction, model, objective
    )
  for points, look in looks.items():
    ours = look()
    peers = {
      name: functools.partial(loop, ours['step_size'].tolist())
      for name, loop in loops.items()
    }
    for name, loop in peers.items():
      worst = analysis_values.differences(ours, loop())
      print(
        f'{points} points, PyTorch in {name}: differs by at most '
        f'{max(worst.values()):.1e} ({max(worst, key=worst.get)})'
      )
    (our_times, *others), _ = turns.alternating(
      options.pairs, look, *peers.values()
    )
    medians = [statistics.median(times) for times in others]
    best = medians.index(min(medians))
    turns.say(
      f'PyTorch ({list(loops)[best]}) / a look at {points} points',
      our_times, others[best], limit=1.5, at_least=True,
    )  # fmt: skip


def _shift(pairs, vgg, state, batch, gradients) -> None:
  """Times covariate shift as in training, with the gradient of the update."""
  names = [name for name, _ in vgg.layers(state)]
  third = len(names) // 3
  for layers in ([names[third], names[2 * third]], names):
    measure = analysis.make('covariate_shift', layers=layers, chunk_size=None)
    look = functools.partial(measure, vgg, state, [batch])
    look()  # compiles it
    count = len(layers) + 2
    times, _ = turns.alternating(
      pairs, functools.partial(gradients, count), look
    )
    what = f'covariate shift of {len(layers)} layers / {count} gradients'
    turns.say(what, *times, limit=1.1)


def _training(options, vgg, split) -> None:
  """Times --every steps with a look at 4 points against the steps alone."""
  step = jax.jit(vgg.step, donate_argnums=0)
  measure = analysis.make('along_gradient', chunk_size=None)
  states = {'without': vgg.init(0), 'with': vgg.init(0)}
  look_times = []

  def train(name, steps=options.every):
    state = states[name]
    for _ in range(steps):
      state = step(state, split)
    states[name] = jax.block_until_ready(state)
    if name == 'with':
      start = time.perf_counter()
      measure(vgg, state, [vgg.batch(state, split)])
      look_times.append(time.perf_counter() - start)

  for name in states:  # compiles them
    train(name, steps=1)
  look_times.clear()
  ways = [functools.partial(train, name) for name in states]
  (without, both), _ = turns.alternating(options.pairs, *ways)
  what = f'training with a look every {options.every} steps / without'
  turns.say(what, without, both, limit=1.1)
  sums = [a + b for a, b in zip(without, look_times)]
  turns.say(
    'the same, from the times of steps and look', without, sums, limit=1.1
  )
  same = jax.tree.map(
    lambda a, b: bool((a == b).all()), *(x.params for x in states.values())
  )
  verdict = 'holds' if all(jax.tree.leaves(same)) else 'does not hold'
  print(f'parameters bit-identical with and without looks: {verdict}')


def _problem(width, lowering, batch_size, norm, dtype, weight_decay=0.0):
  """Returns (the Problem of VGG-11, random images with random labels)."""
  module = models.make(
    'vgg11', num_classes=10, norm=norm, width=width, lowering=lowering
  )
  generator = np.random.default_rng(0)
  count = 4 * batch_size
  split = types.Split(
    images=jnp.asarray(
      generator.integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
    ),
    labels=jnp.asarray(generator.integers(10, size=count), jnp.int32),
    mean=jnp.full(3, 127.5, jnp.float32),
    std=jnp.full(3, 74.0, jnp.float32),
  )
  vgg = problem.make(
    module,
    optim.sgd(optim.constant(learning_rate=_RATE), momentum=0.9),
    sampler=order.sampler(num_examples=count, batch_size=batch_size),
    penalty=optim.weight_decay(weight_decay=weight_decay),
    image_shape=(32, 32, 3),
    layers=models.layers,
    taps=models.taps(module),
    compute_dtype=dtype,
  )
  # `init` runs once, in less time than optimizing its program would take.
  unoptimized = {'xla_backend_optimization_level': 0}
  init = jax.jit(vgg.init, compiler_options=unoptimized)
  return vgg._replace(init=init), split


def _has_torch() -> bool:
  return importlib.util.find_spec('torch') is not None


def _print_machine(options) -> None:
  device = jax.devices()[0]
  print(
    f'{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax '
    f'{jax.__version__}, Python {platform.python_version()}; batch '
    f'{options.batch_size}, width {options.width}, lowering '
    f'{options.lowering}\n',
    flush=True,
  )


if __name__ == '__main__':
  main()
