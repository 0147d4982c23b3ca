import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from bn_jax import analysis
from bn_jax.analysis.covariate_shift import QUANTITIES, default_layers
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


TWO = (('first', ('w1',)), ('second', ('w2',)))


def two_layers(seed=0):
  """(loss, params, x, y): |W2 W1 X - Y|^2 / 2, examples in columns."""
  generator = np.random.default_rng(seed)
  x, y = generator.normal(size=(3, 5)), generator.normal(size=(2, 5))
  params = {
    'w1': jnp.asarray(generator.normal(size=(4, 3))),
    'w2': jnp.asarray(generator.normal(size=(2, 4))),
  }

  def loss(params):
    return 0.5 * jnp.sum((params['w2'] @ params['w1'] @ x - y) ** 2)

  return loss, params, x, y


def moved(params, eta, seed=1):
  """Parameters after a step of length eta in some direction."""
  generator = np.random.default_rng(seed)
  return jax.tree.map(
    lambda w: w + eta * generator.normal(size=w.shape), params
  )


def compared(g, there):
  """l2, relative_l2 and cosine of two gradients, by hand."""
  change = np.linalg.norm(g - there)
  cosine = np.vdot(g, there) / np.linalg.norm(g) / np.linalg.norm(there)
  return change, change / np.linalg.norm(g), cosine


class TwoLayersTest(parameterized.TestCase):
  """A linear network: the gradients are products of matrices."""

  def test_closed_form(self):
    with jax.enable_x64(True):
      loss, params, x, y = two_layers()
      new = moved(params, 0.3)
      got = analysis.covariate_shift(loss, params, new, TWO)
    w1, w2, new_w1 = (np.asarray(w) for w in (*params.values(), new['w1']))
    gradient = (w2 @ w1 @ x - y) @ (w1 @ x).T
    there = (w2 @ new_w1 @ x - y) @ (new_w1 @ x).T
    self.assertEqual(list(got), ['l2', 'relative_l2', 'cosine'])
    for name, want in zip(got, compared(gradient, there)):
      self.assertEqual(got[name].shape, (2,))
      np.testing.assert_allclose(got[name][1], want, rtol=1e-12, err_msg=name)
    self.assertLess(got['cosine'][1], 0.99)
    # Nothing comes before the first layer.
    self.assertEqual((got['l2'][0], got['relative_l2'][0]), (0.0, 0.0))
    np.testing.assert_allclose(got['cosine'][0], 1.0, rtol=1e-14)

  def test_the_order_is_the_callers(self):
    """With the layers turned round, it is W1 that sees W2 move."""
    with jax.enable_x64(True):
      loss, params, x, y = two_layers()
      new = moved(params, 0.3)
      got = analysis.covariate_shift(loss, params, new, TWO[::-1])
    w1, w2, new_w2 = (np.asarray(w) for w in (*params.values(), new['w2']))
    gradient = w2.T @ (w2 @ w1 @ x - y) @ x.T
    there = new_w2.T @ (new_w2 @ w1 @ x - y) @ x.T
    for name, want in zip(got, compared(gradient, there)):
      np.testing.assert_allclose(got[name][1], want, rtol=1e-12, err_msg=name)
    self.assertEqual(got['l2'][0], 0.0)

  def test_without_a_step_nothing_shifts(self):
    loss, params, _, _ = two_layers()
    got = analysis.covariate_shift(loss, params, params, TWO)
    np.testing.assert_array_equal(got['l2'], 0)
    np.testing.assert_array_equal(got['relative_l2'], 0)
    np.testing.assert_allclose(got['cosine'], 1, rtol=1e-6)

  def test_is_in_proportion_to_small_steps(self):
    with jax.enable_x64(True):
      loss, params, _, _ = two_layers()
      rates = [
        analysis.covariate_shift(loss, params, moved(params, eta), TWO)['l2'][1]
        / eta
        for eta in (1e-2, 1e-3, 1e-4)
      ]
    self.assertGreater(rates[2], 0.1)
    # What is left after the linear term falls with eta.
    first, second = abs(rates[0] - rates[2]), abs(rates[1] - rates[2])
    self.assertLess(first, 0.2 * rates[2])
    np.testing.assert_allclose(second / first, 0.09 / 0.99, rtol=0.05)

  def test_a_penalty_leaves_the_difference_and_moves_the_cosine(self):
    """So it is the data loss that is to be compared."""
    with jax.enable_x64(True):
      loss, params, _, _ = two_layers()
      penalised = lambda p: (
        loss(p) + 50 * sum(jnp.sum(w**2) for w in jax.tree.leaves(p))
      )
      new = moved(params, 0.3)
      plain, other = (
        analysis.covariate_shift(f, params, new, TWO) for f in (loss, penalised)
      )
    np.testing.assert_allclose(other['l2'], plain['l2'], rtol=1e-12)
    self.assertGreater(other['cosine'][1], plain['cosine'][1] + 0.01)
    self.assertLess(other['relative_l2'][1], 0.5 * plain['relative_l2'][1])

  def test_a_zero_gradient_has_no_direction(self):
    _, params, _, _ = two_layers()
    got = analysis.covariate_shift(
      lambda p: 0 * p['w1'].sum(), params, moved(params, 1.0), TWO
    )
    np.testing.assert_array_equal(got['l2'], 0)
    for name in ('relative_l2', 'cosine'):
      self.assertTrue(np.isnan(got[name]).all(), name)

  def test_refuses(self):
    loss, params, _, _ = two_layers()

    def refused(said, new=params, layers=TWO, **keywords):
      with self.assertRaisesRegex(ValueError, said):
        analysis.covariate_shift(loss, params, new, layers, **keywords)

    refused(
      r"the step of 'w2' has shape \(4, 2\)",
      new={**params, 'w2': params['w2'].T},
    )
    refused('the step is another tree', new={'w1': params['w1']})
    refused("unknown layer 'secnd'; did you mean 'second'", at=('secnd',))
    refused("unknown path 'w3'; did you mean", layers=(('third', ('w3',)),))


