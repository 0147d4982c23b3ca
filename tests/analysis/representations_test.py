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

RANKS = ('effective_rank', 'stable_rank', 'participation_ratio', 'soft_rank')


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def orthogonal(size, seed=0):
  return np.linalg.qr(normal(size, size, seed=seed))[0]


def of(hidden, **keywords):
  """What `representations` says of one layer, as numbers."""
  values = analysis.representations({'h': hidden}, **keywords)
  return {name: value for name, (value,) in values.items()}


def with_values(values, examples, units):
  """H, [N, D], of these singular values and random singular vectors."""
  middle = np.zeros((examples, units))
  np.fill_diagonal(middle, values)
  return orthogonal(examples, seed=1) @ middle @ orthogonal(units, seed=2)


def defined(hidden, threshold):
  """The definitions, word by word, with the singular values of H itself."""
  n = len(hidden)
  s = np.linalg.svd(hidden, compute_uv=False)
  p = s / s.sum()
  gap = hidden @ hidden.T / np.sum(hidden**2) - np.eye(n) / n
  return {
    'effective_rank': np.exp(-np.sum(p * np.log(p))),
    'stable_rank': np.sum(hidden**2) / np.linalg.norm(hidden, 2) ** 2,
    'participation_ratio': np.sum(s**2) ** 2 / np.sum(s**4),
    'soft_rank': np.sum(s**2 >= threshold * np.mean(s**2)),
    'orthogonality_gap': np.linalg.norm(gap),
  }


class ClosedFormTest(parameterized.TestCase):
  @parameterized.parameters(1.0, 1e-30, 1e200)
  def test_orthogonal_examples(self, scale):
    got = of(scale * orthogonal(7))
    for name in RANKS:
      self.assertAlmostEqual(got[name], 7, 12)
    self.assertLess(got['orthogonality_gap'], 1e-14)

  @parameterized.parameters((9, 5), (5, 9), (6, 6), (300, 2), (2, 3000))
  def test_equal_examples(self, examples, units):
    """Rank one exactly, though products round; the largest gap there is."""
    got = of(np.tile(normal(units), (examples, 1)))
    for name in RANKS:
      self.assertEqual(got[name], 1, name)
    self.assertAlmostEqual(
      got['orthogonality_gap'], np.sqrt(1 - 1 / examples), 14
    )

  @parameterized.parameters((9, 5), (5, 9))
  def test_known_singular_values(self, examples, units):
    got = of(with_values([4, 2, 1, 1e-4, 0], examples, units))
    p = np.array([4, 2, 1, 1e-4]) / 7.0001
    want = {
      'effective_rank': np.exp(-np.sum(p * np.log(p))),
      'stable_rank': 21 / 16,
      'participation_ratio': 21**2 / (4**4 + 2**4 + 1),
      'soft_rank': 3,  # 1e-8 is less than 0.01 of the mean, 21 / 5
      'orthogonality_gap': np.sqrt(273 / 21**2 - 1 / examples),
    }
    for name, value in want.items():
      np.testing.assert_allclose(got[name], value, rtol=1e-7, err_msg=name)

  def test_soft_rank_is_the_number_of_eigenvalues_above_the_threshold(self):
    """With D <= N and a mean square of 1: eigenvalues of H'H / N."""
    hidden = normal(40, 12)
    hidden /= np.sqrt(np.mean(hidden**2))
    eigenvalues = np.linalg.eigvalsh(hidden.T @ hidden / 40)
    for threshold in (0.01, 0.3, 0.7, 1.1, 9.0):
      self.assertEqual(
        of(hidden, threshold=threshold)['soft_rank'],
        np.sum(eigenvalues >= threshold),
      )

  @parameterized.parameters((12, 5), (5, 12), (8, 8))
  def test_definitions(self, examples, units):
    hidden = normal(examples, units)
    got = of(hidden, threshold=0.5)
    for name, value in defined(hidden, 0.5).items():
      np.testing.assert_allclose(got[name], value, rtol=1e-10, err_msg=name)
    # The two papers' numbers are one: the gap is the participation ratio.
    np.testing.assert_allclose(
      got['orthogonality_gap'],
      np.sqrt(1 / got['participation_ratio'] - 1 / examples),
      rtol=1e-9,
    )

  def test_a_rotation_a_scale_and_the_order_of_examples_change_nothing(self):
    hidden = normal(9, 6)
    others = (
      -3e-5 * hidden @ orthogonal(6), hidden[::-1], orthogonal(9) @ hidden,
      np.pad(hidden, ((0, 0), (0, 7))),
    )  # fmt: skip
    for other in others:
      for name, value in of(hidden).items():
        np.testing.assert_allclose(of(other)[name], value, rtol=1e-10)

  def test_all_axes_but_the_first_are_units(self):
    hidden = normal(6, 3, 2, 4)
    self.assertEqual(of(hidden), of(hidden.reshape(6, -1)))

  @parameterized.parameters(jnp.float32, jnp.bfloat16)
  def test_of_arrays_of_jax(self, dtype):
    hidden = jnp.asarray(normal(6, 4), dtype)
    self.assertEqual(of(hidden), of(np.float64(hidden)))

  def test_layers_in_the_order_given(self):
    hidden = {'b': normal(4, 3), 'a': np.zeros((4, 2)), 'c': np.eye(4)}
    got = analysis.representations(hidden)
    for name, value in got.items():
      self.assertEqual(value.shape, (3,))
      self.assertEqual(value[0], of(hidden['b'])[name])
      self.assertTrue(np.isnan(value[1]), name)

  @parameterized.parameters(0.0, np.nan, np.inf)
  def test_nothing_or_not_finite_is_nan(self, value):
    hidden = np.zeros((4, 3))
    hidden[1, 2] = value
    self.assertTrue(all(np.isnan(number) for number in of(hidden).values()))

  def test_refuses(self):
    for hidden, said in (
      ({}, 'hidden is {}; allowed: a dict of layers'),
      (np.ones((4, 3)), 'allowed: a dict of layers'),
      ({'h': [[1.0]]}, 'h is a list; allowed: an array of floating point'),
      ({'h': np.ones((4, 3), int)}, 'h is int64; allowed: an array of float'),
      ({'h': np.ones((1, 3))}, r'h has shape \(1, 3\); .* 2 or more'),
      ({'h': np.ones(())}, r'h has shape \(\); allowed: \[N, ...\]'),
      ({'h': np.ones((3, 0))}, r'h has shape \(3, 0\): no units'),
    ):
      with self.assertRaisesRegex(ValueError, said):
        analysis.representations(hidden)
    with self.assertRaisesRegex(ValueError, 'threshold is 0; allowed: above 0'):
      of(np.eye(3), threshold=0)


