"""Measures the loss on the straight line between two networks, and its barrier.

Goodfellow, Vinyals and Saxe (2015), arXiv:1412.6544, look at the line from the
beginning of training to its end; Frankle et al. (2020), arXiv:1912.05671, and
Entezari et al. (2021), arXiv:2110.06296, at the line between two networks, and
at the barrier on it. A network with Batch Normalization is another function for
each choice of its statistics, and so is its line: Jordan et al. (2022),
arXiv:2211.08403, find them anew at each point.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, types
from bn_jax.analysis import chunks, gradients
from bn_jax.analysis import evaluation as evaluation_lib
from bn_jax.analysis import kind as kind_lib

OVER = ('batch', 'reset', 'interpolated')
POINTS = 21
_QUANTITIES = ('loss', 'accuracy')  # of a network, at each point
# Of a point in progress, in the journal below the point's name.
_SUMS, _POPULATION = 'sums', 'population'
_COUNT = '/parts'  # of its sums, how many parts they are of; no quantity's name

LossAt = Callable[[Any], Any]


def path(
  loss_at: LossAt,
  params_a: Any,
  params_b: Any,
  points: int = POINTS,
  *,
  compiled: bool = True,
  journal: types.Journal | None = None,
  name: str = 'path',
) -> dict[str, np.ndarray]:
  """Computes a loss at (1 - t) a + t b, for t from 0 to 1 in equal steps.

  At t = 0 and 1 the parameters are a and b to the bit.

  Args:
    loss_at: params -> the loss, a real scalar; or a dict of real scalars with
      'loss' among them and such as 'accuracy' beside it; or what `chunked`
      returns.
    params_a, params_b: trees of floating-point arrays of the same shapes; b is
      taken in the dtypes of a.
    points: P, both ends included.
    compiled: whether loss_at is one program of JAX, compiled once. False calls
      it as it is, so that it may estimate the statistics of norms first.
    journal: keeps each point as soon as it is computed, under `name`, and the
      sums over chunks of the one in progress.

  Returns:
    t, loss and what else the dict holds: [P] float64. What is not finite stays.

  Raises:
    ValueError: fewer than 2 points; parameters that are not floating point, or
      of two shapes; a loss that is no real scalar, or cannot be traced.
  """
  checks.count('points', points, least=2)
  params_a = gradients.checked(params_a)
  params_b = gradients.checked_like(params_a, params_b, 'other end')
  at = functools.partial(_compiled if compiled else _called, loss_at)
  return _along(at, params_a, params_b, points, journal, name)


def barrier(
  loss_at: LossAt,
  params_a: Any,
  params_b: Any,
  points: int = POINTS,
  *,
  compiled: bool = True,
  journal: types.Journal | None = None,
  name: str = 'path',
) -> dict[str, np.ndarray]:
  """Computes the loss on the line between a and b, and how high it rises.

    barrier          max over t of loss(t) - ((1 - t) loss(0) + t loss(1)),
                     Entezari et al. (2021): above the chord
    barrier_of_mean  max over t of loss(t) - (loss(0) + loss(1)) / 2,
                     Frankle et al. (2020)

  The two are one where the ends have the same loss. Neither is below 0, as the
  ends are points too: the first is 0 where the line nowhere lies above its
  chord, as that of a convex loss.

  Args:
    loss_at, params_a, params_b, points, compiled, journal, name: see `path`.

  Returns:
    What `path` returns, and both barriers, []: inf where a point between the
    ends is not finite, nan where an end is not.

  Raises:
    ValueError: see `path`.
  """
  values = path(
    loss_at, params_a, params_b, points,
    compiled=compiled, journal=journal, name=name,
  )  # fmt: skip
  return values | barriers(values['t'], values['loss'])


def barriers(t: np.ndarray, loss: np.ndarray) -> dict[str, np.ndarray]:
  """Returns both barriers of losses on a line, which `barrier` defines, []."""
  first, last = loss[0], loss[-1]
  if not np.isfinite([first, last]).all():
    both = np.nan, np.nan
  elif not np.isfinite(loss).all():
    both = np.inf, np.inf
  else:
    # Twice the halves: the sum of two ends may be beyond the largest number.
    both = (
      np.max(loss - ((1 - t) * first + t * last)),
      np.max(loss - (first / 2 + last / 2)),
    )
  return dict(zip(('barrier', 'barrier_of_mean'), map(np.asarray, both)))


def measure(
  *,
  to: str = '0',
  points: int = POINTS,
  over: Sequence[str] = OVER,
  chunk_size: int | str | None = 'auto',
  group_size: int | None = None,
) -> types.Measure:
  """Measures loss and accuracy on the line from this network to another one.

  The loss is that of the data, without penalty, the mean over the examples;
  noise and dropout are off. It is a function of its own for each of `over`:

    batch         with the statistics of these examples, as in training
    reset         with those of the population, estimated anew at each point
                  from the same examples (of a chunk, its m/(m-1) times the
                  variance), and kept fixed: Jordan et al. (2022) for BN
    interpolated  with running statistics, (1 - t) of a and t of b: naive

  Of a network that keeps no running statistics all three are the same function,
  which is computed once and recorded under each name; 'reset' is 'batch' too
  where no statistics of a batch are used, as with frozen norms.

  Args:
    to: the other end: a step of the same run, such as 0, the beginning; or
      another run after training, runs/a/batchnorm/seed1 or with a step,
      runs/a/batchnorm/seed1:250.
    points: on the line, both ends included.
    over: whose statistics norms use, one or more of batch, reset, interpolated.
    chunk_size: examples at a time; 'auto' is as many as fit, None is all.
    group_size: examples that share batch statistics; None: as in the network.

  Returns:
    A measure of exactly one batch: t [points], and for each NAME of over
    NAME/loss and, of a classifier, NAME/accuracy [points], NAME/barrier and
    NAME/barrier_of_mean [], as `barrier` defines them.
  """
  if not isinstance(to, str) or not to.strip():
    raise checks.Refused(
      'to', to, "a step such as '0' or '250', or a run: "
      "'runs/a/batchnorm/seed1', 'runs/a/batchnorm/seed1:250'"
    )  # fmt: skip
  checks.count('points', points, least=2)
  checks.sequence(
    'over', over, lambda item: item in OVER,
    f'one or more of {", ".join(OVER)}', least=1,
  )  # fmt: skip
  names = tuple(dict.fromkeys(over))
  size = kind_lib.checked_chunk_size(chunk_size, group_size)

  @kind_lib.of_one_batch
  def look(problem, state, batch, journal, states: Any = None):
    of_batches = not {'batch', 'reset'}.isdisjoint(names)
    pieces = chunks.batches_of(
      problem, batch, 'batch' if of_batches else 'running',
      chunk_size=size, group_size=group_size,
    )  # fmt: skip
    other = states.at(to)
    for here, there in zip(_end(state), _end(other)):
      gradients.check_like(here, there, 'other end')
    functions = _functions(problem, state, names)
    of_function = {}
    for function in dict.fromkeys(functions.values()):
      at = functools.partial(_of_network, function, problem, state, pieces)
      values = _along(at, _end(state), _end(other), points, journal, function)
      of_function[function] = values | barriers(values['t'], values['loss'])
    t = of_function[functions[names[0]]]['t']
    return {'t': t} | {
      f'{name}/{quantity}': array
      for name, function in functions.items()
      for quantity, array in of_function[function].items()
      if quantity != 't'
    }

  return look


def _end(state: types.TrainState) -> tuple[Any, Any]:
  return state.params, state.batch_stats


def _functions(
  problem: types.Problem, state: types.TrainState, names: Sequence[str]
) -> dict[str, str]:
  """Returns name -> the one of OVER that it is the same function as."""
  same = {name: name for name in names}
  if problem.group_size == 1 or not problem.keeps_statistics(state):
    same['reset'] = 'batch'
  if problem.group_size == 1 and not jax.tree.leaves(state.batch_stats):
    same['interpolated'] = 'batch'
  return {name: same[name] for name in names}


def _of_network(
  function: str,
  problem: types.Problem,
  state: types.TrainState,
  pieces: Sequence[types.Batch],
  point: tuple[Any, Any],
  journal: types.Journal | None,
  name: str,
) -> dict[str, float]:
  """Returns loss and accuracy of a network, at (params, batch_stats)."""
  params, batch_stats = point
  state = state._replace(params=params, batch_stats=batch_stats)
  if function == 'reset':
    inputs = [
      one.images if one.mask is None else (one.images, one.mask)
      for one in pieces
    ]
    population = problem.population(
      state, inputs, journal=journal, name=f'{name}/{_POPULATION}'
    )
    state = state._replace(batch_stats=population.batch_stats)
  statistics = 'batch' if function == 'batch' else 'running'
  evaluated = lambda k: problem.evaluate(
    state, pieces[k], statistics=statistics
  )
  means = evaluation_lib.means(_summed(evaluated, len(pieces), journal, name))
  return {name: means[name] for name in _QUANTITIES if name in means}


def _summed(
  term: Callable[[int], Mapping[str, Any]],
  count: int,
  journal: types.Journal | None,
  name: str,
) -> dict[str, Any]:
  """Returns the sum of `count` dicts in float64, of which a journal has some.

  One after the other: Python would run ahead of the device.
  """
  name = f'{name}/{_SUMS}'
  kept = None if journal is None else journal.kept(name)
  total: dict[str, Any] = dict(kept or {})
  start = int(total.pop(_COUNT, 0))
  for k in range(start, count):
    with jax.default_matmul_precision('highest'):
      values = jax.device_get(term(k))
    for quantity, x in values.items():
      total[quantity] = total.get(quantity, 0.0) + np.float64(x)
    if journal is not None and k + 1 < count:
      journal.keep(name, {**total, _COUNT: np.array(k + 1)})
  return total


def _along(
  at: Callable[..., Mapping[str, Any]],
  end_a: Any,
  end_b: Any,
  points: int,
  journal: types.Journal | None,
  name: str,
) -> dict[str, np.ndarray]:
  """Returns t, and what `at` returns of each point: [P] float64.

  Args:
    at: (point, journal, name of the point in it) -> its quantities.
  """
  t = np.linspace(0, 1, points)
  rows = []
  for i, share in enumerate(t):
    place = f'{name}/{i}'
    row = None if journal is None else journal.kept(place)
    if row is None:
      point = _mixed(end_a, end_b, 1 - share, share)
      values = jax.device_get(at(point, journal, place))
      row = {key: np.float64(value) for key, value in values.items()}
      if journal is not None:
        journal.keep(place, row)
        for part in (_SUMS, f'{_POPULATION}/0'):
          journal.drop(f'{place}/{part}')
    rows.append(row)
  # A program of JAX sorts the names.
  keys = sorted(rows[0], key=lambda key: key != 'loss')
  columns = {key: np.array([row[key] for row in rows]) for key in keys}
  return {'t': t, **columns}


def _compiled(
  loss_at: LossAt, params: Any, journal: types.Journal | None, name: str
) -> dict[str, Any]:
  """Returns the loss and what is beside it, of a program compiled once."""
  parts, shares = chunks.parts_of(loss_at)

  def term(k):
    try:
      values = jax.device_get(_values(parts[k], params))
    except jax.errors.JAXTypeError as error:
      first = str(error).strip().splitlines()[0][:200]
      raise ValueError(
        f'the loss cannot be traced by JAX ({first}); allowed with '
        'compiled=False, which calls it as it is'
      ) from error
    return {key: shares[k] * np.float64(x) for key, x in values.items()}

  return _summed(term, len(parts), journal, name)


def _called(
  loss_at: LossAt, params: Any, journal: types.Journal | None, name: str
) -> dict[str, Any]:
  """Returns the loss and what is beside it, of a function called as it is."""
  del journal, name  # what it does inside is not known
  with jax.default_matmul_precision('highest'):
    return gradients.real_scalars(loss_at(params))


@jax.jit
def _values(loss_at: LossAt, params: Any) -> dict[str, jax.Array]:
  return gradients.real_scalars(loss_at(params))


@jax.jit
def _mixed(end_a, end_b, share_a, share_b):
  """Returns share_a * a + share_b * b, an end itself where its share is 1.

  Else what is not finite in one end would spoil the other. Whole numbers, as
  counts among statistics, are those of the nearer end.
  """

  def mixed(a, b):
    if jnp.issubdtype(a.dtype, jnp.floating):
      mean = (share_a * a + share_b * b).astype(a.dtype)
    else:
      mean = jnp.where(share_a >= share_b, a, b)
    return jnp.where(share_b == 0, a, jnp.where(share_a == 0, b, mean))

  return jax.tree.map(mixed, end_a, end_b)


def _cost(section: kind_lib.Section, layers: int) -> kind_lib.Cost:
  """Returns the passes over the examples: two for 'reset', else one."""
  del layers
  passes = {'batch': 1, 'reset': 2, 'interpolated': 1}
  return kind_lib.Cost(
    values=section['points'] * sum(passes[name] for name in section['over'])
  )


def _forward(problem, state, batch, section):
  del section
  return problem.evaluate, (state, batch)


KIND = kind_lib.Kind(
  make=measure,
  title='The line to another network',
  quantities={
    't': 'Share of the other network',
    'loss': 'Loss on the line',
    'accuracy': 'Accuracy on the line',
    'barrier': 'Loss above the chord, at most',
    'barrier_of_mean': 'Loss above the mean of the ends, at most',
  },
  cost=_cost,
  forward=_forward,
  others=lambda section: (section['to'],),
  over=lambda section: tuple(section.get('over', OVER)),
)