def chain(depth=12, seed=2):
  """(loss, params) of layer1 to layer12, which a dict sorts 1, 10, 11, 12, 2.

  Each is a 2 x 2 matrix with a scale.
  """
  generator = np.random.default_rng(seed)
  x, y = generator.normal(size=(2, 2, 5))
  params = {
    f'layer{i}': {
      'kernel': jnp.asarray(np.eye(2) + 0.3 * generator.normal(size=(2, 2))),
      'scale': jnp.asarray(1 + 0.3 * generator.normal(size=())),
    }
    for i in range(1, depth + 1)
  }

  def loss(params):
    h = x
    for i in range(1, depth + 1):
      layer = params[f'layer{i}']
      h = layer['scale'] * jnp.tanh(layer['kernel'] @ h)
    return 0.5 * jnp.sum((h - y) ** 2)

  return loss, params


def by_hand(loss, params, new, names, with_scale=True):
  """Another route: swap the layers before one, in this order, differentiate."""
  gradient_of = jax.jit(jax.grad(loss))
  own = lambda gradient, name: toys.flat(
    gradient[name] if with_scale else gradient[name]['kernel']
  )
  at, rows = dict(params), []
  for name in names:
    pair = (own(gradient_of(p), name) for p in (params, at))
    rows.append(compared(*pair))
    at[name] = (
      new[name] if with_scale else {**at[name], 'kernel': new[name]['kernel']}
    )
  return dict(zip(QUANTITIES, np.transpose(rows)))


