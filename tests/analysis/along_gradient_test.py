import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis, norms, plugins
from bn_jax.data.batches import in_memory
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)

STEPS = (0.01, 0.1, 0.5, 2.0)
IN_CHUNKS = ('along_gradient', 'covariate_shift', 'one_step_loss', 'weights')


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class ClosedFormTest(parameterized.TestCase):
  """A quadratic: all quantities are known for every step size."""

  @parameterized.parameters(False, True)
  def test_quadratic(self, along_given_direction):
    with jax.enable_x64(True):
      loss, params, hessian, slope = toys.quadratic()
      x = toys.flat(params)
      g = hessian @ x + slope
      direction, d = None, g
      if along_given_direction:
        direction = jax.tree.map(lambda a: jnp.sin(1 + a), params)
        d = toys.flat(direction)
      got = analysis.along_gradient(loss, params, STEPS, direction)
    for i, e in enumerate(STEPS):
      point = x - e * d
      value = 0.5 * point @ hessian @ point + slope @ point
      gradient = hessian @ point + slope
      distance = e * np.linalg.norm(d)
      want = {
        'step_size': e,
        'loss': value,
        'gradient_norm': np.linalg.norm(gradient),
        'gradient_change': e * np.linalg.norm(hessian @ d),
        'gradient_cosine': gradient
        @ g
        / np.linalg.norm(gradient)
        / np.linalg.norm(g),
        'beta': np.linalg.norm(hessian @ d) / np.linalg.norm(d),
        'lipschitz': abs(value - got['loss_0']) / distance,
      }
      for name, number in want.items():
        np.testing.assert_allclose(
          got[name][i], number, rtol=1e-9, err_msg=name
        )
    value = 0.5 * x @ hessian @ x + slope @ x
    np.testing.assert_allclose(got['loss_0'], value, rtol=1e-12)
    np.testing.assert_allclose(
      got['gradient_norm_0'], np.linalg.norm(g), rtol=1e-12
    )

  def test_linear_loss_has_no_curvature(self):
    params = {'w': jnp.arange(1.0, 5.0)}
    got = analysis.along_gradient(lambda p: 3 * p['w'].sum(), params, STEPS)
    np.testing.assert_array_equal(got['gradient_change'], 0)
    np.testing.assert_array_equal(got['beta'], 0)
    np.testing.assert_allclose(got['gradient_cosine'], 1, rtol=1e-6)
    # |L(0) - L(e)| / (e |g|) = |g| = 3 * sqrt(4).
    np.testing.assert_allclose(got['lipschitz'], 6, rtol=1e-5)

  def test_small_steps_read_the_hessian_vector_product(self):
    with jax.enable_x64(True):
      params = {'w': jnp.array([0.3, -0.7, 1.1])}

      def loss(p):
        return jnp.sum(jnp.cos(p['w']) * jnp.exp(0.3 * p['w'])) ** 2

      g = jax.grad(loss)(params)
      hg = jax.jvp(jax.grad(loss), (params,), (g,))[1]
      got = analysis.along_gradient(loss, params, [1e-6])
    want = np.linalg.norm(hg['w']) / np.linalg.norm(g['w'])
    np.testing.assert_allclose(got['beta'], want, rtol=1e-4)

  def test_a_step_below_the_digits_of_the_parameters(self):
    """From 1 no float32 is reached by 1e-9: no beta, and not 0."""
    params = {'w': jnp.ones(3)}
    got = analysis.along_gradient(
      lambda p: jnp.sum(p['w'] ** 2), params, [1e-9, 0.1]
    )
    for name in ('beta', 'lipschitz'):
      self.assertTrue(np.isnan(got[name][0]), name)
      self.assertGreater(got[name][1], 0)

  def test_refuses_a_complex_direction(self):
    with self.assertRaisesRegex(ValueError, "'w' is complex64; allowed: real"):
      analysis.along_gradient(
        lambda p: jnp.sum(p['w'] ** 2), {'w': jnp.ones(3)}, [0.1],
        {'w': 1j * jnp.ones(3)},
      )  # fmt: skip

  def test_zero_gradient(self):
    params = {'w': jnp.zeros(3)}
    got = analysis.along_gradient(lambda p: jnp.sum(p['w'] ** 2), params, [1.0])
    for name in ('beta', 'gradient_cosine', 'lipschitz'):
      self.assertTrue(np.isnan(got[name]).all(), name)
    self.assertEqual(got['gradient_change'], 0)

  def test_shapes(self):
    loss, params, _, _ = toys.quadratic()
    got = analysis.along_gradient(loss, params, STEPS)
    for name, value in got.items():
      self.assertEqual(value.shape, () if name.endswith('_0') else (4,), name)

  def test_agrees_with_a_plain_loop_on_a_network(self):
    """Another route: apply the step, differentiate there, subtract."""
    module = toys.Net(norms.make('batch'), num_classes=10)
    x = jax.random.normal(jax.random.key(0), (8, 4, 4, 1))
    variables = module.init(jax.random.key(1), x, statistics='running')

    def loss(params):
      logits, _ = module.apply(
        {**variables, 'params': params}, x, statistics='batch',
        mutable=['batch_stats'],
      )  # fmt: skip
      return -jax.nn.log_softmax(logits)[:, 3].mean()

    params = variables['params']
    got = analysis.along_gradient(loss, params, (0.1, 0.4))
    gradient = jax.jit(jax.grad(loss))
    g = toys.flat(gradient(params))
    for i, e in enumerate((0.1, 0.4)):
      point = jax.tree.map(
        lambda p, d, e=e: p - e * d, params, gradient(params)
      )
      there = toys.flat(gradient(point))
      np.testing.assert_allclose(
        got['gradient_change'][i], np.linalg.norm(there - g), rtol=1e-4
      )
      np.testing.assert_allclose(
        got['beta'][i],
        np.linalg.norm(there - g) / (e * np.linalg.norm(g)),
        rtol=1e-4,
      )


