"""verdicts.json: how the claims of papers came off, beside the runs judged.

Its `verdicts` are a dict of `COLUMNS` for each claim, by figure, size and id;
its `runs` are how far each run was: {'standard/seed0': 'done at 2000'}.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from bn_jax.report.claims import claim_files, judge, verdict_words
from bn_jax.storage import files, run_folder

FILE = 'verdicts.json'
COLUMNS = {
  'figure': str,
  'size': str,
  'title': str,
  'id': str,
  'statement': str,
  'source': str,
  'statistic': str,
  'threshold': str,
  'measured': str,
  'mean': float | int | str | None,  # a text where it is not finite
  'low': float | int | str | None,
  'high': float | int | str | None,
  'values': dict,
  'seeds': int,
  'needed': int,
  'verdict': str,
  'detail': str,
}
_SHAPE = {'verdicts': {...: COLUMNS}, 'runs': {...: str}}

Row = Mapping[str, Any]


def row(figure: claim_files.Figure, found: judge.Verdict) -> Row:
  """A verdict as it is kept and shown: `COLUMNS`, of what JSON can hold."""
  claim, numbers = found.claim, found.numbers
  standard = claim.sizes[found.size]
  values = {} if numbers is None else numbers.values
  return {
    'figure': figure.name,
    'size': found.size,
    'title': figure.title,
    'id': claim.id,
    'statement': claim.statement,
    'source': claim.source,
    'statistic': verdict_words.statistic(standard),
    'threshold': verdict_words.threshold(claim, standard),
    'measured': verdict_words.measured(claim, numbers),
    **{
      name: None if numbers is None else _plain(getattr(numbers, name))
      for name in ('mean', 'low', 'high')
    },
    'values': {str(seed): _plain(value) for seed, value in values.items()},
    'seeds': len(values),
    'needed': standard.seeds,
    'verdict': found.verdict,
    'detail': found.detail,
  }


def write(workdir: pathlib.Path, rows: Sequence[Row]) -> None:
  """Writes the verdicts of a working directory, with how far its runs are."""
  kept = {
    'verdicts': {f'{r["figure"]} {r["size"]} {r["id"]}': r for r in rows},
    'runs': standing(workdir),
  }
  files.write_json(workdir / FILE, kept)


def read(workdir: pathlib.Path) -> tuple[list[Row], bool]:
  """(the verdicts of a working directory, whether its runs have changed since).

  No verdicts where there is no such file.

  Raises:
    StorageError: a file that was changed by hand.
  """
  kept = files.read_json(workdir / FILE, _SHAPE)
  if kept is None:
    return [], False
  changed = kept['runs'] != standing(workdir)
  return list(kept['verdicts'].values()), changed


def standing(workdir: pathlib.Path) -> dict[str, str]:
  """Run and seed -> its status and step, of all in a working directory."""
  return {
    folder.label: f'{folder.status} at {folder.step}'
    for folder in run_folder.below(workdir)
  }


def _plain(number: float) -> float | str:
  """A number as JSON holds it; what is not finite as a word."""
  return number if abs(number) < float('inf') else str(number)
