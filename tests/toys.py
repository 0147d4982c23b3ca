"""Problems whose answers are known, and the smallest experiment."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bn_jax import norms, optim, types
from bn_jax.data.batches import order
from bn_jax.models import dropout
from bn_jax.models.lowering import conv
from bn_jax.training import problem


def quadratic(dimension=6, seed=0):
  """(loss, params, H, b): loss = x'Hx/2 + b'x over a tree of two leaves."""
  generator = np.random.default_rng(seed)
  a = generator.normal(size=(dimension, dimension))
  hessian, slope = a @ a.T + np.eye(dimension), generator.normal(size=dimension)
  x = generator.normal(size=dimension)
  params = {'a': jnp.asarray(x[:2]), 'b': {'c': jnp.asarray(x[2:])}}

  def loss(params):
    x = jnp.concatenate([params['a'], params['b']['c']])
    return 0.5 * x @ jnp.asarray(hessian) @ x + jnp.asarray(slope) @ x

  return loss, params, hessian, slope


def flat(tree):
  """All numbers of a tree in one vector, in float64."""
  return np.concatenate([np.float64(x).ravel() for x in jax.tree.leaves(tree)])


class Net(nn.Module):
  """One convolution, a norm, a dense layer: compiled in a second."""

  norm: norms.Norm
  num_classes: int = 3
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, *, mode, mask=None, first=0):
    x = conv.Conv(4, use_bias=self.norm.bias_before, name='conv1')(x)
    norm = self.norm.layer('norm1')
    x = nn.relu(norm(x, mode=mode, mask=mask, first=first))
    x = x.reshape(len(x), -1)
    x = dropout.Dropout(self.dropout, name='dropout1')(x, first=first)
    dense = nn.Dense(self.num_classes, dtype=x.dtype, name='logits')
    return dense(x)

  def layer_paths(self):
    return (('conv1', ('conv1', 'norm1')), ('logits', ('logits',)))


def split(count=20, num_classes=3, seed=0):
  """Random 4 x 4 images whose label can be learned from their brightness."""
  generator = np.random.default_rng(seed)
  labels = generator.integers(num_classes, size=count)
  images = generator.integers(
    0, 80, size=(count, 4, 4, 1)
  ) + 60 * labels.reshape(-1, 1, 1, 1)
  return types.Split(
    images=jnp.asarray(images, jnp.uint8),
    labels=jnp.asarray(labels, jnp.int32),
    mean=jnp.full(1, 100.0),
    std=jnp.full(1, 60.0),
  )


@functools.cache
def classifier(
  norm='batch', *, weight_decay=0.0, learning_rate=0.1, momentum=0.0, count=20
):
  """The Problem of the small network over `split(count)`, batches of 8.

  The same Problem for the same arguments: it is compiled once for all tests.
  """
  return problem.make(
    Net(norms.make(norm)),
    optim.sgd(optim.constant(learning_rate=learning_rate), momentum=momentum),
    sampler=order.sampler(num_examples=count, batch_size=8),
    penalty=optim.weight_decay(weight_decay=weight_decay),
    image_shape=(4, 4, 1),
    layers=lambda module, variables: module.layer_paths(),
    taps=(('conv1', 'norm1'),),
    ring_size=4,
  )


@functools.cache
def step(made):
  """The jitted step of a Problem; it leaves the state that it is given."""
  return jax.jit(made.step)
