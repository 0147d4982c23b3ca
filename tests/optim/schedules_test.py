import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import optim
from tests.fixtures import strict  # noqa: F401


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


if __name__ == '__main__':
  absltest.main()
