"""Describes a measure to other packages, and checks keywords of several.

A new measure is one file with a `KIND`, its import and line in
`analysis.MEASURES`, its keys in docs/analysis.md and one test. Training,
`analyze` with its `--plan` and the page read the rest from its `KIND`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax import checks, errors, plugins, types

Section = Mapping[str, Any]  # a measure's name, data and keywords
# Whose mean and variance norms use: the batch's, or their running averages.
STATISTICS = ('batch', 'running')
EVERY = '*'  # the reference to all checkpoints of a run


class Cost(NamedTuple):
  """How often one look evaluates the loss or network on each chunk of examples.

  Attributes:
    gradients: gradients of the loss.
    values: values of the loss, or passes through the network.
    products: products of the Hessian and a vector.
    vectors: of the size of the parameters, held at once, as a Krylov basis is;
      about, and for the largest block.
  """

  gradients: int = 0
  values: int = 0
  products: int = 0
  vectors: int = 0

  @property
  def in_gradients(self) -> float:
    """Returns the cost in units of a gradient.

    A value costs 1/3, since a backward pass costs two forward passes; a product
    costs 2, as it is the derivative of a gradient.
    """
    return self.gradients + self.values / 3 + 2 * self.products


@dataclasses.dataclass(frozen=True)
class Kind:
  """One measure, for packages that bind it to data, plan it or show it.

  A call of it is a call of `make`.

  Attributes:
    make: keywords -> measure. A config's section has these keywords; `--help`
      shows its docstring: formula, source, units and shapes.
    title: the title of its figure on the page, and in `--help`.
    quantities: {name: its meaning, with its unit, for an axis}, those that only
      some runs have included; 'l2' is the name of 'conv1/l2'.
    caption: what a figure without a file of its own says: formulas and their
      source, in whole sentences.
    ranges: name of a quantity -> the least and the largest that it can be, None
      for no such end: intervals over seeds are not drawn beyond.
    one_batch: whether it looks at exactly one batch; others take any number.
    arrays: whether its result is too large for a line of records; then each
      look is written to a file of its own.
    shown: keywords that only say what the page shows: they change no number.
    layers: which names its keyword `layers` takes: 'taps', the layers that feed
      a nonlinearity; or 'all', every layer with parameters.
    fitted: (section, examples, group size) -> the section for a batch of so
      many examples; raises ValueError for one that it cannot look at. The group
      size is the problem's with the section's statistics, None where all of a
      batch see each other.
    check: (section, problem, shapes of a state) -> None; raises ValueError for
      a section that does not fit the network. `make` has checked the values
      of its keywords; None: there is nothing to check.
    others: section -> references to the other checkpoints that it looks at,
      as '0', '250', 'runs/a/batchnorm/seed1' or 'runs/a/batchnorm/seed1:250';
      '*' is every one of the same run. In training '0' alone is there.
    over: section -> the statistics with which it looks, each in turn, as
      ('batch', 'reset'); (): those that its keyword `statistics` says.
    fewest: section -> how many checkpoints of the run it needs up to that of
      its step, with it, where it looks at every one.
    replaces: (section, layers that feed a nonlinearity) -> those whose
      activations it changes, which a network may forbid; None: it reads them.
    cost: (section, number of layers of the network) -> its evaluations, or
      words for evaluations of another kind.
    of_seeds: keywords -> (problem, mapped, batch_of) -> (states, shared) ->
      what `make`'s measure returns for each seed, one program for all. Each of
      `shared` is a batch of all seeds, or what theirs are drawn from:
      `batch_of(state, one)` is that of a seed. `mapped` compiles a function of
      one seed's state and of what they share for several. None, or a None for
      the keywords: seeds are looked at one after the other.
    forward: (problem, state, batch, section) -> (jitted function, arguments),
      one of its passes over a batch, to be compiled and timed; None for a
      measure whose `cost` is in gradients of the loss, or in words.
  """

  make: Callable[..., types.Measure]
  title: str
  quantities: Mapping[str, str]
  caption: str = ''
  ranges: Mapping[str, tuple[float | None, float | None]] = dataclasses.field(
    default_factory=dict
  )
  one_batch: bool = True
  arrays: bool = False
  shown: Sequence[str] = ()
  layers: str = 'taps'
  cost: Callable[[Section, int], Cost | str] = lambda section, layers: 'unknown'
  forward: Callable[..., tuple[Callable[..., Any], Sequence[Any]]] | None = None
  fitted: Callable[[Section, int, int | None], Section] = (
    lambda section, examples, group_size: section
  )
  replaces: Callable[[Section, Sequence[str]], Sequence[str]] | None = None
  check: Callable[[Section, types.Problem, types.TrainState], None] | None = (
    None
  )
  others: Callable[[Section], Sequence[str]] = lambda section: ()
  fewest: Callable[[Section], int] = lambda section: 1
  of_seeds: Callable[..., Callable[..., Any] | None] | None = None
  over: Callable[[Section], Sequence[str]] = lambda section: ()

  def __post_init__(self):
    # The schema of a config reads the keywords by `inspect.signature`.
    object.__setattr__(self, '__signature__', inspect.signature(self.make))

  def __call__(self, **keywords: Any) -> types.Measure:
    return self.make(**keywords)

  def page(self) -> dict[str, Any]:
    """Returns what a page says of it, as JSON to be written beside the numbers.

    With it a page can be drawn without the measure's code.
    """
    ranges = {name: list(ends) for name, ends in self.ranges.items()}
    return {
      'title': self.title,
      'quantities': dict(self.quantities),
      **({'caption': self.caption} if self.caption else {}),
      **({'ranges': ranges} if ranges else {}),
    }


def kind_of_user(reference: str) -> Kind:
  """Returns the kind of a user's measure; of a function a general one.

  Raises:
    ConfigError: there is none, or its module fails.
  """
  function = plugins.constructor(reference)
  if isinstance(function, Kind):
    make = _of_user(reference, function.make, is_alike=not function.arrays)
    return dataclasses.replace(function, make=make)
  module, _, name = reference.partition(':')
  words = module.rpartition('.')[2] if name == 'make' else name
  return Kind(
    make=_of_user(reference, function),
    title=words.strip('_').replace('_', ' ').capitalize(),
    quantities={},  # the page then shows their names
    one_batch=False,
  )


def _of_user(
  reference: str, function: Callable[..., types.Measure], is_alike: bool = True
) -> Callable[..., types.Measure]:
  """Returns a user's function with its results checked.

  Args:
    is_alike: whether all looks must return the same names and shapes, which
      are to be lines of one file.
  """

  @functools.wraps(function)
  def make(**keywords):
    measure = plugins.call(reference, function, **keywords)
    if isinstance(measure, Kind) or not callable(measure):
      raise ValueError(
        f'{reference} returned {checks.shown(measure)}; it must return a '
        'measure: a function (problem, state, batches) -> a dict of arrays'
      )
    extras = [k for k in ('journal', 'states') if plugins.takes(measure, k)]
    shapes = {}  # of the first look

    def look(problem, state, batches, journal=None, states=None):
      every = {'journal': journal, 'states': states}
      more = {name: every[name] for name in extras}
      try:
        values = plugins.call(
          reference, measure, problem, state, batches, **more
        )
      except ValueError as error:  # it is no bug of ours
        raise errors.ConfigError(str(error)) from error
      if not _are_values(values):
        raise errors.ConfigError(
          f'the measure of {reference} returned {checks.shown(values)}; it '
          'must return a dict: name -> numbers or an array of them'
        )
      if is_alike:
        _check_alike(reference, shapes, values)
      return values

    return look

  return make


def _are_values(values: Any) -> bool:
  """Returns whether these are numbers or arrays of them, by name."""
  return isinstance(values, Mapping) and all(
    isinstance(name, str) and np.asarray(value).dtype.kind not in 'OSUMm'
    for name, value in values.items()
  )


def _check_alike(reference: str, shapes: dict, values: Mapping) -> None:
  """Raises ConfigError for other names or shapes than a look had before."""
  new = {name: np.shape(value) for name, value in values.items()}
  shapes = shapes or shapes.update(new) or new
  if new != shapes:
    name = next(
      name for name in {**shapes, **new} if shapes.get(name) != new.get(name)
    )
    old_and_new = (
      f'of shape {one[name]}' if name in one else 'absent'
      for one in (shapes, new)
    )  # fmt: skip
    raise errors.ConfigError(
      f'the measure of {reference} returned {name!r} '
      f'{", then ".join(old_and_new)}; each look must return the same names '
      'and shapes'
    )


def of_one_batch(look: Callable[..., dict[str, Any]]) -> types.Measure:
  """Returns a measure of exactly one batch, from what it does with that.

  Args:
    look: (problem, state, batch, journal or None) -> name -> array; one that
      looks at other checkpoints takes states=None too.
  """

  @functools.wraps(look)  # whose arguments say whether it takes `states`
  def measure(
    problem: types.Problem,
    state: types.TrainState,
    batches: Iterable[types.Batch],
    journal: types.Journal | None = None,
    **states: types.States | None,
  ) -> dict[str, Any]:
    (batch,) = batches
    return look(problem, state, batch, journal, **states)

  return measure


def check_unpadded(batch: types.Batch, examples: int | None = None) -> None:
  """Raises ValueError for a batch with padding, where each example counts.

  Args:
    examples: how many of the first ones count; None: all.
  """
  if batch.mask is None:
    return
  is_padding = ~np.asarray(batch.mask[:examples])
  if is_padding.any():
    raise ValueError(
      f'{is_padding.sum()} of the {"first " if examples else ""}'
      f'{len(is_padding)} examples of the batch are padding; allowed here: none'
    )


def checked_chunk_size(chunk_size: Any, group_size: Any) -> int | None:
  """Returns how many examples to take at a time, None for all.

  'auto' is all here: training and `analyze` replace it by a number before. With
  a group size, chunks are the groups of batch statistics.
  """
  checks.count('group_size', group_size, also=(None,))
  checks.count('chunk_size', chunk_size, also=('auto', None))
  if chunk_size in (None, 'auto'):
    return group_size
  if group_size not in (None, chunk_size):
    raise ValueError(
      f'chunk_size is {chunk_size!r}, group_size is {group_size}; allowed: the '
      "same, or chunk_size 'auto' or None"
    )
  return chunk_size


def checked_sizes(
  name: str, sizes: Any, *, least: int = 1
) -> tuple[float, ...]:
  """Returns sizes as floats; ValueError unless all are above 0 and finite.

  Args:
    name: of the argument that has them.
    sizes: a list or tuple of numbers, a vector of NumPy or JAX, or one number.
    least: how many there must be.
  """
  sizes = checks.plain(sizes)
  if isinstance(sizes, list | tuple):
    sizes = tuple(map(checks.plain, sizes))
  elif checks.is_number(sizes):
    sizes = (sizes,)
  checks.sequence(
    name,
    sizes,
    lambda size: checks.is_number(size) and 0 < size < float('inf'),
    f'{"one or more " if least else ""}numbers, each above 0 and finite',
    least=least,
  )
  return tuple(map(float, sizes))
