"""Problems whose answers are known, and the smallest experiment."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import default


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


def tiny_config(**changes):
  """An experiment of seconds: a very narrow VGG-11 on digits."""
  config = default.get_config()
  config.model.width = 0.0625
  config.batch_size = 16
  config.evaluation_batch_size = 100
  config.steps = 6
  config.log_every_steps = 4
  config.schedule.learning_rate = 0.05
  config.measures.test.every_steps = 3
  config.measures.landscape.every_steps = 2
  config.checkpoint.every_steps = 2
  config.update(changes)
  return config
