"""Decoded splits, kept beside the set so that they are decoded once.

One uncompressed .npz a split and resolution, in the folder of the set's version
(or below BN_JAX_CACHE_DIR, where that is set). Its parts carry checksums, and
it names the files that it was made of, so that neither a damaged nor an
outdated one is used. Where the folder cannot be written, nothing is kept.
"""

import contextlib
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

from bn_jax.data.disk import store

Arrays = tuple[np.ndarray, np.ndarray]
_FORMAT = 1
_SMALLEST = 2**24  # bytes; less is decoded faster than a file is worth


def arrays(
  prepared: store.Prepared,
  split: str,
  resolution: int | None,
  decode: Callable[[], Arrays],
) -> Arrays:
  """(images, labels) of a split: from the cache, or decoded and put there.

  Args:
    prepared: the set.
    split: its name.
    resolution: pixels of a side; None leaves the images as they are.
    decode: makes them.
  """
  path = _path(prepared, split, resolution)
  store.source(prepared, split)  # says it if there is no such split
  with store.blaming(f'{prepared.name} {split}', prepared.folder):
    made_of = fingerprint(file for file, _ in store.shards(prepared, split))
  found = _read(path, made_of)
  if found is None:
    found = decode()
    if found[0].nbytes >= _SMALLEST:
      _write(path, made_of, found)
  return found


def fingerprint(files: Sequence[pathlib.Path]) -> str:
  """Name, size and time of change of each file, as JSON."""
  stats = [(path.name, path.stat()) for path in files]
  facts = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
  return json.dumps([_FORMAT, facts])


def _path(prepared, split, resolution) -> pathlib.Path:
  asked = os.environ.get('BN_JAX_CACHE_DIR')
  version = prepared.folder
  name = f'{split}-{resolution or "full"}.npz'
  if not asked:
    return version / 'decoded' / name
  return pathlib.Path(asked).expanduser() / prepared.name / version.name / name


def _read(path: pathlib.Path, made_of: str) -> Arrays | None:
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


def _write(path: pathlib.Path, made_of: str, found: Arrays) -> None:
  """Writes a file whole, or not at all."""
  new = path.with_name(f'{path.name}.{os.getpid()}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with new.open('wb') as file:
      np.savez(file, images=found[0], labels=found[1], made_of=made_of)
    new.replace(path)
  except OSError:  # a folder that others own, a full disk: it is only a cache
    with contextlib.suppress(OSError):
      new.unlink()