class DeepTest(parameterized.TestCase):
  NAMES = tuple(f'layer{i}' for i in range(1, 13))
  LAYERS = tuple((name, (name,)) for name in NAMES)

  def test_twelve_layers_in_their_order(self):
    with jax.enable_x64(True):
      loss, params = chain()
      new = moved(params, 0.1)
      self.assertNotEqual(sorted(self.NAMES), list(self.NAMES))
      got = analysis.covariate_shift(loss, params, new, self.LAYERS)
      want = by_hand(loss, params, new, self.NAMES)
      sorted_wrong = by_hand(loss, params, new, sorted(self.NAMES))
    for name in want:
      np.testing.assert_allclose(
        got[name], want[name], rtol=1e-8, atol=1e-14, err_msg=name
      )
    gaps = np.abs(want['l2'] - sorted_wrong['l2'])
    self.assertGreater(gaps.max(), 1e-3 * want['l2'].max())

    some = ('layer11', 'layer2', 'layer10')
    with jax.enable_x64(True):
      few = analysis.covariate_shift(loss, params, new, self.LAYERS, at=some)
    for name in want:
      same_bits.assert_same(few[name], got[name][[1, 9, 10]])

  def test_paths_say_what_moves_and_what_is_compared(self):
    """Kernels alone: scales stay, and are in no gradient that is compared."""
    kernels = tuple((name, (f'{name}/kernel',)) for name in self.NAMES)
    with jax.enable_x64(True):
      loss, params = chain()
      new = moved(params, 0.1)
      got = analysis.covariate_shift(loss, params, new, kernels)
      want = by_hand(loss, params, new, self.NAMES, with_scale=False)
      # Where the scales of new_params are makes no difference then.
      stay = {
        name: {**new[name], 'scale': params[name]['scale']} for name in new
      }
      again = analysis.covariate_shift(loss, params, stay, kernels)
      whole = analysis.covariate_shift(loss, params, new, self.LAYERS)
    for name in want:
      np.testing.assert_allclose(
        got[name], want[name], rtol=1e-8, atol=1e-14, err_msg=name
      )
      same_bits.assert_same(got[name], again[name])
      self.assertFalse((got[name][1:] == whole[name][1:]).any(), name)

  @parameterized.parameters(
    (25, (9, 17)), (1, (1,)), (2, (1, 2)), (3, (1, 2)), (11, (4, 8))
  )
  def test_default_layers(self, count, want):
    names = tuple(range(1, count + 1))
    self.assertEqual(default_layers(names), want)


class MeasureTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    # So large a decay that the penalty would be seen.
    self.made = toys.classifier('batch', weight_decay=1.0, momentum=0.9)
    self.split = toys.split()
    step = toys.step(self.made)
    self.state = step(self.made.init(0), self.split)
    self.after = step(self.state, self.split)
    self.batch = self.made.batch(self.state, self.split)

  @parameterized.parameters(True, False)
  def test_of_the_step_that_training_makes(self, norm_parameters):
    """Gradients of the data loss; the step with penalty and momentum."""
    got = analysis.make(
      'covariate_shift',
      layers=('logits', 'conv1'),
      norm_parameters=norm_parameters,
    )(self.made, self.state, [self.batch])
    data_loss = self.made.loss(self.state, self.batch, 'batch', False)
    gradient_of = jax.jit(jax.grad(data_loss))
    old, new = self.state.params, self.after.params
    before = {**old, 'conv1': new['conv1']}
    if norm_parameters:
      before['norm1'] = new['norm1']
    pair = [toys.flat(gradient_of(p)['logits']) for p in (old, before)]
    names = ('l2', 'relative_l2', 'cosine')
    for name, want in zip(names, compared(*pair)):
      np.testing.assert_allclose(
        got[f'logits/{name}'], want, rtol=1e-3, err_msg=name
      )
    self.assertEqual(next(iter(got)), 'conv1/l2')
    self.assertEqual(got['conv1/l2'], 0)
    self.assertLess(got['logits/cosine'], 0.999)

  def test_the_step_is_not_plain_descent(self):
    """What the test above would not see if the penalty were small."""
    loss = self.made.loss(self.state, self.batch, 'batch', False)
    plain = jax.tree.map(
      lambda p, g: p - 0.1 * g,
      self.state.params,
      jax.jit(jax.grad(loss))(self.state.params),
    )
    gap = optax.tree.norm(optax.tree.sub(plain, self.after.params))
    step = optax.tree.norm(optax.tree.sub(self.after.params, self.state.params))
    self.assertGreater(float(gap), 0.2 * float(step))

  def test_default_layers_of_a_network(self):
    got = analysis.make('covariate_shift')(self.made, self.state, [self.batch])
    self.assertEqual(
      list(got),
      [
        f'{layer}/{name}'
        for layer in ('conv1', 'logits')
        for name in ('l2', 'relative_l2', 'cosine')
      ],
    )

  def test_refuses(self):
    with self.assertRaisesRegex(
      ValueError, "unknown layer 'conv2'; did you mean 'conv1'"
    ):
      analysis.make('covariate_shift', layers=('conv2',))(
        self.made, self.state, [self.batch]
      )
    with self.assertRaisesRegex(ValueError, "statistics is 'population'"):
      analysis.make('covariate_shift', statistics='population')


if __name__ == '__main__':
  absltest.main()
