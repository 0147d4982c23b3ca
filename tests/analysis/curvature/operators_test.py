"""Products of matrices that are never formed, against matrices that are."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import analysis
from bn_jax.analysis import chunks, gradients
from bn_jax.analysis.curvature import blocks, linearisations, operators
from bn_jax.training import devices as devices_lib
from tests.fixtures import (
  curved,
  layouts,
  same_bits,
  strict,  # noqa: F401
  toys,
)

_EYE = 1e-10


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def dense(operator):
  """The matrix of an operator, in two calls of several products."""
  eye = jnp.eye(operator.size, dtype=operator.dtype)
  return np.asarray(operator.products(eye))


@jax.custom_vjp
def tanh(x):
  return jnp.tanh(x)


tanh.defvjp(
  lambda x: (jnp.tanh(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),)
)


def laid(devices):
  """(problem, state, batch) of a noisy network, the batch on several."""
  mesh = devices_lib.mesh(devices)
  problem = layouts.make(
    layouts.NORMS['noisy'], devices_lib.spread('jit', mesh), jnp.float64
  )
  state = layouts.widened(problem.init(0))
  state = jax.device_put(
    state, devices_lib.placement(state, mesh, shard_state=False)
  )
  split = jax.device_put(toys.split(layouts.EXAMPLES), devices_lib.whole(mesh))
  return problem, state, problem.batch(state, split)


class HessianTest(parameterized.TestCase):
  @parameterized.parameters(*curved.STATISTICS)
  def test_equals_the_dense_one(self, statistics):
    with jax.enable_x64(True):
      exact = curved.exact(statistics)
      before = jax.device_get(exact.state)
      operator = operators.hessian(exact.loss, exact.state.params)
      self.assertEqual(operator.size, len(exact.hessian))
      got = dense(operator)
      scale = np.abs(exact.hessian).max()
      np.testing.assert_allclose(got, exact.hessian, atol=_EYE * scale)
      np.testing.assert_allclose(
        operator.product(jnp.ones(operator.size)),
        exact.hessian.sum(1),
        atol=_EYE * scale * operator.size,
      )
      same_bits.assert_same(jax.device_get(exact.state), before)

  def test_the_modes_are_two_functions(self):
    """Or the test above would say little of one of them."""
    one, other = (curved.exact(name).hessian for name in curved.STATISTICS)
    self.assertGreater(np.abs(one - other).max(), 0.01 * np.abs(one).max())

  @parameterized.parameters(*curved.STATISTICS)
  def test_gauss_newton_equals_the_dense_one(self, statistics):
    with jax.enable_x64(True):
      exact = curved.exact(statistics)
      got = dense(operators.gauss_newton(exact.split, exact.state.params))
      scale = np.abs(exact.gauss_newton).max()
      np.testing.assert_allclose(got, exact.gauss_newton, atol=_EYE * scale)
      difference = np.abs(exact.hessian - exact.gauss_newton).max()
      self.assertGreater(difference, 1e-3 * scale)

  @parameterized.parameters(*curved.STATISTICS)
  def test_a_split_is_the_loss(self, statistics):
    exact = curved.exact(statistics)
    with jax.enable_x64(True):
      params = exact.state.params
      for penalised in (True, False):
        arguments = exact.state, exact.batch, statistics, penalised
        loss = exact.problem.loss(*arguments)
        split = exact.problem.split(*arguments)
        self.assertEqual(split.rest is None, not penalised)
        got, want = (gradients.value(one, params) for one in (split, loss))
        np.testing.assert_allclose(got, want, 1e-12)

  @parameterized.parameters(operators.hessian, operators.gauss_newton)
  def test_chunks_equal_the_whole(self, make):
    with jax.enable_x64(True):
      exact = curved.exact('running')
      parts = chunks.split_of_problem(
        exact.problem, exact.state, exact.batch, 'running', chunk_size=3
      )
      self.assertLen(parts.parts, 3)
      got, want = (
        dense(make(loss, exact.state.params)) for loss in (parts, exact.split)
      )
      np.testing.assert_allclose(got, want, atol=_EYE)

  def test_one_compilation_for_all_batches(self):
    def loss(x, y, params):
      return jnp.square(jnp.tanh(x @ params['w']) - y).mean()

    traced = chex.assert_max_traces(loss, n=1)
    generator = np.random.default_rng(0)
    params = {'w': jnp.asarray(generator.normal(size=3), jnp.float32)}
    compiled = None
    for _ in range(4):
      x, y = generator.normal(size=(2, 5, 3))
      x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y[:, 0], jnp.float32)
      operator = operators.hessian(jax.tree_util.Partial(traced, x, y), params)
      got = operator.product(jnp.ones(3))
      size = operators._applied(
        linearisations.HESSIAN[0], (0,), False
      )._cache_size()
      self.assertIn(compiled, (None, size))
      compiled = size
      want = jax.hessian(lambda w, x=x, y=y: loss(x, y, {'w': w}))
      want = want(params['w']).sum(1)
      np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)

  @parameterized.parameters(operators.hessian, operators.gauss_newton)
  def test_within_a_program(self, make):
    """A small one's; not one with a convolution, nor a sum over chunks."""

    def split(outputs):
      return operators.Split(outputs, lambda z: jax.nn.logsumexp(z), None)

    def within(linearise, vector):
      product, gradient = linearise()
      return product(vector), gradient

    params = {'w': jnp.arange(6.0).reshape(2, 3) / 6, 'b': jnp.ones(2)}
    x = jnp.array([1.0, -2, 0.5])
    loss = split(lambda p: jnp.tanh(p['w'] @ x + p['b']))
    whole = make(loss, params)
    vector = jnp.cos(jnp.arange(8.0))
    got = jax.jit(within)(whole.linearise, vector)
    want = whole.product(vector), toys.flat(jax.grad(loss)(params))
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)
    parts = make(chunks.Chunks((loss, loss), (0.5, 0.5)), params)
    convolved = make(
      split(lambda p: jnp.convolve(p['w'][0], x) @ jnp.ones(5)), params
    )
    self.assertIsNone(parts.linearise)
    self.assertIsNone(convolved.linearise)
    self.assertEqual(convolved.numbers, np.inf)
    for operator in (whole, parts):
      np.testing.assert_allclose(operator.gradient(), want[1], rtol=1e-5)

  def test_of_eight_devices_as_of_one(self):
    self.check_devices(operators.hessian)

  @pytest.mark.slow
  def test_gauss_newton_of_eight_devices_as_of_one(self):
    self.check_devices(operators.gauss_newton)

  def check_devices(self, make):
    with jax.enable_x64(True):
      products = []
      for devices in (1, 8):
        problem, state, batch = laid(devices)
        self.assertLen(batch.images.sharding.device_set, devices)
        split = problem.split(state, batch, 'batch')
        operator = make(split, state.params)
        products.append(operator.product(jnp.ones(operator.size)))
      one, eight = products
      np.testing.assert_allclose(eight, one, rtol=1e-9, atol=1e-12)


