"""Times training steps in turns: ours, PyTorch's in three forms, stock flax's.

Networks with Batch Normalization and SGD with momentum 0.9, in float32: VGG-11,
VGG-16 and ResNet-20 (a batch of 128 at 32 pixels), BN-Inception (16 at 224);
with --dtype=bfloat16 all compute in it and keep parameters in float32.
Each side is a process of its own; they take turns, and one that waits uses no
core. Ours is the step of a run, with its metrics, in the default config. Peers,
from `train_step_networks`: PyTorch eager in NCHW (nchw) and channels_last, and
by torch.compile in channels_last (compiled: minutes to compile for
BN-Inception), and nn.Conv, nn.BatchNorm and nn.max_pool of flax (flax).

Values first: from our weights and batch, the loss must be the same to 1e-5, and
the first update to 5 % of its length (the rounding of float32 switches ReLUs
and maxima, and a deep network multiplies it), or the program exits with 1.

Printed are images/s (median and range), the memory that each process had at
most, from its start and after everything was compiled, the time of each peer
over ours, and that of the best PyTorch form of each round over ours, beside its
bar. Then which part of our step takes how long, and how long it must: for
convolutions, at the speed of a large product, the FLOPs of three forward passes
(Winograd needs fewer, and may pass this limit); for the rest, at the speed of a
copy, what it reads and writes.

  python -m benchmarks train_step [--networks=vgg11,resnet20] [--rounds=6]
    [--peers=nchw,channels_last] [--lowerings=default,product]
    [--dtype=bfloat16] [--batch_size=1024]

It needs `pip install -r requirements-bench.txt`, but for --peers=flax.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import statistics
import tempfile

import numpy as np
import processes
import results
import train_step_networks as networks
import turns

_FOLDER = pathlib.Path(__file__).resolve().parent
_TORCH = ('nchw', 'channels_last', 'compiled')
_PEERS = (*_TORCH, 'flax')
# Of the loss, and of the first update; in bfloat16, whose rounding is 2**-8, an
# update says little more than its direction.
_TOLERANCES = {'float32': (1e-5, 0.05), 'bfloat16': (2e-2, 0.7)}
# How many times as fast as the best PyTorch form, at least.
_BARS = {'vgg11': 1.3, 'vgg16': 1.6, 'resnet20': 1.0, 'bn_inception': 1.7}
_MEMORY_BAR = 1.3  # times the memory of the same form, at most


def main() -> None:
  options = _options()
  packages = ['jax', 'flax']
  if set(options.peers) & set(_TORCH):
    packages.append('torch')
    if importlib.util.find_spec('torch') is None:
      raise SystemExit(
        'PyTorch is not installed here: pip install -r requirements-bench.txt, '
        'in an environment of its own, or --peers=flax'
      )
  versions = [f'{name} {importlib.metadata.version(name)}' for name in packages]
  print(
    f'{os.cpu_count()} cores, Python {platform.python_version()}, '
    f'{", ".join(versions)}, {options.dtype}',
    flush=True,
  )
  for name in options.networks:
    _measure(name, options)


def _options() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--networks', default=','.join(networks.CASES))
  parser.add_argument('--peers', default=','.join(_PEERS))
  parser.add_argument(
    '--lowerings', default='default', help='of ours; the first is compared'
  )
  parser.add_argument('--rounds', type=int, default=6)
  parser.add_argument(
    '--seconds', type=float, default=2.0,
    help='of a turn, at least: a short step is taken several times',
  )  # fmt: skip
  parser.add_argument(
    '--warm_up', type=float, default=4.0,
    help='seconds at the start of a turn that are not counted',
  )  # fmt: skip
  parser.add_argument(
    '--batch_size', type=int, default=None, help='instead of 128, and 16'
  )
  parser.add_argument('--dtype', choices=_TOLERANCES, default='float32')
  options = parser.parse_args()
  for name, allowed in (
    ('networks', tuple(networks.CASES)),
    ('peers', _PEERS),
    ('lowerings', ('default', 'auto', 'product', 'winograd', 'library')),
  ):
    values = getattr(options, name).split(',')
    for value in values:
      if value not in allowed:
        parser.error(f'--{name} has {value!r}; allowed: {", ".join(allowed)}')
    setattr(options, name, values)
  return options


def _measure(name: str, options: argparse.Namespace) -> None:
  """Compares and times one network."""
  case = networks.CASES[name]
  batch_size = options.batch_size or case.batch_size
  print(f'\n{name}: batch {batch_size} at {case.side} pixels', flush=True)
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    sides = {}
    for lowering in options.lowerings:
      label = 'bn_jax' if lowering == 'default' else f'bn_jax, {lowering}'
      sides[label] = stack.enter_context(
        _jax('bn_jax', name, folder, batch_size, options.dtype, lowering)
      )
    # These have written weights and batch, which the peers read.
    for side in list(sides.values()):
      side.ask('ready')
    for peer in options.peers:
      sides[peer] = stack.enter_context(
        _peer(peer, name, folder, options.dtype)
      )
    _compare(sides, pathlib.Path(folder), *_TOLERANCES[options.dtype])
    times = _times(sides, options)
    peaks = {label: side.ask('memory') for label, side in sides.items()}
    # Last, since the profiler needs memory.
    first = next(iter(sides))
    parts = sides[first].ask('parts', network=name, batch_size=batch_size)
  _print(name, times, peaks, batch_size)
  _print_parts(f'{name}, {first}', statistics.median(times[first]), parts)


def _jax(side, name, folder, *words) -> processes.Process:
  return processes.Process(
    str(_FOLDER / 'train_step_jax.py'), side, name, folder, *map(str, words)
  )


def _peer(peer, name, folder, dtype) -> processes.Process:
  if peer == 'flax':
    return _jax(peer, name, folder, 0, dtype, '')
  return processes.Process(
    str(_FOLDER / 'train_step_torch.py'), peer, name, folder, dtype
  )


def _compare(sides, folder: pathlib.Path, of_loss, of_update) -> None:
  """Takes the first step of all at once, and stops unless it is the same."""
  for side in sides.values():
    side.tell('steps', count=1)  # compiles it
  losses = [side.answer()['loss'] for side in sides.values()]
  start, updates = _arrays(folder / 'params.npz'), []
  for i, side in enumerate(sides.values()):
    path = folder / f'after{i}.npz'
    side.ask('save', path=str(path))
    after = _arrays(path)
    updates.append({key: after[key] - start[key] for key in start})
  for label, loss, update in zip(sides, losses, updates):
    difference = _length(
      {key: update[key] - updates[0][key] for key in update}
    ) / _length(updates[0])
    print(
      f'  {label:15s} loss {loss:.6f}, the first update differs by '
      f'{difference:.1e}',
      flush=True,
    )
    if abs(loss / losses[0] - 1) > of_loss or not difference < of_update:
      raise SystemExit(f'{label} computes something else')


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  with np.load(path) as arrays:
    return dict(arrays)


def _length(arrays: dict[str, np.ndarray]) -> float:
  return float(sum(np.sum(np.square(a)) for a in arrays.values())) ** 0.5


def _times(sides, options: argparse.Namespace) -> dict[str, list[float]]:
  """Returns the seconds of a step of each side in each round.

  A process that has waited is slow at first: caches are the other's, and a
  virtual machine has given its free memory back (VGG-16 on two cores: 0.69 s in
  the first two steps of a turn, 0.46 over 30).
  """
  seconds = {}
  for label, side in sides.items():
    side.ask('forget_peak')
    seconds[label] = side.ask('steps', count=1)['seconds']
  times = {label: [] for label in sides}
  for _ in range(options.rounds):
    for label, side in sides.items():
      for least in (options.warm_up, options.seconds):
        count = max(1, round(least / seconds[label]))
        answer = side.ask('steps', count=count)
      times[label].append(answer['seconds'])
  return times


def _print(name, times, peaks, batch_size) -> None:
  for label, seconds in times.items():
    rates = [batch_size / s for s in seconds]
    print(
      f'  {label:15s} {statistics.median(rates):7.1f} images/s '
      f'({min(rates):.1f} to {max(rates):.1f}), at most '
      f'{peaks[label]["peak_mb"]:.0f} MB'
      + (
        f', {peaks[label]["steps_mb"]:.0f} after compiling'
        if 'steps_mb' in peaks[label]
        else ''
      )
    )
  ours = next(iter(times))
  torch = [label for label in times if label in _TORCH]
  if torch:
    best = [min(each) for each in zip(*(times[label] for label in torch))]
    turns.say(
      f'  {name}, the best PyTorch / {ours}', times[ours], best, at_least=True,
      limit=_BARS[name], peer_name='PyTorch', headline=True,
    )  # fmt: skip
    memory = {label: peak['peak_mb'] for label, peak in peaks.items()}
    least = min(torch, key=memory.get)
    turns.say(
      f'  {name}, memory of {ours} / PyTorch, {least}', [memory[least]],
      [memory[ours]], limit=_MEMORY_BAR, unit='MB', peer_name=least,
      headline=True,
    )  # fmt: skip
  for label, seconds in list(times.items())[1:]:
    turns.say(
      f'  {name}, {label} / {ours}', times[ours], seconds, at_least=True,
      peer_name=label,
    )  # fmt: skip


def _print_parts(name: str, seconds: float, parts: dict) -> None:
  """Prints how long each part of a step takes, and how long it must."""
  print(
    f'  {name}: where {1e3 * seconds:.0f} ms of a step go; a large product '
    f'{parts["flops"] / 1e9:.0f} GFLOP/s, a copy '
    f'{parts["bandwidth"] / 1e9:.1f} GB/s'
  )
  for part, share in parts['shares'].items():
    taken, limit = share * seconds, parts['limits'].get(part)
    of_limit = limit / taken if limit and taken else None
    print(
      f'    {part:13s} {1e3 * taken:7.1f} ms, {100 * share:4.1f} %'
      + (
        f'; limit {1e3 * limit:.1f} ms, {100 * of_limit:.0f} % of it reached'
        if of_limit
        else ''
      ),
      flush=True,
    )
    results.add(
      f'{name}, {part}', ours=taken, unit='s', share=of_limit,
      share_of_step=share,
    )  # fmt: skip


if __name__ == '__main__':
  main()
