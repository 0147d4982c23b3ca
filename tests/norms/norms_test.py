import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import norms, placement
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


KEYWORDS = {'lp': dict(p=3.0)}


def images(dtype=jnp.float32):
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.normal(1, 2, size=(6, 2, 2, 4)), dtype)


class Block(nn.Module):
  """A dense layer at each position, a norm, a nonlinearity, a sum."""

  norm: norms.Norm

  @nn.compact
  def __call__(self, x, *, statistics, mask=None):
    layer = nn.Dense(4, use_bias=self.norm.bias_before, name='dense1')
    x = self.norm.weighted(layer, 'weight1')(x, statistics=statistics)
    keywords = dict(statistics=statistics, mask=mask)
    x = self.norm.layer('norm1')(x, **keywords)
    if self.norm.unit:
      x = self.norm.unit('unit1')(x, **keywords)
    return jnp.sin(x)


def block(name):
  """(apply: (params, x) -> y with statistics 'batch', params, x), float64."""
  module = Block(norms.make(name, **KEYWORDS.get(name, {})))
  x = images(jnp.float64)
  variables = module.init(jax.random.key(0), x, statistics='running')
  variables = jax.tree.map(lambda a: a.astype(jnp.float64), variables)
  params = variables.pop('params')

  def apply(params, x):
    return module.apply({'params': params, **variables}, x, statistics='batch')

  return apply, params, x


WRONG_MASKS = {
  'int32': (np.ones(6, 'int32'), 'mask is int32; allowed: an array of bool'),
  'float32': (np.ones(6, 'float32'), 'mask is float32; allowed: an array'),
  'list': ([True] * 6, 'mask is a list; allowed: an array of bool'),
  'shape': (
    np.ones((6, 4), bool),
    r'mask has shape \(6, 4\); allowed: \(6,\) or \(6, 2, 2\)',
  ),
}


