"""The archives that datasets are made from: which they are, and whether whole.

What is published of them (address, size, sha256, file name) stands in the
checksum lists that come with tensorflow-datasets.
"""

import hashlib
import http.client
import importlib.resources
import os
import pathlib
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from bn_jax import errors

_BLOCK = 2**20  # bytes read at a time
_SECONDS = 60  # that a server may be silent


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
