"""Makes datasets by name.

This is not in the package's `__init__`, so that a command that only looks into
a data_dir imports in 0.1 s: with JAX and grain it would take 3 s.
"""

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

from bn_jax import errors, plugins
from bn_jax.data import absent, images, linear_task, returned
from bn_jax.data.batches.examples import Dataset, Examples, Feed, Source
from bn_jax.data.disk import facts, own

# Any other name is that of a set of images in the data_dir, or of a user's own;
# see `images.make`, and `of_function`.
DATASETS = {
  **{name: functools.partial(images.make, name) for name in facts.KNOWN},
  'absent': absent.make,
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
    name: a key of `DATASETS`, any set of images in the data_dir, a user's own
      (`own`), or a reference to a function that makes one (`plugins`).
    data_dir: of TFDS, see `images.make`; what has no files needs none.
    **keywords: of `images.make`, `linear_task.make` or `absent.make`.

  Raises:
    ValueError: an unknown name, or a keyword out of its range.
    DataError: the set in the data_dir cannot be used.
  """
  if name in _WITHOUT_FILES:
    return DATASETS[name](**keywords)
  if plugins.is_reference(name):
    function = plugins.constructor(name)
    keywords['data_dir'] = data_dir
    theirs = {
      keyword: value
      for keyword, value in keywords.items()
      if keyword not in _OURS or keyword in plugins.keywords_of(function)
    }
    value = plugins.call(name, function, **theirs)
    ours = {k: v for k, v in keywords.items() if k in _OURS}
    return images.make(returned.opened(name, function, value), **ours)
  return images.make(name, data_dir=data_dir, **keywords)


def of_function(function: Callable[..., Any]) -> Callable[..., Source]:
  """Returns what has the signature of a dataset that a user's function makes.

  Its keywords are those of `images.make`, and the function's own.

  Raises:
    ConfigError: a keyword of the function is one of ours, which is none of
      `_SHARED`.
  """
  theirs = plugins.keywords_of(function)
  for keyword in theirs:
    if keyword in _OURS and keyword not in _SHARED:
      raise errors.ConfigError(
        f'{function.__name__} has the keyword {keyword!r}, which is a key of '
        'every dataset; give it another name'
      )
  keywords = {**theirs, **_OURS}
  parameters = [
    parameter.replace(kind=parameter.KEYWORD_ONLY)
    for parameter in keywords.values()
  ]
  parameters += [
    parameter
    for parameter in inspect.signature(function).parameters.values()
    if parameter.kind is parameter.VAR_KEYWORD
  ]

  def make(**keywords):
    return function(**keywords)

  make.__signature__ = inspect.Signature(parameters)
  return make


_WITHOUT_FILES = ('absent', 'linear_task')
_OURS = {
  keyword: parameter
  for keyword, parameter in inspect.signature(images.make).parameters.items()
  if keyword != 'name'
}
_SHARED = ('data_dir', 'seed')  # go to a user's function too, if it has them


def absolute(name: str) -> str:
  """Returns the name of a dataset with whole paths, where it has paths.

  Raises:
    ConfigError: a form that is not known.
  """
  return own.absolute(name) if own.is_own(name) else name
