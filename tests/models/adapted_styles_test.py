"""Ways in which networks of linen are written: each is adapted as it is."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from absl.testing import absltest, parameterized
from flax import linen as nn
from flax import traverse_util

from bn_jax import models, norms
from tests.fixtures import strict  # noqa: F401

SHAPE = (8, 8, 3)
IMAGES = jax.ShapeDtypeStruct((4, *SHAPE), jnp.float32)


class Block(nn.Module):
  """The block of flax's ImageNet example."""

  filters: int
  norm: Any

  @nn.compact
  def __call__(self, x):
    y = nn.Conv(self.filters, (3, 3), use_bias=False)(x)
    y = nn.relu(self.norm()(y))
    y = nn.Conv(self.filters, (3, 3), use_bias=False)(y)
    y = self.norm(scale_init=nn.initializers.zeros_init())(y)
    if x.shape != y.shape:
      x = nn.Conv(self.filters, (1, 1), name='conv_proj')(x)
      x = self.norm(name='norm_proj')(x)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """With a list for an attribute, and its blocks recomputed or not."""

  stage_sizes: Any
  remat: bool = False

  @nn.compact
  def __call__(self, x, train: bool = True):
    norm = functools.partial(nn.BatchNorm, use_running_average=not train)
    x = nn.relu(norm(name='bn_init')(nn.Conv(4, (3, 3), name='conv_init')(x)))
    block = nn.remat(Block) if self.remat else Block
    for stage, count in enumerate(self.stage_sizes):
      for _ in range(count):
        x = block(4 * 2**stage, norm)(x)
    return nn.Dense(5)(x.mean((1, 2)))


class Setup(nn.Module):
  """With setup, a list of modules, and a module called as an attribute here."""

  def setup(self):
    self.network = nn.Conv(4, (3, 3))
    self.bn = nn.BatchNorm()
    self.blocks = [nn.Dense(5) for _ in range(2)]
    self.drop = nn.Dropout(0.5)

  def __call__(self, x, deterministic):
    x = self.bn(self.network(x), use_running_average=deterministic)
    x = nn.relu(x).mean((1, 2))
    for block in self.blocks:
      x = block(x)
    return self.drop(x, deterministic=deterministic)


class Head(nn.Module):
  """A network inside another one."""

  backbone: nn.Module

  @nn.compact
  def __call__(self, x, train=False):
    return nn.Dense(3, name='head')(self.backbone(x, train=train))


class Attention(nn.Module):
  """A transformer's block: norms before layers, dropout inside of flax's."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(8)(x.reshape(len(x), 64, 3))
    attention = nn.MultiHeadDotProductAttention(
      2, dropout_rate=0.1, deterministic=not train
    )
    x = x + attention(nn.LayerNorm()(x))
    return nn.Dense(2)((x + nn.Dense(8)(nn.RMSNorm()(x))).mean(1))


def sequential():
  return nn.Sequential([
    nn.Conv(3, (3, 3)), nn.LayerNorm(), nn.relu, lambda x: x.mean((1, 2)),
    nn.Dense(2),
  ])  # fmt: skip


STYLES = {
  'resnet': (lambda: ResNet([1, 2]), 'train', 9),
  'recomputed': (lambda: ResNet([1, 1], True), 'train', 7),
  'setup': (Setup, 'deterministic', 3),
  'nested': (lambda: Head(ResNet((1,))), 'train', 5),
  'attention': (Attention, 'train', 7),
  'sequential': (sequential, None, 2),
}


class StylesTest(parameterized.TestCase):
  @parameterized.parameters(*STYLES)
  def test_is_adapted_as_it_is(self, name):
    make, keyword, layer_count = STYLES[name]
    network = make()
    keywords = {keyword: keyword == 'deterministic'} if keyword else {}
    init = functools.partial(network.init, **keywords)
    own = jax.eval_shape(init, jax.random.key(0), IMAGES)
    module = models.adapt(network, keyword, shape=SHAPE)
    variables = self.run_shapes(module)
    self.assertEqual(own, variables)
    self.check_layers(module, variables, layer_count)

  @parameterized.parameters(*STYLES)
  def test_takes_other_norms(self, name):
    make, keyword, layer_count = STYLES[name]
    module = models.adapt(make(), keyword, shape=SHAPE)
    layers, taps = module.layer_paths(), models.taps(module)
    module = models.replace_norms(module, norms.make('batch', group_size=2))
    variables = self.run_shapes(module)
    self.assertEqual(
      (module.layer_paths(), models.taps(module)), (layers, taps)
    )
    self.check_layers(module, variables, layer_count)
    self.assertEqual(models.traits(module, SHAPE).group_size, 2)

  def run_shapes(self, module):
    """Shapes of the variables; the network is called in both ways."""

    def call(x):
      variables = module.init(jax.random.key(0), x, statistics='running')
      _, new = module.apply(
        variables, x, statistics='batch', mutable=['batch_stats'],
        rngs={'dropout': jax.random.key(1)},
      )  # fmt: skip
      module.apply(variables, x, statistics='batch')
      module.apply({**variables, **new}, x, statistics='running')
      return variables

    return jax.eval_shape(call, IMAGES)

  def check_layers(self, module, variables, count):
    """Each kernel, and each norm behind a layer, is of one layer."""
    layers = models.layers(module, variables)
    self.assertLen(layers, count)
    paths = [path for _, both in layers for path in both]
    self.assertLen(set(paths), len(paths))
    flat = traverse_util.flatten_dict(variables['params'], sep='/')
    owners = {path.rpartition('/')[0] for path in flat}
    self.assertEqual(owners, set(paths))


if __name__ == '__main__':
  absltest.main()