class WithoutForwardModeTest(parameterized.TestCase):
  def test_reverse_over_reverse(self):
    with jax.enable_x64(True):
      x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
      params = {'w': jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)))}
      outputs, known = (
        (lambda params, f=f: f(x @ params['w'])) for f in (tanh, jnp.tanh)
      )
      convex = lambda z: jax.nn.logsumexp(z, -1).sum()
      for make in (operators.hessian, operators.gauss_newton):
        got, want = (
          dense(make(operators.Split(f, convex), params))
          for f in (outputs, known)
        )
        np.testing.assert_allclose(got, want, atol=_EYE)
      direction = {'w': jnp.ones((3, 2))}
      for product in (analysis.jacobian_product,):
        np.testing.assert_allclose(
          product(outputs, params, direction),
          product(known, params, direction),
          atol=_EYE,
        )


class BlocksTest(parameterized.TestCase):
  @parameterized.parameters(operators.hessian, operators.gauss_newton)
  def test_equal_the_sub_matrix(self, make):
    with jax.enable_x64(True):
      exact = curved.exact('batch')
      params = exact.state.params
      whole = make(exact.split, params)
      matrix = dense(whole)
      where = whole.unflatten(jnp.arange(whole.size, dtype=jnp.float64))
      layers = exact.problem.layers(exact.state)
      sizes = {}
      for block in blocks.of(params, layers, blocks.NAMES):
        operator = make(exact.split, params, block)
        rows = np.asarray(operator.flatten(where), int)
        sizes[block.name] = len(rows)
        np.testing.assert_allclose(
          dense(operator), matrix[np.ix_(rows, rows)], atol=_EYE
        )
      self.assertEqual(sizes['norms'] + sizes['others'], sizes['all'])
      self.assertEqual(sizes['conv1'] + sizes['logits'], sizes['all'])
      self.assertEqual(sizes['norms'], 8)

  def test_trees_of_a_block(self):
    params = {'a': jnp.ones(2), 'b': {'c': jnp.ones((1, 3))}}
    (block,) = blocks.of(params, (('b', ('b',)),), ())
    operator = operators.hessian(
      lambda p: p['b']['c'].sum() ** 2, params, block
    )
    vector = jnp.arange(3.0)
    own = operator.unflatten(vector)
    self.assertIsNone(own['a'])
    same_bits.assert_same(operator.flatten(own), vector)
    whole = operator.unflatten(vector, whole=True)
    same_bits.assert_same(whole['a'], jnp.zeros(2))
    same_bits.assert_same(operator.flatten(whole), vector)

  @parameterized.parameters(
    (('conv1_norm/scale', 'conv1_norm/bias'), True),
    (('BatchNorm_0/scale',), True),
    (('bn1/weight', 'layer1/bn/bias'), True),
    (('custom/scale', 'custom/bias'), True),
    (('norm1/weight', 'norms/0/weight', 'norm_2a/bias'), True),
    (('LayerNormalization_0/beta', 'layernorm/weight'), True),
    (('batch_norm/bias/value', 'BatchNorm/bias/value', 'bn_1/weight'), True),
    (('conv1_weight/scale', 'conv1/kernel', 'abnormal'), False),
    (('normal_conv/kernel', 'normaliser/kernel', 'conv_normal/kernel'), False),
    (('layers/1/weight',), False),
  )
  def test_what_belongs_to_a_norm(self, paths, is_norm):
    params = {'other': {'kernel': jnp.ones(1)}}
    for path in paths:
      *modules, name = path.split('/')
      tree = params
      for module in modules:
        tree = tree.setdefault(module, {})
      tree[name] = jnp.ones(1)
    members = blocks._members(params)
    self.assertEqual(set(members['norms']), set(paths) if is_norm else set())

  def test_refused(self):
    params = {'kernel': jnp.ones(2)}
    with self.assertRaisesRegex(
      ValueError, "no such parameters.*BatchNorm_0.*'others'.*analysis.Block"
    ):
      blocks.of(params, (), ('norms',))
    with self.assertRaisesRegex(ValueError, "^blocks is \\('scale',\\)"):
      blocks.of(params, (), ('scale',))


