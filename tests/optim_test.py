import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from bn_jax import optim
from tests.fixtures import strict  # noqa: F401


def trajectory(optimizer, steps=5):
  """Parameters of x -> x^2 / 2 and the rates that were announced."""
  x = jnp.array([1.0, -2.0])
  state, points, rates = optimizer.init(x), [], []
  for step in range(steps):
    rates.append(float(optimizer.learning_rate(state, jnp.asarray(step))))
    updates, state = optimizer.update(x, state, x)
    x = optax.apply_updates(x, updates)
    points.append(np.asarray(x))
  return np.array(points), np.array(rates)


class SGDTest(parameterized.TestCase):
  def test_plain(self):
    points, rates = trajectory(optim.sgd(optim.constant(learning_rate=0.1)))
    want = np.outer(0.9 ** np.arange(1, 6), [1.0, -2.0])
    np.testing.assert_allclose(points, want, rtol=1e-6)
    np.testing.assert_allclose(rates, 0.1, rtol=1e-6)

  @parameterized.parameters(False, True)
  def test_momentum(self, nesterov):
    points, _ = trajectory(
      optim.sgd(
        optim.constant(learning_rate=0.1), momentum=0.8, nesterov=nesterov
      )
    )
    x, trace = np.array([1.0, -2.0]), np.zeros(2)
    for point in points:
      g = x
      trace = 0.8 * trace + g
      x = x - 0.1 * (g + 0.8 * trace if nesterov else trace)
      np.testing.assert_allclose(point, x, rtol=1e-5)

  def test_the_announced_rate_is_the_one_used(self):
    optimizer = optim.sgd(
      optim.cosine(learning_rate=0.4, decay_steps=10, warmup_steps=2)
    )
    points, rates = trajectory(optimizer)
    before = np.vstack([[1.0, -2.0], points[:-1]])
    np.testing.assert_allclose(points, before * (1 - rates[:, None]), rtol=1e-5)
    self.assertEqual(rates[0], 0)
    self.assertAlmostEqual(rates[2], 0.4, places=6)

  def test_hyperparameters_live_in_the_state(self):
    state = optim.sgd(optim.constant(learning_rate=0.1), momentum=0.9).init(
      jnp.ones(2)
    )
    self.assertAlmostEqual(float(state.hyperparams['momentum']), 0.9, places=6)

  @parameterized.parameters(
    dict(momentum=1.0), dict(momentum=-0.1), dict(nesterov=True)
  )
  def test_refuses(self, **keywords):
    with self.assertRaises(ValueError):
      optim.sgd(optim.constant(learning_rate=0.1), **keywords)


class ScheduleTest(parameterized.TestCase):
  def test_cosine(self):
    schedule = optim.cosine(
      learning_rate=2.0, decay_steps=110, warmup_steps=10, end_factor=0.1
    )
    np.testing.assert_allclose(schedule(5), 1.0, rtol=1e-6)
    np.testing.assert_allclose(schedule(60), 1.1, rtol=1e-6)
    np.testing.assert_allclose(schedule(110), 0.2, rtol=1e-5)
    np.testing.assert_allclose(schedule(500), 0.2, rtol=1e-5)

  def test_exponential(self):
    smooth = optim.exponential(
      learning_rate=1.0, decay_steps=10, decay_factor=0.5
    )
    stairs = optim.exponential(
      learning_rate=1.0, decay_steps=10, decay_factor=0.5, staircase=True
    )
    np.testing.assert_allclose(smooth(15), 0.5**1.5, rtol=1e-6)
    np.testing.assert_allclose(stairs(15), 0.5, rtol=1e-6)

  @parameterized.parameters(
    ('constant', dict(learning_rate=0.0)),
    ('constant', dict(learning_rate=float('nan'))),
    ('constant', dict(learning_rate=-1.0)),
    ('cosine', dict(learning_rate=1.0, decay_steps=5, warmup_steps=5)),
    ('exponential', dict(learning_rate=1.0, decay_steps=0, decay_factor=0.5)),
    ('exponential', dict(learning_rate=1.0, decay_steps=5, decay_factor=2.0)),
  )
  def test_refuses(self, name, keywords):
    with self.assertRaises(ValueError):
      optim.make_schedule(name, **keywords)

  def test_unknown_names(self):
    with self.assertRaisesRegex(ValueError, "unknown schedule 'cosin'"):
      optim.make_schedule('cosin')
    with self.assertRaisesRegex(ValueError, "unknown optimizer 'adams'"):
      optim.make('adams', optim.constant(learning_rate=0.1))


class WeightDecayTest(parameterized.TestCase):
  params = {  # noqa: RUF012
    'conv1': {'kernel': jnp.full((2, 2), 2.0), 'bias': jnp.ones(3)},
    'norm1': {'scale': jnp.ones(3)},
  }

  @parameterized.parameters(('kernels', 16.0), ('all', 22.0))
  def test_half_the_decay_times_the_squares(self, on, squares):
    penalty = optim.weight_decay(weight_decay=0.1, weight_decay_on=on)
    np.testing.assert_allclose(penalty(self.params), 0.05 * squares, rtol=1e-6)
    gradient = jax.grad(penalty)(self.params)
    np.testing.assert_allclose(gradient['conv1']['kernel'], 0.2, rtol=1e-6)
    want = 0.1 if on == 'all' else 0.0
    np.testing.assert_allclose(gradient['conv1']['bias'], want, rtol=1e-6)

  def test_none(self):
    self.assertEqual(optim.weight_decay(weight_decay=0.0)(self.params), 0)

  @parameterized.parameters(
    dict(weight_decay=-1.0),
    dict(weight_decay=float('nan')),
    dict(weight_decay=0.1, weight_decay_on=''),
    dict(weight_decay=0.1, weight_decay_on='*bias,'),
    dict(weight_decay=0.1, weight_decay_on=('kernels',)),
  )
  def test_refuses(self, **keywords):
    with self.assertRaises(ValueError):
      optim.weight_decay(**keywords)


if __name__ == '__main__':
  absltest.main()
