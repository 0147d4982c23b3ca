"""Holds the rounding of each lowering against float64.

layer: one 3 x 3 convolution of 256 channels on normal inputs behind a ReLU: its
value, and its gradients by input and kernel. networks: the gradient of the
loss, with BN, at initial weights and on random images; weights, images and
labels are other ones with each seed. All errors are relative, in the 2-norm.

  python benchmarks/rounding.py [--networks=vgg11,vgg16,bn_inception]

A network's gradient has an error of its own: the last digit of a value can
switch a ReLU or a maximum, whatever the lowering.

With --runs nothing is computed: it says how far apart the losses of training
lie between two working directories, such as of two lowerings, beside how far
apart the seeds of each lie: |difference of log loss|, mean over steps.

  python benchmarks/rounding.py --runs=runs/winograd,runs/product
"""

import argparse
import functools
import itertools
import os
import pathlib
import platform
import statistics
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from bn_jax import models
from bn_jax.models.lowering import conv
from bn_jax.storage import records, run_folder

_LOWERINGS = ('library', 'product', 'winograd')
_CHANNELS = 256
# Pixels a side: BN-Inception halves its maps five times.
_SIDES = {'vgg11': 32, 'vgg16': 32, 'resnet20': 32, 'bn_inception': 64}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--networks', default='vgg11,vgg16,bn_inception')
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument('--width', type=float, default=1.0)
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--runs', default=None, help='DIR,DIR: their losses')
  options = parser.parse_args()
  if options.runs:
    workdirs = [pathlib.Path(each) for each in options.runs.split(',')]
    if len(set(workdirs)) != 2:
      sys.exit(
        f'error: --runs: {options.runs!r}; allowed: two folders, DIR,DIR'
      )
    _compare(*workdirs)
    return
  networks = options.networks.split(',')
  if not set(networks) <= set(_SIDES):
    parser.error(f'--networks: {networks}; allowed: {", ".join(_SIDES)}')
  if options.seeds < 1:
    parser.error(f'--seeds: {options.seeds}; allowed: 1 or more')
  jax.config.update('jax_default_matmul_precision', 'highest')
  jax.config.update('jax_enable_x64', True)
  device = jax.devices()[0]
  print(
    f'{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax '
    f'{jax.__version__}, Python {platform.python_version()}; batch '
    f'{options.batch_size}, width {options.width}, {options.seeds} seeds: '
    'median (range) of the relative error of float32\n'
  )
  print(f'| | {" | ".join(_LOWERINGS)} |\n{"|---" * 4}|')
  seeds = range(options.seeds)
  for part, index in (('value', 0), ('by input', 1), ('by kernel', 2)):
    errors = {
      lowering: [_of_layer(lowering, seed)[index] for seed in seeds]
      for lowering in _LOWERINGS
    }
    _print_row(f'a layer, {part}', errors)
  for name in networks:
    _print_row(name, _of_network(name, options))


def _compare(one: pathlib.Path, other: pathlib.Path) -> None:
  """Prints, run by run, how far apart the losses of training are.

  Raises:
    SystemExit: there is no run of which both have a seed.
  """
  folders = {
    workdir: {(each.run, each.seed): each for each in run_folder.below(workdir)}
    for workdir in (one, other)
  }
  shared = [key for key in folders[one] if key in folders[other]]
  if not shared:
    sys.exit(
      f'error: --runs: {one} and {other} have no seed of a run in common; '
      'allowed: two working directories with the same runs and seeds'
    )
  losses = {}
  for workdir in (one, other):
    for run, seed in shared:
      folder = folders[workdir][run, seed]
      losses.setdefault(run, {})[workdir, seed] = np.log(
        [
          record.values['data_loss']
          for record in records.read(folder.scalars)
          if record.name == 'train'
        ]
      )
  print('| run | seed to the same seed | seed to another |\n|---|---|---|')
  for run, curves in losses.items():
    apart = {True: [], False: []}
    for (here, seed), (there, neighbour) in itertools.combinations(curves, 2):
      if (here == there) == (seed == neighbour):
        continue
      steps = zip(curves[here, seed], curves[there, neighbour])
      distance = np.mean([abs(a - b) for a, b in steps])
      apart[seed == neighbour].append(float(distance))
    cells = [
      f'{min(d):.3f} to {max(d):.3f}' if d else 'one seed'
      for d in apart.values()
    ]
    print(f'| {run} | {" | ".join(cells)} |')