class RegistryTest(parameterized.TestCase):
  @parameterized.product(name=tuple(norms.NORMS), dtype=('float32', 'bfloat16'))
  def test_contract_of_every_norm(self, name, dtype):
    x = images(dtype)
    keywords = KEYWORDS.get(name, {})
    norm = norms.make(name, spread=placement.Spread(parts=2), **keywords)
    layer = norm.layer('norm1')
    self.assertEqual(layer.name, 'norm1')
    variables = layer.init(jax.random.key(0), x, statistics='running')
    for leaf in jax.tree.leaves(variables):
      self.assertIn(leaf.dtype, (jnp.float32, jnp.int32))
    for statistics in norms.STATISTICS:
      for mask in (None, jnp.arange(6) < 5, jnp.ones((6, 2, 2), bool)):
        apply = functools.partial(
          layer.apply, statistics=statistics, mask=mask, first=3,
          mutable=['batch_stats'],
        )  # fmt: skip
        if dtype == 'bfloat16' and mask is not None:
          y, new = jax.eval_shape(apply, variables, x)
        else:
          y, new = apply(variables, x)
          self.assertTrue(bool(jnp.isfinite(y).all()))
        self.assertEqual((y.shape, y.dtype), (x.shape, x.dtype))
        self.assertEqual(
          jax.tree.map(jnp.shape, new), jax.tree.map(
            jnp.shape, {k: v for k, v in variables.items() if k != 'params'}
          )
        )  # fmt: skip
    with self.assertRaisesRegex(ValueError, "statistics is 'train'; allowed"):
      layer.apply(variables, x, statistics='train')
    with self.assertWarnsRegex(FutureWarning, "is called statistics='running'"):
      before = layer.apply(variables, x, mode='running')
    with self.assertRaisesRegex(ValueError, 'give statistics alone'):
      layer.apply(variables, x, statistics='batch', mode='running')
    same_bits.assert_same(
      before, layer.apply(variables, x, statistics='running')
    )
    self.assertIsInstance(norm.bias_before, bool)

  @parameterized.parameters(*norms.NORMS)
  def test_refuses_what_is_not_floating_point(self, name):
    """It would give integers back: 0, 1 and 255 of an image's bytes."""
    norm = norms.make(name, **KEYWORDS.get(name, {}))
    layer, block = norm.layer('norm1'), Block(norm)
    variables = jax.eval_shape(
      lambda: layer.init(jax.random.key(0), images(), statistics='running')
    )
    for dtype, statistics in itertools.product(
      ('uint8', 'int32', 'bool', 'complex64'), norms.STATISTICS
    ):
      x = np.ones((6, 2, 2, 4), dtype)
      said = f'x is {dtype}; allowed: an array of floating point'
      keywords = dict(statistics=statistics, mask=np.arange(6) < 5)
      with self.subTest(f'{dtype} {statistics}'):
        with self.assertRaisesRegex(ValueError, said):
          layer.apply(variables, x, **keywords)
        with self.assertRaisesRegex(ValueError, said):
          layer.init(jax.random.key(0), x, **keywords)
    x, keywords = np.ones((6, 2, 2, 4), 'uint8'), dict(statistics='batch')
    with self.assertRaisesRegex(ValueError, 'x is uint8; allowed'):
      block.init(jax.random.key(0), x, **keywords)
    with self.assertRaisesRegex(ValueError, 'x is a list; allowed'):
      layer.init(jax.random.key(0), [[1.0, 2.0]], statistics='batch')

  @parameterized.product(name=tuple(norms.NORMS), kind=tuple(WRONG_MASKS))
  def test_refuses_a_mask_of_another_kind(self, name, kind):
    """Sums over numbers would not count what is real."""
    layer = norms.make(name, **KEYWORDS.get(name, {})).layer('norm1')
    mask, said = WRONG_MASKS[kind]
    for statistics in norms.STATISTICS:
      with self.assertRaisesRegex(ValueError, said):
        layer.init(
          jax.random.key(0), images(), statistics=statistics, mask=mask
        )

  @parameterized.parameters(*norms.NORMS)
  def test_x_may_be_named_in_a_call(self, name):
    layer = norms.make(name, **KEYWORDS.get(name, {})).layer('norm1')
    key = jax.random.key(0)
    want = layer.init_with_output(key, images(), statistics='running')
    got = layer.init_with_output(key, x=images(), statistics='running')
    same_bits.assert_same(got, want)
    with self.assertRaisesRegex(TypeError, "argument: 'x'"):
      layer.init(key, statistics='running')

  @parameterized.parameters(*norms.NORMS)
  def test_all_kinds_of_derivatives_pass(self, name):
    """Of both orders and both modes: to each other, and to differences."""
    with jax.enable_x64(True):
      apply, params, x = block(name)
      generator = np.random.default_rng(1)

      def random(leaf):
        return jnp.asarray(generator.normal(size=leaf.shape))

      u, v = (jax.tree.map(random, params) for _ in range(2))

      def loss(params):
        return jnp.sum(apply(params, x) ** 3)

      def inner(a, b):
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))

      @jax.jit
      def products(params):
        function = functools.partial(apply, x=x)
        y, forward = jax.jvp(function, (params,), (v,))
        _, pull = jax.vjp(function, params)
        gradient = jax.grad(loss)
        at, of_v = jax.jvp(gradient, (params,), (v,))
        of_u = jax.jvp(gradient, (params,), (u,))[1]
        pairs = {
          'reverse': (inner(pull(y)[0], v), jnp.vdot(y, forward)),
          'hessian': (inner(u, of_v), inner(v, of_u)),
          'gauss_newton': (
            inner(v, pull(forward)[0]), jnp.vdot(forward, forward)
          ),
        }  # fmt: skip
        # Two functions, and their derivatives along v.
        return pairs, (loss(params), at), (inner(at, v), of_v)

      pairs, _, along = products(params)
      if name == 'spectral':
        # Its singular vectors are constants to the derivative, by design.
        del pairs['hessian']
      for what, (left, right) in pairs.items():
        np.testing.assert_allclose(left, right, rtol=1e-7, err_msg=what)
      if name == 'spectral':
        return
      step = 1e-5
      plus, minus = (
        products(jax.tree.map(lambda p, d, s=s: p + s * d, params, v))[1]
        for s in (step, -step)
      )
      finite = jax.tree.map(lambda a, b: (a - b) / (2 * step), plus, minus)
      for exact, want in zip(along, finite):
        scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(want))
        for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(want)):
          np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * scale)

  @parameterized.parameters(*norms.NORMS)
  def test_says_whether_a_bias_before_it_is_lost(self, name):
    """Its gradient is zero, but for what epsilon leaves, where it is."""
    with jax.enable_x64(True):
      norm = norms.make(name, **KEYWORDS.get(name, {}))
      layer, x = norm.layer('norm1'), images(jnp.float64)
      variables = layer.init(jax.random.key(0), x, statistics='running')

      def loss(bias):
        y = layer.apply(
          variables, x + bias.reshape(1, 1, 1, 4), statistics='batch'
        )
        return jnp.sum(jnp.sin(y))

      gradient = jax.jit(jax.grad(loss))(jnp.zeros(4, jnp.float64))
      # The power mean of what is not centred sees a bias, as a scale.
      if not (name.startswith('l') and name != 'layer'):
        self.assertEqual(
          bool(jnp.abs(gradient).max() > 1e-9), norm.bias_before, gradient
        )

  def test_none_is_the_identity(self):
    x = images()
    layer = norms.make('none').layer('norm1')
    same_bits.assert_same(layer.apply({}, x, statistics='batch'), x)

  def test_unknown_name(self):
    with self.assertRaisesRegex(ValueError, "unknown norm 'bach'.*'batch'"):
      norms.make('bach')


