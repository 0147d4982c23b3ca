"""Opens what a user's function returned: arrays, or a builder of TFDS."""

import inspect
import pathlib
from collections.abc import Callable
from typing import Any

from bn_jax import checks, errors
from bn_jax.data.disk import arrays, sets, store


def opened(
  reference: str, function: Callable[..., Any], value: Any
) -> sets.Set:
  """Returns a set.

  Args:
    reference: of the function, for messages.
    value: that it returned: name -> array, (x, y), (x, y, x_test, y_test), see
      `arrays.RULES`, or a builder whose set is prepared as array_record.

  Raises:
    ConfigError: something else.
    DataError: arrays, or a prepared set, that cannot be used.
  """
  if hasattr(value, 'as_data_source') and hasattr(value, 'data_path'):
    return _built(reference, value)
  if isinstance(value, (tuple, list)) and len(value) in (2, 4):
    value = dict(zip(('x', 'y', 'x_test', 'y_test'), value))
  if not hasattr(value, 'keys'):
    raise errors.ConfigError(
      f'{reference} returned {checks.shown(value)}; it must return a dict of '
      'arrays, (x, y), (x, y, x_test, y_test), or a builder of TFDS'
    )
  return arrays.of(reference, _folder(function), value)


def _built(reference: str, builder: Any) -> store.Prepared:
  folder = pathlib.Path(builder.data_path)
  if not (folder / 'dataset_info.json').is_file():
    raise errors.DataError(
      f'{reference} returned the builder {builder.info.full_name}, which is '
      f'not prepared in {folder}; call download_and_prepare(file_format='
      "'array_record') once"
    )
  return store.at(builder.name, folder)


def _folder(function: Callable[..., Any]) -> pathlib.Path:
  try:
    return pathlib.Path(inspect.getfile(function)).parent
  except TypeError:  # of a callable object, say
    return pathlib.Path.cwd()
