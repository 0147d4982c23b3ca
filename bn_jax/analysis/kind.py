"""What a measure is, beside its function: one record that all others read.

A new measure is one file with a `KIND`, one line in `analysis.MEASURES`, its
keys in docs/analysis.md and one test: training, `analyze` with its `--plan`
and the page find the rest here. The keywords that measures share are checked
here, too.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax import types

Section = Mapping[str, Any]
# What norms normalise with: the batch's own statistics, or those they keep.
STATISTICS = ('batch', 'running')


class Cost(NamedTuple):
  """Evaluations of one chunk of examples at one look.

  Attributes:
    gradients: of the loss.
    values: of the loss, or passes through the network.
    products: of the Hessian and a vector.
  """

  gradients: int = 0
  values: int = 0
  products: int = 0

  @property
  def in_gradients(self) -> float:
    """As so many gradients: a value is a third of one, a product two."""
    return self.gradients + self.values / 3 + 2 * self.products


@dataclasses.dataclass(frozen=True)
class Kind:
  """One measure, as those see it who bind it to data, cost it or show it.

  It can be called for its `make`.

  Attributes:
    make: keywords -> measure; a config's section has these keywords, and its
      docstring says formula, source, units and shapes.
    title: of its figure on the page, and of what `--help` says.
    quantities: name -> what it is, with its unit, for an axis; of a layer's
      the name after the slash, as in 'conv1/l2'. Those that it may lack too.
    one_batch: whether it looks at exactly one batch; others take any number.
    arrays: whether what it gives is too large for a line of records: it is
      kept in a file a look.
    layers: which names its keyword `layers` takes: 'taps', what enters a
      nonlinearity; or 'all', every layer with parameters.
    cost: (the section, how many layers the network has) -> its evaluations, or
      in words what it evaluates where that is none of them.
    forward: (problem, state, batch, section) -> (function, arguments), one of
      its passes over a batch, to be compiled and timed; None for a measure
      whose `cost` is in gradients of the loss.
  """

  make: Callable[..., types.Measure]
  title: str
  quantities: Mapping[str, str]
  one_batch: bool = True
  arrays: bool = False
  layers: str = 'taps'
  cost: Callable[[Section, int], Cost | str] = lambda section, layers: 'unknown'
  forward: Callable[..., tuple[Callable[..., Any], Sequence[Any]]] | None = None

  def __post_init__(self):
    # A factory to whoever asks inspect, such as the schema of a config.
    object.__setattr__(self, '__signature__', inspect.signature(self.make))

  def __call__(self, **keywords: Any) -> types.Measure:
    return self.make(**keywords)

  def page(self) -> dict[str, Any]:
    """Returns how the page speaks of it, of JSON: it lies beside the numbers.

    So the page of a measure that nobody else has can be drawn by everybody.
    """
    return {'title': self.title, 'quantities': dict(self.quantities)}


def check_choice(keyword: str, given: Any, allowed: Sequence[str]) -> None:
  """Raises ValueError unless a keyword is one of the allowed."""
  if given not in allowed:
    listed = ', '.join(map(repr, allowed))
    raise ValueError(f'{keyword} is {given!r}; allowed: {listed}')


def checked_chunk_size(given: Any, group_size: Any) -> int | None:
  """Examples at a time, None for all; 'auto', not yet resolved, is all.

  Chunks that are groups of batch statistics are as large as these.
  """
  check_group_size(group_size)
  if group_size is not None and given not in (None, 'auto', group_size):
    raise ValueError(
      f'chunk_size is {given!r}, group_size is {group_size}; allowed: the same'
    )
  if given in (None, 'auto'):
    return group_size
  if type(given) is not int or given < 1:
    raise ValueError(
      f"chunk_size is {given!r}; allowed: 1, 2, 3, ..., 'auto' or None"
    )
  return given


def check_group_size(given: Any) -> None:
  """Raises ValueError unless a group size is None, 1, 2, 3, ..."""
  if given is not None and (type(given) is not int or given < 1):
    raise ValueError(f'group_size is {given!r}; allowed: 1, 2, 3, ... or None')


def checked_sizes(
  given: Sequence[float], what: str = 'step sizes'
) -> tuple[float, ...]:
  """Sizes as floats; ValueError unless each is above 0 and finite."""
  try:
    sizes = tuple(float(size) for size in np.atleast_1d(given))
  except (TypeError, ValueError):
    sizes = ()
  if not sizes or not all(0 < size < float('inf') for size in sizes):
    raise ValueError(
      f'{what} are {sizes or given}; allowed: one or more, each above 0 and '
      'finite'
    )
  return sizes
