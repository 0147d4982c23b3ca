"""Stands for images of which a network's weights tell nothing but sizes.

A network that others have trained (`python -m bn_jax convert`) has a shape of
its inputs and a number of classes, and the images may be nowhere on this
machine. It is loaded, and other runs begin with it, all the same; what has to
read images refuses in one line.
"""

from collections.abc import Sequence

from bn_jax import checks, errors
from bn_jax.data import images
from bn_jax.data.batches import augment, examples, order
from bn_jax.data.disk import facts

_MANY = 2**31 - 1  # examples, of which nobody knows the number


def make(
  *,
  shape: Sequence[int],
  num_classes: int,
  mean: Sequence[float] = (),
  std: Sequence[float] = (),
) -> examples.Source:
  """Returns a set that has sizes and no examples.

  Args:
    shape: (height, width, channels) of an image.
    num_classes: size of the network's output.
    mean, std: as of `images.make`.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.sequence(
    'shape', shape, checks.is_size, '(height, width, channels)', length=3
  )
  checks.count('num_classes', num_classes, least=2)
  sizes = facts.Facts(tuple(shape), num_classes, _MANY, _MANY)
  images.moments(sizes, mean, std)

  def load():
    raise errors.DataError(
      "config.data.name is 'absent': of the images that this network was "
      'trained on its file tells nothing; convert it again with --data=NAME'
    )

  return examples.Source(
    facts=sizes,
    load=load,
    shapes=lambda batch_size: images.shapes(sizes, batch_size),
    sampler=lambda batch_size: order.of_batches(
      num_examples=_MANY, batch_size=batch_size, augmentation=augment.make()
    ),
  )
