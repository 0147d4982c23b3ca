"""Clipping, rates by path, and what is trained, of any optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from bn_jax import optim, trees
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)

RATE = optim.constant(learning_rate=0.1)
SHAPES = {
  'conv1': {'kernel': (2, 2, 3, 4), 'bias': (4,)},
  'norm1': {'scale': (4,), 'bias': (4,)},
}


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def drawn(seed):
  generator = np.random.default_rng(seed)
  return jax.tree.map(
    lambda shape: jnp.asarray(generator.normal(size=shape), jnp.float32),
    SHAPES,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def trained(optimizer, gradients, params):
  """(parameters, state) after an update by each gradient."""
  opt_state, update = optimizer.init(params), jax.jit(optimizer.update)
  for gradient in gradients:
    updates, opt_state = update(gradient, opt_state, params)
    params = optax.apply_updates(params, updates)
  return params, opt_state


class WithinTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.params = drawn(0)
    self.gradients = [drawn(seed) for seed in (1, 2, 3)]

  def both(self, name='sgd', changes=None, **keywords):
    """Parameters after three updates, changed and not."""
    optimizer = optim.make(name, RATE, **keywords)
    changed = optim.within(optimizer, **changes)
    return (
      trained(one, self.gradients, self.params)[0]
      for one in (changed, optimizer)
    )

  def test_nothing_is_changed_by_default(self):
    optimizer = optim.sgd(RATE)
    self.assertIs(optim.within(optimizer), optimizer)

  def test_clip_norm(self):
    self.gradients = self.gradients[:1]
    length = float(trees.norm(self.gradients[0]))
    for most in (length / 3, 2 * length):
      got, whole = self.both(changes={'clip_norm': most})
      share = min(1, most / length)
      for p, a, b in zip(*map(jax.tree.leaves, (self.params, got, whole))):
        np.testing.assert_allclose(a - p, share * (b - p), rtol=1e-4, atol=1e-6)

  def test_adaptive_clip_is_by_output(self):
    self.gradients = self.gradients[:1]
    got, _ = self.both(changes={'adaptive_clip': 0.5})
    for layer, leaf in (('conv1', 'kernel'), ('norm1', 'scale')):
      p, g, new = (
        np.float64(tree[layer][leaf])
        for tree in (self.params, self.gradients[0], got)
      )
      axes = (0, 1, 2) if leaf == 'kernel' else None
      norm_p, norm_g = (
        np.sqrt(np.square(x).sum(axes, keepdims=True)) for x in (p, g)
      )
      share = np.minimum(1, 0.5 * norm_p / norm_g)
      self.assertLess(share.min(), 1)
      np.testing.assert_allclose(new, p - 0.1 * share * g, rtol=1e-4, atol=1e-6)

  @parameterized.parameters((1, 8), (1, 1, 1, 8), (1, 5, 8), (3, 1, 8), (8, 1))
  def test_adaptive_clip_is_by_output_whatever_the_inputs(self, *shape):
    p, g = np.random.default_rng(0).normal(size=(2, *shape))
    optimizer = optim.within(optim.sgd(RATE), adaptive_clip=0.5)
    new, _ = trained(optimizer, [{'kernel': g}], {'kernel': jnp.asarray(p)})
    norm_p, norm_g = (
      np.sqrt(np.square(x.reshape(-1, shape[-1])).sum(0)) for x in (p, g)
    )
    share = np.minimum(1, 0.5 * norm_p / norm_g)
    np.testing.assert_allclose(
      new['kernel'], p - 0.1 * share * g, rtol=1e-4, atol=1e-6
    )

  @parameterized.parameters('sgd', 'adamw', 'muon', 'lamb', 'rmsprop')
  def test_rates_scale_what_is_added(self, name):
    self.gradients = self.gradients[:1]
    rates = {'*bias': 3.0, 'conv1/*': 0.5, '*scale': 0.0}
    got, plain = self.both(name, changes={'rates': rates})
    for layer, leaf, factor in (
      ('conv1', 'kernel', 0.5), ('conv1', 'bias', 1.5),
      ('norm1', 'bias', 3.0), ('norm1', 'scale', 0.0),
    ):  # fmt: skip
      p = self.params[layer][leaf]
      np.testing.assert_allclose(
        got[layer][leaf] - p, factor * (plain[layer][leaf] - p),
        rtol=1e-3, atol=1e-6,
      )  # fmt: skip

  @parameterized.parameters(*optim.OPTIMIZERS)
  def test_what_is_not_trained_stays_bit_for_bit(self, name):
    keywords = {'weight_decay_on': 'all'} if name != 'sgd' else {}
    optimizer = optim.within(
      optim.make(name, RATE, **keywords), trainable='*norm*'
    )
    got, opt_state = trained(optimizer, self.gradients, self.params)
    same_bits.assert_same(got['conv1'], self.params['conv1'])
    # Its moments are not kept either.
    sizes = {leaf.size for leaf in jax.tree.leaves(opt_state)}
    self.assertNotIn(self.params['conv1']['kernel'].size, sizes)
    # The rest is trained as if it were alone.
    alone, _ = trained(
      optim.make(name, RATE, **keywords),
      [{'norm1': gradient['norm1']} for gradient in self.gradients],
      {'norm1': self.params['norm1']},
    )
    same_bits.assert_same(got['norm1'], alone['norm1'])

  def test_clipping_sees_what_is_trained(self):
    optimizer = optim.within(
      optim.sgd(RATE), trainable='norm1/scale', clip_norm=0.5
    )
    self.gradients = self.gradients[:1]
    got, _ = trained(optimizer, self.gradients, self.params)
    g = np.float64(self.gradients[0]['norm1']['scale'])
    np.testing.assert_allclose(
      got['norm1']['scale'],
      self.params['norm1']['scale'] - 0.05 * g / np.linalg.norm(g),
      rtol=1e-5,
    )

  def test_factors(self):
    changes = {'rates': {'*bias': 2.0}, 'trainable': 'norm1/*'}
    factors = optim.within(optim.sgd(RATE), **changes).factors(self.params)
    self.assertEqual(
      factors,
      {
        'conv1': {'kernel': 0.0, 'bias': 0.0},
        'norm1': {'scale': 1.0, 'bias': 2.0},
      },
    )
    for other in (
      optim.adam(RATE), optim.sam(RATE),
      optim.within(optim.sgd(RATE), clip_norm=1.0),
    ):  # fmt: skip
      self.assertIsNone(optim.within(other, **changes).factors)

  @parameterized.parameters(
    (dict(rates={'': 1.0}), "rates is ''; allowed: globs"),
    (dict(rates={'*': -1.0}), r"rates\['\*'\] is -1.0; allowed: 0 or more"),
    (dict(rates=[('*', 1.0)]), 'allowed: a dict, globs of paths -> factor'),
    (dict(clip_norm=0.0), 'clip_norm is 0.0; allowed: above 0'),
    (dict(trainable=None), 'trainable is None; allowed: globs of paths'),
  )
  def test_refuses(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      optim.within(optim.sgd(RATE), **changes)


class SharpnessTest(parameterized.TestCase):
  """Of x'Hx / 2, by hand."""

  @parameterized.parameters(('all', 0.3), ('a', 0.3), ('all', 0.0))
  def test_ascent(self, perturb, rho):
    params = {'a': jnp.array([1.0, 2.0]), 'b': jnp.array([2.0])}
    gradient = {'a': jnp.array([3.0, 0.0]), 'b': jnp.array([4.0])}
    optimizer = optim.sam(RATE, rho=rho, perturb=perturb)
    point = optimizer.ascent(params, gradient)
    length = 5.0 if perturb == 'all' else 3.0
    np.testing.assert_allclose(point['a'], [1 + rho * 3 / length, 2], rtol=1e-6)
    want = 2 + rho * 4 / 5 if perturb == 'all' else 2.0
    np.testing.assert_allclose(point['b'], [want], rtol=1e-6)

  def test_no_gradient_is_no_ascent(self):
    params = {'a': jnp.ones(2)}
    zero = {'a': jnp.zeros(2)}
    same_bits.assert_same(optim.sam(RATE).ascent(params, zero), params)

  def test_of_what_is_trained(self):
    params = {'a': jnp.ones(1), 'b': jnp.ones(1)}
    gradient = {'a': jnp.full(1, 3.0), 'b': jnp.full(1, 4.0)}
    optimizer = optim.within(optim.sam(RATE, rho=0.5), trainable='b')
    point = optimizer.ascent(params, gradient)
    np.testing.assert_allclose([point['a'], point['b']], [[1.0], [1.5]])


if __name__ == '__main__':
  absltest.main()
