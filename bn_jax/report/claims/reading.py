"""Reads the files of claims, which were fixed before the runs that they judge.

A figure has a file, claims/PAPER-FIGURE.json; docs/papers.md explains it. At
size `small` a claim is that at `paper`, changed by what its `small` says.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bn_jax import errors
from bn_jax.report.results import statistics
from bn_jax.storage import files

FOLDER = pathlib.Path(__file__).parent
SIZES = ('paper', 'small')
# Key of a comparison -> how many sides it may have.
COMPARISONS = {
  'value': (1,), 'ratio': (2,), 'difference': (2,), 'order': (2, 3, 4),
}  # fmt: skip
DIRECTIONS = ('at most', 'at least', 'within')
BEST = ('lowest', 'highest')

_FILE = ('figure', 'title', 'claims')
_CLAIM = (
  'id', 'statement', 'source', 'runs', 'compare', 'direction', 'paper',
)  # fmt: skip
_OPTIONAL = ('best', 'small')
_STANDARD = ('statistic', 'threshold', 'seeds')

_A_TEXT = statistics.Wanted(
  lambda value: isinstance(value, str) and value, 'a text'
)
_A_LIST = statistics.Wanted(lambda value: isinstance(value, list), 'a list')
_A_SIDE = statistics.Wanted(
  lambda side: side
  and all(map(_A_TEXT.is_right, side if isinstance(side, list) else [side])),
  'the name of a run, or several',
)  # fmt: skip
_ENDS = statistics.Wanted(
  lambda ends: statistics.are_two(ends) and ends[0] < ends[1],
  '[lowest, highest]',
)


class Standard(NamedTuple):
  """What a claim is held to, at one size."""

  statistic: str  # its name, a key of `statistics.STATISTICS`
  keywords: dict[str, Any]  # of the statistic
  # A number, or (lowest, highest) of 'within'.
  threshold: float | tuple[float, float]
  seeds: int  # the smallest number of seeds that is judged


class Claim(NamedTuple):
  """What a paper claims of its runs."""

  id: str  # no other claim of its figure has it
  # The claim in words, and where the paper makes it.
  statement: str
  source: str
  # The sides, each a run's name, or names of which the best counts.
  runs: tuple[str | tuple[str, ...], ...]
  # A key of `COMPARISONS`: one side, the first to the second, or 'order': the
  # ratio of each side to the one before it.
  compare: str
  direction: str  # one of `DIRECTIONS`
  # Which run stands for a side of several: that with the 'lowest' or the
  # 'highest' mean over seeds.
  best: str
  # Size -> its standard; at a missing size there is no such claim.
  sizes: dict[str, Standard]


class Figure(NamedTuple):
  """The claims of a figure."""

  name: str  # such as 'santurkar2018/figure10'
  title: str  # what it shows, for the report
  claims: tuple[Claim, ...]  # in the order of the file


def load(folder: pathlib.Path = FOLDER) -> dict[str, Figure]:
  """Reads the claims of all figures that have some, by the figure's name.

  Raises:
    ConfigError: content that is not allowed, or of another figure.
    StorageError: a file that is no JSON.
  """
  figures = {}
  for path in sorted(folder.glob('*-*.json')):
    figure = parse(path.name, files.read_json(path))
    if path.stem != figure.name.replace('/', '-'):
      raise errors.ConfigError(
        f'{path.name}: figure is {figure.name!r}, whose file is '
        f'{figure.name.replace("/", "-")}.json'
      )
    figures[figure.name] = figure
  return figures


def parse(where: str, content: Any) -> Figure:
  """Returns the claims of a file that was read.

  Raises:
    ConfigError: content that is not allowed; the message begins with `where`.
  """
  _check_keys(where, content, _FILE)
  for key, wanted in zip(_FILE, (_A_TEXT, _A_TEXT, _A_LIST)):
    statistics.expect(f'{where}: {key}', content[key], wanted)
  claims = [
    _claim(f'{where}: claim {index + 1}', section)
    for index, section in enumerate(content['claims'])
  ]
  ids = [claim.id for claim in claims]
  for name in ids:
    if ids.count(name) > 1:
      raise errors.ConfigError(
        f'{where}: id {name!r} is given twice; use each once'
      )
  return Figure(content['figure'], content['title'], tuple(claims))


def names(claim: Claim) -> list[str]:
  """Returns every run that a claim names."""
  return [name for side in claim.runs for name in side_names(side)]


def side_names(side: str | tuple[str, ...]) -> tuple[str, ...]:
  """Returns the runs of one side."""
  return (side,) if isinstance(side, str) else side


def _claim(where: str, content: Any) -> Claim:
  _check_keys(where, content, _CLAIM, _OPTIONAL)
  for key in ('id', 'statement', 'source'):
    statistics.expect(f'{where}: {key}', content[key], _A_TEXT)
  where = f'{where} ({content["id"]})'
  for key, allowed in (
    ('compare', COMPARISONS), ('direction', DIRECTIONS), ('best', BEST),
  ):  # fmt: skip
    if key in content and content[key] not in tuple(allowed):
      message = errors.unknown(key, content[key], allowed)
      raise errors.ConfigError(f'{where}: {message}')
  return Claim(
    id=content['id'],
    statement=content['statement'],
    source=content['source'],
    runs=_sides(where, content['runs'], COMPARISONS[content['compare']]),
    compare=content['compare'],
    direction=content['direction'],
    best={'best': BEST[0], **content}['best'],
    sizes=_sizes(where, content),
  )


def _sides(where: str, runs: Any, counts: Sequence[int]) -> tuple:
  sides = runs if isinstance(runs, list) else [runs]
  if len(sides) not in counts:
    allowed = ' or '.join(map(str, counts))
    raise errors.ConfigError(
      f'{where}: runs: {len(sides)}; allowed: {allowed}, as it compares them'
    )
  for side in sides:
    statistics.expect(f'{where}: runs', side, _A_SIDE)
  return tuple(tuple(s) if isinstance(s, list) else s for s in sides)


def _sizes(where: str, content: Mapping[str, Any]) -> dict[str, Standard]:
  """Returns size -> standard; `small` null is no claim at that size."""
  paper, small = content['paper'], {'small': {}, **content}['small']
  sizes = {'paper': paper}
  if small is not None:
    statistics.expect(f'{where}: paper', paper, statistics.A_DICT)
    statistics.expect(f'{where}: small', small, statistics.A_DICT)
    sizes['small'] = _merged(paper, small)
  return {
    size: _standard(f'{where}: {size}', section, content['direction'])
    for size, section in sizes.items()
  }


def _merged(content: Mapping, changes: Mapping) -> dict[str, Any]:
  """Returns a dict with some values changed, in dicts within it too."""
  return {
    **content,
    **{
      key: _merged(content[key], value)
      if isinstance(value, Mapping) and isinstance(content.get(key), Mapping)
      else value
      for key, value in changes.items()
    },
  }


def _standard(where: str, content: Any, direction: str) -> Standard:
  _check_keys(where, content, _STANDARD, ('keywords',))
  keywords = {'keywords': {}, **content}['keywords']
  statistics.check(where, content['statistic'], keywords)
  seeds, threshold = content['seeds'], content['threshold']
  statistics.expect(f'{where}: seeds', seeds, statistics.at_least(1))
  wanted = _ENDS if direction == 'within' else statistics.A_NUMBER
  statistics.expect(f'{where}: threshold', threshold, wanted)
  threshold = tuple(threshold) if direction == 'within' else threshold
  return Standard(content['statistic'], keywords, threshold, seeds)


def _check_keys(
  where: str, content: Any, needed: Sequence[str], optional: Sequence[str] = ()
) -> None:
  statistics.expect(where, content, statistics.A_DICT)
  for key in content:
    if key not in (*needed, *optional):
      message = errors.unknown('key', key, (*needed, *optional))
      raise errors.ConfigError(f'{where}: {message}')
  for key in needed:
    if key not in content:
      raise errors.ConfigError(f'{where}: {key} is missing')
