import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import models
from bn_jax.models import vgg
from tests.fixtures import (
  strict,  # noqa: F401
)


def shapes(module, image, batch=1):
  x = jax.ShapeDtypeStruct((batch, *image), jnp.float32)
  return jax.eval_shape(
    lambda x: module.init(jax.random.key(0), x, statistics='running'), x
  )


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def setUpModule():
  # Numbers hardly matter here, compilation takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class VGGTest(parameterized.TestCase):
  @parameterized.parameters(
    # Simonyan and Zisserman (2015), Table 2: 133, 133, 138, 144 million.
    ('vgg11', 132_863_336), ('vgg13', 133_047_848),
    ('vgg16', 138_357_544), ('vgg19', 143_667_240),
  )  # fmt: skip
  def test_parameters_of_the_original(self, name, parameters):
    module = models.make(name, num_classes=1000, head=(4096, 4096))
    variables = shapes(module, (224, 224, 3))
    self.assertEqual(count(variables['params']), parameters)

  @parameterized.parameters(
    # 14,714,688 in the convolutions, 512 x 512 + 512 x 512 + 512 x 10 behind.
    ('vgg16', (512, 512), 32, 10, 15_245_130),
    ('vgg16', (), 32, 10, 14_719_818),
    # 512 x 4096, 4096 x 4096, 4096 x 10.
    ('vgg16', (4096, 4096), 32, 10, 33_638_218),
    ('vgg11', (512, 512), 32, 10, 9_750_922),
    # 25,088 x 512, 512 x 512, 512 x 1000, at ImageNet's size.
    ('vgg16', (512, 512), 224, 1000, 28_335_912),
  )  # fmt: skip
  def test_heads(self, name, head, pixels, classes, parameters):
    module = models.make(name, num_classes=classes, head=head)
    variables = shapes(module, (pixels, pixels, 3))
    self.assertEqual(count(variables['params']), parameters)

  @parameterized.parameters(
    (8, 2), (15, 2), (16, 1), (28, 1), (31, 1), (32, 0), (224, 0)
  )
  def test_table_of_omitted_pools(self, pixels, omitted):
    self.assertEqual(vgg.omitted_pools((pixels, 224)), omitted)
    self.assertEqual(vgg.omitted_pools((224, pixels)), omitted)

  @parameterized.parameters(
    (8, [8, 8, 8, 4, 2], 1), (12, [12, 12, 12, 6, 3], 1),
    (16, [16, 16, 8, 4, 2], 1), (32, [32, 16, 8, 4, 2], 1),
    (224, [224, 112, 56, 28, 14], 7),
  )  # fmt: skip
  def test_maps_seen_by_the_blocks(self, pixels, maps, end):
    module = models.make('vgg13', num_classes=10, width=0.0625)
    x = jnp.zeros((1, pixels, pixels, 3))

    def capture(x):
      return module.init_with_output(
        jax.random.key(0), x, statistics='running', capture_intermediates=True,
        mutable=True,
      )[1]  # fmt: skip

    seen = jax.eval_shape(capture, x)
    intermediates = seen['intermediates']
    sizes = [
      intermediates[f'conv{i}']['__call__'][0].shape[1]
      for i in (2, 4, 6, 8, 10)
    ]
    self.assertEqual(sizes, maps)
    features = seen['params']['logits']['kernel'].shape[0]
    self.assertEqual(features, end * end * 32)

  @parameterized.parameters((7, 7), (8, 7), (1, 300))
  def test_image_too_small(self, height, width):
    module = models.make('vgg11', num_classes=10)
    with self.assertRaisesRegex(ValueError, f'{height} x {width}.*8 x 8'):
      shapes(module, (height, width, 1))

  def test_layers_are_in_forward_order(self):
    module = models.make('vgg16', num_classes=10, norm='batch', head=(32, 32))
    layers = models.layers(module, shapes(module, (8, 8, 1)))
    names = [f'conv{i}' for i in range(1, 14)] + ['dense1', 'dense2', 'logits']
    self.assertEqual([name for name, _ in layers], names)
    self.assertEqual(layers[11], ('conv12', ('conv12', 'conv12_norm')))
    self.assertEqual(layers[13], ('dense1', ('dense1', 'dense1_norm')))
    self.assertEqual(layers[-1], ('logits', ('logits',)))

  def test_no_bias_before_batch_norm(self):
    module = models.make('vgg11', num_classes=10, norm='batch', head=(8,))
    params = shapes(module, (8, 8, 1))['params']
    with_bias = [name for name in params if 'bias' in params[name]]
    norm_names = [*(f'conv{i}_norm' for i in range(1, 9)), 'dense1_norm']
    self.assertCountEqual(with_bias, [*norm_names, 'logits'])

  def test_padding_does_not_change_the_real_examples(self):
    module = models.make(
      'vgg11', num_classes=10, norm='batch', width=0.0625, lowering='product'
    )
    generator = np.random.default_rng(0)

    def random(leaf):
      return jnp.asarray(generator.normal(size=leaf.shape) / 8, jnp.float32)

    x = 8 * random(jnp.zeros((6, 8, 8, 1)))
    variables = jax.tree.map(random, shapes(module, (8, 8, 1)))
    apply = jax.jit(module.apply, static_argnames=('statistics', 'mutable'))
    mask = jnp.arange(6) < 4
    padded, new = apply(
      variables, x, statistics='batch', mask=mask, mutable=('batch_stats',)
    )
    alone, new_alone = apply(
      variables, x[:4], statistics='batch', mutable=('batch_stats',)
    )
    np.testing.assert_allclose(padded[:4], alone, rtol=1e-3, atol=1e-4)
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(new_alone)):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
