"""What a set of examples is to training, wherever its images lie."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, Self

import jax

from bn_jax import types
from bn_jax.data.disk import facts as facts_lib


class Feed(Protocol):
  """Hands a training step what it draws its batch from, step by step."""

  def start(self, *, seed: int, first_step: int) -> None:
    """Goes to the step that comes next, of a run with a seed."""

  def peek(self) -> types.Split:
    """What the next step takes; it stays the next one."""

  def take(self) -> types.Split:
    """What the next step takes; the one after it is then the next."""

  def close(self) -> None:
    """Ends whatever reads ahead."""


class Examples(Protocol):
  """One split of a dataset."""

  num_examples: int

  def placed(self, sharding: jax.sharding.Sharding) -> Self:
    """The same examples, for devices that each hold all of what a step sees."""

  def feed(self, batch_size: int) -> Feed:
    """Feeds training with batches of a size."""

  def first(self, count: int) -> types.Batch:
    """The first so many examples, as one batch."""

  def batches(self, batch_size: int) -> Iterator[types.Batch]:
    """All of it in order, each example once; the last batch is padded."""

  def crops(self, batch_size: int, count: int) -> Iterator[types.Batch]:
    """The same in so many crops an example, which stand side by side.

    A batch is [batch_size * count, ...], labels and mask with it.
    """


class Dataset(NamedTuple):
  """A dataset: what is trained on and what is tested on."""

  train: Examples
  test: Examples


class Source(NamedTuple):
  """A dataset that can be read.

  Attributes:
    facts: its sizes, as a network and a sampler see it.
    load: reads it.
    shapes: batch size -> the shapes of what a training step takes.
    sampler: batch size -> how a step draws its batch from that.
  """

  facts: facts_lib.Facts
  load: Callable[[], Dataset]
  shapes: Callable[[int], types.Split]
  sampler: Callable[[int], types.Sampler]
