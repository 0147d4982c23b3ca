"""The archives that datasets are made from: to have them whole, to unpack them.

What is published of them (address, size, sha256, file name) stands in the
checksum lists that come with tensorflow-datasets. They are unpacked in memory,
and never more of them than is expected: nothing is extracted to disk, so that
no archive can write where it wants.
"""

import contextlib
import gzip
import hashlib
import http.client
import importlib.resources
import os
import pathlib
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from bn_jax import errors

_BLOCK = 2**20  # bytes read at a time
_SECONDS = 60  # that a server may be silent
_TEXT_BYTES = 2**16  # more than any list of names has
_SKIPPED_BYTES = 2**30  # a tar that has more beside its records is a bomb


class Archive(NamedTuple):
  """A published file.

  Attributes:
    url: its address.
    size: in bytes.
    sha256: its digest, hexadecimal.
    name: under which it is kept.
  """

  url: str
  size: int
  sha256: str
  name: str

  def __str__(self) -> str:
    return f'{self.name} ({self.url}, {self.size:,} bytes)'


def known(name: str) -> tuple[Archive, ...]:
  """The archives of a set of tensorflow-datasets, from its checksum list."""
  lists = importlib.resources.files('tensorflow_datasets') / 'url_checksums'
  lines = (lists / f'{name}.txt').read_text().splitlines()
  fields = [line.split('\t') for line in lines if line.strip()]
  return tuple(Archive(url, int(n), sha, file) for url, n, sha, file in fields)


def given(
  archives: Iterable[Archive], folder: str | os.PathLike
) -> dict[str, pathlib.Path]:
  """name -> path of archives that someone put into a folder.

  Raises:
    DataError: one is missing, or is not the published one.
  """
  folder = pathlib.Path(folder).expanduser()
  paths = {archive.name: folder / archive.name for archive in archives}
  missing = [a for a in archives if not paths[a.name].is_file()]
  if missing:
    raise errors.DataError(
      f'missing in {folder}: {"; ".join(map(str, missing))}; download them '
      'there, under these names'
    )
  for archive in archives:
    check(paths[archive.name], archive)
  return paths


def downloaded(
  archives: Iterable[Archive],
  folder: pathlib.Path,
  say: Callable[[str], None],
) -> dict[str, pathlib.Path]:
  """name -> path of archives in a folder, downloaded where they are not there.

  A file gets its name when it is whole and its digest is the published one.

  Raises:
    DataError: it cannot be had, or is not the published one.
    OSError: the folder cannot be written.
  """
  folder.mkdir(parents=True, exist_ok=True)
  return {a.name: _downloaded(a, folder / a.name, say) for a in archives}


def check(path: pathlib.Path, archive: Archive) -> None:
  """Raises DataError unless a file is, bit by bit, the published archive."""
  digest = hashlib.sha256()
  try:
    size = path.stat().st_size
    with path.open('rb') as file:
      while block := file.read(_BLOCK):
        digest.update(block)
  except OSError as error:
    raise errors.DataError(f'cannot read {path}: {error}') from error
  if (size, digest.hexdigest()) != (archive.size, archive.sha256):
    raise errors.DataError(
      f'{path} is not the archive of {archive.url}: it has {size:,} bytes and '
      f'sha256 {digest.hexdigest()}; published: {archive.size:,} bytes and '
      f'sha256 {archive.sha256}; download it again'
    )


def members(
  path: pathlib.Path, sizes: Mapping[str, int], texts: Collection[str]
) -> dict[str, bytes]:
  """name -> bytes of files in a gzipped tar.

  Args:
    path: of the tar.
    sizes: name -> bytes that a file must have.
    texts: names of short files of any size.

  Raises:
    DataError: it is damaged, lacks one of them, or one has another size.
  """
  contents, skipped = {}, 0
  with _blaming(path), tarfile.open(path, 'r:gz') as tar:
    for info in tar:
      # './a/b' is the same member as 'a/b'.
      name = info.name.removeprefix('./')
      if name not in (*sizes, *texts) or not info.isfile():
        skipped += info.size
        if skipped > _SKIPPED_BYTES:
          raise errors.DataError(
            f'{path}: more than {_SKIPPED_BYTES:,} bytes are not of the dataset'
          )
        continue
      if name in sizes and info.size != sizes[name]:
        raise errors.DataError(
          f'{path}: {name} has {info.size:,} bytes; expected: {sizes[name]:,}'
        )
      if name in texts and info.size > _TEXT_BYTES:
        raise errors.DataError(
          f'{path}: {name} has {info.size:,} bytes; expected: a short text'
        )
      contents[name] = tar.extractfile(info).read()
  for name in (*sizes, *texts):
    if name not in contents:
      raise errors.DataError(f'{path} holds no {name}')
  return contents


def gunzipped(path: pathlib.Path, *, size: int) -> bytes:
  """The first bytes of a gzipped file, `size` of them where it has so many.

  Raises:
    DataError: it is damaged.
  """
  with _blaming(path), gzip.open(path, 'rb') as file:
    return file.read(size)


@contextlib.contextmanager
def _blaming(path: pathlib.Path) -> Iterator[None]:
  """Says of what tarfile, gzip and zlib raise which archive it is about."""
  try:
    yield
  except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
    raise errors.DataError(
      f'cannot read {path}: {error}; it is damaged: download it again'
    ) from error


def _downloaded(archive, path, say) -> pathlib.Path:
  if path.is_file():
    check(path, archive)
    return path
  part, name = tempfile.mkstemp('.part', f'{archive.name}.', path.parent)
  part_path = pathlib.Path(name)
  try:
    with open(part, 'wb') as file:
      for block in _said(_blocks(archive), archive, say):
        file.write(block)
    check(part_path, archive)
    part_path.rename(path)
  finally:
    part_path.unlink(missing_ok=True)
  return path


def _blocks(archive: Archive) -> Iterator[bytes]:
  """The bytes at an address, no more than were published and one block."""
  request = urllib.request.Request(
    archive.url, headers={'User-Agent': 'bn_jax'}
  )
  left = archive.size
  try:
    with urllib.request.urlopen(request, timeout=_SECONDS) as response:
      while left >= 0 and (block := response.read(_BLOCK)):
        left -= len(block)
        yield block
  except (OSError, http.client.HTTPException) as error:
    # URLError says why in its reason, the others in themselves.
    why = error.reason if isinstance(error, urllib.error.URLError) else error
    raise errors.DataError(
      f'cannot download {archive.url}: {why}; download it by hand, and give '
      f'its folder with --manual_dir=DIR (as {archive.name}, '
      f'{archive.size:,} bytes)'
    ) from error


def _said(blocks, archive, say) -> Iterator[bytes]:
  """The same blocks; says at each tenth how far it is."""
  say(f'downloading {archive}')
  done = said = 0
  for block in blocks:
    yield block
    done += len(block)
    tenths = min(10, 10 * done // max(1, archive.size))
    if tenths > said:
      said = tenths
      say(f'{archive.name}: {10 * tenths} %')
