"""Prepares a dataset, once, in a folder of TFDS.

The digits come with scikit-learn. CIFAR and MNIST are read from their published
archives, without TensorFlow. All others are left to tensorflow-datasets, which
needs TensorFlow.
"""

import contextlib
import io
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bn_jax import errors
from bn_jax.data.disk import archives as archives_lib
from bn_jax.data.disk import facts, layouts, store


class Recipe(NamedTuple):
  """What a dataset is prepared from.

  Attributes:
    archives: files to download.
    counts: split -> number of examples.
    layout: how the examples lie in the archives.
  """

  archives: tuple[archives_lib.Archive, ...]
  counts: Mapping[str, int]
  layout: layouts.Cifar | layouts.Mnist


_LAYOUTS = {
  'cifar10': layouts.CIFAR10,
  'cifar100': layouts.CIFAR100,
  'fashion_mnist': layouts.MNIST,
  'mnist': layouts.MNIST,
}
WITHOUT_TENSORFLOW = ('digits', *_LAYOUTS)


def recipe(name: str) -> Recipe:
  """Returns the recipe of CIFAR-10, CIFAR-100, MNIST or Fashion-MNIST."""
  layout = errors.lookup('dataset', _LAYOUTS, name)
  sizes = facts.KNOWN[name]
  counts = {'train': sizes.num_train, 'test': sizes.num_test}
  return Recipe(archives_lib.known(name), counts, layout)


def prepare(
  name: str,
  *,
  data_dir: str | os.PathLike | None = None,
  manual_dir: str | os.PathLike | None = None,
  made_from: Recipe | None = None,
  say: Callable[[str], None] = lambda line: None,
) -> pathlib.Path:
  """Writes a dataset as array_record, unless it exists already.

  The folder gets its name when it is complete, so an interrupted preparation
  leaves nothing that looks like a dataset.

  Args:
    name: of the set in tensorflow-datasets, or 'digits'.
    data_dir: of TFDS; None is TFDS_DATA_DIR or ~/tensorflow_datasets.
    manual_dir: where its archives lie; None downloads them, those of a recipe
      into DATA_DIR/downloads/NAME.
    made_from: a recipe instead of that of `recipe`.
    say: called with each line about the progress.

  Returns:
    The folder of the dataset.

  Raises:
    DataError: an unknown name; archives that are missing, cannot be downloaded
      or differ from the published ones; a missing package; an existing set that
      cannot be read.
    StorageError: the data_dir cannot be written.
  """
  folder = store.folder(name, data_dir)
  if folder is not None:
    store.opened(name, data_dir)  # raises if the set is damaged
    say(f'{name} is there already: {folder}')
    return folder
  root = store.data_dir(data_dir)
  if name == 'digits':
    from bn_jax.data.disk import builders

    write(builders.Digits(**_keywords(root)), root)
  elif name in _LAYOUTS:
    _from_archives(name, made_from or recipe(name), root, manual_dir, say)
  else:
    from bn_jax.data.disk import catalogue

    catalogue.prepare(name, data_dir=root, manual_dir=manual_dir, say=say)
  folder = store.folder(name, data_dir)
  say(f'{name} is prepared: {folder}')
  return folder


def write(builder: Any, root: pathlib.Path) -> None:
  """Writes the dataset of a builder of `builders`, unless it exists already.

  Raises:
    StorageError: the data_dir `root` cannot be written.
  """
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  # TFDS prints that it downloads, and makes a folder for downloads, although
  # there are none.
  with (
    _blaming(root),
    contextlib.redirect_stdout(io.StringIO()),
    tempfile.TemporaryDirectory() as downloads,
  ):
    try:
      builder.download_and_prepare(
        file_format='array_record', download_dir=downloads
      )
    except OSError:
      # Another process may have written this set in the meantime.
      if not builder.data_path.exists():
        raise


def _from_archives(name, made_from, root, manual_dir, say) -> None:
  """Writes a set from the archives of a recipe, after their download."""
  if manual_dir is not None:
    paths = archives_lib.given(made_from.archives, manual_dir)
  else:
    with _blaming(root):
      paths = archives_lib.downloaded(
        made_from.archives, root / 'downloads' / name, say
      )
  say(f'reading {", ".join(paths)}')
  content = made_from.layout.read(paths, made_from.counts)
  # Imported late, so that a missing archive is reported without TFDS, which
  # takes a second to import.
  from bn_jax.data.disk import builders

  builder = builders.BUILDERS[name](**_keywords(root))
  builder.content = content
  say(f'writing {builder.data_path}')
  write(builder, root)


def _keywords(root: pathlib.Path) -> dict[str, str]:
  return {'data_dir': str(root), 'file_format': 'array_record'}


@contextlib.contextmanager
def _blaming(root: pathlib.Path):
  """Turns errors of writing into a StorageError that names the folder."""
  try:
    yield
  except (OSError, RuntimeError) as error:  # array_record raises the latter
    raise errors.StorageError(
      f'cannot write {root}: {error}; give a writable folder with enough space '
      'with --data_dir=DIR'
    ) from error
