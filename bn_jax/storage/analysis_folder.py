"""Finds and reads the files of a measure that was taken after training.

WORKDIR/RUN/seedK/analysis/NAME/
  settings.json                    what was measured, and digests of its records
  scalars.jsonl                    records
  arrays/NAME-STEP.npz             records that are too large for a line
  partial/STEP/                    journal of a checkpoint being measured
"""

import dataclasses
import pathlib
from typing import Any

from bn_jax import errors
from bn_jax.storage import files

# The shapes below are those of `files.read_json`.
# What a page says of a measure: see `analysis.Kind.page`. Older records lack
# caption and ranges.
PAGE = {
  'title': str,
  'quantities': {...: str},
  'caption': (None, str),
  'ranges': (None, {...: list}),
}
_SETTINGS = {
  'measure': {'name': str, 'data': str},
  'statistics': str,
  'run': (None, str),
  'seed': (None, int),
  'page': (None, PAGE),
  'records': (None, {...: {'digest': list, 'checkpoint': str | None}}),
}


@dataclasses.dataclass(frozen=True)
class AnalysisFolder:
  """The folder RUN/seedK/analysis/NAME: a measure of a run's checkpoints."""

  path: pathlib.Path

  @property
  def name(self) -> str:
    return self.path.name

  @property
  def settings_file(self) -> pathlib.Path:
    return self.path / 'settings.json'

  @property
  def scalars(self) -> pathlib.Path:
    return self.path / 'scalars.jsonl'

  @property
  def arrays(self) -> pathlib.Path:
    return self.path / 'arrays'

  def partial(self, step: int) -> pathlib.Path:
    """Returns the journal's folder for a checkpoint that is being measured."""
    return self.path / 'partial' / f'{step}'

  def write_settings(self, settings: dict[str, Any]) -> None:
    """Writes settings.json, whole."""
    files.write_json(self.settings_file, settings, digest=True)

  def settings(self) -> dict[str, Any] | None:
    """Returns the settings of the measure; None where nothing was recorded.

    Raises:
      StorageError: settings.json is missing, was changed or cannot be read.
    """
    settings = files.read_json(self.settings_file, _SETTINGS)
    if not self._has_results and not (settings and settings.get('records')):
      return None
    if settings is None:
      raise errors.StorageError(
        f'{self.settings_file} is missing: nothing tells what was measured; '
        'restore it, or give another --name'
      )
    return settings

  @property
  def has_begun(self) -> bool:
    """Returns whether there are settings or results."""
    return self.settings_file.exists() or self._has_results

  @property
  def _has_results(self) -> bool:
    results = (self.scalars, self.arrays, self.path / 'partial')
    return any(path.exists() for path in results)
