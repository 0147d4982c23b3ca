"""Bytes out of an archive: in memory, and never more than are expected.

Nothing is extracted to disk, so that no archive can write where it wants.
"""

import contextlib
import gzip
import pathlib
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping

from bn_jax import errors

_TEXT_BYTES = 2**16  # more than any list of names has
_SKIPPED_BYTES = 2**30  # a tar that has more beside its records is a bomb


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
  found, skipped = {}, 0
  with blaming(path), tarfile.open(path, 'r:gz') as tar:
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
      found[name] = tar.extractfile(info).read()
  for name in (*sizes, *texts):
    if name not in found:
      raise errors.DataError(f'{path} holds no {name}')
  return found


def gunzipped(path: pathlib.Path, *, size: int) -> bytes:
  """The first bytes of a gzipped file, `size` of them where it has so many.

  Raises:
    DataError: it is damaged.
  """
  with blaming(path), gzip.open(path, 'rb') as file:
    return file.read(size)


@contextlib.contextmanager
def blaming(path: pathlib.Path) -> Iterator[None]:
  """Says of what tarfile, gzip and zlib raise which archive it is about."""
  try:
    yield
  except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
    raise errors.DataError(
      f'cannot read {path}: {error}; it is damaged: download it again'
    ) from error
