"""Times a training step of VGG-11 with BN at CIFAR's shape: ours, stock flax's.

Both run in one process, in turns, with the same weights, batch, optimizer (SGD
with momentum 0.9) and precision; their losses and updates are compared first.

  python benchmarks/train_step.py [--batch_size=128] [--pairs=5]

The peer is written with `flax.linen` alone: nn.Conv, nn.BatchNorm, nn.max_pool.
"""

import argparse
import pathlib
import platform
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from bn_jax import models

_CHANNELS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class StockVGG11(nn.Module):
  """VGG-11 with BN as flax's users write it, with our layers' names."""

  use_fast_variance: bool

  @nn.compact
  def __call__(self, x):
    index = 0
    for block in _CHANNELS:
      for features in block:
        index += 1
        x = nn.Conv(features, (3, 3), use_bias=False, name=f'conv{index}')(x)
        x = nn.BatchNorm(
          use_running_average=False,
          momentum=0.9,
          use_fast_variance=self.use_fast_variance,
          name=f'conv{index}_norm',
        )(x)
        x = nn.relu(x)
      x = nn.max_pool(x, (2, 2), (2, 2))
    return nn.Dense(10, name='logits')(x.reshape(len(x), -1))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--pairs', type=int, default=5)
  options = parser.parse_args()
  jax.config.update('jax_default_matmul_precision', 'highest')

  ours = models.make('vgg11', num_classes=10, norm='batch')
  images = jax.random.normal(
    jax.random.key(0), (options.batch_size, 32, 32, 3), jnp.float32
  )
  labels = jnp.arange(options.batch_size) % 10
  variables = jax.jit(
    lambda x: ours.init(jax.random.key(1), x, statistics='running')
  )(images[:1])
  programs = {
    'bn_jax': lambda v, x: ours.apply(
      v, x, statistics='batch', mutable=['batch_stats']
    ),
    'flax, fast variance': _stock(use_fast_variance=True),
    'flax, exact variance': _stock(use_fast_variance=False),
  }
  steps = {name: _step(apply) for name, apply in programs.items()}
  state = _state(variables)
  results = {name: step(state, images, labels) for name, step in steps.items()}
  _compare(results)
  seconds = {name: [] for name in steps}
  for _ in range(options.pairs):
    for name, step in steps.items():
      seconds[name].append(_time(step, state, images, labels))
  _print(seconds, options.batch_size)


def _stock(*, use_fast_variance):
  module = StockVGG11(use_fast_variance)
  return lambda v, x: module.apply(v, x, mutable=['batch_stats'])


def _state(variables):
  optimizer = optax.sgd(0.1, momentum=0.9)
  return variables, optimizer.init(variables['params'])


def _step(apply):
  optimizer = optax.sgd(0.1, momentum=0.9)

  def loss(params, batch_stats, images, labels):
    logits, new = apply({'params': params, 'batch_stats': batch_stats}, images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), new['batch_stats']

  @jax.jit
  def step(state, images, labels):
    variables, opt_state = state
    params, stats = variables['params'], variables['batch_stats']
    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(
      params, stats, images, labels
    )
    updates, opt_state = optimizer.update(gradient, opt_state)
    params = optax.apply_updates(params, updates)
    return ({'params': params, 'batch_stats': stats}, opt_state), value

  return step


def _compare(results) -> None:
  """Stops unless all programs compute the same loss and the same update."""
  (ours, _), loss = results['bn_jax']
  flat = _flat(ours['params'])
  for name, ((variables, _), value) in results.items():
    difference = jnp.linalg.norm(_flat(variables['params']) - flat)
    relative = float(difference / jnp.linalg.norm(flat))
    print(f'{name:21s} loss {float(value):.6f}, parameters differ by', end=' ')
    print(f'{relative:.1e} (relative, after one step)')
    # Rounding in float32 stays below these.
    if abs(float(value - loss)) > 1e-4 or relative > 1e-3:
      raise SystemExit(f'{name} computes something else')


def _flat(tree):
  return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


def _time(step, state, images, labels) -> float:
  start = time.perf_counter()
  jax.block_until_ready(step(state, images, labels))
  return time.perf_counter() - start


def _print(seconds, batch_size) -> None:
  device = jax.devices()[0]
  print(
    f'{device.platform} {device.device_kind}, jax {jax.__version__}, '
    f'Python {platform.python_version()}, batch {batch_size}, float32'
  )
  for name, times in seconds.items():
    rate = batch_size / statistics.median(times)
    pairs = [a / b for a, b in zip(times, seconds['bn_jax'])]
    ratio = (
      f'; bn_jax is {statistics.median(pairs):.2f} times as fast '
      f'({min(pairs):.2f} to {max(pairs):.2f} in {len(pairs)} pairs)'
    )
    print(f'{name:21s} {rate:7.1f} images/s', end='')
    print('' if name == 'bn_jax' else ratio)


if __name__ == '__main__':
  main()
