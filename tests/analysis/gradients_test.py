"""What a loss and its parameters may be, and what is said of others."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from bn_jax import analysis
from bn_jax.analysis import gradients
from tests.fixtures import (
  strict,  # noqa: F401
  toys,
)

_COMPILED = [0]


def setUpModule():
  def listen(event, *unused, **also_unused):
    if event == '/jax/core/compile/backend_compile_duration':
      _COMPILED[0] += 1

  jax.monitoring.register_event_duration_secs_listener(listen)


def through_python(params):
  return jax.pure_callback(
    lambda x: np.float32(x.sum()),
    jax.ShapeDtypeStruct((), jnp.float32),
    params['w'],
  )


def doubled_until(params):
  """Doubled as often as a number says that is known only when it runs."""
  return jax.lax.while_loop(
    lambda carry: carry[1] < params['w'].max(),
    lambda carry: (2 * carry[0], carry[1] + 1),
    (params['w'].sum(), 0.0),
  )[0]


REFUSED = {
  'integer': (lambda p: (p['w'] > 0).sum(), r'the loss is int32\[\]'),
  'number': (lambda p: 3, r'the loss is int32\[\]'),
  'bool': (lambda p: p['w'].sum() > 0, r'the loss is bool\[\]'),
  'complex': (lambda p: 1j * p['w'].sum(), r'the loss is complex64\[\]'),
  'vector': (lambda p: p['w'], r'the loss is float32\[3\]'),
  'with_more': (lambda p: (p['w'].sum(), 1.0), 'the loss is a tuple'),
  'dict': (lambda p: {'loss': p['w'].sum()}, 'the loss is a dict'),
  'nothing': (lambda p: None, 'the loss is a NoneType'),
  'callback': (through_python, r'the loss cannot be differentiated.*callback'),
  'loop': (doubled_until, r'the loss cannot be differentiated.*while_loop'),
}


def of(name, loss, params):
  """One analysis after the other, on a loss of these parameters."""
  zero = jax.tree.map(jnp.zeros_like, params)
  layers = (('one', ('w',)),)
  return {
    'along_gradient': lambda: analysis.along_gradient(loss, params, [0.1]),
    'covariate_shift': lambda: analysis.covariate_shift(
      loss, params, zero, layers
    ),
    'one_step_loss': lambda: analysis.one_step_loss(loss, params, [0.1]),
    'weights': lambda: analysis.weights(loss, params, zero, layers, 0.1),
    'signal': lambda: analysis.signal(
      lambda _, added: (loss(added), added), zero, params
    ),
  }[name]


class LossTest(parameterized.TestCase):
  @parameterized.product(
    kind=tuple(REFUSED),
    name=(
      'along_gradient', 'covariate_shift', 'one_step_loss', 'signal', 'weights',
    ),
  )  # fmt: skip
  def test_refused_in_one_line_before_it_is_compiled(self, kind, name):
    loss, said = REFUSED[kind]
    params = {'w': jnp.arange(1.0, 4.0)}
    look, before = of(name, loss, params), _COMPILED[0]
    with self.assertRaisesRegex(ValueError, f'^{said}') as caught:
      look()
    self.assertNotIn('\n', str(caught.exception))
    self.assertEqual(_COMPILED[0], before)

  def test_a_loss_without_derivative_has_values(self):
    params = {'w': jnp.arange(1.0, 4.0)}
    along = {'w': jnp.ones(3)}
    got = analysis.one_step_loss(through_python, params, [1.0, 2.0], along)
    np.testing.assert_allclose(got['loss'], [3.0, 0.0])
    self.assertEqual(got['loss_0'], 6.0)

  @parameterized.parameters(
    (lambda p: p['w'] @ jnp.ones(7), TypeError, 'dot_general'),
    (lambda p: p['v'].sum(), KeyError, 'v'),
  )
  def test_a_bug_in_the_loss_keeps_its_own_words(self, loss, error, said):
    with self.assertRaisesRegex(error, said) as caught:
      analysis.along_gradient(loss, {'w': jnp.arange(1.0, 4.0)}, [0.1])
    self.assertNotIsInstance(caught.exception, ValueError)

  @parameterized.parameters(
    lambda p: float(p['w'].sum()),
    lambda p: np.sum(np.asarray(p['w'])),
    lambda p: p['w'].sum() if p['w'][0] > 0 else 0.0,
  )
  def test_a_loss_that_cannot_be_traced(self, loss):
    said = '^the loss cannot be traced by JAX: .*Python or NumPy'
    with self.assertRaisesRegex(ValueError, said) as caught:
      analysis.along_gradient(loss, {'w': jnp.arange(1.0, 4.0)}, [0.1])
    self.assertNotIn('\n', str(caught.exception))

  def test_a_bug_in_a_derivative_of_ones_own_is_told_with_its_words(self):
    @jax.custom_vjp
    def total(w):
      return w.sum()

    total.defvjp(lambda w: (w.sum(), None), lambda _, g: (g, g))
    said = 'cannot be differentiated.*bwd rule must'
    with self.assertRaisesRegex(ValueError, said) as caught:
      analysis.along_gradient(lambda p: total(p['w']), {'w': jnp.ones(3)}, [1])
    self.assertIsInstance(caught.exception.__cause__, TypeError)


class ParametersTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('integers', {'n': jnp.arange(3)}, "parameter 'n' is int32"),
    ('complex', {'z': jnp.ones(2) * 1j}, "parameter 'z' is complex64"),
    ('key', {'k': jax.random.key(0)}, "parameter 'k' is key<fry>"),
    ('function', {'a': {'act': jnp.tanh}}, "parameter 'a/act' is a "),
    ('text', {'s': 'name'}, "parameter 's' is a str; allowed: arrays"),
    ('name_of_a_dtype', {'s': 'float32'}, "parameter 's' is a str; allowed"),
    ('dtype', {'w': jnp.ones(2), 'd': np.dtype('f4')}, "parameter 'd' is a "),
    ('nothing', {}, 'there are no parameters'),
    ('none_in_a_tree', {'a': None, 'b': []}, 'there are no parameters'),
  )
  def test_refused_without_calling_the_loss(self, params, said):
    def loss(params):
      raise AssertionError('it was called')

    looks = {
      'along_gradient': lambda: analysis.along_gradient(loss, params, [0.1]),
      'covariate_shift': lambda: analysis.covariate_shift(
        loss, params, params, (('one', ('w',)),)
      ),
      'one_step_loss': lambda: analysis.one_step_loss(loss, params, [0.1]),
      'signal': lambda: analysis.signal(loss, params, {'h': jnp.ones(2)}),
      'weights': lambda: analysis.weights(
        loss, params, params, (('one', ('w',)),), 0.1
      ),
    }
    for name, look in looks.items():
      with self.assertRaisesRegex(ValueError, said, msg=name):
        look()

  @parameterized.parameters(jnp.float16, jnp.bfloat16, jnp.float32)
  def test_floating_point_of_any_width(self, dtype):
    params = {'w': jnp.arange(1.0, 4.0, dtype=dtype)}
    got = analysis.along_gradient(
      lambda p: jnp.sum(p['w'] ** 2), params, [0.5], curvature=True
    )
    np.testing.assert_allclose(got['beta'], 2.0, rtol=1e-2)
    np.testing.assert_allclose(got['curvature'], 2.0, rtol=1e-2)
    np.testing.assert_allclose(got['loss'], 0.0, atol=1e-6)

  def test_plain_numbers(self):
    got = analysis.along_gradient(lambda p: p['w'] ** 2, {'w': 3.0}, [0.25])
    np.testing.assert_allclose(got['loss'], 2.25)

  def test_a_module_is_told_how_to_be_split(self):
    perceptron = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    for module, said in (
      (
        nnx.BatchNorm(2, rngs=nnx.Rngs(0)),
        r'module of NNX, .* by .*nnx\.split\(',
      ),
      (perceptron, r"'activation' is .*\(by .* eqx\.partition\(model, "),
    ):
      with self.assertRaisesRegex(ValueError, said) as caught:
        gradients.check(module)
      self.assertNotIn('\n', str(caught.exception))
    trained, _ = eqx.partition(perceptron, eqx.is_inexact_array)
    gradients.check(trained)


class ProductTest(parameterized.TestCase):
  def test_hessian_products_of_any_direction(self):
    with jax.enable_x64(True):
      loss, params, hessian, _ = toys.quadratic()
      direction = jax.tree.map(lambda a: jnp.cos(a), params)
      got = gradients.hessian_product(loss, params, direction)
    np.testing.assert_allclose(
      toys.flat(got), hessian @ toys.flat(direction), rtol=1e-12
    )

  @parameterized.parameters(False, True)
  def test_a_derivative_of_ones_own(self, in_chunks):
    """custom_vjp forbids forward mode; the product is the plain loss's."""

    @jax.custom_vjp
    def bent(x):
      return jnp.sin(x) * x

    bent.defvjp(
      lambda x: (bent(x), x), lambda x, g: (g * (jnp.cos(x) * x + jnp.sin(x)),)
    )
    with jax.enable_x64(True):
      x = jax.random.normal(jax.random.key(0), (6, 3))
      params = {'w': jnp.array([0.3, -0.7, 1.1])}
      own = lambda x, p: jnp.mean(bent(x @ p['w']) ** 2)
      plain = lambda x, p: jnp.mean((jnp.sin(x @ p['w']) * (x @ p['w'])) ** 2)
      bound = jax.tree_util.Partial(own, x)
      with self.assertRaisesRegex(TypeError, 'custom_vjp'):
        jax.jvp(jax.grad(bound), (params,), (params,))
      if in_chunks:
        bound = analysis.chunked(own, x, chunk_size=4, group_size=1)
      got, want = (
        analysis.along_gradient(loss, params, [0.1], curvature=True)
        for loss in (bound, jax.tree_util.Partial(plain, x))
      )
    for name in want:
      np.testing.assert_allclose(
        got[name], want[name], rtol=1e-10, err_msg=name
      )
    self.assertNotAlmostEqual(float(want['curvature']), 0.0)


class MemoryTest(absltest.TestCase):
  def test_grows_with_the_batch_and_is_that_of_a_chunk(self):
    def loss(x, params):
      return jnp.mean(jnp.tanh(x @ params['w']) ** 2)

    params = {'w': jnp.ones((32, 64))}
    needed = {
      count: analysis.memory(
        jax.tree_util.Partial(loss, jnp.ones((count, 32))), params
      )
      for count in (64, 256)
    }
    # One matrix of hidden units in float32, at least.
    self.assertGreaterEqual(needed[64], 64 * 64 * 4)
    self.assertGreater(needed[256], 2 * needed[64])
    parts = analysis.chunked(
      loss, jnp.ones((256, 32)), chunk_size=64, group_size=1
    )
    self.assertEqual(analysis.memory(parts, params), needed[64])


if __name__ == '__main__':
  absltest.main()
