"""Trains a model of flax.nnx, and measures the landscape as it goes."""

import jax
import jax.numpy as jnp
import my_module
import optax
from flax import nnx

from bn_jax import analysis

data, rngs = my_module.data(), nnx.Rngs(0)
images = jnp.float32(data['x'].reshape(30, 50, 8, 8, 1)) / 255
labels = jnp.asarray(data['y']).reshape(30, 50)
net = nnx.Sequential(
  nnx.Conv(1, 8, (3, 3), rngs=rngs), nnx.BatchNorm(8, rngs=rngs), nnx.relu,
  lambda x: x.reshape(len(x), -1), nnx.Linear(512, 10, rngs=rngs),
)  # fmt: skip
optimizer = nnx.Optimizer(net, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)


def objective(net, x, y):
  """Returns the loss of a batch."""
  return optax.softmax_cross_entropy_with_integer_labels(net(x), y).mean()


def loss_of(rest, x, y, params):
  """Returns the loss of a copy, which gets the averages that a look makes."""
  return objective(nnx.merge(graph, params, rest, copy=True), x, y)


gradient_of = nnx.jit(nnx.grad(objective))
for step, (x, y) in enumerate(zip(images, labels)):
  if step % 10 == 0:
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    loss = jax.tree_util.Partial(loss_of, rest, x, y)
    look = analysis.along_gradient(loss, params, (0.05, 0.1, 0.2))
    print(step, look['loss_0'], look['beta'].max())
  optimizer.update(net, gradient_of(net, x, y))
