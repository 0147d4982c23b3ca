"""Makes datasets by name.

This is not in the package's `__init__`, so that a command that only looks into
a data_dir imports in 0.1 s: with JAX and grain it would take 3 s.
"""

import functools
import os
from typing import Any

from bn_jax.data import images, linear_task
from bn_jax.data.batches.examples import Dataset, Examples, Feed, Source
from bn_jax.data.disk import facts, own

# Any other name is that of a set of images in the data_dir; see `images.make`.
DATASETS = {
  **{name: functools.partial(images.make, name) for name in facts.KNOWN},
  'linear_task': linear_task.make,
}

__all__ = [
  'DATASETS', 'Dataset', 'Examples', 'Feed', 'Source', 'absolute', 'make',
]  # fmt: skip


def make(
  name: str, *, data_dir: str | os.PathLike | None = None, **keywords: Any
) -> Source:
  """Returns the dataset called `name`, without reading it yet.

  Args:
    name: a key of `DATASETS`, or any set of images in the data_dir.
    data_dir: of TFDS, see `images.make`; the linear task needs none.
    **keywords: of `linear_task.make` or `images.make`.

  Raises:
    ValueError: an unknown name, or a keyword out of its range.
    DataError: the set in the data_dir cannot be used.
  """
  if name == 'linear_task':
    return linear_task.make(**keywords)
  return images.make(name, data_dir=data_dir, **keywords)


def absolute(name: str) -> str:
  """Returns the name of a dataset with whole paths, where it has paths.

  Raises:
    ConfigError: a form that is not known.
  """
  return own.absolute(name) if own.is_own(name) else name
