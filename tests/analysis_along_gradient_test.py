import chex
import jax
import jax.numpy as jnp
import numpy as np
import strict  # noqa: F401
import toys
from absl.testing import absltest, parameterized

from bn_jax import analysis, norms
from bn_jax.data import in_memory

STEPS = (0.01, 0.1, 0.5, 2.0)


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
    variables = module.init(jax.random.key(1), x, mode='running')

    def loss(params):
      logits, _ = module.apply(
        {**variables, 'params': params}, x, mode='batch',
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


class ContractTest(parameterized.TestCase):
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

  def test_parameters_stay_as_they_are(self):
    loss, params, _, _ = toys.quadratic()
    before = toys.flat(params)
    analysis.along_gradient(loss, params, STEPS)
    np.testing.assert_array_equal(toys.flat(params), before)

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

  @parameterized.parameters(*analysis.MEASURES)
  def test_contract_of_every_measure(self, name):
    """Arrays by name, the same twice, from a state that stays as it is."""
    # Of two layers, for the sake of 'jacobian': a layer and the same one.
    made = toys.classifier('batch')
    made = made._replace(taps=made.taps * 2)
    state = made.init(0)
    before = jax.tree.map(np.array, state)
    batch = in_memory.first(toys.split(), 8)
    look = analysis.make(name)
    seen, again = look(made, state, [batch]), look(made, state, [batch])
    self.assertNotEmpty(seen)
    for key, value in seen.items():
      self.assertIsInstance(np.asarray(value).dtype.type(0), np.number, key)
      np.testing.assert_array_equal(value, again[key])
    jax.tree.map(np.testing.assert_array_equal, before, state)

  def test_at_a_learning_rate_of_zero_there_is_nowhere_to_look(self):
    made = toys.classifier('batch')._replace(learning_rate=lambda state: 0.0)
    batch = in_memory.first(toys.split(), 8)
    state = made.init(0)
    seen = analysis.make('along_gradient')(made, state, [batch])
    usual = analysis.make('along_gradient')(
      toys.classifier('batch'), state, [batch]
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