ONES = np.ones(4, np.float32)
# Each takes x, [6, 2, 2, 4].
FUNCTIONS = {
  'batch_norm': lambda x: norms.batch_norm(x, ONES, ONES),
  'lp_norm': lambda x: norms.lp_norm(x, ONES, ONES, p=2),
  'moments': lambda x: norms.moments(x),
  'normalize': lambda x: norms.normalize(x, ONES, ONES, ONES, ONES),
  'add_noise': lambda x: norms.add_noise(x, jax.random.key(0)),
  'standardized': lambda x: norms.standardized(x),
}


class FunctionsTest(parameterized.TestCase):
  def test_none_is_left_out(self):
    functions = {name for name in norms.__all__ if name.islower()}
    # They make layers, or take networks.
    others = {'adapted', 'make', 'fold'}
    others |= {'keeps_statistics', 'population_statistics'}
    self.assertEqual(functions - others, set(FUNCTIONS))

  @parameterized.product(
    name=tuple(FUNCTIONS), dtype=('uint8', 'int32', 'bool', 'complex64')
  )
  def test_refuses_what_is_not_floating_point(self, name, dtype):
    with self.assertRaisesRegex(ValueError, f' is {dtype}; allowed: an array'):
      FUNCTIONS[name](np.ones((6, 2, 2, 4), dtype))

  def test_takes_numbers_that_are_known_later(self):
    """Traced ones give what numbers of Python do."""

    def values(epsilon, r_mu):
      x, key = images(), jax.random.key(0)
      layer = norms.BatchNorm(epsilon=epsilon)
      return (
        norms.batch_norm(x, ONES, ONES, epsilon=epsilon)[0],
        norms.lp_norm(x, ONES, ONES, p=2, epsilon=epsilon)[0],
        norms.standardized(x, epsilon=epsilon),
        norms.add_noise(x, key, r_mu=r_mu),
        layer.init_with_output(key, x, statistics='batch')[0],
      )

    known = jax.jit(functools.partial(values, 0.5, 0.2))()
    for got, want in zip(jax.jit(values)(0.5, 0.2), known):
      np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)

  @parameterized.parameters(*norms.NORMS)
  def test_takes_numbers_of_numpy_and_jax(self, name):
    keywords = inspect.signature(norms.NORMS[name]).parameters
    for kind in (np.float32, jnp.float32):
      floats = {
        key: kind(default.default)
        for key, default in keywords.items()
        if isinstance(default.default, float)
      }
      module = Block(norms.make(name, **floats))
      rngs = {kind: jax.random.key(0) for kind in ('params', 'noise')}
      jax.eval_shape(
        functools.partial(module.init, statistics='batch'), rngs, images()
      )

  @parameterized.parameters('int32', 'float32')
  def test_refuses_a_mask_of_numbers(self, dtype):
    mask = np.ones(6, dtype)
    for call in (
      lambda: norms.batch_norm(images(), ONES, ONES, mask=mask),
      lambda: norms.lp_norm(images(), ONES, ONES, p=2, mask=mask),
      lambda: norms.moments(images(), mask=mask),
    ):
      with self.assertRaisesRegex(ValueError, f'mask is {dtype}; allowed'):
        call()


if __name__ == '__main__':
  absltest.main()
