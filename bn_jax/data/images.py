"""Makes a Source of a set of examples, in memory or streamed.

They are images with labels or, of a user's own, vectors, or with targets.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, errors, types
from bn_jax.data import origins, reading, selection
from bn_jax.data.batches import augment, examples, in_memory, order, streamed
from bn_jax.data.disk import facts, levels, sets


def make(
  name: str | sets.Set,
  *,
  data_dir: str | os.PathLike | None = None,
  resolution: int | None = None,
  classes: Sequence[int] = (),
  subset: int | None = None,
  label_noise: float = 0.0,
  selection_seed: int = 0,
  binarize: float | None = None,
  crop_padding: int = 0,
  flip: bool = False,
  photometric: float = 0.0,
  fixed_batches: bool = False,
  streaming: bool | None = None,
  crop_area: Sequence[float] = (0.08, 1.0),
  crop_aspect: Sequence[float] = (0.75, 4 / 3),
  workers: int = 0,
  max_skipped: int = 0,
  test_share: float | None = None,
  seed: int = 0,
  mean: Sequence[float] = (),
  std: Sequence[float] = (),
) -> examples.Source:
  """Returns the set of examples called `name`, without decoding it yet.

  Args:
    name: a key of `facts.KNOWN`, any set in the data_dir, a user's own (see
      `own`), or a set that is opened already.
    data_dir: of TFDS; None is TFDS_DATA_DIR or ~/tensorflow_datasets.
    resolution: pixels of a side; None leaves the images as they are.
    classes, subset, label_noise, selection_seed: see `selection.make`.
    binarize: share of white, 0 to below 1, above which a pixel is 1, else 0;
      None keeps the grey levels.
    crop_padding, flip, photometric: of training images, see `augment.make`.
    fixed_batches: whether every epoch has the same batches, in a new order;
      see `order`.
    streaming: whether images are read while training; None: if their sizes
      differ, or a folder decodes to more than 2 GiB, and neither `binarize`
      nor a selection needs them in memory.
    crop_area, crop_aspect: smallest and largest share of the area, and width /
      height, of a streamed training image's random crop (`crops.random_box`).
    workers: number of processes that read a stream; 0 reads in threads.
    max_skipped: number of damaged records of a stream that may be left out.
    test_share, seed: of examples held out, see `held_out.of`.
    mean, std: of each channel, see `moments`.

  Raises:
    ValueError: an unknown name, or a keyword out of its range.
    DataError: the set in the data_dir cannot be used.
  """
  origin = origins.find(name, data_dir, test_share, seed)
  name, original = origin.name, origin.facts
  choice = selection.make(
    num_classes=max(2, original.num_classes), classes=classes, subset=subset,
    label_noise=label_noise, seed=selection_seed,
  )  # fmt: skip
  _check(name, original, resolution, binarize, choice)
  changes = {'crop_padding': crop_padding, 'flip': flip}
  augmentation = augment.make(photometric=photometric, **changes)
  _check_white(name, original, binarize, augmentation)
  constants = moments(original, mean, std, binarize)
  checks.flag('fixed_batches', fixed_batches)
  _check_vectors(
    origin, resolution=resolution, binarize=binarize, photometric=photometric,
    streaming=streaming, mean=tuple(mean) or None, **changes,
  )  # fmt: skip
  # Checked even if the set is not streamed, so that no wrong value passes.
  settings = streamed.settings(
    resolution=resolution or original.shape[0], crop_area=crop_area,
    crop_aspect=crop_aspect, workers=workers, max_skipped=max_skipped,
    fixed_batches=fixed_batches,
  )  # fmt: skip
  if not _streams(streaming, binarize, choice, origin, resolution):
    return _in_memory(
      origin, resolution, choice, binarize, augmentation, fixed_batches,
      constants,
    )  # fmt: skip
  _check_stream(name, original, choice, resolution, binarize)
  return _streamed(origin, settings, augmentation, constants)


def _streams(streaming, binarize, choice, origin, resolution) -> bool:
  """Returns whether images are read while training."""
  checks.flag('streaming', streaming, also=(None,))
  if streaming is not None:
    return streaming
  may_stream = binarize is None and choice == selection.NONE
  return may_stream and origin.is_large(resolution)


def moments(
  original: facts.Facts,
  mean: Sequence[float],
  std: Sequence[float],
  binarize: float | None = None,
) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns (mean, std) of each channel, by which images are normalised.

  They are in grey levels, [C] float32, as of weights that others have trained.
  None, where none are given, is for those of the training images, or for
  ImageNet's where images are streamed.

  Raises:
    ValueError: another number of them, or one without the other.
  """
  channels = original.shape[-1]
  for keyword, values, is_item, allowed in (
    ('mean', mean, checks.is_number, 'numbers'),
    ('std', std, lambda x: checks.is_number(x) and x > 0, 'numbers above 0'),
  ):
    checks.sequence(keyword, values, is_item, f'(), or {channels} {allowed}')
    if len(values) not in (0, channels) or not np.isfinite(values).all():
      raise checks.Refused(keyword, values, f'(), or {channels} {allowed}')
  if bool(mean) != bool(std):
    raise ValueError(
      f'mean is {checks.shown(mean)}, std is {checks.shown(std)}; give both or '
      'none'
    )
  if not mean:
    return None
  if binarize is not None:
    raise ValueError(
      f'mean is {checks.shown(mean)}, and binarize {binarize}: pixels are then '
      '0 and 1; give none'
    )
  return np.array(mean, np.float32), np.array(std, np.float32)


