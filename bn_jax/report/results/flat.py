"""Lays out what runs recorded in plain columns, for other programs."""

import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bn_jax import errors
from bn_jax.report.results import curves, read

Row = tuple[str, int, str, str]


def table(
  runs: Sequence[curves.Run],
  of: Callable[[curves.Run, curves.Seed], Iterable[tuple[str, float]]],
) -> list[Row]:
  """Returns a header, and a row for each run, seed and quantity.

  Args:
    of: gives (quantity, value) of a seed.
  """
  return [
    ('run', 'seed', 'quantity', 'value'),
    *(
      (run.name, seed.seed, quantity, repr(float(value)).removesuffix('.0'))
      for run in runs
      for seed in run.seeds
      for quantity, value in of(run, seed)
    ),
  ]


def last(runs: Sequence[curves.Run]) -> list[Row]:
  """Returns the last value of each of `columns`, as a `table`."""
  return table(
    runs, lambda _, seed: ((name, y[-1]) for name, _, y in columns(seed))
  )


def columns(seed: curves.Seed) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
  """Yields (name, steps, values), [T] each, of all that is recorded in numbers.

  The name is 'ENTRY/VALUE': 'train/accuracy', 'shift/conv1/cosine'. A value of
  several numbers a look becomes their smallest, 'landscape/beta/min', and their
  largest; nan is left out of these. What lies in files of its own, in arrays/,
  is there where it is one number.
  """
  for entry, series in seed.series.items():
    for value, values in series.values.items():
      name = f'{entry}/{value}'
      if values.ndim == 1:
        yield name, series.step, values
      elif values.size:
        low_T, high_T = curves.band(values.reshape(len(values), -1))
        yield f'{name}/min', series.step, low_T
        yield f'{name}/max', series.step, high_T
  for entry, looks in seed.arrays.items():
    points = {}
    for look in looks:
      for value, number in look.values.items():
        if np.ndim(number) == 0:
          points.setdefault(value, []).append((look.step, float(number)))
    for value, pairs in points.items():
      yield f'{entry}/{value}', *map(np.array, zip(*pairs))


def frame(*workdirs: str | os.PathLike) -> Any:
  """Returns the `columns` of working directories; see `bn_jax.frame`."""
  try:
    import pandas
  except ImportError as error:
    raise errors.ConfigError(
      "bn_jax.frame needs pandas, which is not here; pip install 'pandas>=2.2'"
    ) from error
  parts = {
    (run.name, seed.seed): pandas.DataFrame(
      {name: pandas.Series(y, step) for name, step, y in columns(seed)}
    )
    for run in read.runs([pathlib.Path(workdir) for workdir in workdirs])
    for seed in run.seeds
  }
  return pandas.concat(parts, names=['run', 'seed', 'step'])
