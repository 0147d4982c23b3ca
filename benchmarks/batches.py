"""Times a batch that is drawn from memory and augmented in the step.

step: a training step of VGG-11 with BN on images of 32 x 32, with crop and flip
and without, in turns. draw: drawing and gathering the next batch of 60,000
MNIST-sized images, against the whole step of the MLP. read: a split from disk
and from its cache, if a data_dir is given.

  python benchmarks/batches.py [--data_dir=DIR]
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import results
import turns

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from bn_jax import keys, models, optim, types
from bn_jax.data import reading
from bn_jax.data.batches import augment, order
from bn_jax.training import problem


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--pairs', type=int, default=5)
  parser.add_argument('--width', type=float, default=1.0)
  parser.add_argument('--data_dir', default=None)
  options = parser.parse_args()
  step(options)
  draw(options)
  if options.data_dir is not None:
    read(options)


def step(options: argparse.Namespace) -> None:
  """Times a step with crop and flip, and one without."""
  module = models.make(
    'vgg11', num_classes=10, norm='batch', width=options.width
  )
  split = _split(5_000, (32, 32, 3))
  runs = {}
  for name, augmentation in (
    ('plain', augment.make()),
    ('crop and flip', augment.make(crop_padding=4, flip=True)),
  ):
    vgg = _problem(module, split, options.batch_size, augmentation)
    whole = lambda state, split, vgg=vgg: (vgg.step(state, split), None)
    runs[name] = _Run(jax.jit(whole, donate_argnums=0), vgg.init(0), split)
    runs[name].seconds(steps=1)
  times = {name: [] for name in runs}
  for _ in range(options.pairs):
    for name, run in runs.items():
      times[name].append(run.seconds(steps=2))
  for name, seconds in times.items():
    print(f'VGG-11 step, {name:14}{1000 * statistics.median(seconds):9.1f} ms')
  turns.say('  crop and flip / plain', *times.values(), limit=1.03)


def draw(options: argparse.Namespace) -> None:
  """Times the draw of a batch, that with its images, and a step of the MLP."""
  split = _split(60_000, (28, 28, 1))
  module = models.make('mlp', num_classes=10, norm='batch')
  mlp = _problem(module, split, 60, augment.make())
  sampler = order.sampler(num_examples=60_000, batch_size=60)

  def draw_only(state, split):
    del split
    index, new = sampler.draw(state.order, keys.of_order(state))
    return state._replace(order=new), index

  def gather(state, split):
    index, new = sampler.draw(state.order, keys.of_order(state))
    return state._replace(order=new), sampler.take(split, index)

  def whole(state, split):
    return mlp.step(state, split), None

  parts, medians = [], {}
  for name, function in (
    ('draw', draw_only), ('with images', gather), ('whole step', whole)
  ):  # fmt: skip
    run = _Run(jax.jit(function, donate_argnums=0), mlp.init(0), split)
    run.seconds(steps=1)
    # An epoch at a time, which includes one permutation.
    times = [1000 * run.seconds(steps=1000) for _ in range(options.pairs)]
    medians[name] = statistics.median(times)
    parts.append(f'{name} {statistics.median(times):.3f} ({_joined(times)})')
  print(f'MLP, batch of 60 of 60,000, ms: {"; ".join(parts)}')
  results.add(
    'a batch with its images / a step of the MLP', unit='ms',
    ours=medians['with images'], peer=medians['whole step'],
    ratio=medians['with images'] / medians['whole step'],
  )  # fmt: skip


def read(options: argparse.Namespace) -> None:
  """Times reading CIFAR-10 from disk, then from its cache."""
  with tempfile.TemporaryDirectory() as folder:
    os.environ['BN_JAX_CACHE_DIR'] = folder
    for name in ('decoded', 'cached'):
      start = time.perf_counter()
      reading.load('cifar10', data_dir=options.data_dir)
      print(f'CIFAR-10 {name}: {time.perf_counter() - start:.2f} s')


class _Run:
  """A function (state, split) -> (state, output), with its state."""

  def __init__(self, step, state, split):
    self._step, self._state, self._split = step, state, split

  def seconds(self, steps: int) -> float:
    """Runs `steps` steps; returns the mean seconds of one."""
    jax.block_until_ready(self._state)
    start = time.perf_counter()
    for _ in range(steps):
      self._state, output = self._step(self._state, self._split)
    jax.block_until_ready((self._state, output))
    return (time.perf_counter() - start) / steps


def _problem(module, split, batch_size, augmentation) -> types.Problem:
  count, *shape = split.images.shape
  return problem.make(
    module,
    optim.sgd(optim.constant(learning_rate=0.01)),
    sampler=order.sampler(
      num_examples=count, batch_size=batch_size, augmentation=augmentation
    ),
    penalty=optim.weight_decay(weight_decay=0.0),
    image_shape=tuple(shape),
    layers=models.layers,
    taps=models.taps(module),
  )


def _split(count: int, shape: tuple[int, ...]) -> types.Split:
  generator = np.random.default_rng(0)
  channels = shape[-1]
  return types.Split(
    images=jnp.asarray(
      generator.integers(256, size=(count, *shape), dtype=np.uint8)
    ),
    labels=jnp.asarray(generator.integers(10, size=count), jnp.int32),
    mean=jnp.full(channels, 120.0),
    std=jnp.full(channels, 60.0),
  )


def _joined(values) -> str:
  return ' '.join(f'{value:.3f}' for value in values)


if __name__ == '__main__':
  main()
