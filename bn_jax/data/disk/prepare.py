"""Makes a dataset ready to be read: once, into a folder of TFDS.

digits comes with scikit-learn; CIFAR and MNIST are read from their published
archives without TensorFlow; the others are left to tensorflow-datasets, which
needs it.
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
  """What a dataset is made from.

  Attributes:
    archives: the published files.
    counts: split -> number of examples in them.
    layout: how they lie in the files.
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
  """What one of the sets that need no TensorFlow is made from."""
  layout = errors.lookup('dataset', _LAYOUTS, name)
  known = facts.KNOWN[name]
  counts = {'train': known.num_train, 'test': known.num_test}
  return Recipe(archives_lib.known(name), counts, layout)


def prepare(
  name: str,
  *,
  data_dir: str | os.PathLike | None = None,
  manual_dir: str | os.PathLike | None = None,
  made_from: Recipe | None = None,
  say: Callable[[str], None] = lambda line: None,
) -> pathlib.Path:
  """Writes a dataset as array_record, if it is not there already.

  It gets its name when it is whole: an interrupted preparation leaves nothing
  that looks like a dataset.

  Args:
    name: of the set, in tensorflow-datasets.
    data_dir: see `store.data_dir`.
    manual_dir: where its archives lie; None downloads them into
      DATA_DIR/downloads/NAME.
    made_from: the archives, if not the published ones.
    say: is told what happens, a line at a time.

  Returns:
    The folder of the dataset.

  Raises:
    DataError: an unknown name, archives that cannot be had or are not the
      published ones, a package that is missing, or a set that is there and
      cannot be read.
    StorageError: the data_dir cannot be written.
  """
  place = store.folder(name, data_dir)
  if place is not None:
    store.opened(name, data_dir)  # says what is wrong with it, if anything
    say(f'{name} is there already: {place}')
    return place
  root = store.data_dir(data_dir)
  with _blaming(root):
    root.mkdir(parents=True, exist_ok=True)
  if name == 'digits':
    from bn_jax.data.disk import builders

    write(builders.Digits(**_keywords(root)), root)
  elif name in _LAYOUTS:
    _from_archives(name, made_from or recipe(name), root, manual_dir, say)
  else:
    from bn_jax.data.disk import catalogue

    catalogue.prepare(name, data_dir=root, manual_dir=manual_dir, say=say)
  place = store.folder(name, data_dir)
  say(f'{name} is prepared: {place}')
  return place


def write(builder: Any, root: pathlib.Path) -> None:
  """Writes what a builder of ours generates, unless it is there.

  Raises:
    StorageError: the data_dir `root` cannot be written.
  """
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  # TFDS prints that it downloads, which here it does not, and makes folders
  # for that.
  with (
    _blaming(root),
    contextlib.redirect_stdout(io.StringIO()),
    tempfile.TemporaryDirectory() as nothing,
  ):
    try:
      builder.download_and_prepare(
        file_format='array_record', download_dir=nothing
      )
    except OSError:
      # Another process may have written the same set in the meantime.
      if not builder.data_path.exists():
        raise


def _from_archives(name, made_from, root, manual_dir, say) -> None:
  """Writes a set that is read from archives."""
  if manual_dir is not None:
    paths = archives_lib.given(made_from.archives, manual_dir)
  else:
    with _blaming(root):
      paths = archives_lib.downloaded(
        made_from.archives, root / 'downloads' / name, say
      )
  say(f'reading {", ".join(paths)}')
  content = made_from.layout.read(paths, made_from.counts)
  # Imported late: TFDS takes a second, a missing archive none.
  from bn_jax.data.disk import builders

  builder = builders.BUILDERS[name](**_keywords(root))
  builder.content = content
  say(f'writing {builder.data_path}')
  write(builder, root)


def _keywords(root: pathlib.Path) -> dict[str, str]:
  return {'data_dir': str(root), 'file_format': 'array_record'}


@contextlib.contextmanager
def _blaming(root: pathlib.Path):
  """Says of what writing raises which folder it is about."""
  try:
    yield
  except (OSError, RuntimeError) as error:  # array_record raises the latter
    raise errors.StorageError(
      f'cannot write {root}: {error}; give a writable folder with enough space '
      'with --data_dir=DIR'
    ) from error
