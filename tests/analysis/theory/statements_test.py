"""The theory of Santurkar et al. (2018) on random networks, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import norms
from bn_jax.analysis.theory import one_layer, sides
from bn_jax.analysis.theory import statements as statements_lib
from tests.fixtures import strict  # noqa: F401


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


_NONLINEARITIES = {'tanh': jnp.tanh, 'relu': jax.nn.relu}
_CASES = 100


def numbers(m, *cases, seed=0):
  """What a random unit is made of, each [*cases, ...]."""
  generator = np.random.default_rng(seed)
  shapes = {
    'others_MC': (m, 3), 'w1': (4, 5), 'w2': (5, 3), 'scales': (5,),
    'y': (m,), 'width': (), 'mean': (), 'scale': (), 'bias': (),
    'v_M': (m,), 'x_MD': (m, 4),
  }  # fmt: skip
  drawn = {k: generator.normal(size=(*cases, *s)) for k, s in shapes.items()}
  classes = generator.integers(3, size=(*cases, m))
  return {**drawn, 'label_M3': np.eye(3)[classes]}


def network(n, nonlinearity):
  """z [m] -> loss: unit 0 of 4, a nonlinearity, BN of 5 units, 3 classes."""
  act = _NONLINEARITIES[nonlinearity]

  def loss(z_M):
    x = jnp.concatenate([z_M[:, None], n['others_MC']], axis=1)
    x = act(x) @ (2 * n['w1'])
    x, _ = norms.batch_norm(x, n['scales'], jnp.zeros(5), epsilon=1e-3)
    log_p_M3 = jax.nn.log_softmax(act(x) @ (2 * n['w2']))
    return -(log_p_M3 * n['label_M3']).sum()

  return loss


def unit_of(n, nonlinearity, epsilon=0.0):
  """A unit of such a network; its scale has either sign."""
  n = jax.tree.map(jnp.asarray, n)
  return statements_lib.Unit(
    loss=network(n, nonlinearity),
    y=jnp.exp(n['width']) * n['y'] + 3 * n['mean'],
    scale=2 * n['scale'],
    bias=n['bias'],
    epsilon=epsilon,
  )


def statements(unit, v_M, x_MD):
  """Every statement about a unit, and what is printed in the paper."""
  at = statements_lib.point(unit)
  line_2 = statements_lib.theorem_4_2_line_2(at)
  y_MC = unit.y[:, None]
  output, _ = norms.batch_norm(
    y_MC, unit.scale[None], unit.bias[None], epsilon=unit.epsilon
  )
  pointwise = statements_lib.theorem_4_4_pointwise(at, x_MD)
  return {
    'algorithm_1': statements_lib.algorithm_1(at, output[:, 0]),
    'fact_c1': statements_lib.fact_c1(at),
    'fact_c2': statements_lib.fact_c2(at, v_M),
    'theorem_4_1': statements_lib.theorem_4_1(at),
    'theorem_4_1_bound': statements_lib.theorem_4_1_bound(at),
    'hessian_identity': statements_lib.hessian_identity(at, v_M),
    'line_1': statements_lib.theorem_4_2_line_1(at),
    'line_2': line_2.bound,
    'condition': line_2.condition,
    'improvement': line_2.improvement,
    'observation_4_3': statements_lib.observation_4_3(at),
    'theorem_4_4': statements_lib.theorem_4_4(at, x_MD),
    'theorem_4_4_pointwise': pointwise,
    'scale_invariance': statements_lib.scale_invariance(at, 0.3),
    **printed(at, x_MD),
  }


def printed(at, x_MD):
  """Forms at epsilon = 0 as they stand in the paper, true ones and others."""
  ratio, m = (at.unit.scale / at.s) ** 2, at.m
  along, across = at.g @ at.yhat, at.g.sum()
  q_curved = at.q @ one_layer.hessian_times(at.unit.loss, at.z, at.q)
  line_1 = statements_lib.theorem_4_2_line_1(at)
  square = statements_lib.largest_singular_value(x_MD) ** 2
  maximum = square * (at.g @ at.g - across**2 / m)
  left = square * at.q @ at.q
  return {
    'printed_line_1': line_1._replace(
      right=ratio * q_curved
      - at.unit.scale / (m * at.s**2) * along * (at.q @ at.q)
    ),
    'printed_4_4_last_term': sides.AtMost(
      left, ratio * (maximum - square * along**2), ratio * maximum
    ),
    'smaller_bound': sides.AtMost(
      statements_lib.theorem_4_2_line_2(at).bound.right,
      ratio * at.g @ one_layer.hessian_times(at.unit.loss, at.z, at.g),
      jnp.ones(()),
    ),
    'weights_gain': sides.AtMost(
      jnp.linalg.norm(at.projected(at.g) @ x_MD),
      jnp.linalg.norm(at.g @ x_MD),
      jnp.linalg.norm(at.g) * jnp.sqrt(square),
    ),
  }


@functools.cache
def program(nonlinearity):
  """(numbers of many units, epsilon) -> what `found` returns; jitted."""

  def of_one(n, epsilon):
    unit = unit_of(n, nonlinearity, epsilon)
    return {
      name: (side.difference(), side.holds(), side.left, side.right)
      for name, side in statements(unit, n['v_M'], n['x_MD']).items()
    }

  return jax.jit(jax.vmap(of_one, (0, None)))


@functools.cache
def found(m, nonlinearity, epsilon):
  """Statement -> (difference, holds, left, right) of many units, [K] each.

  Units that a ReLU cuts off are left out: both sides are 0.
  """
  with jax.enable_x64(True):
    of = jax.device_get(program(nonlinearity)(numbers(m, _CASES), epsilon))
  alive = of['theorem_4_1'][2] > 0
  assert alive.mean() > 0.8
  return jax.tree.map(lambda x: x[alive], of)


_EQUALITIES = (
  'algorithm_1', 'fact_c1', 'fact_c2', 'theorem_4_1', 'hessian_identity',
  'line_1', 'observation_4_3', 'theorem_4_4', 'scale_invariance',
)  # fmt: skip
_BOUNDS = ('theorem_4_1_bound', 'theorem_4_4_pointwise')


class RandomNetworksTest(parameterized.TestCase):
  @parameterized.parameters(
    (3, 'tanh', 0.0),
    (3, 'tanh', 1e-5),
    (12, 'relu', 0.0),
    (12, 'relu', 0.1),
  )
  def test_what_is_true_holds_at_any_epsilon(self, m, nonlinearity, epsilon):
    of = found(m, nonlinearity, epsilon)
    for name in _EQUALITIES:
      difference, holds, left, _ = of[name]
      with self.subTest(name):
        self.assertLess(difference.max(), 1e-11)
        self.assertTrue(holds.all())
        self.assertGreater(np.abs(left).max(), 0.01)
    for name in _BOUNDS:
      with self.subTest(name):
        self.assertTrue(of[name][1].all())

  @parameterized.parameters((3, 'tanh'), (12, 'relu'))
  def test_at_epsilon_0_the_bound_of_4_1_is_an_equality(self, *setting):
    difference = found(*setting, 0.0)['theorem_4_1_bound'][0]
    np.testing.assert_allclose(difference, 0, atol=1e-12)

  def test_at_epsilon_above_0_there_is_room(self):
    _, holds, left, right = found(12, 'relu', 0.1)['theorem_4_1_bound']
    self.assertTrue(holds.all())
    self.assertLess(np.median((left - right) / right), -1e-5)

  @parameterized.parameters((3, 'tanh'), (12, 'relu'))
  def test_line_1_of_4_2_as_printed_is_an_equality(self, *setting):
    self.assertLess(found(*setting, 0.0)['printed_line_1'][0].max(), 1e-11)

  def test_line_1_of_4_2_as_printed_is_for_epsilon_0_alone(self):
    self.assertGreater(found(12, 'relu', 0.1)['printed_line_1'][0].max(), 1e-5)

  @parameterized.parameters((3, 'tanh'), (12, 'relu'))
  def test_line_2_of_4_2_holds_if_and_only_if_its_condition_does(
    self, *setting
  ):
    of = found(*setting, 0.0)
    np.testing.assert_array_equal(of['line_2'][1], of['condition'][1])
    self.assertBetween(of['line_2'][1].mean(), 0.1, 0.9)

  @parameterized.parameters((3, 'tanh'), (12, 'relu'))
  def test_line_2_of_4_2_improves_where_it_says(self, *setting):
    of = found(*setting, 0.0)
    improves = of['improvement'][1]
    np.testing.assert_array_equal(improves, of['smaller_bound'][0] <= 0)
    self.assertBetween(improves.mean(), 0.1, 0.9)

  @parameterized.parameters((3, 'tanh'), (12, 'relu'))
  def test_the_last_term_of_4_4_as_printed_is_wrong(self, *setting):
    self.assertFalse(found(*setting, 0.0)['printed_4_4_last_term'][1].any())

  def test_4_4_promises_no_shorter_gradient_by_the_weights(self):
    share = found(12, 'relu', 0.0)['weights_gain'][1].mean()
    self.assertBetween(share, 0.5, 0.99)


class MatricesTest(parameterized.TestCase):
  """One small unit, its Jacobian and Hessian in full."""

  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def unit(self, epsilon):
    return unit_of(numbers(6), 'tanh', epsilon)

  def through_the_layer(self, unit):
    """The loss through the layer of `norms`, as a function of y."""

    def loss(y_M):
      z, _ = norms.batch_norm(
        y_M[:, None], unit.scale[None], unit.bias[None], epsilon=unit.epsilon
      )
      return unit.loss(z[:, 0])

    return loss

  @parameterized.parameters(0.0, 0.1)
  def test_the_hessian_is_that_of_the_layer(self, epsilon):
    unit = self.unit(epsilon)
    columns, want = jax.jit(
      lambda: (
        jax.vmap(lambda v_M: statements_lib.hessian_identity(unit, v_M))(
          jnp.eye(6)
        ),
        jax.hessian(self.through_the_layer(unit))(unit.y),
      )
    )()
    np.testing.assert_allclose(columns.left.T, want, atol=1e-10)
    np.testing.assert_allclose(columns.right.T, want, atol=1e-10)
    self.assertGreater(jnp.abs(want).max(), 0.1)

  def test_the_hessian_in_the_form_of_the_paper(self):
    unit = self.unit(0.0)
    m = 6

    @jax.jit
    def both():
      at = statements_lib.point(unit)
      g, h = at.g, jax.hessian(unit.loss)(at.z)
      ones, eye = jnp.ones((m, m)) / m, jnp.eye(m)
      square = jnp.outer(at.yhat, at.yhat) / m
      p = eye - ones - square
      centred = jnp.outer(g - g.mean(), at.yhat)
      bracket = centred + centred.T + (g @ at.yhat) * (eye - ones - 3 * square)
      paper = (unit.scale / at.s) ** 2 * p @ h @ p
      paper -= unit.scale / (m * at.s**2) * bracket
      return paper, jax.hessian(one_layer.through(unit))(unit.y)

    paper, want = both()
    np.testing.assert_allclose(paper, want, atol=1e-10)

  @parameterized.parameters(0.0, 0.1)
  def test_the_jacobian_entry_by_entry(self, epsilon):
    unit = self.unit(epsilon)
    columns = jax.vmap(lambda v_M: statements_lib.fact_c2(unit, v_M))(
      jnp.eye(6)
    )
    yhat, s = one_layer.normalized(unit.y, epsilon)
    for b in range(6):
      for k in range(6):
        entry = ((b == k) - 1 / 6 - yhat[b] * yhat[k] / 6) / s
        np.testing.assert_allclose(columns.left[k, b], entry, atol=1e-12)
        np.testing.assert_allclose(columns.right[k, b], entry, atol=1e-12)

  @parameterized.parameters(0.0, 0.1)
  def test_the_gradient_is_that_of_the_layer(self, epsilon):
    unit = self.unit(epsilon)
    want = jax.grad(self.through_the_layer(unit))(unit.y)
    fact = statements_lib.fact_c1(unit)
    np.testing.assert_allclose(fact.left, want, atol=1e-12)
    np.testing.assert_allclose(fact.right, want, atol=1e-12)

  def test_h_a_multiple_of_1_breaks_line_2_where_q_is_longer_than_g(self):
    """Of the issue: H = 2 preserves relative norms, and that is not enough."""

    def of_one(n):
      unit = unit_of(n, 'tanh')
      unit = unit._replace(loss=lambda z_M: ((z_M - n['v_M']) ** 2).sum())
      at = statements_lib.point(unit)
      longer = jnp.linalg.norm(at.q) > jnp.linalg.norm(at.g)
      return statements_lib.theorem_4_2_line_2(at).bound.holds(), longer

    holds, longer = jax.jit(jax.vmap(of_one))(numbers(5, 300))
    np.testing.assert_array_equal(holds, ~longer)
    self.assertBetween(longer.mean(), 0.05, 0.95)

  def test_a_matrix_of_the_same_norm_attains_the_maximum_of_4_4(self):
    unit = self.unit(0.0)
    q = statements_lib.point(unit).q
    x = jax.random.normal(jax.random.key(2), (6, 3))
    maximum = statements_lib.theorem_4_4(unit, x)
    norm = jnp.linalg.norm(x, 2)
    best = norm * jnp.outer(q / jnp.linalg.norm(q), jnp.array([0.6, 0, 0.8]))
    np.testing.assert_allclose(jnp.linalg.norm(best, 2), norm, rtol=1e-12)
    for side in (maximum.left, maximum.right):
      np.testing.assert_allclose(((q @ best) ** 2).sum(), side, rtol=1e-10)
    given = statements_lib.theorem_4_4(unit, x, spectral_norm=norm)
    np.testing.assert_allclose(given.left, maximum.left, rtol=1e-12)

  @parameterized.parameters(((6, 3),), ((3, 6),))
  def test_the_spectral_norm(self, shape):
    x = jax.random.normal(jax.random.key(3), shape)
    np.testing.assert_allclose(
      statements_lib.largest_singular_value(x),
      jnp.linalg.norm(x, 2),
      rtol=1e-12,
    )
    zero = statements_lib.largest_singular_value(jnp.zeros(shape))
    np.testing.assert_array_equal(zero, 0)

  def test_what_4_4_bounds_is_the_gradient_by_the_weights(self):
    unit = self.unit(0.1)
    x, w = (jax.random.normal(jax.random.key(k), s) for k, s in (
      (4, (6, 3)), (5, (3,))
    ))  # fmt: skip
    unit = unit._replace(y=x @ w)
    gradient = jax.grad(lambda w: self.through_the_layer(unit)(x @ w))(w)
    side = statements_lib.theorem_4_4_pointwise(unit, x)
    np.testing.assert_allclose(side.left, gradient @ gradient, rtol=1e-10)

  @parameterized.parameters(0.0, 0.1)
  def test_the_layer_can_be_the_identity(self, epsilon):
    unit = self.unit(epsilon)
    z = statements_lib.observation_4_3(unit)
    _, s = one_layer.normalized(unit.y, epsilon)
    output, _ = norms.batch_norm(
      unit.y[:, None], s[None], unit.y.mean()[None], epsilon=epsilon
    )
    np.testing.assert_allclose(output[:, 0], unit.y, rtol=1e-12)
    np.testing.assert_allclose(z.left, unit.y, rtol=1e-12)


class LemmaTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_random_weights(self):
    def of_one(key):
      a, b = jax.random.normal(key, (2, 9))
      ray = statements_lib.lemma_4_5(
        {'w': a[:4], 'v': a[4:]}, {'w': b[:4], 'v': b[4:]}
      )
      nearest = jnp.linalg.norm(a - ray.factor * b) ** 2
      other = jnp.linalg.norm(a - 1.01 * ray.factor * b) ** 2
      far = jnp.linalg.norm(a - b) ** 2
      direct = -((b @ b - b @ a) ** 2) / (b @ b)
      return ray, nearest, other, far, direct

    ray, nearest, other, far, direct = jax.vmap(of_one)(
      jax.random.split(jax.random.key(0), 50)
    )
    np.testing.assert_allclose(ray.closer.left, nearest - far, atol=1e-12)
    np.testing.assert_allclose(ray.closer.right, direct, rtol=1e-9)
    np.testing.assert_allclose(ray.closer.left, direct, atol=1e-12)
    self.assertTrue((nearest < other).all())
    # Nothing makes the factor positive, without which the network differs.
    self.assertBetween((ray.factor > 0).mean(), 0.2, 0.8)

  def test_an_optimum_near_the_start(self):
    """The sides cancel to a millionth of the weights, and less."""
    w = jax.random.normal(jax.random.key(1), (50,))
    near = w + 1e-6 * jax.random.normal(jax.random.key(2), (50,))
    ray = statements_lib.lemma_4_5(w, near)
    self.assertTrue(ray.closer.holds())
    self.assertLess(ray.closer.right, 0)

  def test_the_start_itself(self):
    w = jnp.arange(3.0) + 1
    ray = statements_lib.lemma_4_5(w, w)
    np.testing.assert_array_equal(ray.closer.right, 0)
    self.assertTrue(ray.closer.holds())
    np.testing.assert_allclose(ray.factor, 1)


class SidesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_an_error_is_judged_against_the_terms(self):
    one = jnp.ones(())
    close = sides.Equality(one * 1e-7, one * 2e-7, one)
    self.assertFalse(close.holds())
    self.assertTrue(close.holds(tolerance=1e-6))
    self.assertTrue(close._replace(size=1e3 * one).holds())

  def test_a_vector_is_judged_as_a_whole(self):
    side = sides.Equality(jnp.array([3.0, 1.0]), jnp.array([0.0, 5.0]), 10.0)
    np.testing.assert_allclose(side.difference(), 0.5)

  def test_a_bound(self):
    one = jnp.ones(())
    self.assertTrue(sides.AtMost(one, 2 * one, one).holds())
    self.assertFalse(sides.AtMost(2 * one, one, one).holds())
    self.assertTrue(sides.AtMost(one + 1e-12, one, one).holds())
    np.testing.assert_allclose(
      sides.AtMost(one, 3 * one, 4 * one).difference(), -0.5
    )

  def test_nothing_is_equal_to_nothing(self):
    zero = jnp.zeros(())
    for kind in (sides.Equality, sides.AtMost):
      self.assertTrue(kind(zero, zero, zero).holds())

  def test_what_is_no_number_does_not_hold(self):
    nan, one = jnp.full((), jnp.nan), jnp.ones(())
    for kind in (sides.Equality, sides.AtMost):
      self.assertFalse(kind(nan, one, one).holds())
      self.assertFalse(kind(one, nan, one).holds())
      self.assertFalse(kind(one, one, nan)._replace(left=0 * one).holds())

  def test_a_unit_without_a_gradient(self):
    unit = statements_lib.Unit(
      lambda z_M: 0.0 * z_M.sum(), jnp.arange(3.0), jnp.ones(()), jnp.ones(())
    )
    self.assertTrue(statements_lib.theorem_4_1(unit).holds())
    self.assertTrue(statements_lib.theorem_4_2_line_2(unit).bound.holds())


class WrongArgumentsTest(parameterized.TestCase):
  def unit(self, y):
    one = jnp.ones(())
    return statements_lib.Unit(lambda z: (z**2).sum(), y, one, one)

  @parameterized.named_parameters(
    ('a_column', np.ones((3, 1), np.float32), r'y is float32\[3, 1\]'),
    ('whole_numbers', np.ones(3, np.int32), r'y is int32\[3\]'),
  )
  def test_y(self, y, message):
    with self.assertRaisesRegex(ValueError, message):
      statements_lib.fact_c1(self.unit(jnp.asarray(y)))

  def test_other_shapes(self):
    unit = self.unit(jnp.arange(3.0))
    for call in (statements_lib.fact_c2, statements_lib.hessian_identity):
      with self.assertRaisesRegex(ValueError, r'v has .* allowed: \(3,\)'):
        call(unit, jnp.ones(4))
    with self.assertRaisesRegex(ValueError, r'output has shape \(2,\)'):
      statements_lib.algorithm_1(unit, jnp.ones(2))
    for call in (
      statements_lib.theorem_4_4,
      statements_lib.theorem_4_4_pointwise,
    ):
      with self.assertRaisesRegex(ValueError, r'X has .* allowed: \(3, d\)'):
        call(unit, jnp.ones((4, 3)))

  @parameterized.parameters('uint8', 'int32', 'bool', 'complex64')
  def test_not_floating_point(self, dtype):
    """Differences and products of bytes are bytes."""
    x, w = np.ones((4, 3), dtype), {'w': np.ones(3, dtype)}
    with self.assertRaisesRegex(ValueError, f'X is {dtype}; allowed'):
      statements_lib.largest_singular_value(x)
    one = {'w': np.ones(3)}
    for name, pair in {'w_0': (w, one), 'w_star': (one, w)}.items():
      with self.assertRaisesRegex(ValueError, f"^{name} 'w' is {dtype}; allow"):
        statements_lib.lemma_4_5(*pair)


if __name__ == '__main__':
  absltest.main()
