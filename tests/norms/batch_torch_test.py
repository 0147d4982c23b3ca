"""Three training steps of torch.nn.BatchNorm2d, stored as numbers.

They were printed by PyTorch 2.13.0 (CPU build) for

  layer = torch.nn.BatchNorm2d(2)    # epsilon 1e-5, its momentum 0.1
  layer.weight, layer.bias = [1.5, -0.5], [0.25, 2]
  for step in range(3): y = layer(x(step)); (y**3).sum().backward()

with, in float32, n < 4, h < 2, w < 3, c < 2,

  x(step)[n, h, w, c] = (1+c) sin(1 + step + .7n + 1.3c + 2.1h + 3.7w) + 5c

y and dx are those of the last step at n = 1, h = 1, as [c, w].
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from bn_jax import norms
from tests.fixtures import strict  # noqa: F401

Y = [
  [-0.6290014386177063, 0.1937512904405594, 1.6033273935317993],
  [1.5220694541931152, 2.728983163833618, 1.376719355583191],
]
DX = [
  [-9.060163497924805, -14.220315933227539, -3.118192434310913],
  [0.011052045039832592, -0.2799583971500397, -0.16200092434883118],
]
DSCALE = [59.86873245239258, -144.83926391601562]
DBIAS = [166.49676513671875, 305.9998779296875]
RUNNING_MEAN = [-0.015628641471266747, 1.3475711345672607]
RUNNING_VAR = [0.8690065145492554, 1.292887806892395]
INFERRED = [
  [-0.4724336266517639, 0.15422365069389343, 1.2278404235839844],
  [-0.2471911460161209, 1.2566086053848267, -0.4282955527305603],
]


def batch(step):
  n, h, w, c = np.meshgrid(*map(np.arange, (4, 2, 3, 2)), indexing='ij')
  angle = 1 + step + 0.7 * n + 1.3 * c + 2.1 * h + 3.7 * w
  return ((1 + c) * np.sin(angle) + 5 * c).astype(np.float32)


class TorchTest(absltest.TestCase):
  def test_equals_its_layer(self):
    # PyTorch's momentum is one minus ours.
    norm = norms.make('batch', momentum=0.9, running_variance='unbiased')
    layer = norm.layer('norm1')
    params = {'scale': jnp.array([1.5, -0.5]), 'bias': jnp.array([0.25, 2.0])}
    stats = {'mean': jnp.zeros(2), 'var': jnp.ones(2)}

    @jax.jit
    def step(params, stats, x):
      def loss(params, x):
        y, new = layer.apply(
          {'params': params, 'batch_stats': stats}, x, statistics='batch',
          mutable=['batch_stats'],
        )  # fmt: skip
        return (y**3).sum(), (y, new['batch_stats'])

      return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    for number in range(3):
      x = batch(number)
      (dparams, dx), (y, stats) = step(params, stats, x)
    close = np.testing.assert_allclose
    close(y[1, 1].T, Y, rtol=1e-5, atol=1e-6)
    close(dx[1, 1].T, DX, rtol=1e-4, atol=1e-5)
    close(dparams['scale'], DSCALE, rtol=1e-5)
    close(dparams['bias'], DBIAS, rtol=1e-5)
    close(stats['mean'], RUNNING_MEAN, rtol=1e-5, atol=1e-7)
    close(stats['var'], RUNNING_VAR, rtol=1e-6)
    inferred = layer.apply(
      {'params': params, 'batch_stats': stats}, x, statistics='running'
    )
    close(inferred[1, 1].T, INFERRED, rtol=1e-5, atol=1e-6)


if __name__ == '__main__':
  absltest.main()
