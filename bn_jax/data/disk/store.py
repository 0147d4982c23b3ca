"""Opens prepared datasets: folders of tensorflow-datasets, as array_record.

Any set of images with one label each can be read, without TensorFlow: the files
in its folder suffice to open it.

Decoded splits of 16 MiB or more are cached: an uncompressed .npz for each split
and resolution, in the folder of the set's version (or below BN_JAX_CACHE_DIR).
The .npz has checksums and lists the files it was decoded from, so a damaged or
outdated one is not used. If the folder cannot be written, nothing is cached.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax import checks, errors
from bn_jax.data.disk import features, levels, sets

Arrays = tuple[np.ndarray, np.ndarray]
_VERSION = re.compile(r'\d+\.\d+\.\d+')
# Of the format of cached splits, and of the rules by which they are decoded.
CACHE_VERSION = 2
_SMALLEST = 2**24  # bytes: to decode a smaller split takes only a moment


class Prepared(NamedTuple):
  """A dataset that lies in a folder.

  Attributes:
    name: NAME or NAME/CONFIG, as the user wrote it.
    folder: of the newest version.
    image_key, label_key: keys of the image and the label in a record.
    stated: what its features say of an image.
    class_names: by label.
    splits: name -> number of examples.
  """

  name: str
  folder: pathlib.Path
  image_key: str
  label_key: str
  stated: levels.Stated
  class_names: tuple[str, ...]
  splits: dict[str, int]

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  @property
  def shape(self) -> tuple[int | None, int | None, int]:
    return self.stated.shape

  @property
  def classifies(self) -> bool:
    return True

  def records(self, split: str) -> '_Records':
    return _Records(source(self, split).data_source, reader(self))

  def known_labels(self, split: str) -> None:
    """Returns None: labels lie among the images."""

  def place_of(self, split: str, number: int) -> str:
    for path, length in shards(self, split):
      if number < length:
        return f'record {number} of {path.name}'
      number -= length
    raise IndexError(number)

  def size_on_disk(self, split: str) -> int:
    with blaming(f'{self.name} {split}', self.folder):
      return sum(path.stat().st_size for path, _ in shards(self, split))

  def made_of(self, split: str) -> str:
    with blaming(f'{self.name} {split}', self.folder):
      files = [file for file, _ in shards(self, split)]
      return _fingerprint(self, files)

  def digest(self) -> str:
    """Returns the sha256 of version, classes, and names and sizes of shards."""
    with blaming(self.name, self.folder):
      facts = [
        (split, path.name, length, path.stat().st_size)
        for split in self.splits
        for path, length in shards(self, split)
      ]
    content = json.dumps([self.folder.name, self.class_names, facts])
    return hashlib.sha256(content.encode()).hexdigest()

  def cache_file(self, split: str, resolution: int | None) -> pathlib.Path:
    base = os.environ.get('BN_JAX_CACHE_DIR')
    name = f'{split}-{resolution or "full"}.npz'
    if not base:
      return self.folder / 'decoded' / name
    root = pathlib.Path(base).expanduser()
    return root / self.name / self.folder.name / name


class _Records(NamedTuple):
  """The records of a split; see `sets.Records`."""

  source: Any
  reader: Callable[[bytes], sets.Example]

  def __len__(self) -> int:
    return len(self.source)

  def read(self, numbers: Sequence[int]) -> list[sets.Example]:
    return [self.reader(record) for record in self.source.__getitems__(numbers)]


def data_dir(root: str | os.PathLike | None) -> pathlib.Path:
  """Returns `root`, or else TFDS_DATA_DIR, or else ~/tensorflow_datasets.

  Raises:
    ConfigError: the address of a bucket.
    DataError: it begins with ~USER, and there is no such user; or the encoding
      of the locale lacks its letters, so that array_record cannot be told it.
  """
  default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  try:
    checks.path('data_dir' if root else 'TFDS_DATA_DIR', str(root or default))
  except checks.Refused as refusal:
    raise errors.ConfigError(str(refusal)) from refusal
  try:
    path = pathlib.Path(root or default).expanduser()
    str(path).encode()
  except RuntimeError as error:
    raise errors.DataError(
      f'data_dir is {root or default}: {error}; give another path'
    ) from error
  except UnicodeEncodeError as error:
    raise errors.DataError(
      f'data_dir is {path}: the encoding of this locale, '
      f'{sys.getfilesystemencoding()}, lacks letters of it; set PYTHONUTF8=1, '
      'or give another path'
    ) from error
  return path


def folder(name: str, root: str | os.PathLike | None) -> pathlib.Path | None:
  """Returns the folder of the newest version of a set, or None.

  Args:
    name: of the set, or NAME/CONFIG of one that comes in several configs.
    root: the data_dir; None as for `data_dir`.

  Raises:
    DataError: the set lies there in several configs, and `name` has none.
  """
  # An empty name would be the data_dir itself, '..' lie outside of it.
  if any(part.startswith('.') or not part for part in name.split('/')):
    return None
  parent = data_dir(root) / name
  versions = _versions(parent)
  if not versions and parent.is_dir():
    configs = {path.name: _versions(path) for path in sorted(parent.iterdir())}
    configs = {config: paths for config, paths in configs.items() if paths}
    if len(configs) > 1:
      raise errors.DataError(
        f'{name} is in {parent} in several configs; give one of '
        f'{", ".join(f"{name}/{config}" for config in configs)}'
      )
    versions = next(iter(configs.values()), [])
  return versions[-1] if versions else None


def names(root: str | os.PathLike | None) -> list[str]:
  """Returns the names of the sets in a data_dir."""
  parent = data_dir(root)
  if not parent.is_dir():
    return []
  sets = []
  for path in sorted(parent.iterdir()):
    with contextlib.suppress(OSError):  # a folder that others own
      if path.is_dir() and _all_versions(path):
        sets.append(path.name)
  return sets


def meant(name: str) -> str | None:
  """Returns the name of a user's own data of that path, or None."""
  is_csv = name.lower().endswith('.csv') and os.path.isfile(name)
  if os.path.isdir(name) or is_csv:
    return f'folder:{name}'
  return f'{name}.npz' if os.path.isfile(f'{name}.npz') else None


