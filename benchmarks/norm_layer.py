"""Times forward and backward pass of one BN layer: ours, flax's and PyTorch's.

All run in one process, in turns, on the same data; y, dx, dscale and dbias are
compared first. Variances are exact, except in flax's fast default, which is
timed too. A floor is printed: nine passes over x at this machine's speed of
copying. The process keeps its memory between runs: glibc would return arrays of
32 MiB to the system, and clearing them again takes longer than any layer here.

  pip install torch==2.13.0    # the CPU build; not needed otherwise
  python benchmarks/norm_layer.py [--pairs=21]

or norms of ours, each against the first: alone, and with what follows in a
network, its own nonlinearity or a ReLU:

  python benchmarks/norm_layer.py --norms=batch,dyt,derf,frn
"""

import argparse
import os
import pathlib
import platform
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import turns
from flax import linen as nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from bn_jax import norms

_SHAPES = ((128, 32, 32, 64), (32, 56, 56, 192))
# Read x for the mean; read x for the variance; read x, write y; read x and dy
# for the two sums of the backward pass; read x and dy, write dx.
_PASSES = 9
# Relative; float32 sums in another order differ by less, another formula by
# more.
_LARGEST_DIFFERENCE = 1e-3
_OURS = 'bn_jax'
# How many times as fast as a peer, at least.
_BARS = {
  'flax, exact variance': 1.3, 'PyTorch, NCHW': 1.0,
  'PyTorch, channels_last': 1.0,
}  # fmt: skip
# The same for our norms against 'batch'.
_BARS_OF_NORMS = {'dyt': 1.5, 'derf': 1.5, 'frn': 1.0}


# Settings of glibc's malloc, which reads them when a process starts.
_KEEP_MEMORY = {
  'MALLOC_ARENA_MAX': '1',
  'MALLOC_MMAP_THRESHOLD_': str(2**32),
  'MALLOC_TRIM_THRESHOLD_': str(2**33),
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--pairs', type=int, default=21)
  parser.add_argument('--shape', type=str, default='', help='128,32,32,64')
  parser.add_argument('--norms', type=str, default='', help='batch,dyt,frn')
  options = parser.parse_args()
  if any(os.environ.get(k) != v for k, v in _KEEP_MEMORY.items()):
    environment = {**os.environ, **_KEEP_MEMORY}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)
  shapes = _SHAPES
  if options.shape:
    shapes = (tuple(int(size) for size in options.shape.split(',')),)
  device = jax.devices()[0]
  print(
    f'{device.platform} {device.device_kind}, jax {jax.__version__}, '
    f'Python {platform.python_version()}, float32, {options.pairs} pairs'
  )
  for shape in shapes:
    if options.norms:
      for is_alone in (True, False):
        _compare_norms(shape, options.norms.split(','), is_alone, options.pairs)
    else:
      _measure(shape, options.pairs)


def _measure(shape, pairs) -> None:
  x, dy = _data(shape)
  programs = {
    _OURS: _jax_program(_ours, x, dy),
    'flax, exact variance': _jax_program(_flax(fast=False), x, dy),
    'flax, fast variance': _jax_program(_flax(fast=True), x, dy),
    **_torch_programs(x, dy),
  }
  results = {name: program() for name, program in programs.items()}
  _compare(results)
  copy = _jax_program_of_copy(x)
  copy()
  seconds = {name: [] for name in (*programs, 'copy')}
  for _ in range(pairs):
    for name, program in (*programs.items(), ('copy', copy)):
      start = time.perf_counter()
      program()
      seconds[name].append(time.perf_counter() - start)
  _print(shape, seconds)


def _compare_norms(shape, names, is_alone, pairs) -> None:
  """Prints how many times as fast as the first of our norms the others are."""
  x, dy = _data(shape)
  programs = [_norm_program(name, x, dy, is_alone) for name in names]
  for program in programs:
    program()
  seconds, _ = turns.alternating(pairs, *programs)
  what = 'alone' if is_alone else 'with a nonlinearity'
  print(f'{list(shape)}, {what}')
  for name, times in zip(names, seconds):
    print(f'  {name:23s} {statistics.median(times) * 1e3:7.1f} ms')
  bars = _BARS_OF_NORMS if names[0] == 'batch' else {}
  for name, times in zip(names[1:], seconds[1:]):
    turns.say(
      f'  {list(shape)}, {names[0]} / {name}, {what}', times, seconds[0],
      at_least=True, limit=bars.get(name), peer_name=names[0],
    )  # fmt: skip