def _check_vectors(origin: origins.Origin, **keywords: Any) -> None:
  """Raises ValueError for a keyword of images where inputs are vectors."""
  for keyword, value in keywords.items():
    if len(origin.facts.shape) == 1 and value not in (None, False, 0):
      raise ValueError(
        f'{keyword} is {checks.shown(value)}, and {origin.name} holds vectors; '
        'it is for images: give none'
      )


def _check_stream(name, original, choice, resolution, binarize) -> None:
  """Raises ValueError for a set, or settings, that cannot be streamed."""
  if binarize is not None or choice != selection.NONE:
    raise ValueError(
      'classes, subset, label_noise, selection_seed and binarize are for sets '
      'in memory; give streaming=False'
    )
  if original.shape[2] not in (1, 3):
    raise ValueError(
      f'the images of {name} have {original.shape[2]} channels; allowed in a '
      'stream: 1 or 3; give streaming=False'
    )
  if levels.WHITES[original.dtype] is None:
    raise ValueError(
      f'the images of {name} are {original.dtype}, without a white; allowed in '
      f'a stream: {_with_white()}; give streaming=False'
    )
  if resolution is None and original.shape[0] != original.shape[1]:
    raise ValueError(
      f'the images of {name} are not square; give resolution, pixels of a side'
    )


def _check(name, original, resolution, binarize, choice) -> None:
  checks.count('resolution', resolution, also=(None,))
  if resolution is None and None in original.shape:
    raise ValueError(
      f'the images of {name} differ in size; give resolution, pixels of a '
      'side, such as 224'
    )
  checks.number('binarize', binarize, least=0, below=1, also=(None,))
  if not original.classifies and (choice.classes or choice.label_noise):
    raise ValueError(
      f'{name} has targets, and no labels; allowed: classes=(), label_noise=0'
    )


def _check_white(name, original, binarize, augmentation) -> None:
  """Raises ValueError for a keyword that these images cannot have."""
  keyword = _needs_white(binarize, augmentation)
  if keyword and levels.WHITES[original.dtype] is None:
    raise ValueError(
      f'the images of {name} are {original.dtype}, without a white; allowed '
      f'with {keyword}: {_with_white()}'
    )
  if augmentation.photometric and original.shape[2] not in (1, 3):
    raise ValueError(
      f'photometric is {augmentation.photometric}, and the images of {name} '
      f'have {original.shape[2]} channels; allowed: 1 (grey) or 3 (red, green, '
      'blue)'
    )


