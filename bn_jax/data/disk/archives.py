"""Downloads, checks and unpacks the archives of datasets.

The checksum lists of tensorflow-datasets have the addresses, sizes, sha256 and
file names of archives. An archive is unpacked in memory, up to the expected
size, and never to disk, where it could write files anywhere.
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
_SECONDS = 60  # a server that is silent for longer counts as gone
_TEXT_BYTES = 2**16  # no list of class names is as long
# Bytes of other files in a tar: the real archives have some kilobytes, so more
# than 1 GiB is a decompression bomb.
_SKIPPED_BYTES = 2**30


class Archive(NamedTuple):
  """A published file.

  Attributes:
    url: address from which it is downloaded.
    size: in bytes.
    sha256: digest, in hexadecimal.
    name: of the file on disk.
  """

  url: str
  size: int
  sha256: str
  name: str

  def __str__(self) -> str:
    return f'{self.name} ({self.url}, {self.size:,} bytes)'


def known(name: str) -> tuple[Archive, ...]:
  """Returns the archives of a set, from tensorflow-datasets' checksum list."""
  lists = importlib.resources.files('tensorflow_datasets') / 'url_checksums'
  lines = (lists / f'{name}.txt').read_text().splitlines()
  rows = [line.split('\t') for line in lines if line.strip()]
  return tuple(Archive(url, int(n), sha, file) for url, n, sha, file in rows)


def given(
  archives: Iterable[Archive], folder: str | os.PathLike
) -> dict[str, pathlib.Path]:
  """Returns name -> path of the archives that the user put into a folder.

  Raises:
    DataError: an archive is missing, or differs from the published one.
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
  """Downloads the archives that a folder lacks; returns name -> path of all.

  A download gets its name once it is complete and has the published digest.

  Raises:
    DataError: an archive cannot be downloaded, or differs from the published
      one.
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
  """Reads files in a gzipped tar; returns name -> bytes.

  Args:
    sizes: name -> size in bytes that the file must have.
    texts: names of short texts, which may have any size up to 64 KiB.

  Raises:
    DataError: the tar is damaged, lacks a file, or has one of another size or
      more than 1 GiB of others.
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
  """Returns the first `size` bytes of a gzipped file, or all if it has fewer.

  Raises:
    DataError: the file cannot be read, or is damaged.
  """
  with _blaming(path), gzip.open(path, 'rb') as file:
    return file.read(size)


@contextlib.contextmanager
def _blaming(path: pathlib.Path) -> Iterator[None]:
  """Turns errors of tarfile, gzip and zlib into a DataError with the path."""
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
  descriptor, part = tempfile.mkstemp('.part', f'{archive.name}.', path.parent)
  part_path = pathlib.Path(part)
  try:
    with open(descriptor, 'wb') as file:
      for block in _reported(_blocks(archive), archive, say):
        file.write(block)
    check(part_path, archive)
    part_path.rename(path)
  finally:
    part_path.unlink(missing_ok=True)
  return path


def _blocks(archive: Archive) -> Iterator[bytes]:
  """Yields the bytes at an archive's address, one block too many at most."""
  request = urllib.request.Request(
    archive.url, headers={'User-Agent': 'bn_jax'}
  )
  remaining = archive.size
  try:
    with urllib.request.urlopen(request, timeout=_SECONDS) as response:
      while remaining >= 0 and (block := response.read(_BLOCK)):
        remaining -= len(block)
        yield block
  except (OSError, http.client.HTTPException) as error:
    # The message of a URLError is in its reason.
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    raise errors.DataError(
      f'cannot download {archive.url}: {reason}; download it by hand, and give '
      f'its folder with --manual_dir=DIR (as {archive.name}, '
      f'{archive.size:,} bytes)'
    ) from error


def _reported(blocks, archive, say) -> Iterator[bytes]:
  """Yields the blocks, and says how far they are at each tenth."""
  say(f'downloading {archive}')
  size = reported_tenths = 0
  for block in blocks:
    yield block
    size += len(block)
    tenths = min(10, 10 * size // max(1, archive.size))
    if tenths > reported_tenths:
      reported_tenths = tenths
      say(f'{archive.name}: {10 * tenths} %')