class ProductsTest(parameterized.TestCase):
  def test_equal_the_dense_ones(self):
    with jax.enable_x64(True):
      exact = curved.exact('batch')
      params = exact.state.params
      direction = jax.tree.map(jnp.cos, params)
      flat = toys.flat(direction)
      for got, want in (
        (
          analysis.hessian_product(exact.loss, params, direction),
          exact.hessian,
        ),
        (
          analysis.gauss_newton_product(exact.split, params, direction),
          exact.gauss_newton,
        ),
      ):
        np.testing.assert_allclose(toys.flat(got), want @ flat, atol=_EYE)
      outputs = exact.split.outputs
      along = analysis.jacobian_product(outputs, params, direction)
      cotangent = jnp.cos(along)
      back = analysis.jacobian_transpose_product(outputs, params, cotangent)
      _, want = jax.jvp(outputs, (params,), (direction,))
      np.testing.assert_allclose(along, want, atol=_EYE)
      np.testing.assert_allclose(  # <c, J d> = <J' c, d>
        (cotangent * along).sum(), toys.flat(back) @ flat, rtol=1e-10
      )

  @parameterized.parameters(
    ('gauss_newton_product', lambda p: p['w'].sum(), 'needs a Split'),
    ('jacobian_product', lambda p: p['w'] > 0, 'the outputs is bool'),
  )
  def test_refused(self, name, loss, said):
    params = {'w': jnp.ones(2)}
    with self.assertRaisesRegex(ValueError, said):
      getattr(analysis, name)(loss, params, params)

  def test_directions_of_other_shapes(self):
    params, other = {'w': jnp.ones(2)}, {'w': jnp.ones(3)}
    split = analysis.Split(lambda p: p['w'], lambda z: z @ z)
    for product, loss in (
      (analysis.hessian_product, split),
      (analysis.gauss_newton_product, split),
      (analysis.jacobian_product, split.outputs),
    ):
      with self.assertRaisesRegex(ValueError, 'direction .* shape'):
        product(loss, params, other)
    with self.assertRaisesRegex(ValueError, 'the cotangent has shape'):
      analysis.jacobian_transpose_product(split.outputs, params, jnp.ones(3))


if __name__ == '__main__':
  absltest.main()
