"""A file of records, read as curves."""

import pathlib
from collections.abc import Sequence

import numpy as np

from bn_jax import errors
from bn_jax.report.results import curves, skips
from bn_jax.storage import records


def read(path: pathlib.Path) -> dict[str, curves.Series]:
  """What each name has recorded in a file; none is no error.

  Raises:
    StorageError: a line that is no record, or records of one name that hold
      different values.
  """
  grouped = {}
  for record in records.read(path):
    grouped.setdefault(record.name, []).append(record)
  try:
    return {name: _joined(rows) for name, rows in grouped.items()}
  except (KeyError, TypeError, ValueError) as error:
    raise errors.StorageError(
      f'{path}: records of one name hold different values ({error}); the file '
      'was changed after it was written'
    ) from error


def _joined(rows: Sequence[records.Record]) -> curves.Series:
  conditions = []
  for record in rows:
    if record.conditions and record.conditions not in conditions:
      conditions.append(record.conditions)
  values = {
    value: np.array([record.values[value] for record in rows], float)
    for value in rows[0].values
    if value != skips.NAME
  }
  skipped = [record.values.get(skips.NAME) for record in rows]
  if any(count is not None for count in skipped):
    values[skips.NAME] = np.array(skipped, float)  # nan for none
  return curves.Series(
    np.array([record.step for record in rows]), values, tuple(conditions)
  )
