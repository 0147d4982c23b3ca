"""Says which part of a training step takes how long, and how long it must.

Times are those of the operations of a compiled program, as JAX's profiler has
them. An operation that does several things (XLA joins them) belongs to the part
of the last one: a ReLU is often computed with the norm before it.
"""

import collections
import pathlib
import re
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bn_jax.models import inception
from bn_jax.models.lowering import conv, pool

PARTS = (
  'convolution', 'norm', 'nonlinearity', 'pooling', 'update', 'rest',
)  # fmt: skip
# Operations that contain others.
_CONTAINERS = re.compile(r'(call|while|conditional)(\.\d+)?$')
_LAYER = re.compile(r'/(conv\d|b\d|bd\d|bpool|projection|logits)')
# Of an array of a norm: reads x for the mean, x for the variance, x to write y;
# backward x and dy for two sums, x and dy to write dx.
_NORM_PASSES = 9
_ROWS = 3072  # of a large product
_COPIED = 2**25  # numbers of a copy


def name_parts() -> None:
  """Puts the names of parts into programs that are traced from now on."""
  nn.relu = _named('nonlinearity', nn.relu)
  inception.ACTIVATIONS['relu'] = nn.relu
  for module, name in (
    (conv, 'max_pool'), (pool, 'max_pool'), (pool, 'average_pool'),
    (pool, 'global_average'),
  ):  # fmt: skip
    setattr(module, name, _named('pooling', getattr(module, name)))


def _named(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
  def named(*arrays, **keywords):
    with jax.named_scope(part):
      return function(*arrays, **keywords)

  return named


def shares(program: str, step: Callable[[], Any]) -> dict[str, float]:
  """Returns the share of each part in the time of a step's operations.

  Args:
    program: the compiled program as text.
    step: takes one, to its end.
  """
  parts = {
    name: _part(operation)
    for name, operation in re.findall(
      r'%?([\w.\-]+) = .*?op_name="([^"]*)"', program
    )
  }
  sums = collections.Counter()
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      step()
    (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
    trace = jax.profiler.ProfileData.from_file(str(path))
    for plane in trace.planes:
      for line in plane.lines:
        for event in line.events:
          name = dict(event.stats).get('hlo_op')
          if name is not None and not _CONTAINERS.match(name):
            sums[parts.get(name, 'rest')] += event.duration_ns
  total = sum(sums.values())
  return {part: sums[part] / total for part in PARTS}


def _part(operation: str) -> str:
  """Returns the part of an operation by the path of its module."""
  for part in ('pooling', 'nonlinearity'):
    if part in operation:
      return part
  if '_norm' in operation:
    return 'norm'
  if _LAYER.search(operation):
    return 'convolution'
  return 'rest' if 'jvp' in operation else 'update'


class Work:
  """Counts what a step must do at least; `Layers` of shapes.

  Attributes:
    flops: of convolutions and dense layers, three times those of the forward
      pass, but twice where no gradient of the input is needed.
    bytes: read and written, of the other parts.
    params: the number of parameters.
  """

  def __init__(self):
    self.flops, self.params = 0, 0
    self.bytes = collections.Counter()

  def normalised(self, x, name, features, size, stride):
    n, height, width, channels = x
    y = (n, -(-height // stride), -(-width // stride), features)
    kernel = size * size * channels * features
    of_forward = 2 * kernel * np.prod(y[:3])
    self.flops += of_forward * (2 if name == 'conv1' else 3)
    self.params += kernel + 2 * features
    self.bytes['norm'] += 4 * _NORM_PASSES * np.prod(y)
    return y

  def relu(self, x):
    return x

  def add(self, x, y):
    del y
    return x

  def shortcut(self, x, features):
    return (x[0], x[1] // 2, x[2] // 2, features)

  def max_pool(self, x, size, stride):
    del size
    y = (x[0], -(-x[1] // stride), -(-x[2] // stride), x[3])
    self._pooled(x, y)
    return y

  def average_pool(self, x):
    self._pooled(x, x)
    return x

  def concatenate(self, maps):
    return (*maps[0][:3], sum(x[3] for x in maps))

  def logits(self, x, classes):
    self._pooled(x, (x[0], x[3]))
    self.flops += 6 * x[0] * x[3] * classes
    self.params += (x[3] + 1) * classes
    return (x[0], classes)

  def _pooled(self, x, y):
    """Counts reading x and writing y, then reading dy and writing dx."""
    self.bytes['pooling'] += 4 * 2 * (np.prod(x) + np.prod(y))

  def seconds(self, flops: float, bandwidth: float) -> dict[str, float]:
    """Returns how long each part takes at least, by FLOP/s and bytes/s."""
    # SGD with momentum reads parameters, gradients and momentum, and writes
    # parameters and momentum.
    update = 4 * 5 * self.params / bandwidth
    return {
      'convolution': self.flops / flops,
      'update': update,
      **{part: total / bandwidth for part, total in self.bytes.items()},
    }


def rates(rounds: int = 5) -> tuple[float, float]:
  """Returns the FLOP/s of a large product, and the bytes/s of a copy."""
  matrix = jnp.ones((_ROWS, _ROWS))
  numbers = jnp.ones(_COPIED)
  product = jax.jit(lambda x: x @ x)
  # Into its own memory: new memory would have to be cleared first.
  copy = jax.jit(lambda x: x + 1, donate_argnums=0)
  seconds = []
  for _ in range(rounds + 1):  # the first one compiles
    start = time.perf_counter()
    jax.block_until_ready(product(matrix))
    middle = time.perf_counter()
    numbers = jax.block_until_ready(copy(numbers))
    seconds.append((middle - start, time.perf_counter() - middle))
  of_product, of_copy = np.median(seconds[1:], axis=0)
  return 2 * _ROWS**3 / of_product, 2 * numbers.nbytes / of_copy
