"""The sets that only tensorflow-datasets can prepare, with TensorFlow."""

import difflib
import errno
import importlib.util
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from bn_jax import errors

_MANUAL = {
  'imagenet2012': (
    ('ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'),
    'https://image-net.org/download-images',
  ),
}
_NEAREST = 5  # names that a message lists; more would not be read
# Errors of writing to a disk, as opposed to a download's.
_OF_STORAGE = (
  errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.ENOTDIR,
  errno.EDQUOT, errno.EEXIST,
)  # fmt: skip


def prepare(
  name: str,
  *,
  data_dir: pathlib.Path,
  manual_dir: str | os.PathLike | None,
  say: Callable[[str], None],
) -> None:
  """Lets tensorflow-datasets prepare NAME or NAME/CONFIG as array_record.

  Raises:
    DataError: an unknown name, a missing package or archive, or any error in
      the builder.
    StorageError: the data_dir cannot be written.
  """
  import tensorflow_datasets as tfds

  builder_class = _known(name)
  missing = _missing(name, builder_class, manual_dir)
  if missing:
    raise errors.DataError(
      f'{name} cannot be prepared yet: {"; ".join(missing)}'
    )
  say(f'tensorflow-datasets prepares {name} in {data_dir}')
  config = tfds.download.DownloadConfig(
    manual_dir=None if manual_dir is None else os.fspath(manual_dir)
  )
  try:
    builder = tfds.builder(
      name, data_dir=str(data_dir), file_format='array_record'
    )
    builder.download_and_prepare(
      file_format='array_record', download_config=config
    )
  except Exception as error:  # the 245 builders may raise anything
    raise _failure(name, data_dir, error) from error


def _known(name: str) -> Any:
  """Returns the class of the builder of a name.

  Raises:
    DataError: there is none; the message has the nearest names.
  """
  import tensorflow_datasets as tfds

  # Without community datasets, which would be looked up in the network.
  names = tfds.list_builders(with_community_datasets=False)
  plain, _, config = name.partition('/')
  if plain not in names:
    raise errors.DataError(_unknown('dataset', name, [*names, 'digits']))
  builder_class = tfds.builder_cls(plain)
  configs = [c.name for c in builder_class.BUILDER_CONFIGS]
  if config and config not in configs:
    of = f'config of {plain}'
    raise errors.DataError(_unknown(of, config, configs))
  return builder_class


def _unknown(kind: str, name: str, names: Iterable[str]) -> str:
  names = list(names)
  # At 0.5 even a short name with two typing errors is matched.
  near = difflib.get_close_matches(name, names, n=_NEAREST, cutoff=0.5)
  if near:
    hint = f'nearest: {", ".join(near)}'
  elif not names:
    hint = 'it has none'
  elif len(names) <= _NEAREST:
    hint = f'known: {", ".join(names)}'
  else:
    hint = 'known: see https://www.tensorflow.org/datasets/catalog/overview'
  return f'unknown {kind} {name!r}; {hint}'


def _missing(
  name: str, builder_class: Any, manual_dir: str | os.PathLike | None
) -> list[str]:
  """Returns what a set lacks to be prepared, each with how to get it."""
  missing = []
  if importlib.util.find_spec('tensorflow') is None:
    missing.append(
      'TensorFlow is missing, which only preparing needs: '
      'pip install tensorflow'
    )
  if name in _MANUAL:
    files, url = _MANUAL[name]
    folder = manual_dir and pathlib.Path(manual_dir).expanduser()
    absent = [f for f in files if not folder or not (folder / f).is_file()]
    if absent:
      missing.append(
        f'{" and ".join(absent)} must lie in --manual_dir='
        f'{folder or "DIR"}: download from {url}'
      )
  elif builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS and manual_dir is None:
    steps = ' '.join(builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
    missing.append(f'its files must be given with --manual_dir=DIR: {steps}')
  return missing


def _failure(
  name: str, data_dir: pathlib.Path, error: Exception
) -> errors.Failure:
  """Turns an error of a builder of TFDS into one that says what to do."""
  why = errors.first_line(error)
  if isinstance(error, ImportError) and error.name:
    package = error.name.split('.')[0]
    return errors.DataError(
      f'{name} needs the package {package} to be prepared: '
      f'pip install {package} ({why})'
    )
  if isinstance(error, OSError) and error.errno in _OF_STORAGE:
    return errors.StorageError(
      f'cannot write {data_dir}: {why}; give a writable folder with enough '
      'space with --data_dir=DIR'
    )
  return errors.DataError(
    f'tensorflow-datasets could not prepare {name}: {type(error).__name__}: '
    f'{why}'
  )
