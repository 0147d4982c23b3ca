import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis
from bn_jax.data.batches import in_memory
from bn_jax.training import devices
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)

BOTH = ('cka', 'debiased_cka')


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def orthogonal(size, seed=0):
  return np.linalg.qr(normal(size, size, seed=seed))[0]


def of(x, y):
  """Both numbers of two layers."""
  values = analysis.cka({'x': x}, {'y': y})
  return tuple(values[name].item() for name in BOTH)


def biased(x, y):
  """Kornblith et al. (2019), by the cross-covariances of units."""
  x, y = x - x.mean(0), y - y.mean(0)
  norms = np.linalg.norm(x.T @ x), np.linalg.norm(y.T @ y)
  return np.linalg.norm(x.T @ y) ** 2 / np.prod(norms)


def debiased(x, y):
  """By the formula of Song et al. (2012), of vectors that are not centred."""

  def estimate(a, b):
    f, g = a @ a.T, b @ b.T
    np.fill_diagonal(f, 0)
    np.fill_diagonal(g, 0)
    n = len(f)
    value = np.trace(f @ g) + f.sum() * g.sum() / ((n - 1) * (n - 2))
    return (value - 2 / (n - 2) * (f @ g).sum()) / (n * (n - 3))

  return estimate(x, y) / np.sqrt(estimate(x, x) * estimate(y, y))


class ClosedFormTest(parameterized.TestCase):
  @parameterized.parameters((12, 5, 7), (6, 20, 3), (4, 2, 9))
  def test_definitions(self, examples, d, e):
    x, y = normal(examples, d) + 3, normal(examples, e, seed=1)
    y[:, 0] += x[:, 0]
    np.testing.assert_allclose(
      of(x, y), (biased(x, y), debiased(x, y)), rtol=1e-9
    )

  @parameterized.parameters(1.0, -7.0, 1e-30, 1e200)
  def test_a_layer_and_itself_turned_scaled_and_shifted(self, scale):
    x = normal(9, 5)
    shift = normal(5, seed=3)
    y = scale * (x @ orthogonal(5) + shift)
    np.testing.assert_allclose(of(x, y), 1, rtol=1e-9)
    z = normal(9, 4, seed=2) + x[:, :4]
    np.testing.assert_allclose(of(y, z), of(x, z), rtol=1e-9)

  def test_a_large_mean_costs_no_digits(self):
    x, z = normal(9, 5), normal(9, 4, seed=2)
    np.testing.assert_allclose(of(x + 1e6, z), of(x, z), rtol=1e-8)

  def test_two_factors_of_known_sizes(self):
    """Orthogonal factors a, b: of [a, b] and [a] it is |a|^2 / |(a, b)|."""
    basis = orthogonal(8)
    basis = np.linalg.qr(np.column_stack([np.ones(8), basis[:, :2]]))[0]
    a, b = 2 * basis[:, 1:2], 3 * basis[:, 2:3]
    value, _ = of(np.hstack([a, b]), a)
    self.assertAlmostEqual(value, 4 / np.hypot(4, 9), 12)
    value, _ = of(a, b)
    self.assertAlmostEqual(value, 0, 12)

  def test_of_independent_layers_one_is_near_zero_and_one_is_not(self):
    """40 pairs of 20 examples with 30 units."""
    generator = np.random.default_rng(0)
    layers = generator.normal(size=(2, 40, 20, 30))
    values = np.array([of(x, y) for x, y in zip(*layers)])
    mean, error = values.mean(0), values.std(0) / np.sqrt(40)
    # tr(KL) is 19 d e, tr(KK) 19 d (d + 20), for d and e units.
    self.assertAlmostEqual(mean[0], 30 / 50, delta=0.01)
    self.assertLess(abs(mean[1]), 3 * error[1])
    self.assertLess(error[1], 0.02)
    self.assertLess(values[:, 1].min(), -0.02)

  def test_matrices(self):
    """Rows are the first's layers, in their order; symmetric with itself."""
    layers = {'b': normal(6, 3), 'a': normal(6, 2, 2, seed=1)}
    other = {name: normal(6, 4, seed=k) for k, name in enumerate('xyz', 5)}
    values = analysis.cka(layers, other)
    for name, oracle in zip(BOTH, (biased, debiased)):
      self.assertEqual(values[name].shape, (2, 3))
      for i, x in enumerate(layers.values()):
        for j, y in enumerate(other.values()):
          self.assertAlmostEqual(
            values[name][i, j], oracle(x.reshape(6, -1), y), 10
          )
    for matrix in analysis.cka(layers).values():
      np.testing.assert_array_equal(matrix, matrix.T)
      np.testing.assert_allclose(np.diag(matrix), 1, rtol=1e-12)
    same_bits.assert_same(analysis.cka(layers), analysis.cka(layers, layers))

  def test_what_says_nothing_is_nan(self):
    """Only in its own row."""
    infinite = normal(6, 3)
    infinite[0, 0] = np.inf
    layers = {
      'x': normal(6, 3), 'zero': np.zeros((6, 3)), 'infinite': infinite,
      'equal': np.full((6, 3), 0.1),
      'rounding': jnp.float32(1 + np.eye(6) * 1e-7),
    }  # fmt: skip
    for matrix in analysis.cka(layers).values():
      self.assertTrue(np.isnan(matrix[1:]).all())
      np.testing.assert_allclose(matrix[0, 0], 1)

  def test_equally_far_examples_have_no_debiased_value(self):
    """Off its diagonal their Gram matrix is one number."""
    value, other = of(np.eye(6), np.eye(6))
    self.assertAlmostEqual(value, 1, 12)
    self.assertTrue(np.isnan(other))

  def test_refuses(self):
    x = normal(6, 3)
    for hidden, other, said in (
      ({}, None, 'hidden is {}; allowed: a dict'),
      (x, None, 'allowed: a dict of layers'),
      ({'x': x}, {}, 'hidden is {}; allowed: a dict'),
      ({'x': x[:3]}, None, r'x has shape \(3, 3\); .* 4 or more'),
      ({'x': x, 'y': x[:5]}, None, 'of 5 and 6 examples'),
      ({'x': x}, {'y': x[:5]}, 'of 5 and 6 examples; allowed: those of the'),
      ({'x': x > 0}, None, 'x is bool; allowed: an array of floating point'),
    ):
      with self.assertRaisesRegex(ValueError, said):
        analysis.cka(hidden, other)


