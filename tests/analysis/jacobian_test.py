import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import analysis, norms, optim
from bn_jax.analysis import jacobian
from bn_jax.data.batches import order
from bn_jax.training import problem
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)

from tests.fixtures import toys  # isort: skip


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


# Without parameters, of a batch, of an example, of a kernel, with noise.
EVERY_KIND = ('none', 'batch', 'layer', 'spectral', 'noisy')


class Two(nn.Module):
  """Two dense layers with norms, and a linear map between them or a tanh."""

  norm: norms.Norm
  nonlinear: bool = True

  @nn.compact
  def __call__(self, x, *, statistics, mask=None, first=0):
    x = x.reshape(len(x), -1)
    for number in (1, 2, 3):
      dense = nn.Dense(5, use_bias=False, name=f'dense{number}')
      norm = self.norm.layer(f'norm{number}')
      x = norm(dense(x), statistics=statistics, mask=mask, first=first)
      x = nn.tanh(x) if self.nonlinear else x
    return nn.Dense(3, name='logits')(x)


def made(name='batch', **keywords):
  """(problem, state, batch) of it, with random statistics and affine maps."""
  module = Two(norms.make(name), **keywords)
  taps = tuple((f'dense{i}', f'norm{i}') for i in (1, 2, 3))
  built = problem.make(
    module,
    optim.sgd(optim.constant(learning_rate=0.1), momentum=0.0),
    sampler=order.sampler(num_examples=20, batch_size=8),
    penalty=optim.weight_decay(weight_decay=0.0),
    image_shape=(4, 4, 1),
    layers=lambda module, variables: (),
    taps=taps,
  )
  state = built.init(0)
  generator = np.random.default_rng(0)
  random = lambda leaf: (
    leaf + jnp.asarray(generator.uniform(0.1, 0.5, size=leaf.shape), leaf.dtype)
  )
  state = state._replace(
    params=jax.tree.map(random, state.params),
    batch_stats=jax.tree.map(random, state.batch_stats),
  )
  return built, state, built.batch(state, toys.split())


class SingularValuesTest(parameterized.TestCase):
  @parameterized.parameters(((3, 4), 5), ((70,), 6), ((2, 2), 9))
  def test_of_a_linear_map(self, shape, outputs):
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(outputs, int(np.prod(shape))))
    function = lambda x: jnp.asarray(matrix, jnp.float32) @ x.ravel()
    found = analysis.singular_values(function, jnp.ones(shape))
    want = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)

  def test_where_it_is_not_finite(self):
    found = analysis.singular_values(jnp.sqrt, jnp.zeros(3))
    self.assertTrue(np.isnan(found).all())

  def test_refuses_what_is_too_large(self):
    with self.assertRaisesRegex(ValueError, '5,000 x 5,000 numbers; allowed'):
      analysis.singular_values(lambda x: 2 * x, jnp.ones(5000))

  @parameterized.parameters('uint8', 'bool', 'complex64')
  def test_refuses_what_is_not_floating_point(self, dtype):
    with self.assertRaisesRegex(ValueError, f'x is {dtype}; allowed'):
      analysis.singular_values(lambda x: 2 * x, np.ones(5, dtype))


