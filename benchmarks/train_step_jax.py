"""Trains a network in turns, with bn_jax or with flax alone; see `train_step`.

python train_step_jax.py SIDE NETWORK FOLDER BATCH_SIZE DTYPE LOWERING
"""

import functools
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import processes
import train_step_networks as networks
import train_step_parts

from bn_jax import models, optim, types
from bn_jax.data.batches import order
from bn_jax.host import memory
from bn_jax.training import devices, problem

RATE, MOMENTUM = 0.01, 0.9


class Training:
  """A step with its state; it answers what `train_step` asks."""

  def __init__(self, step, words, state, params, loss):
    """Takes a jitted (state, *words) -> state, and how to read a state."""
    self._step, self._words, self._state = step, words, state
    self._params, self._loss = params, loss

  @functools.cached_property
  def _program(self):
    """The compiled step."""
    return self._step.lower(self._state, *self._words).compile()

  def steps(self, count: int) -> dict[str, float]:
    """Takes steps; returns the seconds of one, and the last loss."""
    start = time.perf_counter()
    for _ in range(count):
      self._state = self._program(self._state, *self._words)
    jax.block_until_ready(self._state)
    seconds = (time.perf_counter() - start) / count
    return {'seconds': seconds, 'loss': float(self._loss(self._state))}

  def parts(self, network: str, batch_size: int) -> dict[str, Any]:
    """Returns the share of each part of a step, and seconds that it needs."""
    shares = train_step_parts.shares(
      self._program.as_text(), lambda: self.steps(1)
    )
    case, work = networks.CASES[network], train_step_parts.Work()
    case.forward(work, (batch_size, case.side, case.side, 3))
    flops, bandwidth = train_step_parts.rates()
    limits = {
      part: float(seconds)
      for part, seconds in work.seconds(flops, bandwidth).items()
    }
    return {
      'shares': shares, 'limits': limits, 'flops': flops,
      'bandwidth': bandwidth,
    }  # fmt: skip

  def memory(self) -> dict[str, float]:
    """Returns the most memory of the device, where it says it, or of all."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if 'peak_bytes_in_use' in stats:
      return {'peak_mb': stats['peak_bytes_in_use'] / 1e6}
    return processes.memory()

  def save(self, path: str) -> None:
    """Writes the parameters."""
    np.savez(path, **flat(self._params(self._state)))


def ours(
  case: networks.Case,
  folder: pathlib.Path,
  batch_size: int,
  dtype: str,
  lowering: str,
) -> Training:
  """Returns a run's own step; writes its first parameters and its batch.

  The data set is the batch, so that every step sees the same examples.
  """
  memory.give_back_after_compiling()  # as `train.py` does
  generator = np.random.default_rng(0)
  shape = (batch_size, case.side, case.side, 3)
  split = types.Split(
    images=jnp.asarray(generator.integers(256, size=shape, dtype=np.uint8)),
    labels=jnp.asarray(
      generator.integers(case.classes, size=batch_size), jnp.int32
    ),
    mean=jnp.full(3, 127.5, jnp.float32),
    std=jnp.full(3, 74.0, jnp.float32),
  )
  keywords = {} if lowering == 'default' else {'lowering': lowering}
  module = models.make(
    **case.model, num_classes=case.classes, norm='batch', **keywords
  )
  own = problem.make(
    module,
    optim.sgd(optim.constant(learning_rate=RATE), momentum=MOMENTUM),
    sampler=order.sampler(num_examples=batch_size, batch_size=batch_size),
    penalty=optim.weight_decay(weight_decay=0.0),
    image_shape=shape[1:],
    layers=models.layers,
    taps=models.taps(module),
    compute_dtype=jnp.dtype(dtype),
  )
  # `init` runs once, in less time than optimizing its program would take.
  unoptimized = {'xla_backend_optimization_level': 0}
  state = jax.jit(own.init, compiler_options=unoptimized)(0)
  batch = own.batch(state, split)
  np.savez(folder / 'params.npz', **flat(state.params))
  np.savez(folder / 'batch.npz', images=batch.images, labels=batch.labels)
  mesh = devices.mesh(1)
  shardings = devices.placement(state, mesh, shard_state=False)
  step = devices.step('jit', own.step, mesh, shardings)
  return Training(
    step,
    (split,),
    state,
    lambda state: state.params,
    # Row t of the ring is about step t.
    lambda state: state.ring['data_loss'][
      (int(state.step) - 1) % len(state.ring['data_loss'])
    ],
  )


class Flax(nn.Module):
  """A network as flax's users write it."""

  case: networks.Case
  dtype: str

  @nn.compact
  def __call__(self, x):
    return self.case.forward(FlaxLayers(self.dtype), x)


