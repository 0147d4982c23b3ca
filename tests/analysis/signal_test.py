import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis
from bn_jax.data.batches import in_memory
from tests.fixtures import (
  strict,  # noqa: F401
  toys,
)


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def linear(seed=0):
  """(loss, params, zeros, x, y) of x -> x W1 W2, with what its layers make."""
  generator = np.random.default_rng(seed)
  x, y = generator.normal(size=(5, 3)), generator.normal(size=(5, 2))
  params = {
    'w1': jnp.asarray(generator.normal(size=(3, 4))),
    'w2': jnp.asarray(generator.normal(size=(4, 2))),
  }

  def loss(params, added):
    h1 = x @ params['w1'] + added['h1']
    h2 = h1 @ params['w2'] + added['h2']
    return 0.5 * jnp.sum((h2 - y) ** 2), {'h1': h1, 'h2': h2}

  zeros = {'h2': jnp.zeros((5, 2)), 'h1': jnp.zeros((5, 4))}
  return loss, params, zeros, x, y


def rms(x):
  return np.sqrt(np.mean(x**2))


def rest(state, batch):
  """h -> the loss, of what enters the nonlinearity; the network written out."""
  dense = state.params['logits']

  def loss(h):
    x = jnp.maximum(h, 0).reshape(8, -1)
    logits = x @ dense['kernel'] + dense['bias'][None]
    chosen = jax.nn.log_softmax(logits)[jnp.arange(8), batch.labels]
    return -chosen.mean()

  return jax.jit(jax.value_and_grad(loss))


class ClosedFormTest(absltest.TestCase):
  def test_linear_network(self):
    with jax.enable_x64(True):
      loss, params, zeros, x, y = linear()
      got = analysis.signal(loss, params, zeros)
    w1, w2 = np.asarray(params['w1']), np.asarray(params['w2'])
    h1, h2 = x @ w1, x @ w1 @ w2
    # In the order of the perturbations: h2, then h1.
    np.testing.assert_allclose(
      got['activation_rms'], [rms(h2), rms(h1)], rtol=1e-12
    )
    want = [np.linalg.norm(h2 - y), np.linalg.norm((h2 - y) @ w2.T)]
    np.testing.assert_allclose(
      got['activation_gradient_norm'], want, rtol=1e-12
    )

  def test_some_layers(self):
    loss, params, zeros, *_ = linear()
    some = lambda params, added: loss(
      params, {'h1': added['h1'], 'h2': jnp.zeros((5, 2))}
    )
    got = analysis.signal(some, params, {'h1': zeros['h1']})
    whole = analysis.signal(loss, params, zeros)
    for name in whole:
      np.testing.assert_allclose(got[name], whole[name][1:], rtol=1e-6)

  def test_one_compilation_over_five_batches(self):
    @chex.assert_max_traces(n=1)
    def loss(x, params, added):
      h = x @ params['w1'] + added['h']
      return jnp.sum(h**2), {'h': h}

    _, params, *_ = linear()
    for seed in range(5):
      x = jax.random.normal(jax.random.key(seed), (5, 3))
      bound = jax.tree_util.Partial(loss, x)
      got = analysis.signal(bound, params, {'h': jnp.zeros((5, 4))})
      h = np.asarray(x @ params['w1'])
      np.testing.assert_allclose(got['activation_rms'], rms(h), rtol=1e-5)

  def test_refuses(self):
    loss, params, zeros, *_ = linear()
    with self.assertRaisesRegex(ValueError, 'no layers; give'):
      analysis.signal(loss, params, {})
    with self.assertRaisesRegex(ValueError, "unknown layer 'h3'"):
      analysis.signal(loss, params, {**zeros, 'h3': jnp.zeros(2)})


