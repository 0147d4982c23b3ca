"""A first look at a dataset: its labels, and some images of each class."""

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bn_jax import errors
from bn_jax.data.disk import store

# A split within both limits is counted: it takes about 1 s (70,000 labels/s).
_COUNTED = 100_000  # examples
_COUNTED_BYTES = 256 * 2**20
_SAMPLED_BYTES = 512 * 2**20  # read of a larger split, to find images
_CHUNK = 64  # records read together


class Glance(NamedTuple):
  """What was seen.

  Attributes:
    split: 'train', or the first one where there is none.
    images: class -> its first images, as PIL decodes them.
    counts: examples of each class; None if the split is large.
    looked_at: how many examples were looked at for it.
  """

  split: str
  images: dict[int, list[Any]]
  counts: np.ndarray | None
  looked_at: int


def at(prepared: store.Prepared, *, classes: int, each: int) -> Glance:
  """A look at the first classes of a prepared set, `each` images of them.

  Raises:
    DataError: it is damaged.
  """
  if not prepared.splits:
    raise errors.DataError(f'{prepared.name} in {prepared.folder} has no split')
  split = 'train' if 'train' in prepared.splits else next(iter(prepared.splits))
  source = store.source(prepared, split)
  wanted = range(min(classes, prepared.num_classes))
  found = {number: [] for number in wanted}
  counts = np.zeros(prepared.num_classes, int)
  looked_at = 0
  whole = _quick(prepared, split)
  with store.blaming(f'{prepared.name} {split}', prepared.folder):
    for positions in _order(prepared, split, whole):
      labels = _labels(source, prepared.label_key, positions)
      looked_at += len(positions)
      if labels.max(initial=0) >= prepared.num_classes:
        raise errors.DataError(
          f'{prepared.name} {split} has the label {labels.max()}; allowed: 0 '
          f'to {prepared.num_classes - 1}'
        )
      # A test split may hide its labels: -1.
      np.add.at(counts, labels[labels >= 0], 1)
      for position, label in zip(positions, labels):
        if label in found and len(found[label]) < each:
          found[label].append(position)
      if not whole and all(len(x) == each for x in found.values()):
        break
  images = {
    number: [_decoded(prepared, split, source, p) for p in positions]
    for number, positions in found.items()
  }
  return Glance(split, images, counts if whole else None, looked_at)


def size(prepared: store.Prepared, split: str) -> int:
  """Bytes of a split on disk."""
  with store.blaming(f'{prepared.name} {split}', prepared.folder):
    files = store.shards(prepared, split)
    return sum(path.stat().st_size for path, _ in files)


def _quick(prepared: store.Prepared, split: str) -> bool:
  count = prepared.splits[split]
  return count <= _COUNTED and size(prepared, split) <= _COUNTED_BYTES


def _order(prepared, split, whole) -> Iterator[range]:
  """Positions to look at, some at a time: all, or a sample spread evenly.

  A set may be sorted by class, so the first records alone would not do.
  """
  count = prepared.splits[split]
  chunks = [
    range(start, min(start + _CHUNK, count))
    for start in range(0, count, _CHUNK)
  ]
  if not whole:
    share = min(1.0, _SAMPLED_BYTES / max(1, size(prepared, split)))
    order = np.random.default_rng(0).permutation(len(chunks))
    chunks = [chunks[i] for i in order[: max(1, round(share * len(chunks)))]]
  yield from chunks


def _labels(source: Any, label_key: str, positions: range) -> np.ndarray:
  """Labels alone: six times as fast as records with their images."""
  import tensorflow_datasets as tfds

  label = source.dataset_info.features[label_key]
  features = tfds.features.FeaturesDict({label_key: label})
  raw = source.data_source.__getitems__(list(positions))
  read = features.deserialize_example_np
  return np.array([read(record)[label_key] for record in raw], int)


def _decoded(prepared, split, source, position) -> Any:
  from PIL import Image

  record = source[position]
  try:
    image = Image.open(io.BytesIO(record[prepared.image_key]))
    image.load()
  except (OSError, ValueError, SyntaxError) as error:
    raise errors.DataError(
      f'cannot read the image of {store.place_of(prepared, split, position)} '
      f'in {prepared.folder}: {error}'
    ) from error
  return image