@functools.cache
def _of_layer(lowering: str, seed: int) -> list[float]:
  """Returns the errors of (value, gradient by input, gradient by kernel)."""
  generator = np.random.default_rng(seed)
  shape = (4, 16, 16, _CHANNELS)
  x = np.maximum(generator.normal(size=shape), 0)
  kernel = generator.normal(size=(3, 3, _CHANNELS, _CHANNELS))
  arrays = [np.float32(a) for a in (x, kernel, generator.normal(size=shape))]

  def run(lowering, x, kernel, dy):
    y, pull = jax.vjp(
      lambda x, k: conv.convolve(x, k, lowering=lowering), x, kernel
    )
    return y, *pull(dy)

  run = jax.jit(run, static_argnums=0)
  exact = run('product', *map(np.float64, arrays))
  return [_error(*both) for both in zip(run(lowering, *arrays), exact)]


def _of_network(name: str, options) -> dict[str, list[float]]:
  """Returns lowering -> the error of a network's gradient, of each seed."""
  batches, side = [], _SIDES[name]
  for seed in range(options.seeds):
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(options.batch_size, side, side, 3))
    labels = generator.integers(10, size=options.batch_size)
    batches.append((np.float32(images), labels))
  inits, errors = None, {}
  # In float64 any lowering is exact; this one is the fastest.
  for lowering, dtype in (
    ('winograd', np.float64),
    *((each, np.float32) for each in _LOWERINGS),
  ):
    init, gradient = _programs(name, lowering, options.width)
    inits = inits or [init(seed) for seed in range(options.seeds)]
    gradients = []
    for variables, (images, labels) in zip(inits, batches):
      cast = functools.partial(jnp.asarray, dtype=dtype)
      at = gradient(jax.tree.map(cast, variables), cast(images), labels)
      gradients.append(_flat(at))
    if dtype is np.float64:
      exact = gradients
    else:
      errors[lowering] = [_error(*both) for both in zip(gradients, exact)]
  return errors


def _programs(name: str, lowering: str, width: float):
  """Returns (seed -> float32 variables, (variables, batch) -> gradient)."""
  module = models.make(
    name, num_classes=10, norm='batch', lowering=lowering, width=width
  )
  shape = (1, _SIDES[name], _SIDES[name], 3)

  @jax.jit
  def init(seed):
    return module.init(
      jax.random.key(seed), jnp.zeros(shape, jnp.float32), statistics='running'
    )

  def loss(params, batch_stats, images, labels):
    logits, _ = module.apply(
      {'params': params, 'batch_stats': batch_stats}, images,
      statistics='batch', mutable=['batch_stats'],
    )  # fmt: skip
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()

  @jax.jit
  def gradient(variables, images, labels):
    params, batch_stats = variables['params'], variables['batch_stats']
    return jax.grad(loss)(params, batch_stats, images, labels)

  return init, gradient


def _flat(tree) -> np.ndarray:
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def _error(inexact, exact) -> float:
  difference = np.float64(inexact) - np.float64(exact)
  return float(np.linalg.norm(difference) / np.linalg.norm(exact))


def _print_row(what: str, errors: dict[str, list[float]]) -> None:
  cells = [
    f'{statistics.median(e):.1e} ({min(e):.1e} to {max(e):.1e})'
    for e in errors.values()
  ]
  print(f'| {what} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
  main()
