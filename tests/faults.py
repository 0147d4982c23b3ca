"""A regression in which one example can break any part of an update."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import keys, optim, types
from bn_jax.data.batches import order
from bn_jax.training import parallel, update

EXAMPLES, BATCH, SIZE = 24, 8, 3
RATE, MOMENTUM = 0.1, 0.9
# What one bad example does, as the first number of its label says.
GOOD, LOSS, GRADIENT, STATISTICS, PARAMETERS, OPTIMIZER = range(6)
FAULTS = ('data', LOSS, GRADIENT, STATISTICS, PARAMETERS, OPTIMIZER)


@jax.custom_vjp
def scaled_back(x, scale):
  """x, whose gradient is `scale` times what it would be."""
  del scale
  return x


scaled_back.defvjp(
  lambda x, scale: (x, scale), lambda scale, g: (g * scale, jnp.zeros(()))
)


def objective_of(spread):
  """mean (x'w)^2 / 2, with a running mean of x; faults as labels say."""

  def objective(params, batch_stats, batch, key, first):
    del key, first
    x, labels_B = batch.images, batch.labels[:, 0]
    has = {fault: (labels_B == fault).any() for fault in range(1, 6)}
    w = params['w']
    w = scaled_back(w, jnp.where(has[GRADIENT], jnp.nan, 1.0))
    # Finite gradients, of which the optimizer below makes what is not.
    w = scaled_back(w, jnp.where(has[PARAMETERS], 1e9, 1.0))
    w = scaled_back(w, jnp.where(has[OPTIMIZER], 1e6, 1.0))
    value = 0.5 * jnp.square(x @ w).mean()
    value += jnp.where(has[LOSS], jnp.nan, 0.0)
    mean = x.mean(axis=0) + jnp.where(has[STATISTICS], jnp.inf, 0.0)
    old = batch_stats['mean']
    stats = {'mean': 0.9 * old + 0.1 * spread.mean(mean), 'count': jnp.int32(3)}
    return value, {'data_loss': value, 'penalty': 0.0, 'batch_stats': stats}

  return objective


def fragile():
  """SGD with momentum that overflows for large gradients.

  Above 1e4 its state does, above 1e7 the parameters.
  """
  sgd = optim.sgd(lambda t: RATE * 0.5**t, momentum=MOMENTUM)

  def over(tree, limit):
    largest = jnp.abs(tree['w']).max()
    return jnp.where(largest > limit, jnp.inf, 0.0)

  def init(params):
    return {'sgd': sgd.init(params), 'moment': jnp.zeros(())}

  def updates(gradient, state, params):
    made, new = sgd.update(gradient, state['sgd'], params)
    limited = jax.tree.map(lambda x: x + over(gradient, 1e7), made)
    # The largest gradient, 1e4 at most: the parameters are then looked at.
    moment = jnp.where(over(gradient, 1e7) > 0, 0, over(gradient, 1e4))
    return limited, {'sgd': new, 'moment': moment}

  return types.Optimizer(
    init, updates, lambda state, t: sgd.learning_rate(state['sgd'], t)
  )


@functools.cache
def split(fault):
  """Inputs for a regression; example 5 is bad."""
  images = np.random.default_rng(0).normal(size=(EXAMPLES, SIZE))
  labels = np.zeros((EXAMPLES, 1))
  if fault == 'data':
    images[5, 1] = np.nan
  else:
    labels[5] = fault
  return types.Split(
    jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.float32),
    jnp.zeros(SIZE), jnp.ones(SIZE),
  )  # fmt: skip


SAMPLER = order.sampler(num_examples=EXAMPLES, batch_size=BATCH)


@functools.cache
def key():
  return jax.random.key(3)


def key_of_order():
  return keys.of(key(), types.Purpose.ORDER)


def begin(optimizer, max_skips):
  """The state before the first step."""
  params = {'w': jnp.array([1.0, -2.0, 0.5])}
  names = update.metrics(classifies=False, skips=max_skips is not None)
  return types.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats={'mean': jnp.zeros(SIZE), 'count': jnp.int32(3)},
    opt_state=optimizer.init(params),
    key=jax.random.key_data(key()),
    order=SAMPLER.init(key_of_order()),
    ring={name: jnp.zeros(12) for name in names},
    finite=jnp.ones((), bool),
    skipped=jnp.zeros((), jnp.int32),
  )


@functools.cache
def ready(layout='jit', devices=1, max_skips=None, micro_batches=1):
  """(step, state): the step keeps the state that it is given."""
  mesh = parallel.mesh(devices)
  spread = parallel.spread(layout, mesh)
  optimizer = fragile()
  step = update.make(
    objective_of(spread), optimizer, SAMPLER, spread=spread,
    micro_batches=micro_batches, max_skips=max_skips,
  )  # fmt: skip
  state = begin(optimizer, max_skips)
  placement = parallel.placement(state, mesh, shard_state=False)
  compiled = parallel.step(layout, step, mesh, placement)

  def kept(state, split):
    laid = jax.device_put(split, parallel.whole(mesh))
    copy = jax.tree.map(jnp.array, jax.device_put(state, placement))
    return jax.device_get(compiled(copy, laid))

  return kept, state


@functools.cache
def on_each_device():
  """(step, state): the step gives what each of 8 devices makes of it."""
  mesh = parallel.mesh(8)
  spread = parallel.spread('shard_map', mesh)
  optimizer = fragile()
  step = update.make(
    objective_of(spread), optimizer, SAMPLER, spread=spread, max_skips=1
  )
  mapped = jax.shard_map(
    lambda *given: jax.tree.map(lambda x: x[None], step(*given)),
    mesh=mesh,
    in_specs=parallel.whole(mesh).spec,
    out_specs=parallel.cut(mesh).spec,
    check_vma=False,
  )
  return jax.jit(mapped), begin(optimizer, 1)


@functools.cache
def batches(count):
  """The examples of each batch, and the state's order before it."""
  _, state = ready()
  draw = jax.jit(SAMPLER.draw)
  place, found, orders = state.order, [], []
  for _ in range(count):
    orders.append(place)
    index_B, place = draw(place, key_of_order())
    found.append(np.asarray(index_B))
  return found, [*orders, place]


def bad_steps(count):
  return [t for t, index_B in enumerate(batches(count)[0]) if 5 in index_B]


def run(step, state, split, steps):
  """All states, the first one too."""
  states = [jax.device_get(state)]
  for _ in range(steps):
    states.append(step(states[-1], split))
  return states


def oracle(steps, left_out):
  """(w, trace, mean) in float64 after so many steps, some of them left out."""
  x = np.float64(split(GOOD).images)
  w, trace, mean = np.array([1.0, -2.0, 0.5]), np.zeros(SIZE), np.zeros(SIZE)
  made = 0
  for t in range(steps):
    if t in left_out:
      continue
    x_B = x[batches(steps)[0][t]]
    trace = MOMENTUM * trace + x_B.T @ (x_B @ w) / BATCH
    w = w - RATE * 0.5**made * trace
    mean = 0.9 * mean + 0.1 * x_B.mean(axis=0)
    made += 1
  return w, trace, mean


def equal(got, want):
  """Bit for bit, nan being equal to itself."""
  jax.tree.map(np.testing.assert_array_equal, got, want)
