"""Trains a model of Equinox, and measures the landscape as it goes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import my_module
import optax

from bn_jax import analysis

data, optimizer = my_module.data(), optax.sgd(0.1, momentum=0.9)
images = jnp.float32(data['x'].reshape(30, 50, 1, 8, 8)) / 255
net, stats = eqx.nn.make_with_state(eqx.nn.Sequential)([
  eqx.nn.Conv2d(1, 8, 3, padding=1, key=jax.random.key(0)),
  eqx.nn.BatchNorm(8, axis_name='batch', mode='batch'),
  eqx.nn.Lambda(lambda x: jax.nn.relu(x).reshape(-1)),
  eqx.nn.Linear(512, 10, key=jax.random.key(1)),
])  # fmt: skip
params, static = eqx.partition(net, eqx.is_inexact_array)
state, labels = optimizer.init(params), jnp.asarray(data['y']).reshape(30, 50)


def objective(stats, x, y, params):
  """Returns the loss of a batch, and the running statistics after it."""
  net = jax.vmap(eqx.combine(params, static), (0, None), (0, None), 'batch')
  logits, new = net(x, stats)
  return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new


gradient_of = jax.jit(jax.grad(objective, argnums=3, has_aux=True))
loss_of = lambda *arguments: objective(*arguments)[0]
for step, (x, y) in enumerate(zip(images, labels)):
  if step % 10 == 0:
    loss = jax.tree_util.Partial(loss_of, stats, x, y)
    look = analysis.along_gradient(loss, params, (0.05, 0.1, 0.2))
    print(step, look['loss_0'], look['beta'].max())
  gradient, stats = gradient_of(stats, x, y, params)
  updates, state = optimizer.update(gradient, state, params)
  params = optax.apply_updates(params, updates)