def _all_versions(parent: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders of a set's versions, those of its configs too."""
  configs = [path for path in sorted(parent.iterdir()) if path.is_dir()]
  return _versions(parent) + [v for path in configs for v in _versions(path)]


def opened(name: str, root: str | os.PathLike | None) -> Prepared:
  """Opens the set called `name`.

  Raises:
    DataError: the set is absent, damaged, in another format than array_record,
      or no set of images with one label each.
  """
  version = folder(name, root)
  if version is None:
    own = meant(name)
    hint = f'did you mean {own}? If not, ' if own else ''
    raise errors.DataError(
      f'{name} is not in {data_dir(root)}; {hint}give its folder with '
      f'--data_dir=DIR or TFDS_DATA_DIR, or prepare it: python -m bn_jax data '
      f'prepare {name} --data_dir=DIR'
    )
  return at(name, version)


def at(name: str, version: pathlib.Path) -> Prepared:
  """Opens the set whose version lies in a folder; see `opened` for errors."""
  facts = _json(version / 'dataset_info.json')
  file_format = facts.get('fileFormat') or 'tfrecord'
  if file_format != 'array_record':
    raise errors.DataError(
      f'{name} in {version} was prepared as {file_format}; convert it once '
      'where TensorFlow is installed: python -m '
      'tensorflow_datasets.scripts.convert_format '
      f'--dataset_dir={version} --out_file_format=array_record'
    )
  with blaming(name, version):
    builder = _builder(version)
    splits = {
      split: info.num_examples for split, info in builder.info.splits.items()
    }
    return Prepared(name, version, *features.of(name, builder.info), splits)


def source(prepared: Prepared, split: str) -> Sequence[dict[str, Any]]:
  """Opens the records of a split, indexed by number, with encoded images.

  The `__getitems__` of the result reads many at once; its `data_source` has the
  same records as bytes, for `reader`.

  Raises:
    DataError: the split is absent or damaged.
  """
  import tensorflow_datasets as tfds

  if split not in prepared.splits:
    message = errors.unknown('split', split, prepared.splits)
    raise errors.DataError(f'{prepared.name}: {message}')
  skip = {prepared.image_key: tfds.decode.SkipDecoding()}
  with blaming(f'{prepared.name} {split}', prepared.folder):
    return _builder(prepared.folder).as_data_source(split=split, decoders=skip)


def reader(
  prepared: Prepared,
) -> Callable[[bytes], tuple[bytes | np.ndarray, int]]:
  """Returns bytes of a record -> (the image's file or array, the label)."""
  stated = _builder(prepared.folder).info.features
  return features.reader(stated, prepared.image_key, prepared.label_key)


def shards(prepared: Prepared, split: str) -> list[tuple[pathlib.Path, int]]:
  """Returns (path, number of records) of each shard of a split, in order."""
  info = _builder(prepared.folder).info.splits[split]
  return list(zip(map(pathlib.Path, info.filepaths), info.shard_lengths))


def arrays(
  prepared: sets.Set,
  split: str,
  resolution: int | None,
  decode: Callable[[], Arrays],
) -> Arrays:
  """Returns (images [N, H, W, C], labels [N] int32), cached or decoded.

  Args:
    resolution: pixels of a side of the images; None if they are as on disk.
    decode: reads and decodes the split, if the cache does not have it.

  Raises:
    DataError: the split is absent or damaged.
  """
  prepared.records(split)  # raises if the split is absent
  path = prepared.cache_file(split, resolution)
  if path is None:
    return decode()
  fingerprint = prepared.made_of(split)
  cached = _cached(path, fingerprint)
  if cached is not None:
    return cached
  images, labels = decode()
  if images.nbytes >= _SMALLEST:
    _write(path, images=images, labels=labels, made_of=fingerprint)
  return images, labels


@contextlib.contextmanager
def blaming(what: str, directory: pathlib.Path) -> Iterator[None]:
  """Turns errors of TFDS and array_record into a DataError with this path."""
  try:
    yield
  except errors.Failure:
    raise
  except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
    raise errors.DataError(
      f'cannot read {what} in {directory}: {errors.first_line(error)}; it must '
      'be whole, and prepared as array_record'
    ) from error


def _versions(parent: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders of the versions in a folder, the newest last."""
  if not parent.is_dir():
    return []
  versions = [
    path
    for path in parent.iterdir()
    if _VERSION.fullmatch(path.name) and (path / 'dataset_info.json').is_file()
  ]
  return sorted(versions, key=lambda p: tuple(map(int, p.name.split('.'))))


def _json(path: pathlib.Path) -> dict[str, Any]:
  try:
    facts = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError) as error:
    raise errors.DataError(f'cannot read {path}: {error}') from error
  if not isinstance(facts, dict):
    raise errors.DataError(f'{path} holds no dataset')
  return facts


def _builder(version: pathlib.Path):
  # Imported late: it takes a second, and only reading needs it.
  import tensorflow_datasets as tfds

  return tfds.builder_from_directory(str(version))


def _fingerprint(prepared: Prepared, files: list[pathlib.Path]) -> str:
  """Returns, as JSON, what cached arrays are made of.

  That is name, size and time of change of each file, and what the features say
  of an image: they may be corrected, as from uint8 to uint16.
  """
  stats = [(path.name, path.stat()) for path in files]
  facts = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
  keys = [prepared.image_key, prepared.label_key]
  stated = prepared.stated
  return json.dumps([CACHE_VERSION, stated.shape, stated.dtype, *keys, facts])


def _cached(path: pathlib.Path, fingerprint: str) -> Arrays | None:
  """Returns the arrays in a cache file; None unless it is whole and current."""
  read_errors = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
  with (
    contextlib.suppress(*read_errors),
    path.open('rb') as stream,
    np.load(stream, allow_pickle=False) as file,
  ):
    if str(file['made_of']) == fingerprint:
      return file['images'], file['labels']
  return None


def _write(path: pathlib.Path, **contents: Any) -> None:
  """Writes a cache file completely, or not at all."""
  part = path.with_name(f'{path.name}.{os.getpid()}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open('wb') as file:
      np.savez(file, **contents)
    part.replace(path)
  except OSError:  # a folder that others own, a full disk: it is only a cache
    with contextlib.suppress(OSError):
      part.unlink()