class LayersTest(parameterized.TestCase):
  """A quadratic: each layer has its own part of g, d and H d."""

  LAYERS = (('second', ('b/c',)), ('first', ('a',)))
  PARTS = (slice(2, 6), slice(0, 2))

  @parameterized.product(given=(False, True), devices=(0, 3))
  def test_closed_form(self, given, devices):
    with jax.enable_x64(True):
      loss, params, hessian, slope = toys.quadratic()
      x = toys.flat(params)
      g = hessian @ x + slope
      along = jax.tree.map(lambda a: jnp.sin(1 + a), params)
      d = toys.flat(along) if given else g
      got = analysis.along_gradient(
        loss,
        params,
        STEPS,
        along if given else None,
        layers=self.LAYERS,
        curvature=True,
        devices=jax.devices()[:devices],
      )
    norm = np.linalg.norm
    for layer, part in enumerate(self.PARTS):
      np.testing.assert_allclose(
        got['layer_gradient_norm_0'][layer], norm(g[part]), rtol=1e-12
      )
      for i, e in enumerate(STEPS):
        there = (hessian @ (x - e * d) + slope)[part]
        change = norm((hessian @ d)[part])
        want = {
          'norm': norm(there),
          'change': e * change,
          'cosine': there @ g[part] / norm(there) / norm(g[part]),
        }
        for name, number in want.items():
          curve = got[f'layer_gradient_{name}']
          self.assertEqual(curve.shape, (4, 2))
          np.testing.assert_allclose(
            curve[i, layer], number, rtol=1e-9, err_msg=name
          )
        np.testing.assert_allclose(
          got['layer_beta'][i, layer], change / norm(d[part]), rtol=1e-9
        )
    np.testing.assert_allclose(
      got['curvature'], d @ hessian @ d / (d @ d), rtol=1e-12
    )
    np.testing.assert_allclose(
      got['beta_0'], norm(hessian @ d) / norm(d), rtol=1e-12
    )
    self.assertEqual((got['curvature'].shape, got['beta_0'].shape), ((), ()))

  def test_beta_tends_to_that_of_the_hessian(self):
    """In proportion to e, for a loss that is no quadratic."""
    with jax.enable_x64(True):
      params = {'w': jnp.array([0.3, -0.7, 1.1])}
      loss = lambda p: jnp.sum(jnp.cos(p['w']) * jnp.exp(0.3 * p['w'])) ** 2
      got = analysis.along_gradient(
        loss, params, (1e-2, 1e-3, 1e-4), curvature=True
      )
    gaps = np.abs(got['beta'] - got['beta_0'])
    self.assertGreater(gaps[0], 1e-4)
    np.testing.assert_allclose(gaps[:2] / gaps[1:], 10, rtol=0.1)

  def test_refuses(self):
    loss, params, *_ = toys.quadratic()
    with self.assertRaisesRegex(ValueError, "unknown path 'd'"):
      analysis.along_gradient(loss, params, STEPS, layers=(('x', ('d',)),))


