"""Prepares the sets for which tensorflow-datasets needs TensorFlow."""

import difflib
import errno
import importlib.util
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from bn_jax import errors

# Set -> (archives that the user has to download, where they are).
_MANUAL = {
  'imagenet2012': (
    ('ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'),
    'https://image-net.org/download-images',
  ),
}
_NEAREST = 5  # most names in a message: it has to stay short
# Errors of writing to a disk, not of a download.
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
    DataError: an unknown name, a missing package or archive, or any error of
      the builder but those of writing.
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
  except Exception as error:  # any of the builders may raise anything
    raise _failure(name, data_dir, error) from error


def _known(name: str) -> Any:
  """Returns the class of the builder of NAME or NAME/CONFIG.

  Raises:
    DataError: there is none; the message has the nearest names.
  """
  import tensorflow_datasets as tfds

  # Without the sets of its community: TFDS would look for them on the network.
  names = tfds.list_builders(with_community_datasets=False)
  base, _, config = name.partition('/')
  if base not in names:
    raise errors.DataError(_unknown('dataset', name, [*names, 'digits']))
  builder_class = tfds.builder_cls(base)
  configs = [c.name for c in builder_class.BUILDER_CONFIGS]
  if config and config not in configs:
    kind = f'config of {base}'
    raise errors.DataError(_unknown(kind, config, configs))
  return builder_class


def _unknown(kind: str, name: str, names: Iterable[str]) -> str:
  names = list(names)
  # 0.5 matches even a short name with two typing errors.
  nearest = difflib.get_close_matches(name, names, n=_NEAREST, cutoff=0.5)
  if nearest:
    hint = f'nearest: {", ".join(nearest)}'
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
    archives = [f for f in files if not folder or not (folder / f).is_file()]
    if archives:
      missing.append(
        f'{" and ".join(archives)} must lie in --manual_dir='
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
  reason = errors.first_line(error)
  if isinstance(error, ImportError) and error.name:
    package = error.name.split('.')[0]
    return errors.DataError(
      f'{name} needs the package {package} to be prepared: '
      f'pip install {package} ({reason})'
    )
  if isinstance(error, OSError) and error.errno in _OF_STORAGE:
    return errors.StorageError(
      f'cannot write {data_dir}: {reason}; give a writable folder with enough '
      'space with --data_dir=DIR'
    )
  return errors.DataError(
    f'tensorflow-datasets could not prepare {name}: {type(error).__name__}: '
    f'{reason}'
  )
