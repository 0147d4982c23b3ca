"""Layers of timm 1.0.31 (PyTorch 2.13.0, CPU build), stored as numbers.

For x = (7 i mod 11 - 4) / 3, i = 0, 1, 2, ... along [2, 2, 2, C], channels
last, the first C of weight [0.5, -1, 2, 1] and of bias [0.1, 0.2, 0.3, -0.4],
and v = [1, 0.5, -1, 2], they printed y and the gradient of sum(y^3) for x; rows
are pixels, columns channels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from bn_jax import norms
from tests.fixtures import strict  # noqa: F401

PARAMS = {'scale': [0.5, -1.0, 2.0, 1.0], 'bias': [0.1, 0.2, 0.3, -0.4]}
V = [1.0, 0.5, -1.0, 2.0]
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
# timm.layers.EvoNorm2dB0(4, eps=1e-5); then in inference, with RUNNING_VAR.
B0 = [
  [-0.5246923, -0.5408272, -0.1948785, -0.01444459],
  [0.2983578, 0.9302924, 3.323703, -0.2202074],
  [-0.3685192, -0.6792122, 0.3, -1.600089],
  [0.348287, 0.5651462, 3.928444, -0.1355184],
  [-0.2123462, -0.7901917, 0.9047407, -1.300067],
  [0.3840346, 0.2, -0.9214622, -0.06819284],
  [-0.05617308, -0.8811732, 1.509481, -1.000044],
  [0.4108913, -0.1279197, -0.7811731, -0.03772697],
]
B0_SLOPE = [
  [0.2853647, -0.2697623, 16.79217, 2.688947],
  [0.07342612, -2.772643, 19.63268, 0.1163457],
  [0.1104754, -0.3583092, 7.628489, 4.356552],
  [0.09215707, -0.9645326, 33.97617, 0.6009559],
  [0.02703524, -0.4125741, 2.562045, 2.526259],
  [0.1137422, -0.6361951, 45.44029, 1.118829],
  [-0.01367848, -0.2983627, 1.223223, 1.188696],
  [0.1269941, -0.4143021, 36.15623, 1.643394],
]
RUNNING_VAR = [2.0, 1.0, 0.5, 4.0]
B0_INFERRED = [
  [-0.3714034, -0.5408272, -0.1948785, -0.01444459],
  [0.2983578, 0.8666633, 5.013998, -0.2333335],
  [-0.2535525, -0.6792122, 0.3, -1.066666],
  [0.348287, 0.5333317, 5.956798, -0.1355184],
  [-0.1357017, -0.7901917, 1.2428, -0.8999994],
  [0.3840346, 0.2, -0.9214622, -0.06819284],
  [-0.01785084, -0.8811732, 2.185599, -0.733333],
  [0.4108913, -0.1279197, -0.7811731, -0.03772697],
]
# timm.layers.EvoNorm2dS0(4, groups=2)
S0 = [
  [-0.04363254, -0.4428698, -0.04569995, 1.348195],
  [0.3274742, 0.4874116, 0.7713684, -0.203952],
  [-0.03888001, -0.7098968, 0.3, -0.477106],
  [0.477515, 0.3578205, 0.7244135, 0.06961551],
  [-0.01678914, -0.9998598, 0.5874115, -0.5231116],
  [0.6448942, 0.2, -1.879577, 0.5096784],
  [0.02814712, -1.31006, 0.7671566, -0.5436326],
  [0.8239263, 0.01355714, -1.21006, 0.8875875],
]
S0_SLOPE = [
  [-0.2188528, -0.3080818, 1.05319, 3.608794],
  [0.2247024, -0.3634397, -1.339616, 0.4082764],
  [-0.1671627, -1.07199, 0.922365, 2.078069],
  [0.4692846, -0.2298031, -1.754915, -0.03237893],
  [-1.741403, -1.577375, 2.112954, -3.143178],
  [1.368788, -0.9839303, 17.96275, 4.501638],
  [-1.331311, -3.396376, 3.200927, -1.961764],
  [2.245661, -0.5125335, 5.351057, 7.416448],
]


def inputs(channels):
  x = np.float32(7 * np.arange(8 * channels) % 11 - 4) / 3
  return x.reshape(2, 2, 2, channels)


def rows(values):
  return np.reshape(values, (2, 2, 2, -1))


class TimmTest(absltest.TestCase):
  def check(self, name, y, slope, **keywords):
    norm = norms.make(name, **keywords)
    layer, channels = norm.layer('norm1'), len(y[0])
    params = {key: jnp.array(value[:channels]) for key, value in PARAMS.items()}
    params |= {'v': jnp.array(V)} if 'evonorm' in name else {}
    stats = {'var': jnp.array(RUNNING_VAR)} if name == 'evonorm_b0' else {}
    variables = {'params': params, 'batch_stats': stats}

    def loss(x):
      y = layer.apply(variables, x, statistics='batch')
      if name == 'frn':
        tau = {'params': {'tau': jnp.array(TAU)}}
        y = norm.unit('unit1').apply(tau, y, statistics='batch')
      return (y**3).sum(), y

    x = inputs(channels)
    of_x, got = jax.jit(jax.grad(loss, has_aux=True))(x)
    np.testing.assert_allclose(np.asarray(got), rows(y), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
      np.asarray(of_x), rows(slope), rtol=1e-4, atol=1e-4
    )
    return np.asarray(layer.apply(variables, x, statistics='running'))

  def test_global_response_norm(self):
    self.check('grn', GRN, GRN_SLOPE)

  def test_evonorm_b0(self):
    inferred = self.check('evonorm_b0', B0, B0_SLOPE)
    np.testing.assert_allclose(
      inferred, rows(B0_INFERRED), rtol=1e-5, atol=1e-6
    )

  def test_evonorm_s0(self):
    self.check('evonorm_s0', S0, S0_SLOPE, num_groups=2)

  def test_filter_response_norm(self):
    self.check('frn', FRN, FRN_SLOPE, epsilon=1e-5)


if __name__ == '__main__':
  absltest.main()