def _norm_program(name, x, dy, is_alone):
  """Returns () -> (y, gradients of parameters and x) of one of our norms."""
  norm = norms.make(name)
  layers = [norm.layer('norm')]
  if not is_alone and norm.unit:
    layers.append(norm.unit('unit'))
  x, dy = jnp.asarray(x), jnp.asarray(dy)
  variables = [
    jax.jit(lambda x, layer=layer: layer.init(
      jax.random.key(0), x, statistics='batch'
    ))(x)
    for layer in layers
  ]  # fmt: skip

  def apply(variables, x):
    for layer, own in zip(layers, variables):
      x, _ = layer.apply(own, x, statistics='batch', mutable=['batch_stats'])
    return x if is_alone or norm.unit else nn.relu(x)

  @jax.jit
  def both(variables, x, dy):
    y, pull = jax.vjp(apply, variables, x)
    return y, pull(dy)

  return lambda: jax.block_until_ready(both(variables, x, dy))


def _data(shape):
  generator = np.random.default_rng(0)
  x = generator.normal(3, 2, size=shape).astype(np.float32)
  return x, generator.normal(size=shape).astype(np.float32)


def _ours(x, scale, bias):
  return norms.batch_norm(x, scale, bias)[0]


def _flax(*, fast):
  layer = nn.BatchNorm(use_running_average=False, use_fast_variance=fast)

  def apply(x, scale, bias):
    zeros = jnp.zeros_like(bias)
    variables = {
      'params': {'scale': scale, 'bias': bias},
      'batch_stats': {'mean': zeros, 'var': zeros + 1},
    }
    return layer.apply(variables, x, mutable=['batch_stats'])[0]

  return apply


def _jax_program(function, x, dy):
  """Returns () -> (y, dx, dscale, dbias), arrays of JAX."""
  x, dy = jnp.asarray(x), jnp.asarray(dy)
  channels = x.shape[-1]

  @jax.jit
  def both(x, scale, bias, dy):
    y, pull = jax.vjp(function, x, scale, bias)
    return y, *pull(dy)

  scale, bias = jnp.full(channels, 1.5), jnp.full(channels, 0.5)
  return lambda: jax.block_until_ready(both(x, scale, bias, dy))


def _torch_programs(x, dy):
  """Returns the same programs of torch.nn.BatchNorm2d; {} without PyTorch."""
  try:
    import torch
  except ImportError:
    print('PyTorch is not installed: measured without it')
    return {}
  channels = x.shape[-1]

  def program(memory_format):
    layer = torch.nn.BatchNorm2d(channels)
    torch.nn.init.constant_(layer.weight, 1.5)
    torch.nn.init.constant_(layer.bias, 0.5)
    inputs = [
      torch.from_numpy(a.transpose(0, 3, 1, 2)).contiguous(
        memory_format=memory_format
      )
      for a in (x, dy)
    ]

    def run():
      leaf = inputs[0].requires_grad_()
      leaf.grad = layer.weight.grad = layer.bias.grad = None
      y = layer(leaf)
      y.backward(inputs[1])
      dx = leaf.grad.detach().permute(0, 2, 3, 1)
      y = y.detach().permute(0, 2, 3, 1)
      return y, dx, layer.weight.grad, layer.bias.grad

    return run

  return {
    'PyTorch, NCHW': program(torch.contiguous_format),
    'PyTorch, channels_last': program(torch.channels_last),
  }


def _jax_program_of_copy(x):
  copy = jax.jit(lambda x: x + 1)
  x = jnp.asarray(x)
  return lambda: jax.block_until_ready(copy(x))


def _compare(results) -> None:
  """Stops unless all programs compute the same y, dx, dscale and dbias."""
  for name, arrays in results.items():
    for y, peer_y in zip(results[_OURS], arrays):
      y, peer_y = np.asarray(y), np.asarray(peer_y)
      difference = np.abs(y - peer_y).max() / np.abs(y).max()
      if not difference < _LARGEST_DIFFERENCE:
        raise SystemExit(f'{name} computes something else: {difference:.1e}')


def _print(shape, seconds) -> None:
  # A copy is two passes: it reads x and writes it.
  floor = statistics.median(seconds.pop('copy')) / 2 * _PASSES
  ours = seconds[_OURS]
  share = 100 * floor / statistics.median(ours)
  print(f'{list(shape)}: the floor is {floor * 1e3:.1f} ms, ', end='')
  print(f'{share:.0f} % of what bn_jax takes')
  for name, times in seconds.items():
    print(f'  {name:23s} {statistics.median(times) * 1e3:7.1f} ms')
    if name != _OURS:
      turns.say(
        f'  {list(shape)}, {name} / {_OURS}', ours, times, at_least=True,
        limit=_BARS.get(name), peer_name=name, share=share / 100,
      )  # fmt: skip


if __name__ == '__main__':
  main()
