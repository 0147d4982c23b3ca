"""Makes the two networks of `curvature`, ours and PyTorch's like them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import datasets

from bn_jax import models, optim, types
from bn_jax.data.batches import order
from bn_jax.training import problem

_HIDDEN = (12, 12)  # with 64 pixels and 10 classes: 1,090 parameters
# Steps of training before anything is measured: the spectrum then has outliers,
# and running statistics are no longer those of the start.
_STEPS = 20
_RATE = 0.1
STATISTICS = ('batch', 'running')


class Case(NamedTuple):
  """A network after some training, with a batch.

  Attributes:
    name: 'mlp' or 'vgg11'.
    problem, state, batch: ours.
    width: of VGG-11.
  """

  name: str
  problem: types.Problem
  state: types.TrainState
  batch: types.Batch
  width: float

  def loss(self, statistics: str) -> Any:
    """Returns the data loss of the batch as a function of the parameters."""
    return self.problem.loss(
      self.state, self.batch, statistics, penalised=False
    )

  def peer(self, statistics: str) -> Any:
    """Returns PyTorch's network with the same numbers and precision."""
    import curvature_torch
    import torch

    params = self.state.params
    images = self.batch.images
    model = (
      curvature_torch.MLP(images[0].size, _HIDDEN)
      if self.name == 'mlp'
      else curvature_torch.vgg11(self.width)
    )
    return curvature_torch.network(
      model,
      params,
      self.state.batch_stats,
      images.reshape(len(images), -1) if self.name == 'mlp' else images,
      self.batch.labels,
      statistics=statistics,
      dtype=getattr(torch, jax.tree.leaves(params)[0].dtype.name),
    )


def mlp(dtype: Any, examples: int = 512) -> Case:
  """Returns the MLP on so many of scikit-learn's digits."""
  images, labels = datasets.load_digits(return_X_y=True)
  split = types.Split(
    images=jnp.asarray(np.round(images * 255 / 16), jnp.uint8).reshape(
      -1, 8, 8, 1
    ),
    labels=jnp.asarray(labels, jnp.int32),
    mean=jnp.full(1, 78.0, jnp.float32),
    std=jnp.full(1, 96.0, jnp.float32),
  )
  module = models.make(
    'mlp', num_classes=10, norm='batch', hidden=_HIDDEN, activation='relu',
    initial_std=None,
  )  # fmt: skip
  return _trained('mlp', module, split, examples, dtype, 1.0)


def vgg11(dtype: Any, examples: int, width: float, lowering: str) -> Case:
  """Returns VGG-11 on random images with random labels, of CIFAR's shape."""
  generator = np.random.default_rng(0)
  count = 4 * examples
  split = types.Split(
    images=jnp.asarray(
      generator.integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
    ),
    labels=jnp.asarray(generator.integers(10, size=count), jnp.int32),
    mean=jnp.full(3, 127.5, jnp.float32),
    std=jnp.full(3, 74.0, jnp.float32),
  )
  module = models.make(
    'vgg11', num_classes=10, norm='batch', width=width, lowering=lowering
  )
  return _trained('vgg11', module, split, examples, dtype, width)


def _trained(name, module, split, examples, dtype, width) -> Case:
  """Trains in float32; returns the state in the dtype asked for."""
  make = functools.partial(
    problem.make,
    module,
    optim.sgd(optim.constant(learning_rate=_RATE), momentum=0.9),
    sampler=order.sampler(num_examples=len(split.labels), batch_size=examples),
    penalty=optim.weight_decay(weight_decay=0.0),
    image_shape=split.images.shape[1:],
    layers=models.layers,
    taps=models.taps(module),
  )
  with jax.enable_x64(False):
    own = make(compute_dtype=jnp.float32)
    # `init` runs once, in less time than optimizing its program would take.
    unoptimized = {'xla_backend_optimization_level': 0}
    state = jax.jit(own.init, compiler_options=unoptimized)(0)
    step = jax.jit(own.step)
    for _ in range(_STEPS):
      state = step(state, split)
    batch = own.batch(state, split)
  state, batch = jax.device_get((state, batch))
  state, batch = _cast((state, batch), dtype)
  return Case(name, make(compute_dtype=dtype), state, batch, width)


def _cast(tree, dtype):
  """Casts a tree's arrays of floating point to one dtype."""
  return jax.tree.map(
    lambda x: jnp.asarray(
      x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype
    ),
    tree,
  )