class MeasureTest(parameterized.TestCase):
  def looked(self, norm='batch', batch=None, state=None, **keywords):
    problem = toys.classifier(norm)
    state = state or problem.init(0)
    batch = batch or in_memory.first(toys.split(), 8)
    look = analysis.make('representations', **keywords)
    return look(problem, state, [batch])

  @parameterized.parameters('batch', 'running')
  def test_is_of_what_enters_the_nonlinearity(self, statistics):
    """The network written out: convolution, norm, [N, H, W, C] flattened."""
    problem, batch = toys.classifier(), in_memory.first(toys.split(), 8)
    state = problem.init(0)
    state = state._replace(
      batch_stats={'norm1': {'mean': jnp.ones(4), 'var': jnp.full(4, 2.0)}}
    )
    x = jax.lax.conv_general_dilated(
      batch.images, state.params['conv1']['kernel'], (1, 1), 'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip
    x = np.float64(x)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    if statistics == 'running':
      mean, var = 1.0, 2.0
    hidden = ((x - mean) / np.sqrt(var + 1e-5)).reshape(8, -1)
    got = self.looked(statistics=statistics, state=state)
    for name, value in defined(hidden, 0.01).items():
      np.testing.assert_allclose(got.pop(f'conv1/{name}'), value, rtol=1e-4)
    self.assertEmpty(got)

  def test_layers_are_in_forward_order(self):
    made = toys.deep(10)
    batch = in_memory.first(toys.split(), 8)
    got = analysis.make('representations')(made, made.init(0), [batch])
    layers = list(dict.fromkeys(name.partition('/')[0] for name in got))
    self.assertEqual(layers, [f'dense{i + 1}' for i in range(10)])

  def test_the_first_examples_of_a_batch_that_is_normalised_whole(self):
    problem, batch = toys.classifier(), in_memory.first(toys.split(), 8)
    h = problem.activations(problem.init(0), batch, 'batch', ('conv1',))
    got = self.looked(examples=5)
    for name, value in of(h['conv1'][:5]).items():
      self.assertEqual(got[f'conv1/{name}'], value)
    self.assertEqual(self.looked(), self.looked(examples=100))

  def test_changes_nothing(self):
    problem, batch = toys.classifier('noisy'), in_memory.first(toys.split(), 8)
    state = problem.init(0)
    before = jax.tree.map(np.array, state)
    look = analysis.make('representations')
    first, second = (look(problem, state, [batch]) for _ in range(2))
    same_bits.assert_same(first, second)
    same_bits.assert_same(before, state)

  def test_eight_devices_see_what_one_sees(self):
    problem, batch = toys.classifier(), in_memory.first(toys.split(), 8)
    mesh = devices.mesh(8)
    state = jax.device_put(problem.init(0), devices.whole(mesh))
    spread = jax.device_put(batch, devices.cut(mesh))
    self.assertLen(spread.images.sharding.device_set, 8)
    got = self.looked(batch=spread, state=state, examples=6)
    for name, value in self.looked(examples=6).items():
      np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)

  def test_dead_units_have_no_rank(self):
    problem = toys.classifier('none')
    state = jax.tree.map(jnp.zeros_like, problem.init(0))
    got = self.looked('none', state=state)
    self.assertTrue(all(np.isnan(value) for value in got.values()))

  def test_refuses(self):
    for keywords, said in (
      (dict(examples=1), 'examples is 1; allowed: 2, 3, 4, ...'),
      (dict(threshold=0.0), 'threshold is 0.0; allowed: above 0'),
      (dict(layers='conv1'), "layers is 'conv1'; allowed: a list or tuple"),
      (dict(layers=('logits',)), "unknown layer 'logits'; .*conv1"),
    ):
      with self.assertRaisesRegex(ValueError, said):
        self.looked(**keywords)
    batch = in_memory.first(toys.split(), 8)._replace(mask=np.arange(8) < 7)
    with self.assertRaisesRegex(ValueError, '1 of the first 8 examples'):
      self.looked(batch=batch)
    self.looked(batch=batch, examples=7)
    with self.assertRaisesRegex(ValueError, r'conv1 has shape \(1, 4, 4, 4\)'):
      self.looked(batch=in_memory.first(toys.split(), 1))


if __name__ == '__main__':
  absltest.main()
