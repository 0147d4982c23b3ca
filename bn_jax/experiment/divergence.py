"""Says why a run stopped at an update that was not finite, and what to do.

The run can go on if more such updates may be left out: before the first of
them it is the same, however many are allowed.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from bn_jax import types
from bn_jax.storage import records

# Updates to allow where none was: more than a few bad batches, and few enough
# to stop a run that diverges for good.
_SUGGESTED = 10


class LastRow:
  """A sink that keeps the newest record of training.

  Attributes:
    row: that record; None before the first.
  """

  def __init__(self):
    self.row: records.Record | None = None

  def write(self, record: records.Record) -> None:
    if record.name == 'train':
      self.row = record


def facts(row: records.Record, checkpoint: int | None) -> dict[str, Any]:
  """Returns what a manifest says of a divergence, as JSON values.

  Args:
    row: of the step that was not finite.
    checkpoint: the step of the newest one, None where there is none.

  Returns:
    step, why, row (name -> number, or a word if not finite), checkpoint.
  """
  values = json.loads(records.as_line(row))['values']
  return {
    'step': int(row.step),
    'why': _why(row.values),
    'row': values,
    'checkpoint': checkpoint,
  }


def message(
  row: records.Record, checkpoint: int | None, directory: pathlib.Path
) -> str:
  """Returns one line: at which step, why, by what numbers, how to go on.

  Args:
    row: of the step that was not finite.
    checkpoint: the step of the newest one, None where there is none.
    directory: of the run with its seed.
  """
  numbers = ', '.join(
    f'{name.replace("_", " ")} {float(row.values[name]):.4g}'
    for name in ('objective', 'gradient_norm', 'learning_rate')
  )
  skip, more = '--config.on_nonfinite=skip ', _SUGGESTED
  after = ''
  if 'skipped' in row.values:
    skipped = int(row.values['skipped'])
    after = f', after {skipped} left out, as many as may be'
    skip, more = '', 2 * skipped
  return (
    f'diverged at step {int(row.step)}: {_why(row.values)} ({numbers}){after}; '
    f'the last good state is checkpoint {checkpoint}; to go on without such '
    f'updates, the same command with {skip}--config.max_skips={more}; for '
    'another learning rate, a new --workdir with '
    f'--config.init_from={directory}'
  )


def goes_on(before: Mapping[str, Any], max_skips: int | None) -> bool:
  """Returns whether more updates may be left out than when a run diverged.

  Args:
    before: the config in its manifest, which may be older than the key.
    max_skips: updates that may be left out now; None allows none.
  """
  return (max_skips or 0) > (before.get('max_skips') or 0)


def reopened(saved: types.TrainState) -> types.TrainState:
  """Returns a saved state that takes the step again at which training stopped.

  Its arrays are those before that step, which records again what was not finite
  and leaves it out or stops.

  Args:
    saved: restored, its leaves NumPy arrays.
  """
  return saved._replace(finite=np.ones((), bool))


def _why(values: Mapping[str, Any]) -> str:
  """Says what was not finite first, in the order in which a step computes."""
  if not math.isfinite(values['objective']):
    return 'the objective is not finite'
  if not math.isfinite(values['gradient_norm']):
    return 'the gradient is not finite'
  return (
    'parameters, running statistics or the optimizer would not be finite after '
    'the update'
  )