class _Others:
  """The states of other checkpoints, by reference."""

  def __init__(self, **states):
    self._states = states

  def at(self, reference):
    return self._states[reference]

  def steps(self):
    return ()


class MeasureTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.problem = toys.classifier()
    self.states = [self.problem.init(seed) for seed in (0, 1)]
    self.batch = in_memory.first(toys.split(), 8)

  def looked(self, problem=None, batch=None, state=None, **keywords):
    look = analysis.make('cka', **keywords)
    return look(
      problem or self.problem, state or self.states[0], [batch or self.batch],
      states=_Others(other=self.states[1]),
    )  # fmt: skip

  def hidden(self, state, statistics, count=8):
    layers = self.problem.activations(state, self.batch, statistics, ('conv1',))
    return np.float64(layers['conv1'])[:count].reshape(count, -1)

  @parameterized.parameters('batch', 'running')
  def test_two_checkpoints(self, statistics):
    got = self.looked(to='other', statistics=statistics)
    x, y = (self.hidden(state, statistics) for state in self.states)
    np.testing.assert_allclose(got['conv1/cka'], biased(x, y), rtol=1e-9)
    np.testing.assert_allclose(
      got['conv1/debiased_cka'], debiased(x, y), rtol=1e-7
    )
    for name in BOTH:
      np.testing.assert_array_equal(
        got[f'conv1/{name}_with'], [got[f'conv1/{name}']]
      )
    self.assertLess(got['conv1/debiased_cka'], 0.999)

  def test_the_first_examples(self):
    got = self.looked(to='other', examples=5)
    x, y = (self.hidden(state, 'batch', 5) for state in self.states)
    np.testing.assert_allclose(got['conv1/cka'], biased(x, y), rtol=1e-9)

  def test_layers_of_one_network(self):
    got = self.looked()
    self.assertEqual(set(got), {f'conv1/{name}_with' for name in BOTH})
    for value in got.values():
      np.testing.assert_allclose(value, [1], rtol=1e-9)

  def test_changes_nothing(self):
    problem = toys.classifier('noisy')
    before = jax.tree.map(np.array, self.states)
    first, second = (self.looked(problem, to='other') for _ in range(2))
    same_bits.assert_same(first, second)
    same_bits.assert_same(before, self.states)

  def test_eight_devices_see_what_one_sees(self):
    mesh = devices.mesh(8)
    want = self.looked(to='other', examples=6)
    spread = jax.device_put(self.batch, devices.cut(mesh))
    self.states = jax.device_put(self.states, devices.whole(mesh))
    got = self.looked(batch=spread, to='other', examples=6)
    for name, value in want.items():
      np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)

  def test_dead_units_are_like_nothing(self):
    dead = jax.tree.map(jnp.zeros_like, self.states[0])
    got = self.looked(state=dead, to='other')
    self.assertTrue(all(np.isnan(value).all() for value in got.values()))

  def test_refuses(self):
    for keywords, said in (
      (dict(examples=3), 'examples is 3; allowed: 4, 5, 6, ...'),
      (dict(to=250), "to is 250; allowed: '', a step such as '0'"),
      (dict(to='*'), r"to is '\*'; allowed"),
      (dict(layers=('logits',)), "unknown layer 'logits'; .*conv1"),
    ):
      with self.assertRaisesRegex(ValueError, said):
        self.looked(**keywords)
    padded = self.batch._replace(mask=np.arange(8) < 7)
    with self.assertRaisesRegex(ValueError, '1 of the first 8 examples'):
      self.looked(batch=padded)


if __name__ == '__main__':
  absltest.main()
