"""Optimizers against optax alone, and against their formulas."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl.testing import absltest, parameterized

from bn_jax import optim
from tests.fixtures import (
  same_bits,
  strict,
  toys,
)


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


TENTH = optim.constant(learning_rate=0.1)
RATE = optim.cosine(learning_rate=0.1, decay_steps=30, warmup_steps=2)


def parameters(dtype=jnp.float32):
  """A kernel of a convolution, a dense one, biases and a scale."""
  shapes = {
    'conv1': {'kernel': (3, 3, 2, 4), 'bias': (4,)},
    'norm1': {'scale': (4,)},
    'logits': {'kernel': (6, 3), 'bias': (3,)},
  }
  return drawn(shapes, 0, dtype)


def drawn(like, seed, dtype=jnp.float32):
  """Normal numbers; `like` is a tree of arrays, or of shapes."""
  leaves, structure = jax.tree.flatten(
    like, is_leaf=lambda x: isinstance(x, tuple)
  )
  generator = np.random.default_rng(seed)
  return jax.tree.unflatten(
    structure,
    [
      jnp.asarray(generator.normal(size=getattr(x, 'shape', x)), dtype)
      for x in leaves
    ],
  )


def kernels(params):
  """A mask, written without globs."""
  return {
    layer: {name: name == 'kernel' for name in arrays}
    for layer, arrays in params.items()
  }


def matrices(params):
  return jax.tree.map(
    lambda is_kernel, x: (
      optax.contrib.MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1)
      if is_kernel
      else None
    ),
    kernels(params),
    params,
  )


# Name -> (our keywords, the same of optax alone).
CASES = {
  'sgd': (
    dict(momentum=0.9, nesterov=True),
    lambda: optax.sgd(RATE, momentum=0.9, nesterov=True),
  ),
  'adam': (dict(b2=0.99), lambda: optax.adam(RATE, b2=0.99)),
  'adamw': (
    dict(weight_decay=0.1),
    lambda: optax.adamw(RATE, weight_decay=0.1, mask=kernels),
  ),
  'lion': (dict(), lambda: optax.lion(RATE, mask=kernels)),
  'lamb': (
    dict(weight_decay=0.1),
    lambda: optax.lamb(RATE, weight_decay=0.1, mask=kernels),
  ),
  'muon': (
    dict(weight_decay=0.1, beta=0.9),
    lambda: optax.contrib.muon(
      RATE, weight_decay=0.1, beta=0.9, weight_decay_mask=kernels,
      muon_weight_dimension_numbers=matrices,
    ),
  ),
  'rmsprop': (
    dict(momentum=0.9, eps_in_sqrt=False),
    lambda: optax.rmsprop(RATE, momentum=0.9, eps_in_sqrt=False),
  ),
}  # fmt: skip


def applied(optimizer, params, gradient, steps=1):
  """The parameters after updates by one gradient."""
  opt_state, update = optimizer.init(params), jax.jit(optimizer.update)
  for _ in range(steps):
    updates, opt_state = update(gradient, opt_state, params)
    params = optax.apply_updates(params, updates)
  return params


class OptaxTest(parameterized.TestCase):
  @parameterized.parameters(*CASES)
  def test_bit_for_bit(self, name):
    keywords, alone = CASES[name]
    ours, theirs = optim.make(name, RATE, **keywords), alone()
    update, other = jax.jit(ours.update), jax.jit(theirs.update)
    params = parameters()
    states = ours.init(params), theirs.init(params)
    for step in range(4):
      gradient = drawn(params, step)
      updates, ours_state = update(gradient, states[0], params)
      want, theirs_state = other(gradient, states[1], params)
      same_bits.assert_same(updates, want)
      states = ours_state, theirs_state
      params = optax.apply_updates(params, updates)

  def test_every_optimizer_has_a_case(self):
    self.assertEqual({*CASES, 'sam'}, set(optim.OPTIMIZERS))

  def test_the_table_of_the_docs(self):
    text = (strict.ROOT / 'docs' / 'optimizers.md').read_text()
    words = {
      "'all'": "`'all'`", '0.0001': '1e-4', '0.001': '1e-3',
      '1e-08': '1e-8', '1e-06': '1e-6',
    }  # fmt: skip
    for name, factory in optim.OPTIMIZERS.items():
      (row,) = (
        line for line in text.splitlines() if line.startswith(f'| `{name}` |')
      )
      for keyword, parameter in inspect.signature(factory).parameters.items():
        value = parameter.default
        if keyword in ('schedule', 'weight_decay_on') or (
          name == 'adamw' and keyword != 'weight_decay'  # 'as adam'
        ):
          continue
        said = words.get(repr(value), f'{value}'.removesuffix('.0'))
        self.assertIn(f'`{keyword}` {said}', row, name)

  @parameterized.parameters(*optim.OPTIMIZERS)
  def test_parameters_in_bfloat16(self, name):
    """Of which optax makes 1 - b2 = 0, if b2 were in the state."""
    optimizer = optim.make(name, RATE)
    params = parameters(jnp.bfloat16)
    opt_state, update = optimizer.init(params), jax.jit(optimizer.update)
    kinds = jax.tree.map(lambda x: (x.shape, x.dtype), (params, opt_state))
    for step in range(3):
      updates, opt_state = update(
        drawn(params, step, jnp.bfloat16), opt_state, params
      )
      params = optax.apply_updates(params, updates)
    now = jax.tree.map(lambda x: (x.shape, x.dtype), (params, opt_state))
    self.assertEqual(now, kinds)
    for leaf in jax.tree.leaves(params):
      self.assertTrue(np.isfinite(np.float32(leaf)).all())

  @parameterized.parameters(*optim.OPTIMIZERS)
  def test_the_rate_is_announced_and_lies_in_the_state(self, name):
    optimizer, params = optim.make(name, RATE), parameters()
    opt_state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(3):
      rate = optimizer.learning_rate(opt_state, jnp.asarray(step))
      _, opt_state = update(drawn(params, step), opt_state, params)
      np.testing.assert_array_equal(
        opt_state.hyperparams['learning_rate'], rate
      )


class WholeTrainingTest(parameterized.TestCase):
  """Twenty steps of a network, against a loop of flax and optax alone."""

  def test_in_float64(self):
    self.check(
      'adamw', dict(weight_decay=0.1),
      lambda: optax.adamw(RATE, weight_decay=0.1, mask=kernels),
    )  # fmt: skip

  @pytest.mark.slow  # compiles two steps
  def test_so_by_momentum(self):
    self.check('sgd', dict(momentum=0.9), lambda: optax.sgd(RATE, momentum=0.9))

  def check(self, name, keywords, alone):
    with jax.enable_x64(True):
      made = toys.classifier(
        optimizer=optim.make(name, RATE, **keywords), weight_decay=0.01
      )
      wide = lambda x: x.astype('float64') if x.dtype == 'float32' else x
      state, split = jax.tree.map(wide, made.init(0)), toys.split()
      module = toys.Net(toys.norms.make('batch'))
      theirs = alone()
      params, statistics = state.params, state.batch_stats
      opt_state = theirs.init(params)

      def loss(params, statistics, batch):
        logits, new = module.apply(
          {'params': params, 'batch_stats': statistics},
          batch.images, statistics='batch', mutable=['batch_stats'],
        )  # fmt: skip
        each = optax.softmax_cross_entropy_with_integer_labels(
          logits, batch.labels
        )
        squares = [
          jnp.sum(params[n]['kernel'] ** 2) for n in params if n[0] != 'n'
        ]
        return each.mean() + 0.005 * sum(squares), new['batch_stats']

      gradient_of = jax.jit(jax.grad(loss, has_aux=True))
      step, norms = toys.step(made), []
      for _ in range(20):
        batch = made.batch(state, split)
        gradient, statistics = gradient_of(params, statistics, batch)
        updates, opt_state = theirs.update(gradient, opt_state, params)
        norms.append(float(optax.tree.norm(updates)))
        params = optax.apply_updates(params, updates)
        state = step(state, split)
      self.assertEqual(state.params['conv1']['kernel'].dtype, np.float64)
      for got, want in zip(
        jax.tree.leaves((state.params, state.batch_stats)),
        jax.tree.leaves((params, statistics)),
        strict=True,
      ):
        np.testing.assert_allclose(
          got, want, rtol=1e-12, atol=1e-12 * np.abs(want).max()
        )
      # The ring holds the last four rows, in float32.
      np.testing.assert_allclose(
        state.ring['update_norm'], norms[-4:], rtol=1e-6
      )


class FormulasTest(parameterized.TestCase):
  @parameterized.parameters('adamw', 'lion', 'lamb', 'muon')
  def test_decoupled_decay_shrinks_by_the_rate(self, name):
    """Without a gradient, w loses rate * weight_decay * w; LAMB rescales it."""
    params = parameters()
    zero = jax.tree.map(jnp.zeros_like, params)
    for on in ('kernels', 'norm1/*,logits/bias'):
      optimizer = optim.make(name, TENTH, weight_decay=0.5, weight_decay_on=on)
      after = applied(optimizer, params, zero)
      for path in ('conv1/kernel', 'norm1/scale', 'conv1/bias', 'logits/bias'):
        layer, leaf = path.split('/')
        decays = (leaf == 'kernel') == (
          on == 'kernels'
        ) and path != 'conv1/bias'
        factor = 1.0 if not decays else 0.9 if name == 'lamb' else 0.95
        np.testing.assert_allclose(
          after[layer][leaf], factor * params[layer][leaf], rtol=1e-6
        )

  def test_coupled_decay_passes_through_adam(self):
    """A first step of Adam is as long, whatever the decay: 0.1 * sign."""
    params = parameters()
    penalty = optim.weight_decay(weight_decay=0.5)
    gradient = jax.grad(penalty)(params)
    after = applied(optim.adam(TENTH), params, gradient)
    w = params['conv1']['kernel']
    np.testing.assert_allclose(
      after['conv1']['kernel'], w - 0.1 * jnp.sign(w), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(
      after['norm1']['scale'], params['norm1']['scale']
    )

  def test_lion_steps_by_signs(self):
    params = parameters()
    gradient = drawn(params, 1)
    after = applied(optim.lion(TENTH, weight_decay=0.0), params, gradient)
    for p, g, new in zip(*map(jax.tree.leaves, (params, gradient, after))):
      np.testing.assert_allclose(
        new, p - 0.1 * np.sign(g), rtol=1e-5, atol=1e-6
      )

  def test_a_step_of_lamb_is_as_long_as_the_weights(self):
    params = parameters()
    after = applied(optim.lamb(TENTH), params, drawn(params, 1))
    for p, new in zip(*map(jax.tree.leaves, (params, after))):
      length = np.linalg.norm(np.float64(new - p))
      self.assertAlmostEqual(length / np.linalg.norm(p), 0.1, places=5)

  def test_muon_makes_kernels_orthogonal_and_leaves_the_rest_to_adam(self):
    params = parameters()
    gradient = drawn(params, 1)
    after = applied(optim.muon(TENTH), params, gradient)
    adam = applied(optim.adam(TENTH, nesterov=True), params, gradient)
    for layer in ('conv1', 'logits'):
      step = np.float64(after[layer]['kernel'] - params[layer]['kernel'])
      sizes = np.linalg.svd(step.reshape(-1, step.shape[-1]))[1] / 0.1
      self.assertBetween(sizes.min(), 0.5, 1.3)
      self.assertBetween(sizes.max(), 0.5, 1.3)
    for path in (('conv1', 'bias'), ('norm1', 'scale')):
      np.testing.assert_array_equal(
        after[path[0]][path[1]], adam[path[0]][path[1]]
      )

  def test_muon_of_a_wide_kernel_is_longer(self):
    params = {'kernel': jnp.ones((4, 16))}
    gradient = drawn(params, 0)
    step = applied(optim.muon(TENTH), params, gradient)['kernel'] - 1
    sizes = np.linalg.svd(np.float64(step))[1] / 0.1
    self.assertBetween(sizes.mean() / 2, 0.6, 1.2)  # sqrt(16 / 4)

  @parameterized.parameters((True, 0.0), (False, 0.0), (True, 1.0))
  def test_rmsprop(self, eps_in_sqrt, initial_scale):
    params, gradient = {'w': jnp.ones(3)}, {'w': jnp.array([0.5, -2.0, 1e-3])}
    optimizer = optim.rmsprop(
      TENTH, decay=0.8, eps=1e-2, eps_in_sqrt=eps_in_sqrt,
      initial_scale=initial_scale,
    )  # fmt: skip
    got = applied(optimizer, params, gradient)['w']
    g = np.float64(gradient['w'])
    square = 0.8 * initial_scale + 0.2 * g**2
    below = np.sqrt(square + 1e-2) if eps_in_sqrt else np.sqrt(square) + 1e-2
    np.testing.assert_allclose(got, 1 - 0.1 * g / below, rtol=1e-5)

  @parameterized.parameters(
    ('adam', dict(b1=1.0)), ('adamw', dict(weight_decay=-1.0)),
    ('adamw', dict(weight_decay_on=3)), ('muon', dict(ns_steps=0)),
    ('rmsprop', dict(nesterov=True)), ('sam', dict(rho=-0.1)),
    ('sam', dict(perturb='')), ('lion', dict(b2=float('nan'))),
  )  # fmt: skip
  def test_refuses(self, name, keywords):
    with self.assertRaisesRegex(ValueError, 'allowed'):
      optim.make(name, TENTH, **keywords)


def trajectory(optimizer, steps=5):
  """Parameters of x -> x^2 / 2 and the rates that were announced."""
  x = jnp.array([1.0, -2.0])
  state, points, rates = optimizer.init(x), [], []
  for step in range(steps):
    rates.append(float(optimizer.learning_rate(state, jnp.asarray(step))))
    updates, state = optimizer.update(x, state, x)
    x = optax.apply_updates(x, updates)
    points.append(np.asarray(x))
  return np.array(points), np.array(rates)


class SGDTest(parameterized.TestCase):
  def test_plain(self):
    points, rates = trajectory(optim.sgd(optim.constant(learning_rate=0.1)))
    want = np.outer(0.9 ** np.arange(1, 6), [1.0, -2.0])
    np.testing.assert_allclose(points, want, rtol=1e-6)
    np.testing.assert_allclose(rates, 0.1, rtol=1e-6)

  @parameterized.parameters(False, True)
  def test_momentum(self, nesterov):
    points, _ = trajectory(
      optim.sgd(
        optim.constant(learning_rate=0.1), momentum=0.8, nesterov=nesterov
      )
    )
    x, trace = np.array([1.0, -2.0]), np.zeros(2)
    for point in points:
      g = x
      trace = 0.8 * trace + g
      x = x - 0.1 * (g + 0.8 * trace if nesterov else trace)
      np.testing.assert_allclose(point, x, rtol=1e-5)

  def test_the_announced_rate_is_the_one_used(self):
    optimizer = optim.sgd(
      optim.cosine(learning_rate=0.4, decay_steps=10, warmup_steps=2)
    )
    points, rates = trajectory(optimizer)
    before = np.vstack([[1.0, -2.0], points[:-1]])
    np.testing.assert_allclose(points, before * (1 - rates[:, None]), rtol=1e-5)
    self.assertEqual(rates[0], 0)
    self.assertAlmostEqual(rates[2], 0.4, places=6)

  def test_hyperparameters_live_in_the_state(self):
    state = optim.sgd(optim.constant(learning_rate=0.1), momentum=0.9).init(
      jnp.ones(2)
    )
    self.assertAlmostEqual(float(state.hyperparams['momentum']), 0.9, places=6)

  @parameterized.parameters(
    dict(momentum=1.0), dict(momentum=-0.1), dict(nesterov=True)
  )
  def test_refuses(self, **keywords):
    with self.assertRaises(ValueError):
      optim.sgd(optim.constant(learning_rate=0.1), **keywords)


if __name__ == '__main__':
  absltest.main()
