"""A network and data of one's own; examples/my_config.py names them."""

import numpy as np
from flax import linen as nn
from sklearn import datasets

from bn_jax import models


class Net(nn.Module):
  """A network as flax's own examples have it."""

  num_classes: int
  width: int

  @nn.compact
  def __call__(self, x, train=False):
    """Returns logits, [N, num_classes]."""
    for features in (self.width, 2 * self.width):
      x = nn.Conv(features, (3, 3), use_bias=False)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
      x = nn.max_pool(x, (2, 2), (2, 2))
    return nn.Dense(self.num_classes)(x.reshape(x.shape[0], -1))


def network(num_classes, norm, width=8):
  """Returns the network with the norm that each run of the config has."""
  net = models.replace_norms(Net(num_classes, width), norm)
  return models.adapt(net, train_keyword='train')


def data():
  """Returns handwritten digits as bytes, the last 297 of them to test on."""
  images, labels = datasets.load_digits(return_X_y=True)
  images = np.uint8(images.reshape(-1, 8, 8, 1) * 255 / 16)
  x, x_test = np.split(images, [1500])
  y, y_test = np.split(labels, [1500])
  return {'x': x, 'y': y, 'x_test': x_test, 'y_test': y_test}