class DirectionTest(parameterized.TestCase):
  def test_ascent_and_functions_of_the_gradient(self):
    with jax.enable_x64(True):
      loss, params, *_ = toys.quadratic()
      look = lambda direction, sizes=STEPS: analysis.along_gradient(
        loss, params, sizes, direction, curvature=True
      )
      gradient = jax.grad(loss)(params)
      up = look(jax.tree.map(jnp.negative, gradient))
      for name, value in look('ascent').items():
        np.testing.assert_allclose(value, up[name], rtol=1e-12, err_msg=name)
      self.assertGreater(up['loss'][0], up['loss_0'])
      twice = look(lambda g: jax.tree.map(lambda x: 2 * x, g))
      far = look('descent', [2 * e for e in STEPS])
      for name in ('loss', 'gradient_change', 'beta', 'lipschitz', 'curvature'):
        np.testing.assert_allclose(twice[name], far[name], rtol=1e-12)

  def test_random(self):
    """Along d, |x|^2 / 2 changes its gradient by e |d|, layer by layer."""
    params = {'a': jnp.arange(1.0, 41.0), 'b': jnp.arange(1.0, 41.0)}
    loss = lambda p: 0.5 * sum(jnp.sum(x**2) for x in p.values())
    one, again, other = (
      analysis.along_gradient(
        loss,
        params,
        [0.5],
        'random',
        layers=(('a', ('a',)), ('b', ('b',))),
        key=jax.random.key(seed),
      )
      for seed in (0, 0, 1)
    )
    same_bits.assert_same(one, again)
    self.assertNotEqual(one['loss'], other['loss'])
    length = one['gradient_change'] / 0.5
    np.testing.assert_allclose(length, one['gradient_norm_0'], rtol=1e-5)
    # Every array has numbers of its own, and they do not follow the gradient.
    self.assertNotEqual(*one['layer_gradient_change'][0])
    downhill = analysis.along_gradient(loss, params, [0.5])
    self.assertGreater(one['loss'], 1.5 * downhill['loss'])

  def test_refuses(self):
    loss, params, *_ = toys.quadratic()
    for direction, said in (
      ('up', "direction is 'up'; allowed: descent, ascent, random"),
      ('random', "direction is 'random'; give a key"),
      (lambda g: {'a': g['a']}, 'the direction is another tree'),
    ):
      with self.assertRaisesRegex(ValueError, said):
        analysis.along_gradient(loss, params, STEPS, direction)


class MeasureTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.made = toys.classifier('batch', momentum=0.9)
    split = toys.split()
    self.first = self.made.init(0)
    self.state = toys.step(self.made)(self.first, split)
    self.batches = [
      self.made.batch(state, split) for state in (self.first, self.state)
    ]
    self.loss = self.made.loss(self.state, self.batches[1], 'batch')

  def looked(self, **keywords):
    look = analysis.make('along_gradient', **keywords)
    return look(self.made, self.state, self.batches[1:])

  def test_update_is_what_the_optimizer_does(self):
    """Momentum, by hand: the gradient and 0.9 times that of the step before."""
    gradients = [
      jax.jit(jax.grad(self.made.loss(state, batch, 'batch')))(state.params)
      for state, batch in zip((self.first, self.state), self.batches)
    ]
    along = jax.tree.map(lambda old, new: 0.9 * old + new, *gradients)
    want = analysis.along_gradient(
      self.loss, self.state.params, (0.05, 0.2), along
    )
    got = self.looked(direction='update', step_factors=(0.5, 2.0))
    for name, value in want.items():
      np.testing.assert_allclose(got[name], value, rtol=1e-3, err_msg=name)
    plain = self.looked(step_factors=(0.5, 2.0))
    self.assertNotAlmostEqual(plain['loss'][1], got['loss'][1], places=3)

  def test_step_sizes_are_taken_as_they_are(self):
    want = analysis.along_gradient(self.loss, self.state.params, (0.3,))
    got = self.looked(step_sizes=(0.3,))
    for name, value in want.items():
      np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)
    # They do not need a learning rate.
    self.made = self.made._replace(learning_rate=lambda state: 0.0)
    still = self.looked(step_sizes=(0.3,))
    same_bits.assert_same(still['loss'], got['loss'])
    for name, value in self.looked(
      step_sizes=(0.3,), direction='update'
    ).items():
      self.assertEqual(value.shape, got[name].shape)
      known = name in ('step_size', 'loss_0', 'gradient_norm_0')
      self.assertEqual(np.isnan(value).all(), not known, name)

  def test_random_is_another_one_at_each_step(self):
    look = lambda: self.looked(direction='random', step_factors=(1.0,))
    one, again = look(), look()
    same_bits.assert_same(one['loss'], again['loss'])
    self.state = self.state._replace(step=self.state.step + 1)
    other = look()
    same_bits.assert_same(one['loss_0'], other['loss_0'])
    self.assertNotEqual(one['loss'], other['loss'])

  def test_layers_are_those_of_the_network(self):
    got = self.looked(step_factors=(0.5, 2.0), per_layer=True)
    self.assertEqual(got['layer_beta'].shape, (2, 2))
    np.testing.assert_allclose(
      np.sqrt((got['layer_gradient_change'] ** 2).sum(1)),
      got['gradient_change'],
      rtol=1e-5,
    )
    np.testing.assert_allclose(
      np.linalg.norm(got['layer_gradient_norm_0']),
      got['gradient_norm_0'],
      rtol=1e-5,
    )

  def test_refuses(self):
    for keywords, said in (
      (dict(direction='back'), "direction is 'back'; allowed: .*update"),
      (dict(spread='points', chunk_size=4), 'chunk_size is 4 with spread'),
    ):
      with self.assertRaisesRegex(ValueError, said):
        analysis.make('along_gradient', **keywords)


class ContractTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    chex.clear_trace_counter()

  def test_one_compilation_over_five_batches(self):
    @chex.assert_max_traces(n=1)
    def loss(batch, params):
      return jnp.sum((batch @ params['w']) ** 2)

    params = {'w': jnp.ones((4, 2))}
    values = []
    for seed in range(5):
      batch = jax.random.normal(jax.random.key(seed), (3, 4))
      bound = jax.tree_util.Partial(loss, batch)
      values.append(analysis.along_gradient(bound, params, STEPS)['loss_0'])
    self.assertLen(set(map(float, values)), 5)

  def test_plain_function_compiles_once_over_step_sizes(self):
    @chex.assert_max_traces(n=1)
    def loss(params):
      return jnp.sum(params**2)

    for scale in (1.0, 2.0):
      steps = [scale * step for step in STEPS]
      analysis.along_gradient(loss, jnp.ones(3), steps)

  @parameterized.parameters(float, np.float32, lambda x: jnp.full((), x))
  def test_one_compilation_for_any_numbers(self, made):
    """JAX has a "weak" type for numbers of Python, and for `full` of one."""

    @chex.assert_max_traces(n=1)
    def loss(params):
      return params['w'] ** 2

    params = {'w': made(3.0)}
    got = analysis.along_gradient(loss, params, STEPS)
    self.assertEqual(got['loss_0'], 9.0)
    new = {'w': jnp.float32(2)}
    analysis.covariate_shift(loss, params, new, (('one', ('w',)),))
    analysis.weights(loss, params, new, (('one', ('w',)),), 0.1)

  @parameterized.parameters(False, True)
  def test_parameters_stay_as_they_are(self, in_chunks):
    whole, params, _, _ = toys.quadratic()
    loss = whole
    if in_chunks:
      loss = analysis.chunked(
        lambda x, params: x.mean() * whole(params),
        jnp.arange(4.0),
        chunk_size=2,
        group_size=1,
      )
    before = jax.tree.map(np.array, params)
    analysis.along_gradient(loss, params, STEPS, curvature=True)
    same_bits.assert_same(jax.device_get(params), before)

  @parameterized.parameters(
    ((),), ((0.1, 0.0),), ((-0.1,),), ((float('nan'),),), ((float('inf'),),)
  )
  def test_refuses_step_sizes(self, step_sizes):
    loss, params, _, _ = toys.quadratic()
    with self.assertRaisesRegex(ValueError, 'each above 0'):
      analysis.along_gradient(loss, params, step_sizes)

  def test_refuses_what_cannot_be_differentiated(self):
    with self.assertRaisesRegex(ValueError, "parameter 'n' is int32"):
      analysis.along_gradient(lambda p: 1.0, {'n': jnp.arange(3)}, STEPS)
    with self.assertRaisesRegex(ValueError, 'must be a real scalar'):
      analysis.along_gradient(lambda p: p * 2, jnp.ones(3), STEPS)

  def test_refuses_a_foreign_direction(self):
    loss, params, _, _ = toys.quadratic()
    with self.assertRaisesRegex(ValueError, 'another tree'):
      analysis.along_gradient(loss, params, STEPS, {'a': params['a']})
    wrong = {'a': params['a'], 'b': {'c': jnp.ones(7)}}
    with self.assertRaisesRegex(ValueError, r"'b/c' has shape \(7,\)"):
      analysis.along_gradient(loss, params, STEPS, wrong)


