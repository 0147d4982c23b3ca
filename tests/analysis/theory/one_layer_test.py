"""A normalization taken out of a network, and the layer before it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import norms
from bn_jax.analysis.theory import one_layer, statements
from bn_jax.models.lowering import conv
from tests.fixtures import strict  # noqa: F401


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class Block(nn.Module):
  """A dense layer and its norm, one level down."""

  norm: norms.Norm

  @nn.compact
  def __call__(self, x, statistics):
    x = nn.Dense(5, dtype=x.dtype, name='dense')(x)
    return nn.tanh(self.norm.layer('norm')(x, statistics=statistics))


class Net(nn.Module):
  norm: norms.Norm

  @nn.compact
  def __call__(self, x, statistics='batch'):
    x = conv.Conv(3, strides=(2, 2), use_bias=False, name='conv')(x)
    x = nn.tanh(self.norm.layer('norm')(x, statistics=statistics))
    x = Block(self.norm, name='block')(x.reshape(len(x), -1), statistics)
    return nn.Dense(3, dtype=x.dtype, name='logits')(x)


class Flax(nn.Module):
  """A network that knows nothing of bn_jax."""

  @nn.compact
  def __call__(self, x):
    x = nn.Dense(4, dtype=x.dtype, name='dense')(x.reshape(len(x), -1))
    x = nn.BatchNorm(use_running_average=False, dtype=x.dtype, name='bn')(x)
    return nn.Dense(3, dtype=x.dtype, name='logits')(nn.relu(x))


_LAYERS = (('norm', 'conv', 3, 4), ('block/norm', 'block/dense', 5, 1))


class LayerTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    generator = np.random.default_rng(0)
    self.x = jnp.asarray(generator.normal(1, 2, size=(8, 4, 4, 2)))
    self.label = jnp.asarray(np.eye(3)[generator.integers(3, size=8)])

  def problem(self, module):
    """(loss, params), in float64, the parameters no longer 0 and 1."""
    variables = jax.jit(module.init)(jax.random.key(0), self.x)
    generator = np.random.default_rng(1)
    params = jax.tree.map(
      lambda p: jnp.asarray(p + 0.3 * generator.normal(size=p.shape)),
      variables['params'],
    )
    stats = {k: v for k, v in variables.items() if k != 'params'}

    def loss(params):
      logits, _ = module.apply(
        {'params': params, **stats}, self.x, mutable=['batch_stats']
      )
      return -(nn.log_softmax(logits) * self.label).sum()

    return loss, params

  @parameterized.parameters(*_LAYERS)
  def test_the_loss_is_a_function_of_what_the_unit_makes(
    self, path, below, channels, positions
  ):
    del below
    loss, params = self.problem(Net(norms.make('batch', epsilon=0.1)))

    @jax.jit
    def look(params, index):
      found = one_layer.of(loss, params, path)
      unit = found.unit(index)
      z = found.output_of(index)
      return unit._replace(loss=unit.loss(z)), unit.loss(z + 1), z

    whole = jax.jit(loss)(params)
    for index in range(channels):
      unit, moved, z = look(params, index)
      self.assertEqual(unit.y.shape, (8 * positions,))
      self.assertEqual(unit.y.dtype, jnp.float64)
      self.assertEqual(unit.epsilon, 0.1)
      np.testing.assert_allclose(unit.loss, whole, rtol=1e-12)
      self.assertGreater(abs(moved - whole), 1e-3)
      yhat = (unit.y - unit.y.mean()) / jnp.sqrt(unit.y.var() + 0.1)
      np.testing.assert_allclose(z, unit.scale * yhat + unit.bias, atol=1e-12)

  @parameterized.parameters(*_LAYERS)
  def test_what_enters_the_layer_before_it(self, path, below, channels, _):
    """y = X w, and X'q is the gradient by the weights, in true order."""
    loss, params = self.problem(Net(norms.make('batch', epsilon=0.1)))

    def kernel(tree):
      for key in below.split('/'):
        tree = tree[key]
      return tree['kernel'].reshape(-1, channels)

    @jax.jit
    def look(params):
      x_MD = one_layer.inputs(loss, params, below, examples=None)
      found = one_layer.of(loss, params, path)
      ys, qs = [], []
      for index in range(channels):
        unit = found.unit(index)
        ys.append(unit.y)
        qs.append(statements.point(unit).q)
      return x_MD, jnp.stack(ys, 1), jnp.stack(qs, 1), jax.grad(loss)(params)

    x_MD, y_MC, q_MC, gradient = look(params)
    without_bias = y_MC - x_MD @ kernel(params)
    constant_1C = without_bias[:1] + jnp.zeros_like(without_bias)
    np.testing.assert_allclose(without_bias, constant_1C, atol=1e-12)
    np.testing.assert_allclose(x_MD.T @ q_MC, kernel(gradient), atol=1e-12)
    self.assertGreater(jnp.abs(kernel(gradient)).max(), 0.01)

  @parameterized.parameters(
    (functools.partial(norms.make, 'batch', group_size=4), 'norm', 4),
    (functools.partial(norms.make, 'noisy'), 'norm', 8),
    (functools.partial(norms.make, 'batch', group_size=4), 'block/norm', 4),
  )
  def test_groups_and_noise(self, norm, path, examples):
    loss, params = self.problem(Net(norm()))

    @jax.jit
    def look(params):
      found = one_layer.of(loss, params, path)
      at = statements.point(found.unit(1))
      facts = (
        statements.algorithm_1(at, found.output_of(1)),
        statements.fact_c1(at),
      )
      return [fact.difference() for fact in facts], at.yhat

    differences, yhat = look(params)
    self.assertLen(yhat, examples * (4 if path == 'norm' else 1))
    self.assertLess(max(differences), 1e-12)

  def test_a_network_of_flax_alone(self):
    loss, params = self.problem(Flax())
    found = one_layer.of(loss, params, 'bn')
    self.assertEqual(found.epsilon, 1e-5)
    at = statements.point(found.unit(2))
    # Flax takes the variance as E[x^2] - E[x]^2.
    self.assertTrue(statements.algorithm_1(at, found.output_of(2)).holds())
    self.assertTrue(statements.theorem_4_1(at).holds())

  def test_paths_that_are_none(self):
    loss, params = self.problem(Net(norms.make('batch')))
    with self.assertRaisesRegex(
      ValueError, "'conv' has parameters scale and bias; .*: block/norm, norm"
    ):
      one_layer.of(loss, params, 'conv')
    with self.assertRaisesRegex(
      ValueError, "'norm' has parameters kernel; .*: block/dense, conv, logits"
    ):
      one_layer.inputs(loss, params, 'norm', examples=None)
    loss, params = self.problem(Net(norms.make('none')))
    with self.assertRaisesRegex(ValueError, 'allowed: none'):
      one_layer.of(loss, params, 'norm')

  def test_channels_that_are_not_last(self):
    loss, params = self.problem(Net(norms.make('batch', axis=1)))
    with self.assertRaisesRegex(ValueError, "'norm' normalises axis 1 of 4"):
      one_layer.of(loss, params, 'norm')

  def test_a_module_that_is_not_called_once(self):
    loss, params = self.problem(Flax())
    with self.assertRaisesRegex(ValueError, "'bn' 0 times.*jitted"):
      one_layer.of(lambda params: 0.0, params, 'bn')
    with self.assertRaisesRegex(ValueError, "'bn' 2 times"):
      one_layer.of(lambda params: loss(params) + loss(params), params, 'bn')


if __name__ == '__main__':
  absltest.main()
