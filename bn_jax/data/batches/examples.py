"""Defines what training needs of a dataset, in memory or streamed."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, Self

import jax

from bn_jax import types
from bn_jax.data.disk import facts as facts_lib


class Feed(Protocol):
  """Gives each training step the split from which it draws its batch."""

  def start(self, *, seed: int, first_step: int) -> None:
    """Makes `first_step` the next step, in the run with this seed."""

  def peek(self) -> types.Split:
    """Returns the split of the next step, without moving on."""

  def take(self) -> types.Split:
    """Returns the split of the next step, and moves on by one step."""

  def close(self) -> None:
    """Ends the threads and processes that read ahead."""


class Examples(Protocol):
  """One split of a dataset."""

  num_examples: int

  def moments(self) -> tuple[Any, Any]:
    """Returns (mean, standard deviation) that inputs are normalised by, [C]."""

  def placed(self, sharding: jax.sharding.Sharding) -> Self:
    """Returns the same examples, whose batches lie on devices as `sharding`."""

  def feed(self, batch_size: int) -> Feed:
    """Returns a feed of batches of this size."""

  def first(self, count: int) -> types.Batch:
    """Returns the first `count` examples, as one batch."""

  def batches(self, batch_size: int) -> Iterator[types.Batch]:
    """Yields all examples once, in order; the last batch is padded."""

  def crops(self, batch_size: int, count: int) -> Iterator[types.Batch]:
    """Yields all examples in order, each as `count` successive crops.

    Inputs, labels and mask of a batch are [batch_size * count, ...].
    """


class Dataset(NamedTuple):
  """The training and the test split of a dataset."""

  train: Examples
  test: Examples


class Source(NamedTuple):
  """A dataset that is not read yet.

  Attributes:
    facts: its sizes, after selection and resizing.
    load: reads it.
    shapes: batch size -> the shapes of the split that a training step gets.
    sampler: batch size -> how a step draws its batch from that split.
    record: what a manifest says of it, as JSON values; {} of sets of TFDS.
    streams: whether it is read while it is used, and not kept in memory.
  """

  facts: facts_lib.Facts
  load: Callable[[], Dataset]
  shapes: Callable[[int], types.Split]
  sampler: Callable[[int], types.Sampler]
  record: Mapping[str, Any] = {}
  streams: bool = False
