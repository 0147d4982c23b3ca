"""Iterative normalization, against its formula in float64 and its laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import norms
from tests.fixtures import strict  # noqa: F401


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


SCALE, BIAS = np.random.default_rng(1).normal(size=(2, 6))
# Groups of four hold 3 and 2 real examples.
MASK = np.array([1, 0, 1, 1, 1, 1, 0, 0], bool)


def data(dtype=np.float32, mean=2.0):
  """Values whose channels hang together."""
  generator = np.random.default_rng(0)
  x = generator.normal(size=(8, 3, 2, 6)) @ generator.normal(size=(6, 6))
  return (x + mean).astype(dtype)


def layer_of(**keywords):
  return norms.make('iternorm', **keywords).layer('norm1')


def apply(
  x, statistics='batch', mask=None, stats=None, affine=True, **keywords
):
  """(y, batch_stats after it)."""
  layer = layer_of(**keywords)
  dtype = np.float64 if jax.config.jax_enable_x64 else np.float32
  variables = layer.init(jax.random.key(0), x, statistics='running')
  if affine:
    params = {'scale': dtype(SCALE), 'bias': dtype(BIAS)}
    variables = {**variables, 'params': params}
  if stats is not None:
    variables = {**variables, 'batch_stats': stats}
  y, new = _applied(layer, statistics, variables, x, mask)
  return y, new['batch_stats']


@functools.partial(jax.jit, static_argnums=(0, 1))
def _applied(layer, statistics, variables, x, mask):
  return layer.apply(
    variables, x, statistics=statistics, mask=mask, mutable=['batch_stats']
  )


def matrix(x, groups, iterations, epsilon):
  """W of values, [m, C], as the block-diagonal matrix [C, C]."""
  x = np.float64(x) - np.float64(x).mean(0)
  size = x.shape[1] // groups
  W = np.zeros((x.shape[1],) * 2)
  for own in (slice(k * size, (k + 1) * size) for k in range(groups)):
    S = x[:, own].T @ x[:, own] / len(x) + epsilon * np.eye(size)
    P = np.eye(size)
    for _ in range(iterations):
      with np.errstate(all='ignore'):
        P = (3 * P - P @ P @ P @ S / np.trace(S)) / 2
    W[own, own] = P / np.sqrt(np.trace(S))
  return W


def formula(x, groups, iterations=5, epsilon=1e-5):
  """Of one statistics group, [..., C], without scale and bias."""
  flat = np.float64(x).reshape(-1, x.shape[-1])
  y = (flat - flat.mean(0)) @ matrix(flat, groups, iterations, epsilon).T
  return y.reshape(x.shape)


class IterNormTest(parameterized.TestCase):
  @parameterized.parameters((1, None, 0), (1, 4, 1), (3, 4, 0))
  def test_equals_its_formula(self, num_groups, group_size, mask):
    self.check_formula(num_groups, group_size, mask)

  @parameterized.parameters(
    (1, None, 1), (1, 4, 0), (3, None, 0), (3, None, 1), (3, 4, 1)
  )
  @pytest.mark.slow
  def test_so_in_other_groups(self, num_groups, group_size, mask):
    self.check_formula(num_groups, group_size, mask)

  def check_formula(self, num_groups, group_size, mask):
    x, mask = data(), MASK if mask else np.ones(8, bool)
    x[~mask] = 1e6  # must not matter
    y, new = apply(x, mask=mask, num_groups=num_groups, group_size=group_size)
    rows = np.arange(8).reshape(-1, group_size or 8)
    matrices = []
    for row in rows:
      real = row[mask[row]]
      want = formula(x[real], num_groups) * SCALE + BIAS
      np.testing.assert_allclose(y[real], want, rtol=1e-4, atol=1e-4)
      flat = x[real].reshape(-1, 6)
      matrices.append(matrix(flat, num_groups, 5, 1e-5))
    # 0.9 of the identity and of 0, and 0.1 of the groups' means.
    size = 6 // num_groups
    for k, block in enumerate(new['whitening']):
      own = slice(k * size, (k + 1) * size)
      want = 0.9 * np.eye(size) + 0.1 * np.mean(matrices, 0)[own, own]
      np.testing.assert_allclose(block, want, rtol=1e-4, atol=1e-5)
    means = [x[row[mask[row]]].mean((0, 1, 2)) for row in rows]
    np.testing.assert_allclose(new['mean'], 0.1 * np.mean(means, 0), rtol=1e-5)

  @parameterized.parameters('dense', 'channels_first', 'bfloat16', 'far')
  def test_so_for_all_kinds_of_inputs(self, kind):
    x = data(mean=1e4 if kind == 'far' else 2)
    if kind == 'dense':
      x = x.reshape(-1, 6)
    if kind == 'bfloat16':
      x = jnp.bfloat16(x)
    if kind == 'channels_first':
      y = np.moveaxis(apply(np.moveaxis(x, -1, 1), axis=1)[0], 1, -1)
    else:
      y, _ = apply(x)
    self.assertEqual(y.dtype, x.dtype)
    want = formula(x, 1) * SCALE + BIAS
    # Computed in float32: what is left is the rounding of y alone.
    tolerance = 2**-8 if kind == 'bfloat16' else 1e-4
    np.testing.assert_allclose(
      np.float64(y), want, rtol=tolerance, atol=tolerance
    )

  def test_the_covariance_tends_to_the_identity(self):
    """However large T; of the paper's own arithmetic nothing is left at 20.

    The condition of this covariance is 1,200.
    """
    errors = []
    with jax.enable_x64(True):
      for iterations in (0, 5, 50):
        y, _ = apply(
          data(np.float64), affine=False, iterations=iterations, epsilon=0.0
        )
        flat = np.asarray(y).reshape(-1, 6)
        errors.append(np.abs(flat.T @ flat / len(flat) - np.eye(6)).max())
        self.assertLess(np.abs(flat.mean(0)).max(), 1e-9)
    self.assertEqual(errors, sorted(errors, reverse=True))
    self.assertGreater(errors[0], 0.5)
    self.assertLess(errors[2], 1e-9)
    values = data(np.float64).reshape(-1, 6)
    self.assertFalse(np.isfinite(matrix(values, 1, 20, 0.0)).all())

  @parameterized.parameters(0, 5)
  def test_groups_of_one_channel_are_batch_normalization(self, iterations):
    x = data()
    y, new = apply(x, num_groups=6, iterations=iterations)
    layer = norms.make('batch').layer('norm1')
    variables = layer.init(jax.random.key(0), x, statistics='running')
    params = {'scale': np.float32(SCALE), 'bias': np.float32(BIAS)}
    want, other = layer.apply(
      {**variables, 'params': params}, x, statistics='batch',
      mutable=['batch_stats'],
    )  # fmt: skip
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
      new['mean'], other['batch_stats']['mean'], rtol=1e-6
    )

  def test_what_changes_nothing(self):
    """A factor of all channels, a shift of each, and a rotation turns y.

    A factor of a single channel changes the others, for a finite T and for
    T without end: S^(-1/2) is not what S^(-1/2) of scaled channels is.
    """
    call = functools.partial(apply, affine=False, epsilon=0.0)
    x, shift = data(), np.float32(BIAS)
    y, _ = call(x)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    same(call(3 * x + shift.reshape(1, 1, 1, 6))[0], y)
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))
    same(call(x @ np.float32(turn))[0], y @ np.float32(turn))
    factors = np.float32([2, 1, 1, 1, 1, 1]).reshape(1, 1, 1, 6)
    for iterations in (5, 30):
      y, other = (call(z, iterations=iterations)[0] for z in (x, x * factors))
      self.assertGreater(float(np.abs(y - other).max()), 0.05)

  def test_running_statistics_are_averages_of_matrices(self):
    """So they whiten by the mean of W, and not by W of the mean of S."""
    batches = data(), data()[::-1] @ np.float32(np.diag([3, 1, 1, 1, 1, 1]))
    keywords = dict(momentum=0.5, running_average='cumulative')
    stats = None
    for x in batches:
      _, stats = apply(x, stats=stats, **keywords)
    self.assertEqual(int(stats['count']), 2)
    flat = [x.reshape(-1, 6) for x in batches]
    mean = np.mean([x.mean(0) for x in flat], 0)
    W = np.mean([matrix(x, 1, 5, 1e-5) for x in flat], 0)
    np.testing.assert_allclose(stats['whitening'][0], W, rtol=1e-4, atol=1e-5)
    y, after = apply(batches[0], 'running', stats=stats, **keywords)
    want = ((flat[0] - mean) @ W.T * SCALE + BIAS).reshape(y.shape)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, after, stats)
    # With momentum 0 they are those of the last batch.
    y, stats = apply(batches[0], momentum=0.0)
    again, _ = apply(batches[0], 'running', stats=stats)
    np.testing.assert_allclose(again, y, rtol=1e-4, atol=1e-4)

  @parameterized.parameters(
    (dict(num_groups=0), 'num_groups is 0; allowed: 1, 2'),
    (dict(iterations=51), 'iterations is 51; allowed: 0, 1, 2, ... to 50'),
    (dict(iterations=2.0), 'iterations is 2.0'),
    (dict(epsilon=-1.0), 'epsilon is -1'),
    (dict(momentum=1.0), 'momentum is 1'),
  )
  def test_make_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      norms.make('iternorm', **keywords)

  def test_refuses_groups_that_do_not_divide(self):
    with self.assertRaisesRegex(ValueError, 'num_groups is 4; .*divides 6'):
      apply(data(), num_groups=4)

  @parameterized.parameters((6, 1), (64, 1), (96, 2), (130, 2), (512, 8))
  def test_has_few_groups_by_itself(self, channels, groups):
    """Of 64 channels at most; 130 are two of 65, which is too many."""
    x = jax.ShapeDtypeStruct((4, channels), jnp.float32)
    variables = jax.eval_shape(
      lambda x: layer_of().init(jax.random.key(0), x, statistics='running'), x
    )
    got = variables['batch_stats']['whitening'].shape
    if channels == 130:
      groups = 5  # of 26
    self.assertEqual(got, (groups, channels // groups, channels // groups))


if __name__ == '__main__':
  absltest.main()
