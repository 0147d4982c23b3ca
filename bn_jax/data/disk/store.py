"""Prepared datasets on disk: folders of tensorflow-datasets, as array_record.

They are opened by what lies in the folder alone, so that any set of images with
one label each can be read, whoever made it, and without TensorFlow.

Decoded splits are kept beside the set, so that they are decoded once: one
uncompressed .npz a split and resolution, in the folder of the set's version (or
below BN_JAX_CACHE_DIR, where that is set). Its parts carry checksums, and it
names the files that it was made of, so that neither a damaged nor an outdated
one is used. Where the folder cannot be written, nothing is kept.
"""

import contextlib
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax import errors

Arrays = tuple[np.ndarray, np.ndarray]
_VERSION = re.compile(r'\d+\.\d+\.\d+')
_CACHE = 1  # the version of the format of decoded splits
_SMALLEST = 2**24  # bytes; less is decoded faster than a file is worth


class Prepared(NamedTuple):
  """A dataset that lies in a folder.

  Attributes:
    name: as it was asked for.
    folder: of its newest version.
    image_key: under which a record holds its image, encoded.
    label_key: under which it holds its label.
    shape: (height, width, channels); None where images differ in it.
    class_names: one a class.
    splits: name -> number of examples.
  """

  name: str
  folder: pathlib.Path
  image_key: str
  label_key: str
  shape: tuple[int | None, int | None, int]
  class_names: tuple[str, ...]
  splits: dict[str, int]

  @property
  def num_classes(self) -> int:
    return len(self.class_names)


def data_dir(given: str | os.PathLike | None) -> pathlib.Path:
  """Where TFDS keeps its data: given, TFDS_DATA_DIR, or its own default."""
  default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  try:
    return pathlib.Path(given or default).expanduser()
  except RuntimeError as error:  # of a user who is not there
    raise errors.DataError(f'data_dir: {given or default}: {error}') from error


def folder(name: str, given: str | os.PathLike | None) -> pathlib.Path | None:
  """The folder of the newest version of a set; None where it is not there.

  Args:
    name: of the set, or NAME/CONFIG of one that comes in several.
    given: the data_dir, see `data_dir`.

  Raises:
    DataError: the set is there in several configs, and the name says none.
  """
  above = data_dir(given) / name
  versions = _versions(above)
  if not versions and above.is_dir():
    configs = {p.name: _versions(p) for p in sorted(above.iterdir())}
    configs = {config: found for config, found in configs.items() if found}
    if len(configs) > 1:
      raise errors.DataError(
        f'{name} is in {above} in several configs; give one of '
        f'{", ".join(f"{name}/{config}" for config in configs)}'
      )
    versions = next(iter(configs.values()), [])
  return versions[-1] if versions else None


def names(given: str | os.PathLike | None) -> list[str]:
  """What lies in a data_dir, by name."""
  above = data_dir(given)
  if not above.is_dir():
    return []
  found = []
  for path in sorted(above.iterdir()):
    with contextlib.suppress(OSError):  # a folder that others own
      if path.is_dir() and _all_versions(path):
        found.append(path.name)
  return found


def _all_versions(above: pathlib.Path) -> list[pathlib.Path]:
  """Folders of versions in the folder of a set, those of its configs too."""
  below = [p for p in sorted(above.iterdir()) if p.is_dir()]
  return _versions(above) + [v for p in below for v in _versions(p)]


def opened(name: str, given: str | os.PathLike | None) -> Prepared:
  """The set called `name`.

  Raises:
    DataError: it is not there, was prepared in another format, is damaged, or
      is no set of images with one label each.
  """
  place = folder(name, given)
  if place is None:
    raise errors.DataError(
      f'{name} is not in {data_dir(given)}; give its folder with '
      f'--data_dir=DIR or TFDS_DATA_DIR, or prepare it: python -m bn_jax data '
      f'prepare {name} --data_dir=DIR'
    )
  facts = _json(place / 'dataset_info.json')
  kind = facts.get('fileFormat') or 'tfrecord'
  if kind != 'array_record':
    raise errors.DataError(
      f'{name} in {place} was prepared as {kind}; convert it once where '
      'TensorFlow is installed: python -m '
      'tensorflow_datasets.scripts.convert_format '
      f'--dataset_dir={place} --out_file_format=array_record'
    )
  with blaming(name, place):
    builder = _builder(place)
    splits = {
      split: info.num_examples for split, info in builder.info.splits.items()
    }
    return Prepared(name, place, *_features(name, builder.info), splits)


def source(prepared: Prepared, split: str) -> Sequence[dict[str, Any]]:
  """The records of a split, by number; their images stay encoded.

  It has `__len__`, `__getitem__` and, for many at once, `__getitems__`.

  Raises:
    DataError: no such split, or a damaged one.
  """
  import tensorflow_datasets as tfds

  if split not in prepared.splits:
    message = errors.unknown('split', split, prepared.splits)
    raise errors.DataError(f'{prepared.name}: {message}')
  skip = {prepared.image_key: tfds.decode.SkipDecoding()}
  with blaming(f'{prepared.name} {split}', prepared.folder):
    return _builder(prepared.folder).as_data_source(split=split, decoders=skip)


