"""One function, written in four libraries: the measures see the function."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn
from flax import nnx

from bn_jax import analysis, norms, trees
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)

STEPS = (0.05, 0.2, 0.8)
LAYERS = (('stem', ('stem', 'norm')), ('head', ('head',)))


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class Program(NamedTuple):
  """A library's way to write the function.

  Attributes:
    loss_of: (what the model keeps, batch, params) -> loss.
    params: its weights, those of `weights`.
    kept: running averages, random state.
    owned: all that the user holds: nothing of it may change.
  """

  loss_of: Callable[..., jax.Array]
  params: Any
  kept: Any
  owned: Any


def weights():
  """Layer -> (kernel, bias); the norm's scale and bias are one of them."""
  generator = np.random.default_rng(0)
  shapes = {
    'stem': ((5, 6), 6), 'norm': (6, 6), 'head': ((6, 2), 2),
  }  # fmt: skip
  return {
    name: [jnp.float32(generator.normal(size=shape)) for shape in both]
    for name, both in shapes.items()
  }


def batch(seed=0):
  generator = np.random.default_rng(seed)
  return tuple(
    jnp.float32(generator.normal(size=(12, size))) for size in (5, 2)
  )


def squared(outputs, targets):
  return jnp.mean((outputs - targets) ** 2)


def plain():
  params = weights()

  def loss_of(kept, batch, params):
    x, y = batch
    (w, b), (v, c) = params['stem'], params['head']
    h, _ = norms.batch_norm(x @ w + b[None], *params['norm'])
    return squared(jnp.tanh(h) @ v + c[None], y)

  return Program(loss_of, params, (), params)


class LinenNet(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.Dense(6, name='stem')(x)
    x = nn.BatchNorm(use_running_average=False, name='norm')(x)
    return nn.Dense(2, name='head')(jnp.tanh(x))


def linen():
  words = {'stem': 'kernel', 'norm': 'scale', 'head': 'kernel'}
  params = {
    name: {words[name]: first, 'bias': bias}
    for name, (first, bias) in weights().items()
  }
  batch_stats = {'norm': {'mean': jnp.ones(6), 'var': jnp.full(6, 2.0)}}

  def loss_of(batch_stats, batch, params):
    x, y = batch
    variables = {'params': params, 'batch_stats': batch_stats}
    outputs, new = LinenNet().apply(variables, x, mutable=['batch_stats'])
    assert set(new) == {'batch_stats'}  # it is written, and dropped here
    return squared(outputs, y)

  return Program(loss_of, params, batch_stats, (params, batch_stats))


class NnxNet(nnx.Module):
  def __init__(self, rngs, dropout=0.0):
    self.stem = nnx.Linear(5, 6, rngs=rngs)
    self.norm = nnx.BatchNorm(6, rngs=rngs)
    self.dropout = nnx.Dropout(dropout, rngs=rngs)
    self.head = nnx.Linear(6, 2, rngs=rngs)

  def __call__(self, x):
    return self.head(self.dropout(jnp.tanh(self.norm(self.stem(x)))))


def flax_nnx(dropout=0.0):
  model = NnxNet(nnx.Rngs(0), dropout)
  for name, (first, bias) in weights().items():
    layer = getattr(model, name)
    (layer.scale if name == 'norm' else layer.kernel)[...] = first
    layer.bias[...] = bias
  graph, params, rest = nnx.split(model, nnx.Param, ...)

  def loss_of(rest, batch, params):
    x, y = batch
    copy = nnx.merge(graph, params, rest, copy=True)
    return squared(copy(x), y)

  return Program(loss_of, params, rest, (params, rest, nnx.state(model)))


class EquinoxNet(eqx.Module):
  stem: eqx.nn.Linear
  norm: eqx.nn.BatchNorm
  head: eqx.nn.Linear

  def __init__(self, weights):
    key = jax.random.key(0)
    self.stem = eqx.nn.Linear(5, 6, key=key)
    self.norm = eqx.nn.BatchNorm(6, axis_name='batch', mode='batch')
    self.head = eqx.nn.Linear(6, 2, key=key)
    for name, (first, bias) in weights.items():
      layer = eqx.tree_at(
        lambda layer: (layer.weight, layer.bias),
        getattr(self, name),
        (first.T, bias),
      )
      setattr(self, name, layer)

  def __call__(self, x, state):
    x, state = self.norm(self.stem(x), state)
    return self.head(jnp.tanh(x)), state


def equinox():
  model, state = eqx.nn.make_with_state(EquinoxNet)(weights())
  params, static = eqx.partition(model, eqx.is_inexact_array)

  def loss_of(state, batch, params):
    x, y = batch
    both = eqx.combine(params, static)
    outputs, _ = jax.vmap(both, (0, None), (0, None), 'batch')(x, state)
    return squared(outputs, y)

  return Program(loss_of, params, state, (params, model, state))


def bits(tree):
  """Copies of all arrays of a tree; keys as their data."""
  leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf)]
  return [
    np.array(
      jax.random.key_data(leaf)
      if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
      else leaf
    )
    for leaf in leaves
  ]


