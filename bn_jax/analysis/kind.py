"""What a measure is, beside its function: one record that all others read.

A new measure is one file with a `KIND`, one line in `analysis.MEASURES`, and
one test: training, `analyze`, `--plan` and the page find the rest here.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bn_jax import types

Section = Mapping[str, Any]


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
