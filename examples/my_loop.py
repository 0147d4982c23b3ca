"""Trains by a loop of one's own, and measures the landscape as it goes."""

import jax
import jax.numpy as jnp
import my_module
import optax

from bn_jax import analysis, models

net = models.adapt(my_module.Net(10, width=8), shape=(8, 8, 1))
optimizer = optax.sgd(0.1, momentum=0.9)
data = my_module.data()
images = jnp.float32(data['x'].reshape(30, 50, 8, 8, 1)) / 255
labels = jnp.asarray(data['y']).reshape(30, 50)


def objective(stats, x, y, params):
  """Returns the loss of a batch, and the running statistics after it."""
  variables = {'params': params, 'batch_stats': stats}
  keywords = dict(statistics='batch', mutable=['batch_stats'])
  logits, new = net.apply(variables, x, **keywords)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
  return losses.mean(), new['batch_stats']


gradient_of = jax.jit(jax.grad(objective, argnums=3, has_aux=True))
loss_of = lambda *arguments: objective(*arguments)[0]
variables = net.init(jax.random.key(0), images[0], statistics='running')
params, stats = variables['params'], variables['batch_stats']
state, layers = optimizer.init(params), models.layers(net, variables)
for step, (x, y) in enumerate(zip(images, labels)):
  loss = jax.tree_util.Partial(loss_of, stats, x, y)
  gradient, stats = gradient_of(stats, x, y, params)
  updates, state = optimizer.update(gradient, state, params)
  before, params = params, optax.apply_updates(params, updates)
  if step % 10 == 0:
    look = analysis.along_gradient(loss, before, (0.05, 0.1, 0.2))
    shift = analysis.covariate_shift(loss, before, params, layers)
    print(step, look['loss_0'], look['beta'].max(), shift['cosine'])