def seen(program, batch):
  """What along_gradient, covariate_shift and barrier find, under one roof."""
  loss = jax.tree_util.Partial(program.loss_of, program.kept, batch)
  look = analysis.along_gradient(loss, program.params, STEPS, layers=LAYERS)
  _, gradient = analysis.value_and_gradient(loss, program.params)
  after = trees.add_scaled(program.params, -0.5, gradient)
  shift = analysis.covariate_shift(loss, program.params, after, LAYERS)
  line = analysis.barrier(loss, program.params, after, points=3)
  return (
    look
    | {f'shift/{name}': value for name, value in shift.items()}
    | {f'line/{name}': value for name, value in line.items()}
  )


@functools.cache
def reference():
  """Of five batches, in float64, by the plain function."""
  with jax.enable_x64(True):
    program = plain()
    program = program._replace(params=jax.tree.map(jnp.float64, program.params))
    return [
      seen(program, jax.tree.map(jnp.float64, batch(seed))) for seed in range(5)
    ]


class ProgramsTest(parameterized.TestCase):
  @parameterized.parameters(plain, linen, flax_nnx, equinox)
  def test_five_batches(self, make):
    """The same numbers in each library, compiled once, nothing touched."""
    program = make()
    before = bits(program.owned)
    # Once with its gradient, and once as values alone.
    traced = chex.assert_max_traces(program.loss_of, n=2)
    program = program._replace(loss_of=traced)
    for seed, expected in enumerate(reference()):
      found = seen(program, batch(seed))
      self.assertEqual(set(found), set(expected))
      for name, value in found.items():
        np.testing.assert_allclose(
          value, expected[name], rtol=2e-5, atol=2e-6, err_msg=name
        )
    same_bits.assert_same(bits(program.owned), before)

  @parameterized.parameters(
    (plain, ('head/0', 'head/1')),
    (linen, ('head/bias', 'head/kernel')),
    (flax_nnx, ('head/bias/value', 'head/kernel/value')),
    (equinox, ('stem/weight', 'stem/bias')),
  )
  def test_paths(self, make, first):
    """Dicts and states are sorted, modules are as they were written."""
    self.assertEqual(trees.paths(make().params)[:2], first)

  def test_a_module_as_direction(self):
    """Modules of Equinox can be called, and are trees all the same."""
    program = equinox()
    self.assertTrue(callable(program.params))
    loss = jax.tree_util.Partial(program.loss_of, program.kept, batch())
    _, gradient = analysis.value_and_gradient(loss, program.params)
    given, usual = (
      analysis.along_gradient(loss, program.params, STEPS, direction)
      for direction in (gradient, None)
    )
    same_bits.assert_same(given, usual)

  def test_dropout_of_nnx_draws_alike_at_every_point(self):
    program = flax_nnx(dropout=0.5)
    before = bits(program.owned)
    loss = jax.tree_util.Partial(program.loss_of, program.kept, batch())
    look = analysis.along_gradient(loss, program.params, (1e-6, 0.1))
    # Another draw would be another gradient, however small the step.
    self.assertLess(look['gradient_change'][0], 1e-3 * look['gradient_norm_0'])
    same_bits.assert_same(bits(program.owned), before)
    later = jax.tree.map(
      lambda leaf: leaf + 1 if leaf.dtype == jnp.uint32 else leaf, program.kept
    )
    loss = jax.tree_util.Partial(program.loss_of, later, batch())
    value, _ = analysis.value_and_gradient(loss, program.params)
    self.assertGreater(abs(value - look['loss_0']), 1e-3)


if __name__ == '__main__':
  absltest.main()