class FlaxLayers:
  """flax's own layers, inside a module."""

  def __init__(self, dtype: str):
    self._dtype = jnp.dtype(dtype)

  def normalised(self, x, name, features, size, stride):
    name = name.replace('/', '.')
    x = nn.Conv(
      features,
      (size, size),
      (stride, stride),
      use_bias=False,
      name=name,
      dtype=self._dtype,
    )(x)
    return nn.BatchNorm(
      use_running_average=False,
      momentum=0.9,
      name=f'{name}_norm',
      dtype=self._dtype,
    )(x)

  relu = staticmethod(nn.relu)
  add = staticmethod(jnp.add)

  def shortcut(self, x, features):
    x = x[:, ::2, ::2]
    return jnp.pad(x, [(0, 0)] * 3 + [(0, features - x.shape[-1])])

  def max_pool(self, x, size, stride):
    return nn.max_pool(x, (size, size), (stride, stride), 'SAME')

  def average_pool(self, x):
    return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)

  def concatenate(self, maps):
    return jnp.concatenate(maps, axis=-1)

  def logits(self, x, classes):
    x = x.mean(axis=(1, 2))
    return nn.Dense(classes, name='logits', dtype=self._dtype)(x)


def flax(case: networks.Case, folder: pathlib.Path, dtype: str) -> Training:
  """Returns a step of flax and optax alone, from our parameters and batch."""
  with np.load(folder / 'batch.npz') as arrays:
    images, labels = map(jnp.asarray, (arrays['images'], arrays['labels']))
  module = Flax(case, dtype)
  shapes = jax.eval_shape(module.init, jax.random.key(0), images[:1])
  with np.load(folder / 'params.npz') as arrays:
    params = jax.tree_util.tree_map_with_path(
      lambda path, _: jnp.asarray(arrays[_path(path)]), shapes['params']
    )
  stats = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), shapes['batch_stats']
  )
  optimizer = optax.sgd(RATE, momentum=MOMENTUM)

  def loss(params, stats):
    logits, new = module.apply(
      {'params': params, 'batch_stats': stats}, images, mutable=['batch_stats']
    )
    logits = logits.astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), new['batch_stats']

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state):
    params, stats, momentum, _ = state
    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(
      params, stats
    )
    updates, momentum = optimizer.update(gradient, momentum)
    return optax.apply_updates(params, updates), stats, momentum, value

  state = params, stats, optimizer.init(params), jnp.zeros(())
  return Training(
    step, (), state, lambda state: state[0], lambda state: state[3]
  )


def flat(params: Any) -> dict[str, Any]:
  """Returns {'mixed_3a/b1x1/kernel': array, ...}."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  return {_path(path): leaf for path, leaf in leaves}


def _path(path) -> str:
  return '/'.join(entry.key for entry in path).replace('.', '/')


def main() -> None:
  side, network, folder, batch_size, dtype, lowering = sys.argv[1:]
  if side == 'bn_jax':
    memory.use_huge_pages()  # as `train.py` does
  train_step_parts.name_parts()
  case, folder = networks.CASES[network], pathlib.Path(folder)
  training = (
    ours(case, folder, int(batch_size), dtype, lowering)
    if side == 'bn_jax'
    else flax(case, folder, dtype)
  )
  processes.serve(
    {
      'ready': lambda: None,
      'steps': training.steps,
      'parts': training.parts,
      'save': training.save,
      'memory': training.memory,
    }
  )


if __name__ == '__main__':
  main()