def shards(prepared: Prepared, split: str) -> list[tuple[pathlib.Path, int]]:
  """(file, number of records) of a split, in order."""
  info = _builder(prepared.folder).info.splits[split]
  return list(zip(map(pathlib.Path, info.filepaths), info.shard_lengths))


def place_of(prepared: Prepared, split: str, number: int) -> str:
  """Where the record of a number lies, for messages: 'record 3 of FILE'."""
  for path, length in shards(prepared, split):
    if number < length:
      return f'record {number} of {path.name}'
    number -= length
  raise IndexError(number)


def arrays(
  prepared: Prepared,
  split: str,
  resolution: int | None,
  decode: Callable[[], Arrays],
) -> Arrays:
  """(images, labels) of a split: as they are kept, or decoded and then kept.

  Args:
    prepared: the set.
    split: its name.
    resolution: pixels of a side; None leaves the images as they are.
    decode: makes them.

  Raises:
    DataError: no such split, or a damaged one.
  """
  source(prepared, split)  # says it if there is no such split
  with blaming(f'{prepared.name} {split}', prepared.folder):
    made_of = _fingerprint(file for file, _ in shards(prepared, split))
  path = _cache_file(prepared, split, resolution)
  cached = _cached(path, made_of)
  if cached is not None:
    return cached
  images, labels = decode()
  if images.nbytes >= _SMALLEST:
    _keep(path, images=images, labels=labels, made_of=made_of)
  return images, labels


@contextlib.contextmanager
def blaming(what: str, place: pathlib.Path) -> Iterator[None]:
  """Says of what TFDS and array_record raise which data it is about."""
  try:
    yield
  except errors.Failure:
    raise
  except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
    raise errors.DataError(
      f'cannot read {what} in {place}: {errors.first_line(error)}; it must be '
      'whole, and prepared as array_record'
    ) from error


def _versions(above: pathlib.Path) -> list[pathlib.Path]:
  """Folders of versions that hold a set, the newest last."""
  if not above.is_dir():
    return []
  found = [
    p
    for p in above.iterdir()
    if _VERSION.fullmatch(p.name) and (p / 'dataset_info.json').is_file()
  ]
  return sorted(found, key=lambda p: tuple(map(int, p.name.split('.'))))


def _json(path: pathlib.Path) -> dict[str, Any]:
  try:
    facts = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise errors.DataError(f'cannot read {path}: {error}') from error
  if not isinstance(facts, dict):
    raise errors.DataError(f'{path} holds no dataset')
  return facts


def _builder(place: pathlib.Path):
  # Imported late: it takes a second, and only reading needs it.
  import tensorflow_datasets as tfds

  return tfds.builder_from_directory(str(place))


def _features(name: str, info: Any) -> tuple:
  """(image_key, label_key, shape, class_names) of a set."""
  import tensorflow_datasets as tfds

  features = dict(info.features)
  pairs = [tuple(info.supervised_keys or ()), ('image', 'label')]
  for pair in pairs:
    if len(pair) != 2 or not set(pair) <= features.keys():
      continue
    image, label = (features[key] for key in pair)
    if isinstance(image, tfds.features.Image) and isinstance(
      label, tfds.features.ClassLabel
    ):
      return *pair, tuple(image.shape), _class_names(label)
  raise errors.DataError(
    f'{name} is no set of images with one label each; it has '
    f'{", ".join(features)}'
  )


def _class_names(label: Any) -> tuple[str, ...]:
  return tuple(map(str, label.names or range(label.num_classes)))


def _fingerprint(files: Iterable[pathlib.Path]) -> str:
  """Name, size and time of change of each file, as JSON."""
  stats = [(path.name, path.stat()) for path in files]
  facts = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
  return json.dumps([_CACHE, facts])


def _cache_file(prepared, split, resolution) -> pathlib.Path:
  asked = os.environ.get('BN_JAX_CACHE_DIR')
  version = prepared.folder
  name = f'{split}-{resolution or "full"}.npz'
  if not asked:
    return version / 'decoded' / name
  return pathlib.Path(asked).expanduser() / prepared.name / version.name / name


def _cached(path: pathlib.Path, made_of: str) -> Arrays | None:
  """What a whole and current file holds, else None."""
  damaged = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
  with (
    contextlib.suppress(*damaged),
    path.open('rb') as stream,
    np.load(stream, allow_pickle=False) as file,
  ):
    if str(file['made_of']) == made_of:
      return file['images'], file['labels']
  return None


def _keep(path: pathlib.Path, **arrays: Any) -> None:
  """Writes a file whole, or not at all."""
  new = path.with_name(f'{path.name}.{os.getpid()}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with new.open('wb') as file:
      np.savez(file, **arrays)
    new.replace(path)
  except OSError:  # a folder that others own, a full disk: it is only a cache
    with contextlib.suppress(OSError):
      new.unlink()