class MeasureTest(parameterized.TestCase):
  @parameterized.parameters('running', 'batch')
  def test_equals_the_map_written_out(self, statistics):
    """zhat = BN(W tanh(scale xhat + bias)), one example moving."""
    built, state, batch = made()
    measure = analysis.make('jacobian', examples=2, statistics=statistics)
    found = measure(built, state, (batch,))
    self.assertEqual(
      list(found),
      ['dense1-dense2/singular_values', 'dense2-dense3/singular_values'],
    )
    params, stats = state.params, state.batch_stats

    def normalised(x, number):
      if statistics == 'batch':
        return norms.batch_norm(x, jnp.ones(5), jnp.zeros(5))[0]
      own = stats[f'norm{number}']
      return (x - own['mean'][None]) / jnp.sqrt(own['var'] + 1e-5)[None]

    x = batch.images.reshape(8, -1) @ params['dense1']['kernel']
    xhat = normalised(x, 1)

    def example(i, x_i):
      own = params['norm1']
      y = xhat.at[i].set(x_i) * own['scale'][None] + own['bias'][None]
      return normalised(jnp.tanh(y) @ params['dense2']['kernel'], 2)[i]

    for i in range(2):
      matrix = jax.jacobian(lambda x, i=i: example(i, x))(xhat[i])
      np.testing.assert_allclose(
        found['dense1-dense2/singular_values'][i],
        np.linalg.svd(matrix, compute_uv=False),
        rtol=1e-4, atol=1e-5,
      )  # fmt: skip

  def test_conjecture_holds_where_it_is_argued(self):
    """xhat white, F orthogonal and linear: all singular values are 1."""
    built, state, batch = made(nonlinear=False)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))
    params = {
      **state.params,
      'dense2': {'kernel': jnp.asarray(turn, 'float32')},
    }
    stats = {
      name: {'mean': jnp.zeros(5), 'var': jnp.ones(5)}
      for name in state.batch_stats
    }
    # The parameters of the norms themselves must not matter.
    params['norm1'] = {'scale': jnp.ones(5), 'bias': jnp.ones(5)}
    state = state._replace(params=params, batch_stats=stats)
    measure = analysis.make('jacobian', layers=('dense1',))
    found = measure(built, state, (batch,))
    self.assertEqual(list(found), ['dense1-dense2/singular_values'])
    np.testing.assert_allclose(
      found['dense1-dense2/singular_values'], 1, rtol=1e-4
    )

  @parameterized.parameters(*EVERY_KIND)
  def test_every_kind_of_norm(self, name):
    self.check_norm(name)

  @parameterized.parameters(
    *sorted(set(norms.NORMS) - {'instance', *EVERY_KIND})
  )
  @pytest.mark.slow  # a second each
  def test_the_other_norms(self, name):
    self.check_norm(name)

  def check_norm(self, name):
    built, state, batch = made(name)
    measure = analysis.make('jacobian', examples=1, layers=('dense2',))
    found = measure(built, state, (batch,))['dense2-dense3/singular_values']
    self.assertEqual(found.shape, (1, 5))
    self.assertTrue(np.isfinite(found).all())

  def test_leaves_the_state_as_it_is(self):
    built, state, batch = made()
    before = jax.device_get(state)
    analysis.make('jacobian')(built, state, (batch,))
    same_bits.assert_same(jax.device_get(state), before)
    self.assertTrue(np.isfinite(optax.tree.norm(state.params)))

  @parameterized.parameters(
    (dict(examples=0), 'examples is 0'),
    (dict(statistics='both'), "statistics is 'both'"),
  )
  def test_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      analysis.make('jacobian', **keywords)

  def test_refuses_padding(self):
    built, state, batch = made()
    batch = batch._replace(mask=np.arange(len(batch.labels)) > 0)
    with self.assertRaisesRegex(ValueError, '1 of the .* are padding'):
      analysis.make('jacobian')(built, state, (batch,))

  def test_padding_beyond_its_examples_changes_nothing(self):
    built, state, batch = made()
    measure = analysis.make('jacobian', layers=('dense1',), examples=2)
    padded = batch._replace(mask=np.arange(len(batch.labels)) < 2)
    got, want = (measure(built, state, (one,)) for one in (padded, batch))
    for key, value in want.items():
      np.testing.assert_allclose(got[key], value, rtol=1e-6)

  def test_says_so_where_all_is_too_large(self):
    built, state, batch = made()
    with (
      absltest.mock.patch.object(jacobian, '_LARGEST', 3),
      self.assertRaisesRegex(ValueError, 'too large'),
    ):
      analysis.make('jacobian')(built, state, (batch,))


if __name__ == '__main__':
  absltest.main()