class RegistryTest(parameterized.TestCase):
  def test_unknown_measure(self):
    with self.assertRaisesRegex(ValueError, "unknown measure 'along'"):
      analysis.make('along')

  @parameterized.parameters(
    dict(step_factors=()),
    dict(step_factors=(0.0,)),
    dict(statistics='population'),
  )
  def test_measure_refuses(self, **keywords):
    with self.assertRaises(ValueError):
      analysis.make('along_gradient', **keywords)

  @parameterized.parameters(
    *((name, {}) for name in analysis.MEASURES),
    *((name, dict(chunk_size=4, statistics='running')) for name in IN_CHUNKS),
    ('along_gradient', dict(per_layer=True, curvature=True, group_size=4)),
  )
  def test_contract_of_every_measure(self, name, keywords):
    """Arrays by name, the same twice, from a state that stays as it is."""
    # Of two layers, for the sake of 'jacobian': a layer and the same one.
    made = toys.classifier('batch', momentum=0.9)
    made = made._replace(taps=made.taps * 2)
    state = made.init(0)
    before = jax.tree.map(np.array, state)
    batch = in_memory.first(toys.split(), 8)
    look = analysis.make(name, **keywords)
    more = {}
    if plugins.takes(look, 'states'):
      more['states'] = toys.States({'0': made.init(1)})
    seen, again = (look(made, state, [batch], **more) for _ in range(2))
    self.assertNotEmpty(seen)
    for key, value in seen.items():
      self.assertIsInstance(np.asarray(value).dtype.type(0), np.number, key)
    same_bits.assert_same(seen, again)
    same_bits.assert_same(jax.device_get(state), jax.device_get(before))

  def test_at_a_learning_rate_of_zero_there_is_nowhere_to_look(self):
    made = toys.classifier('batch', momentum=0.9)._replace(
      learning_rate=lambda state: 0.0
    )
    batch = in_memory.first(toys.split(), 8)
    state = made.init(0)
    seen = analysis.make('along_gradient')(made, state, [batch])
    usual = analysis.make('along_gradient')(
      toys.classifier('batch', momentum=0.9), state, [batch]
    )
    self.assertEqual(set(seen), set(usual))
    for name, value in seen.items():
      self.assertEqual(value.shape, usual[name].shape, name)
    np.testing.assert_array_equal(seen['step_size'], [0] * 4)
    self.assertTrue(np.isnan(seen['beta']).all())
    self.assertEqual(seen['loss_0'], usual['loss_0'])

  def test_a_loss_that_is_a_number_is_refused(self):
    for loss in (lambda p: 3, lambda p: p):
      with self.assertRaisesRegex(ValueError, 'must be a real scalar'):
        analysis.along_gradient(loss, jnp.ones(2), [0.1])


if __name__ == '__main__':
  absltest.main()
