"""Finds where examples are from: a set of TFDS, or a user's own data."""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bn_jax import checks
from bn_jax.data import reading
from bn_jax.data.disk import facts as facts_lib
from bn_jax.data.disk import folders, held_out, identity, levels, own, sets

# Bytes of decoded images above which a folder is streamed.
_LARGEST = 2**31


class Origin(NamedTuple):
  """Where the examples are from.

  Attributes:
    name: of the set, for messages.
    facts: its sizes, before selection and resizing.
    opened: opens it.
    labels: split -> labels, [N] int32, or targets, [N, K].
    record: see `examples.Source`.
    is_folder: whether it is a folder of images.
  """

  name: str
  facts: facts_lib.Facts
  opened: Callable[[], sets.Set]
  labels: Callable[[str], np.ndarray]
  record: dict[str, Any]
  is_folder: bool

  def is_large(self, resolution: int | None) -> bool:
    """Returns whether images are rather streamed than kept in memory."""
    shape = self.facts.shape
    if None in shape or not self.is_folder:
      return None in shape
    pixels = resolution**2 if resolution else shape[0] * shape[1]
    count = self.facts.num_train + self.facts.num_test
    size = levels.kept(self.facts.dtype).itemsize
    return count * pixels * shape[-1] * size > _LARGEST


def find(
  name: str | sets.Set,
  data_dir: str | os.PathLike | None,
  test_share: float | None,
  seed: int,
) -> Origin:
  """Finds the facts of a set of TFDS, or opens a user's own data.

  Args:
    name, data_dir, test_share, seed: see `images.make`.

  Raises:
    ValueError: an unknown name, or a share where there is a test split.
    DataError: the set cannot be used.
  """
  checks.number('test_share', test_share, above=0, below=1, also=(None,))
  checks.whole('seed', seed)
  if not isinstance(name, str):
    if not hasattr(name, 'splits'):
      raise checks.Refused('name', name, 'the name of a set')
    base = name
  elif own.is_own(name):
    base = own.opened(name)
  elif test_share is None or name in facts_lib.KNOWN:
    if test_share is not None:
      held_out.refuse(name, test_share, facts_lib.KNOWN[name].test_split)
    return _of_tfds(name, data_dir)
  else:
    base = reading.opened(name, data_dir)
  dataset = held_out.of(base, test_share, seed)
  return Origin(
    dataset.name,
    facts_lib.prepared(dataset),
    lambda: dataset,
    functools.partial(reading.labels, dataset),
    record=identity.record(dataset, test_share, seed),
    is_folder=isinstance(base, folders.Folder),
  )


def _of_tfds(name: str, data_dir: str | os.PathLike | None) -> Origin:
  return Origin(
    name,
    facts_lib.of(name, data_dir),
    functools.partial(reading.opened, name, data_dir),
    functools.partial(_labels, name, str(data_dir or '')),
    record={},
    is_folder=False,
  )


@functools.lru_cache
def _labels(name: str, data_dir: str, split: str) -> np.ndarray:
  return reading.labels(reading.opened(name, data_dir), split)
