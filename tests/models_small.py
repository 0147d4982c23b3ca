"""Every network of the registry, small, and what goes into it."""

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import models

VGG = (dict(width=0.0625, head=()), (16, 16, 3))
INCEPTION = (dict(width=0.0625, stem='cifar', dropout=0.0), (8, 8, 3))
CIFAR_RESNET = (dict(width=0.25), (8, 8, 3))
# name -> keywords, shape of an example. All maps have two positions or more.
SMALL = {
  'bn_inception': INCEPTION,
  'deep_linear': (dict(depth=4, features=5), (6,)),
  'inception': INCEPTION,
  'mlp': (dict(hidden=(5, 4)), (4, 4, 1)),
  'resnet20': CIFAR_RESNET,
  'resnet50': (dict(width=0.0625), (64, 64, 3)),
  'resnet56': CIFAR_RESNET,
  **{f'vgg{depth}': VGG for depth in (11, 13, 16, 19)},
}
IMAGES = [name for name, (_, shape) in SMALL.items() if name != 'mlp'
          and len(shape) == 3]  # fmt: skip


def make(name, norm, num_classes=7, **keywords):
  """(module, shape of an example)."""
  small, shape = SMALL[name]
  if name in IMAGES:
    small = {'lowering': 'library', **small}  # it is traced faster
  made = models.make(
    name, num_classes=num_classes, norm=norm, **{**small, **keywords}
  )
  return made, shape


def inputs(shape, examples=4, seed=0):
  generator = np.random.default_rng(seed)
  return jnp.asarray(generator.normal(size=(examples, *shape)), jnp.float32)


def variables(module, shape, seed=0):
  """Made up, of the size that initial ones have; nothing is compiled."""
  x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  shapes = jax.eval_shape(
    lambda x: module.init(jax.random.key(0), x, mode='running'), x
  )
  generator = np.random.default_rng(seed)

  def random(path, leaf):
    name = path[-1].key
    noise = generator.normal(size=leaf.shape)
    if name == 'kernel':
      noise /= np.sqrt(np.prod(leaf.shape[:-1]))
    elif name in ('var', 'scale', 'scale_p'):
      noise = np.exp(0.3 * noise)
    else:
      noise *= 0.3
    return jnp.asarray(noise, leaf.dtype)

  return jax.tree_util.tree_map_with_path(random, shapes)
