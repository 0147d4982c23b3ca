"""Times gradients inside a loop of the program against the same ones outside.

XLA's CPU convolution gradients are many times slower inside `lax.map` and
`lax.scan` (jax#12868). So measures loop on the host; the ratio tells what
micro-batches, which are a scan, cost. The network is two convolutions with BN
on images of CIFAR's size, in both lowerings of `bn_jax.models.lowering.conv`;
all runs in one process.

  python benchmarks/loops.py [--batch_size=32] [--pairs=5]
"""

import argparse
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import turns
from flax import linen as nn
from jax import lax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from bn_jax import norms
from bn_jax.models.lowering import conv

_GRADIENTS = 4  # in one loop


class Net(nn.Module):
  """Two convolutions, with BN and ReLU between them."""

  lowering: str

  @nn.compact
  def __call__(self, x):
    x = conv.Conv(16, lowering=self.lowering)(x)
    x = nn.relu(norms.make('batch').layer('norm1')(x, statistics='batch'))
    return conv.Conv(16, lowering=self.lowering)(x)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument('--pairs', type=int, default=5)
  options = parser.parse_args()
  shape = (_GRADIENTS, options.batch_size, 32, 32, 3)
  images = jax.random.normal(jax.random.key(0), shape)
  for lowering in ('library', 'product'):
    _compare(lowering, images, options.pairs)


def _compare(lowering: str, images: jax.Array, pairs: int) -> None:
  net = Net(lowering)
  variables = net.init(jax.random.key(1), images[0])
  params = variables.pop('params')

  def gradient(params, x):
    loss = lambda params: (
      net.apply({'params': params, **variables}, x) ** 2
    ).mean()
    return jax.grad(loss)(params)

  alone = jax.jit(gradient)

  @jax.jit
  def looped(params, images):
    zeros = jax.tree.map(jnp.zeros_like, params)

    def body(total, x):
      return jax.tree.map(jnp.add, total, gradient(params, x)), None

    return lax.scan(body, zeros, images)[0]

  ways = {
    'outside': lambda: [alone(params, x) for x in images],
    'inside': lambda: looped(params, images),
  }
  times = {name: [] for name in ways}
  for turn in range(pairs + 1):  # the first one compiles
    for name, way in ways.items():
      start = time.perf_counter()
      jax.block_until_ready(way())
      if turn:
        times[name].append(time.perf_counter() - start)
  milliseconds = {k: 1e3 * statistics.median(v) for k, v in times.items()}
  print(
    f'{lowering}: {_GRADIENTS} gradients of {images.shape[1]} images: '
    + ', '.join(f'{k} {v:.1f} ms' for k, v in milliseconds.items())
  )
  turns.say(f'  {lowering}, inside / outside', *times.values())


if __name__ == '__main__':
  main()
