"""Claims of the papers, fixed before the runs that they are judged by.

A file a figure, claims/PAPER-FIGURE.json; docs/papers.md explains it.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bn_jax import errors
from bn_jax.report.results import statistics
from bn_jax.storage import files

FOLDER = pathlib.Path(__file__).parent
SIZES = ('paper', 'small')
COMPARISONS = {'value': 1, 'ratio': 2, 'difference': 2}  # -> sides
DIRECTIONS = ('at most', 'at least', 'within')
BEST = ('lowest', 'highest')

_FILE = ('figure', 'title', 'claims')
_CLAIM = ('id', 'statement', 'source', 'runs', 'compare', 'direction')
_OPTIONAL = ('best', *SIZES)
_STANDARD = ('statistic', 'threshold', 'seeds')


class Standard(NamedTuple):
  """What a claim is held to, at one size.

  Attributes:
    statistic: {'name': ..., keywords}, see `statistics`.
    threshold: a number, or (lowest, highest) of 'within'.
    seeds: the smallest number that is judged.
  """

  statistic: dict[str, Any]
  threshold: float | tuple[float, float]
  seeds: int


class Claim(NamedTuple):
  """What a paper claims of its runs.

  Attributes:
    id: among the claims of its figure.
    statement: what is claimed.
    source: where.
    runs: a side each: a run's name, or names of which the best stands for it.
    compare: a key of `COMPARISONS`: of one side, or of the first to the second.
    direction: one of `DIRECTIONS`.
    best: of a side of several runs, whose mean over seeds is 'lowest' or
      'highest'.
    sizes: size -> what it is held to; one that is not there has no such claim.
  """

  id: str
  statement: str
  source: str
  runs: tuple[str | tuple[str, ...], ...]
  compare: str
  direction: str
  best: str
  sizes: dict[str, Standard]


class Figure(NamedTuple):
  """The claims of a figure.

  Attributes:
    name: such as 'santurkar2018/figure10'.
    title: what it shows.
    claims: in order.
  """

  name: str
  title: str
  claims: tuple[Claim, ...]


def load(folder: pathlib.Path = FOLDER) -> dict[str, Figure]:
  """The claims of all figures that have some, by the name of the figure.

  Raises:
    ConfigError: a file that is not of this form.
    StorageError: one that is no JSON.
  """
  found = {}
  for path in sorted(folder.glob('*.json')):
    figure = parse(path.name, files.read_json(path))
    if path.stem != figure.name.replace('/', '-'):
      raise errors.ConfigError(
        f'{path.name}: figure is {figure.name!r}, whose file is '
        f'{figure.name.replace("/", "-")}.json'
      )
    found[figure.name] = figure
  return found


def parse(where: str, given: Any) -> Figure:
  """The claims of a file that was read.

  Raises:
    ConfigError: what is wrong, and `where`.
  """
  _check_keys(where, given, _FILE)
  for key in ('figure', 'title'):
    _check_text(f'{where}: {key}', given[key])
  if not isinstance(given['claims'], list):
    raise errors.ConfigError(f'{where}: claims: allowed: a list')
  claims = [
    _claim(f'{where}: claim {place + 1}', one)
    for place, one in enumerate(given['claims'])
  ]
  ids = [claim.id for claim in claims]
  for name in ids:
    if ids.count(name) > 1:
      raise errors.ConfigError(f'{where}: id {name!r} is given twice')
  return Figure(given['figure'], given['title'], tuple(claims))


def names(claim: Claim) -> list[str]:
  """Every run that a claim names."""
  return [name for side in claim.runs for name in side_names(side)]


def side_names(side: str | tuple[str, ...]) -> tuple[str, ...]:
  """The runs of one side."""
  return (side,) if isinstance(side, str) else side


def _claim(where: str, given: Any) -> Claim:
  _check_keys(where, given, _CLAIM, _OPTIONAL)
  for key in ('id', 'statement', 'source'):
    _check_text(f'{where}: {key}', given[key])
  where = f'{where} ({given["id"]})'
  for key, allowed in (
    ('compare', COMPARISONS), ('direction', DIRECTIONS), ('best', BEST),
  ):  # fmt: skip
    if key in given and given[key] not in tuple(allowed):
      message = errors.unknown(key, given[key], allowed)
      raise errors.ConfigError(f'{where}: {message}')
  direction = given['direction']
  sizes = {
    size: _standard(f'{where}: {size}', given[size], direction)
    for size in SIZES
    if size in given
  }
  if not sizes:
    raise errors.ConfigError(f'{where}: no size; give {" or ".join(SIZES)}')
  return Claim(
    id=given['id'],
    statement=given['statement'],
    source=given['source'],
    runs=_sides(where, given['runs'], COMPARISONS[given['compare']]),
    compare=given['compare'],
    direction=direction,
    best=given['best'] if 'best' in given else BEST[0],
    sizes=sizes,
  )


def _sides(where: str, given: Any, count: int) -> tuple:
  sides = given if isinstance(given, list) else [given]
  if len(sides) != count:
    raise errors.ConfigError(
      f'{where}: runs: {len(sides)}; allowed: {count}, as it compares them'
    )
  for side in sides:
    listed = side if isinstance(side, list) else [side]
    if not listed or not all(isinstance(name, str) and name for name in listed):
      raise errors.ConfigError(
        f'{where}: runs: {side!r}; allowed: the name of a run, or several'
      )
  return tuple(tuple(s) if isinstance(s, list) else s for s in sides)


def _standard(where: str, given: Any, direction: str) -> Standard:
  _check_keys(where, given, _STANDARD)
  statistics.check(f'{where}: statistic', given['statistic'])
  seeds, threshold = given['seeds'], given['threshold']
  if type(seeds) is not int or seeds < 1:
    raise errors.ConfigError(
      f'{where}: seeds: {seeds!r}; allowed: 1, 2, 3, ...'
    )
  if direction == 'within':
    pair = isinstance(threshold, list) and len(threshold) == 2
    if not pair or not all(map(statistics.is_number, threshold)):
      raise errors.ConfigError(
        f'{where}: threshold: {threshold!r}; allowed: [lowest, highest]'
      )
    if threshold[0] >= threshold[1]:
      raise errors.ConfigError(
        f'{where}: threshold: {threshold}; the lowest comes first'
      )
    threshold = tuple(threshold)
  elif not statistics.is_number(threshold):
    raise errors.ConfigError(
      f'{where}: threshold: {threshold!r}; allowed: a number'
    )
  return Standard(given['statistic'], threshold, seeds)


def _check_keys(
  where: str, given: Any, needed: Sequence[str], optional: Sequence[str] = ()
) -> None:
  if not isinstance(given, Mapping):
    raise errors.ConfigError(f'{where}: {str(given)[:60]!r}; allowed: a dict')
  for key in given:
    if key not in (*needed, *optional):
      message = errors.unknown('key', key, (*needed, *optional))
      raise errors.ConfigError(f'{where}: {message}')
  for key in needed:
    if key not in given:
      raise errors.ConfigError(f'{where}: {key} is missing')


def _check_text(where: str, value: Any) -> None:
  if not isinstance(value, str) or not value:
    raise errors.ConfigError(f'{where}: {value!r}; allowed: a text')