def _needs_white(binarize, augmentation) -> str | None:
  """Returns the keyword that counts on pixels between black and white."""
  if binarize is not None:
    return 'binarize'
  return 'photometric' if augmentation.photometric else None


def _with_white() -> str:
  return ', '.join(name for name, white in levels.WHITES.items() if white)


def _in_memory(
  origin, resolution, choice, binarize, augmentation, fixed_batches, constants
) -> examples.Source:
  name, original = origin.name, origin.facts
  num_train, num_test = _counts(origin, choice)
  shape = original.shape
  if resolution:
    shape = (resolution, resolution, shape[2])
  sizes = original._replace(
    shape=shape,
    num_classes=len(choice.classes) or original.num_classes,
    num_train=num_train,
    num_test=num_test,
    dtype='uint8' if binarize is not None else original.dtype,
  )

  def load() -> examples.Dataset:
    splits = reading.read(
      origin.opened(),
      original,
      resolution=resolution,
      choice=choice,
      binarize=binarize,
      white_for=_needs_white(binarize, augmentation),
    )
    if constants:
      mean, std = map(jnp.asarray, constants)
      splits = (split._replace(mean=mean, std=std) for split in splits)
    return examples.Dataset(*map(in_memory.Resident, splits))

  return examples.Source(
    facts=sizes,
    load=load,
    shapes=lambda batch_size: shapes(sizes, num_train),
    sampler=_sampler(
      functools.partial(order.sampler, fixed_batches=fixed_batches),
      name,
      sizes,
      augmentation,
    ),
    record=origin.record,
  )


def _counts(origin: origins.Origin, choice) -> tuple[int, int]:
  """Returns the numbers of the selected training and test examples."""
  train, test = origin.facts.num_train, origin.facts.num_test
  if choice.classes:
    train, test = (
      len(selection.of_classes(choice, origin.labels(split))[1])
      for split in ('train', origin.facts.test_split)
    )
  if not test:
    raise ValueError(
      f'classes is {list(choice.classes)}; the test split of {origin.name} has '
      'none of them: give others'
    )
  selection.of_subset(choice, train)  # raises if the subset is too large
  return choice.subset or train, test


def _streamed(origin, settings, augmentation, constants) -> examples.Source:
  original = origin.facts
  sizes = original._replace(
    shape=(settings.size, settings.size, original.shape[2])
  )
  return examples.Source(
    facts=sizes,
    load=lambda: streamed.load(origin.opened(), original, settings, constants),
    shapes=lambda batch_size: shapes(sizes, batch_size),
    sampler=_sampler(order.of_batches, origin.name, sizes, augmentation),
    record=origin.record,
    streams=True,
  )


def shapes(sizes: facts.Facts, count: int) -> types.Split:
  """Returns the shapes of a split of `count` examples of these sizes."""
  channels = jax.ShapeDtypeStruct(sizes.shape[-1:], jnp.float32)
  return types.Split(
    images=jax.ShapeDtypeStruct(
      (count, *sizes.shape), levels.kept(sizes.dtype)
    ),
    labels=(
      jax.ShapeDtypeStruct((count,), jnp.int32)
      if sizes.classifies
      else jax.ShapeDtypeStruct((count, sizes.num_classes), jnp.float32)
    ),
    mean=channels,
    std=channels,
  )


def _sampler(
  sampler_of, name, sizes: facts.Facts, augmentation: augment.Augmentation
):
  """Returns batch size -> sampler, from the constructor `sampler_of`."""

  def of_size(batch_size: int) -> types.Sampler:
    if name not in facts.KNOWN and batch_size > sizes.num_train:
      raise errors.DataError(
        f'{name} has {sizes.num_train} examples to train on, fewer than one '
        f'batch of {batch_size}; give a smaller batch_size'
      )
    return sampler_of(
      num_examples=sizes.num_train,
      batch_size=batch_size,
      augmentation=augmentation,
    )

  return of_size
