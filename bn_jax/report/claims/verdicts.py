"""verdicts.json: how the claims of papers came off, beside the runs judged.

Its `verdicts` are a dict of `COLUMNS` for each claim, by figure, size and id;
its `runs` are how far each run was: {'standard/seed0': 'done at 2000'}.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from bn_jax.report.claims import files as claim_files
from bn_jax.report.claims import judge
from bn_jax.report.results import conditions, statistics
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
    'statistic': statistics.words(standard.statistic),
    'threshold': _threshold(claim, standard),
    'measured': measured(claim, numbers),
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


def measured(claim: claim_files.Claim, numbers: judge.Numbers | None) -> str:
  """'0.41 (0.38 to 0.44), 3 seeds; batchnorm 48, standard 118'."""
  if numbers is None:
    return ''
  count = len(numbers.values)
  seeds = conditions.counted(count, 'seed')
  if judge.fails_at_once(claim.compare, numbers.mean):
    said = f'never reached, {seeds}'
  elif count == 1:
    said = f'{_short(numbers.mean)}, {seeds}'
  else:
    mean, low, high = map(_short, numbers[:3])
    said = f'{mean} ({low} to {high}), {seeds}'
  if claim.compare == 'value':
    return said
  return f'{said}; ' + ', '.join(
    f'{name} {"never" if math.isinf(mean) else _short(mean)}'
    for name, mean in numbers.sides.items()
  )


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


def _threshold(claim: claim_files.Claim, standard: claim_files.Standard) -> str:
  """'batchnorm / standard at most 0.7'."""
  sign = {'value': '', 'ratio': ' / ', 'difference': ' − '}[claim.compare]
  sides = sign.join(_side(side, claim.best) for side in claim.runs)
  if claim.direction == 'within':
    low, high = standard.threshold
    return f'{sides} within {low:g} and {high:g}'
  return f'{sides} {claim.direction} {standard.threshold:g}'


def _side(side: str | tuple[str, ...], best: str) -> str:
  if isinstance(side, str):
    return side
  return f'the {best} of {len(side)} ({side[0]} to {side[-1]})'


def _short(number: float) -> str:
  """Three digits, and all of them of what is counted, such as steps."""
  if 999.5 <= abs(number) < 1e6:
    return f'{number:,.0f}'
  return f'{number:.3g}'


def _plain(number: float) -> float | str:
  """A number as JSON holds it; what is not finite as a word."""
  return number if abs(number) < math.inf else str(number)
