from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import models, norms
from bn_jax.models import resnet
from tests.fixtures import (
  models_small,
  reference,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def rows(name, classes, pixels, norm='batch', **keywords):
  module = models.make(name, num_classes=classes, norm=norm, **keywords)
  return models.summarize(module, (pixels, pixels, 3))


class SizesTest(parameterized.TestCase):
  @parameterized.parameters(
    # He et al. (2016), Table 6: 0.27 and 0.85 million; torchvision's others.
    ('resnet20', {}, 10, 32, 269_722),
    ('resnet56', {}, 10, 32, 853_018),
    # Projections: 16 x 32 + 32 x 64 weights, 2 x (32 + 64) of their norms.
    ('resnet20', dict(shortcut='projection'), 10, 32, 269_722 + 2_752),
    ('resnet18', {}, 1000, 224, 11_689_512),
    ('resnet34', {}, 1000, 224, 21_797_672),
    ('resnet50', {}, 1000, 224, 25_557_032),
    ('resnet50', dict(stride_in='1x1'), 1000, 224, 25_557_032),
    # Shortcuts of zeros have no weights, projections have.
    ('resnet20', dict(skip=False), 10, 32, 269_722),
    ('resnet20', dict(skip=False, shortcut='projection'), 10, 32, 269_722),
  )  # fmt: skip
  def test_parameters(self, name, keywords, classes, pixels, parameters):
    found = rows(name, classes, pixels, **keywords)
    self.assertEqual(sum(row.parameters for row in found), parameters)

  @parameterized.parameters(
    ('resnet20', 32, 20, 40.6), ('resnet56', 32, 56, 125.5),
    # v1.5: the strides are in the 3 x 3 convolutions; v1 has 3.86 milliards.
    ('resnet50', 224, 50, 4_089.2), ('resnet18', 224, 18, 1_814.1),
  )  # fmt: skip
  def test_depth_and_multiply_adds(self, name, pixels, depth, millions):
    found = rows(name, 10 if pixels == 32 else 1000, pixels)
    counted = [row for row in found if not row.name.endswith('projection')]
    self.assertLen(counted, depth)
    total = sum(row.multiply_adds for row in found) / 1e6
    self.assertAlmostEqual(total, millions, delta=0.06)

  def test_maps(self):
    found = rows('resnet20', 10, 32)
    self.assertEqual(
      [row.shape for row in found[:-1]],
      [(32, 32, 16)] * 7 + [(16, 16, 32)] * 6 + [(8, 8, 64)] * 6,
    )
    found = rows('resnet50', 1000, 224)
    shapes = {row.name: row.shape for row in found}
    self.assertEqual(shapes['conv1'], (112, 112, 64))
    self.assertEqual(shapes['stage1_block1/conv1'], (56, 56, 64))
    self.assertEqual(shapes['stage2_block1/conv1'], (56, 56, 128))
    self.assertEqual(shapes['stage2_block1/conv2'], (28, 28, 128))
    self.assertEqual(shapes['stage2_block1/projection'], (28, 28, 512))
    self.assertEqual(shapes['stage4_block3/conv3'], (7, 7, 2048))

  @parameterized.parameters(19, 2, 8.0)
  def test_refuses_a_depth(self, depth):
    with self.assertRaisesRegex(ValueError, f'depth is {depth}; .*6n [+] 2'):
      resnet.make_cifar(depth=depth, num_classes=2, norm=norms.make('none'))

  def test_refuses_blocks_that_are_zero(self):
    with self.assertRaisesRegex(ValueError, 'zero_init_residual is True; .*0'):
      models.make(
        'resnet20', num_classes=2, norm='batch', skip=False,
        zero_init_residual=True,
      )  # fmt: skip


class FunctionTest(parameterized.TestCase):
  @parameterized.parameters('identity', 'zeros', 'projection', 'none')
  def test_a_block(self, shortcut):
    """relu(conv2(relu(conv1(x))) + shortcut(x)), against NumPy."""
    channels, stride = (3, 1) if shortcut == 'identity' else (5, 2)
    style = resnet.Style(norms.make('none'), 'he', 'library')
    block = resnet.Block(
      ((channels, 3, stride), (channels, 3, 1)), shortcut, style
    )
    x = models_small.inputs((5, 4, 3), 2)
    variables = block.init(jax.random.key(0), x, statistics='running')
    variables = jax.tree.map(lambda p: p + 0.1, variables)
    params = variables['params']

    def convolved(x, name, stride):
      own = params[name]
      y = reference.convolution(x, own['kernel'], (stride, stride), 'SAME')
      return y + np.float64(own['bias'])

    y = np.maximum(convolved(x, 'conv1', stride), 0)
    y = convolved(y, 'conv2', 1)
    if shortcut == 'projection':
      y += convolved(x, 'projection', stride)
    elif shortcut == 'zeros':
      y[..., :3] += np.float64(x)[:, ::2, ::2]
    elif shortcut == 'identity':
      y += np.float64(x)
    self.assertEqual('projection' in params, shortcut == 'projection')
    got, seen = block.apply(
      variables, x, statistics='running', capture_intermediates=True
    )
    np.testing.assert_allclose(got, np.maximum(y, 0), rtol=1e-4, atol=1e-4)
    last = 'conv2_norm' if shortcut == 'none' else 'sum'
    entering = seen['intermediates'][last]['__call__'][0]
    np.testing.assert_allclose(entering, y, rtol=1e-4, atol=1e-4)

  def test_taps_enter_every_nonlinearity(self):
    for name, keywords in (
      ('resnet20', {'skip': False}), ('resnet20', {}), ('resnet50', {}),
    ):  # fmt: skip
      module, shape = models_small.make(name, 'none', **keywords)
      made, entered = {}, []

      def record(call, args, keywords, context, made=made):
        y = call(*args, **keywords)
        made['/'.join(context.module.path)] = y
        return y

      def relu(x, entered=entered, relu=nn.relu):
        entered.append(x)
        return relu(x)

      with nn.intercept_methods(record), mock.patch.object(nn, 'relu', relu):
        jax.eval_shape(
          lambda x, module=module: module.init(
            jax.random.key(0), x, statistics='running'
          ),
          models_small.inputs(shape),
        )
      taps = models.taps(module)
      self.assertLen(entered, len(taps))
      for (_, path), x in zip(taps, entered):
        self.assertIs(made[path], x, path)
    self.assertEqual(
      models.taps(module)[1:4],
      (
        ('stage1_block1/conv1', 'stage1_block1/conv1_norm'),
        ('stage1_block1/conv2', 'stage1_block1/conv2_norm'),
        ('stage1_block1/conv3', 'stage1_block1/sum'),
      ),
    )

  @parameterized.parameters(
    ('he', 2 / (9 * 32)), ('glorot', 2 / (9 * (32 + 64)))
  )
  def test_initial_kernels(self, init, variance):
    module = models.make('resnet20', num_classes=10, init=init)
    layer = 'stage3_block1', 'conv1'

    @jax.jit
    def drawn(x):  # only what is returned is compiled
      params = module.init(jax.random.key(0), x, statistics='running')['params']
      return params[layer[0]][layer[1]]['kernel'], params['logits']['kernel']

    kernel, logits = drawn(jnp.zeros((1, 4, 4, 3)))
    self.assertAlmostEqual(float(kernel.var()) / variance, 1, delta=0.04)
    largest = (6 / (64 + 10)) ** 0.5
    self.assertLessEqual(float(jnp.abs(logits).max()), largest)
    fourth = float((kernel**4).mean() / kernel.var() ** 2)
    self.assertAlmostEqual(fourth, 3 if init == 'he' else 1.8, delta=0.15)


if __name__ == '__main__':
  absltest.main()
