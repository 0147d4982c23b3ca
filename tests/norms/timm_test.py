"""Layers of timm 1.0.31 (PyTorch 2.13.0, CPU build), stored as numbers.

For x = (7 i mod 11 - 4) / 3, i = 0, ..., 23 along [2, 2, 2, 3] (channels last),
weight [0.5, -1, 2] and bias [0.1, 0.2, 0.3], they printed y and the gradient of
sum(y^3) for x; rows are pixels, columns channels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from bn_jax import norms
from tests.fixtures import strict  # noqa: F401

PARAMS = {'scale': [0.5, -1.0, 2.0], 'bias': [0.1, 0.2, 0.3]}
# timm.layers.GlobalResponseNorm(3)
GRN = [
  [-2.2558522, 0.6049067, -0.614085], [3.633778, 0.4699378, -1.52817],
  [3.044815, 0.3349689, -2.442255], [2.4558523, 0.2, -3.35634],
  [1.4035006, 0.1628529, 8.317757], [0.9690003, 0.1257057, 6.9814634],
  [0.5345002, 0.0885586, 5.6451716], [0.1, 0.0514114, 4.308878],
]  # fmt: skip
GRN_SLOPE = [
  [12.838123, 2.3964424, 14.36157], [91.19624, 1.5695686, 41.730503],
  [66.8123, 0.7869506, 82.84721], [46.10572, 0.0485888, 137.71167],
  [-320.579, 75.112434, 1096.1399], [-215.18286, 150.21242, 806.2518],
  [-108.31014, 225.31334, 559.3152], [0.039105, 300.41516, 355.32977],
]  # fmt: skip
# timm.layers.FilterResponseNormTlu2d(3) with tau, and epsilon 1e-5.
TAU = [0.2, -0.5, 0.1]
FRN = [
  [0.2, -0.5, 0.1], [0.7221698, -0.5, 0.1], [0.6184748, -0.3345156, 0.1],
  [0.5147798, 0.2, 0.1], [0.9017735, 0.5651462, 2.8879812],
  [0.6345156, 0.9302923, 2.456651], [0.3672578, 1.2954385, 2.0253208],
  [0.2, 1.6605847, 1.5939906],
]  # fmt: skip
FRN_SLOPE = [
  [0.2449222, 0.11535, 0.0], [0.1193364, 0.0769, 0.0],
  [0.0508276, -0.4998641, 0.0], [0.0023888, -0.1924256, 0.0],
  [0.2140635, 0.934738, 4.1433125], [-0.1928816, 1.1245885, -0.1001301],
  [-0.2562184, 0.438098, -2.899127], [0.0, -1.1247315, -4.2536745],
]  # fmt: skip


def inputs():
  x = (7 * np.arange(24) % 11 - 4) / np.float32(3)
  return x.reshape(2, 2, 2, 3)


class TimmTest(absltest.TestCase):
  def check(self, name, y, slope, **keywords):
    norm = norms.make(name, **keywords)
    layer = norm.layer('norm1')
    params = {name: jnp.array(value) for name, value in PARAMS.items()}

    def loss(x):
      y = layer.apply({'params': params}, x, statistics='batch')
      if norm.unit:
        tau = {'params': {'tau': jnp.array(TAU)}}
        y = norm.unit('unit1').apply(tau, y, statistics='batch')
      return (y**3).sum(), y

    of_x, got = jax.jit(jax.grad(loss, has_aux=True))(inputs())
    np.testing.assert_allclose(got.reshape(-1, 3), y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(of_x.reshape(-1, 3), slope, rtol=1e-4, atol=1e-4)

  def test_global_response_norm(self):
    self.check('grn', GRN, GRN_SLOPE)

  def test_filter_response_norm(self):
    self.check('frn', FRN, FRN_SLOPE, epsilon=1e-5)


if __name__ == '__main__':
  absltest.main()