class MeasureTest(parameterized.TestCase):
  def looked(self, norm, statistics='batch', **norm_parameters):
    made = toys.classifier(norm)
    state = made.init(0)
    if norm_parameters:
      params = {**state.params, 'norm1': norm_parameters}
      state = state._replace(params=params)
    batch = in_memory.first(toys.split(), 8)
    look = analysis.make('signal', statistics=statistics)
    return made, state, batch, look(made, state, [batch])

  @parameterized.parameters(
    ('batch', 'batch'), ('none', 'batch'), ('batch', 'running')
  )
  def test_sizes_by_the_rest_of_the_network(self, norm, statistics):
    made, state, batch, got = self.looked(norm, statistics)
    h = made.activations(state, batch, statistics, ('conv1',))['conv1']
    value, gradient = rest(state, batch)(h)
    loss = made.loss(state, batch, statistics)
    np.testing.assert_allclose(value, loss(state.params), rtol=1e-5)
    np.testing.assert_allclose(
      got['conv1/activation_gradient_norm'],
      np.linalg.norm(toys.flat(gradient)),
      rtol=1e-4,
    )
    np.testing.assert_allclose(
      got['conv1/activation_rms'], rms(toys.flat(h)), rtol=1e-5
    )

  def test_layers_are_in_forward_order(self):
    made = toys.deep(10)
    batch = in_memory.first(toys.split(), 8)
    got = analysis.make('signal')(made, made.init(0), [batch])
    layers = list(dict.fromkeys(name.partition('/')[0] for name in got))
    self.assertEqual(layers, [f'dense{i + 1}' for i in range(10)])

  def test_one_activation_moves(self):
    """Finite differences of the loss by numbers added to activations."""
    made, state, batch, _ = self.looked('batch')
    h = made.activations(state, batch, 'batch', ('conv1',))['conv1']
    _, gradient = rest(state, batch)(h)
    loss = jax.jit(made.perturbed(state, batch, 'batch'))
    zeros = jnp.zeros(h.shape)
    for at in ((0, 1, 2, 3), (7, 3, 0, 1), (3, 0, 0, 0)):
      ends = [
        float(loss(state.params, {'conv1': zeros.at[at].set(e)})[0])
        for e in (0.05, -0.05)
      ]
      np.testing.assert_allclose(
        gradient[at], (ends[0] - ends[1]) / 0.1, rtol=0.02, atol=1e-4
      )

  def test_sees_the_network_of_the_step_that_comes_with_its_noise(self):
    made, state, batch, got = self.looked('noisy')
    h = made.activations(state, batch, 'batch', ('conv1',))['conv1']
    np.testing.assert_allclose(
      got['conv1/activation_rms'], rms(toys.flat(h)), rtol=1e-5
    )

  def test_signs_by_hand(self):
    """yhat from the convolution, g by what the norm makes; per channel."""
    scale = np.array([1.0, -0.5, 2.0, 0.3])
    bias = np.array([0.5, -0.2, 0.0, 1.0])
    _, state, batch, got = self.looked(
      'batch', scale=jnp.float32(scale), bias=jnp.float32(bias)
    )
    y = jax.lax.conv_general_dilated(
      batch.images, state.params['conv1']['kernel'], (1, 1), 'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip
    y = np.float64(y).reshape(-1, 4)
    normalised = (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5)
    h = (scale * normalised + bias).reshape(8, 4, 4, 4)
    _, gradient = rest(state, batch)(jnp.float32(h))
    inner = (normalised * np.float64(gradient).reshape(-1, 4)).sum(0)
    # Neither all of them, nor so near to 0 that rounding would decide.
    self.assertGreater(np.abs(inner).min(), 1e-4)
    self.assertBetween((inner > 0).sum(), 1, 3)
    self.assertEqual(got['conv1/positive'], (inner > 0).mean())
    self.assertEqual(got['conv1/negative'], (inner < 0).mean())

  def test_units_without_a_gradient_have_no_sign(self):
    """Far below 0 for all examples: neither above nor below."""
    bias = jnp.array([0.0, -99.0, -99.0, -99.0])
    *_, got = self.looked('batch', scale=jnp.ones(4), bias=bias)
    self.assertEqual(got['conv1/positive'] + got['conv1/negative'], 0.25)

  def test_without_a_norm_there_are_no_signs(self):
    *_, got = self.looked('none')
    self.assertEqual(
      set(got),
      {
        f'conv1/{name}'
        for name in (
          'activation_rms', 'activation_gradient_norm', 'positive', 'negative',
        )
      },
    )  # fmt: skip
    self.assertTrue(np.isnan(got['conv1/positive']))
    self.assertTrue(np.isnan(got['conv1/negative']))
    self.assertGreater(got['conv1/activation_gradient_norm'], 0)

  def test_refuses(self):
    made = toys.classifier('batch')
    look = analysis.make('signal', layers=('conv9',))
    with self.assertRaisesRegex(ValueError, "unknown layer 'conv9'"):
      look(made, made.init(0), [in_memory.first(toys.split(), 8)])
    batch = in_memory.first(toys.split(), 8)._replace(mask=np.arange(8) < 7)
    with self.assertRaisesRegex(ValueError, '1 of the 8 examples .* padding'):
      analysis.make('signal')(made, made.init(0), [batch])


if __name__ == '__main__':
  absltest.main()
