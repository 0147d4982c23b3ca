"""Measures loss and accuracy over many batches, with running statistics."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import types
from bn_jax.analysis import kind as kind_lib

_AVERAGED = 'ema_'  # before the names of what is of the averaged network
# Name of a sum over examples -> name of their mean.
_NAMES = {'loss': 'loss', 'correct': 'accuracy', 'correct5': 'top5'}


def measure() -> types.Measure:
  """Measures mean data loss and accuracy over all real examples.

  The network is that for inference, normalised by its running statistics.

  Returns:
    A measure of any number of batches, with padding or without: loss (without
    penalty, the mean over examples) and count, the number of examples; of a
    classifier also accuracy in [0, 1] and, with more than five classes, top5,
    the share whose label is among the five largest outputs. If the state has
    an average (config.ema), ema_loss, ema_accuracy and ema_top5 are those of
    the averaged network, with averaged statistics.
  """

  def look(
    problem: types.Problem,
    state: types.TrainState,
    batches: Iterable[types.Batch],
    journal: types.Journal | None = None,
  ) -> dict[str, float]:
    columns = None if journal is None else journal.kept('sums')
    sums = [] if columns is None else _rows(columns)
    for batch in itertools.islice(batches, len(sums), None):
      with jax.default_matmul_precision('highest'):
        sums.append(_sums(problem, state, batch))
      if journal is not None:
        journal.keep('sums', _columns(jax.device_get(sums)))
    return _values(_columns(jax.device_get(sums)))

  return look


def of_seeds() -> Callable[..., Any]:
  """Returns `measure` for several seeds, a program for each batch of all."""

  def bind(problem: types.Problem, mapped: Callable[..., Any], batch_of):
    sums_of = mapped(
      lambda state, shared: _sums(problem, state, batch_of(state, shared))
    )

    def look(states: types.TrainState, shared: Iterable[Any]) -> list[dict]:
      with jax.default_matmul_precision('highest'):
        sums = [sums_of(states, one) for one in shared]
      columns = _columns(jax.device_get(sums))  # [batches, seeds] each
      return [
        _values({name: parts[:, seed] for name, parts in columns.items()})
        for seed in range(len(states.step))
      ]

    return look

  return bind


def _values(columns: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Returns what a look does, from `_columns`."""
  # In float64: a float32 running sum over 10,000 losses loses digits.
  total = {n: part.sum(dtype=np.float64) for n, part in columns.items()}
  of_average = {
    name.removeprefix(_AVERAGED): total.pop(name)
    for name in tuple(total)
    if name.startswith(_AVERAGED)
  }
  return means(total) | {
    f'{_AVERAGED}{name}': mean
    for name, mean in (means(of_average) if of_average else {}).items()
    if name != 'count'
  }


def _sums(problem, state, batch) -> dict[str, jax.Array]:
  """Returns `Problem.evaluate`, and that of the average if the state has it."""
  sums = problem.evaluate(state, batch)
  if not state.average:
    return sums
  of_average = problem.evaluate(state.averaged(), batch)
  return sums | {f'{_AVERAGED}{name}': x for name, x in of_average.items()}


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
  """Returns {name: its sums over the examples of each batch, [batches]}."""
  return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _rows(columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
  """Inverts `_columns`."""
  return [
    dict(zip(columns, row)) for row in zip(*columns.values(), strict=True)
  ]


def means(total: Mapping[str, float]) -> dict[str, float]:
  """Returns means and count, from sums named as by `Problem.evaluate`."""
  count = total['count']
  averages = {
    _NAMES[name]: total[name] / count for name in _NAMES if name in total
  }
  return {**averages, 'count': count}


def _forward(problem, state, batch, section):
  del section
  return problem.evaluate, (state, batch)


KIND = kind_lib.Kind(
  make=measure,
  title='Evaluation',
  quantities={
    'loss': 'Mean loss of an example, without penalty',
    'accuracy': 'Accuracy',
    'top5': 'Top-5 accuracy',
    'count': 'Examples',
    'ema_loss': 'Mean loss of an example, of the averaged network',
    'ema_accuracy': 'Accuracy of the averaged network',
    'ema_top5': 'Top-5 accuracy of the averaged network',
  },
  one_batch=False,
  cost=lambda section, layers: kind_lib.Cost(values=1),
  of_seeds=of_seeds,
  forward=_forward,
)
