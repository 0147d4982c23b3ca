"""Every dataset by its name, and what a config may say of it.

It is a file, and not the package's `__init__`, so that whoever imports one part
of the package, as a command that looks into a data_dir, need not wait for JAX
and grain: 3 s in place of 0.1 s.
"""

import functools
import os
from typing import Any

from bn_jax.data import images, linear_task
from bn_jax.data.batches.examples import Dataset, Examples, Feed, Source
from bn_jax.data.disk import facts

# Of every other name, `images.make` asks what lies in the data_dir.
DATASETS = {
  **{name: functools.partial(images.make, name) for name in facts.KNOWN},
  'linear_task': linear_task.make,
}

__all__ = ['DATASETS', 'Dataset', 'Examples', 'Feed', 'Source', 'make']


def make(
  name: str, *, data_dir: str | os.PathLike | None = None, **keywords: Any
) -> Source:
  """The dataset called `name`, which is not read yet.

  Args:
    name: a key of `DATASETS`, or of any set of images in the data_dir.
    data_dir: of tensorflow-datasets.
    **keywords: of that dataset.

  Raises:
    ValueError: an unknown name, or a keyword out of its range.
    DataError: what lies in the data_dir cannot be used.
  """
  if name == 'linear_task':
    return linear_task.make(**keywords)
  return images.make(name, data_dir=data_dir, **keywords)
