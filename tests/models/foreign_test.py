"""Names and layouts of other frameworks, held to those that these have."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import traverse_util

from bn_jax import models, norms
from bn_jax.models import foreign
from tests.fixtures import strict  # noqa: F401

# (arrays, beginning of the SHA-256 of the sorted lines 'name [shape]') of each
# state_dict of torchvision 0.28.0 and timm 1.0.31, and `weights` of Keras
# 3.15.1. tests/trained/convert_torch_test.py asks the libraries themselves.
LISTED = {
  'keras:resnet50': (320, '4c589fe37261'),
  'keras:vgg16': (32, '9bb2e17e7e07'),
  'keras:vgg19': (38, 'c7fbffe64cbc'),
  'timm:resnet18': (122, '867b8d8ae95f'),
  'timm:resnet34': (218, 'd6dbfa488433'),
  'timm:resnet50': (320, '2d5b8870b35e'),
  'timm:vgg11': (22, '9d2fe0006398'),
  'timm:vgg11_bn': (62, '88a54aec8a35'),
  'timm:vgg13': (26, '76081c231b6f'),
  'timm:vgg13_bn': (76, '059930534589'),
  'timm:vgg16': (32, '442fc78813ac'),
  'timm:vgg16_bn': (97, 'b1821eb056e2'),
  'timm:vgg19': (38, 'b9b7550e5720'),
  'timm:vgg19_bn': (118, 'f88dbe5680db'),
  'torchvision:resnet18': (122, '867b8d8ae95f'),
  'torchvision:resnet34': (218, 'd6dbfa488433'),
  'torchvision:resnet50': (320, '2d5b8870b35e'),
  'torchvision:vgg11': (22, '67a7eb563529'),
  'torchvision:vgg11_bn': (62, 'fed2755038a7'),
  'torchvision:vgg13': (26, '06fdc111ee6d'),
  'torchvision:vgg13_bn': (76, '1320c3bf26ac'),
  'torchvision:vgg16': (32, '26a44a8d3cab'),
  'torchvision:vgg16_bn': (97, 'e238651c9f05'),
  'torchvision:vgg19': (38, '2ae6c231664e'),
  'torchvision:vgg19_bn': (118, '091b7131554b'),
}


def shapes(network):
  """path -> shape of ours, of the network's true size."""
  norm = {**network.norm, 'name': network.norm['name']}
  return _shapes(repr(sorted(network.model.items())), repr(norm), network.name)


@functools.lru_cache
def _shapes(model, norm, name):
  del model, norm
  network = foreign.network(name)
  module = models.make(
    **{'lowering': 'library', **network.model},
    num_classes=1000,
    norm=norms.make(**network.norm),
  )
  x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  variables = jax.eval_shape(
    lambda x: module.init(jax.random.key(0), x, statistics='running'), x
  )
  flat = traverse_util.flatten_dict(variables, sep='/')
  return {path: x.shape for path, x in flat.items()}


class NamesTest(parameterized.TestCase):
  def test_every_network_is_listed(self):
    self.assertEqual(sorted(LISTED), foreign.names())

  @parameterized.parameters(*LISTED)
  def test_names_and_shapes_are_theirs(self, name):
    network = foreign.network(name)
    own = shapes(network)
    rows = list(foreign.tensors(network, own))
    # Nothing of ours is left out.
    self.assertCountEqual([row.path for row in rows], own)
    lines = {row.theirs: list(row.their_shape) for row in rows}
    lines |= {count: [] for count in foreign.uncounted(network)}
    text = '\n'.join(sorted(f'{key} {shape}' for key, shape in lines.items()))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    self.assertEqual((len(lines), digest), LISTED[name])


class LayoutTest(parameterized.TestCase):
  @parameterized.parameters(
    ((3, 3, 4, 5), foreign.Layout(True), (5, 4, 3, 3)),
    ((7, 5), foreign.Layout(True), (5, 7)),
    ((36, 5), foreign.Layout(True, 3), (5, 4, 3, 3)),
    ((3, 2, 4, 5), foreign.Layout(), (3, 2, 4, 5)),
    ((6,), foreign.Layout(), (6,)),
  )
  def test_there_and_back(self, shape, layout, theirs):
    for is_reversed in (False, len(shape) == 4):
      row = foreign.Tensor('theirs', 'ours', shape, layout, is_reversed)
      x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
      y = foreign.to_theirs(row, x)
      self.assertEqual(y.shape, theirs)
      self.assertEqual(row.their_shape, theirs)
      self.assertTrue(y.flags.c_contiguous)
      np.testing.assert_array_equal(foreign.to_ours(row, y), x)

  def test_a_convolution(self):
    row = foreign.Tensor('a', 'b', (3, 2, 4, 5), foreign.Layout(True))
    x = np.random.default_rng(0).normal(size=row.shape)
    y = foreign.to_theirs(row, x)
    self.assertEqual(y[4, 3, 2, 1], x[2, 1, 3, 4])

  def test_the_inputs_behind_a_flatten(self):
    """x as [H, W, C] times the kernel is x as [C, H, W] times the other."""
    draw = np.random.default_rng(0)
    x, kernel = draw.normal(size=(3, 3, 4)), draw.normal(size=(36, 5))
    np.testing.assert_allclose(
      x.reshape(-1) @ kernel,
      x.transpose(2, 0, 1).reshape(-1) @ foreign.channels_first(kernel, 3),
    )


if __name__ == '__main__':
  absltest.main()
