"""Puts claims together that are one sentence, said of several layers or runs.

Two claims are one sentence if they are of the same figure, ask for the same
statistic and comparison, but for the layer, the accuracy and the number of the
threshold, and most of their words are the same. What differs names each.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bn_jax.report.claims import rows as rows_lib

# Of the words of the longer claim, how many both must have: below it what is
# left of the sentence no longer says what is claimed.
_SHARED = 0.6
_LAYER = re.compile(r'\blayer=([^,)]+)')
_ASKED = re.compile(r'\b(layer|accuracy)=[^,)]+')
# '(mean band width)' at the end, but neither 2 / (learning rate) nor what holds
# at the small size.
_ASIDE = re.compile(r'(?<!/) \((?![^)]*small: [^…])[^()]*\)$')


class Claim(NamedTuple):
  """A claim as the page shows it."""

  row: rows_lib.Row  # its verdict
  id: str  # of the place on the page
  figure: str | None  # the name of the figure that draws it, or None
  runs: str = ''  # which runs were compared; '' where the row says it
  # What tells these runs from others of which the same is said, or ''.
  name: str = ''


class Sentence(NamedTuple):
  """What is claimed once or more often."""

  # The words that all claims share, … for each gap; of one claim its own,
  # without what stands in brackets at its end.
  text: str
  claims: tuple[Claim, ...]  # at least one
  # Of each claim what differs: nothing; a layer or runs; or both, as (row,
  # column).
  labels: tuple[tuple[str, ...], ...]

  @property
  def rows(self) -> list[rows_lib.Row]:
    """Returns the verdicts."""
    return [claim.row for claim in self.claims]


class _Group(NamedTuple):
  """Claims that are one sentence: what they ask, and the words of all."""

  question: tuple
  shared: Sequence[str]
  claims: Sequence[Claim]

  def joined(self, other: '_Group') -> '_Group | None':
    """Returns both together, or None where they are not one sentence."""
    if self.question != other.question:
      return None
    matcher = difflib.SequenceMatcher(None, self.shared, other.shared, False)
    shared = [
      word
      for block in matcher.get_matching_blocks()
      for word in self.shared[block.a :][: block.size]
    ]
    longest = max(len(_words(c.row['statement'])) for c in self.claims)
    if len(shared) < _SHARED * max(longest, len(other.shared)):
      return None
    return _Group(self.question, shared, [*self.claims, *other.claims])


def of(claims: Iterable[Claim]) -> list[Sentence]:
  """Returns the sentences of claims, in the order of the first of each."""
  groups: list[_Group] = []
  for claim in claims:
    words = _words(claim.row['statement'])
    alone = _Group(_question(claim.row), words, [claim])
    pairs = enumerate(group.joined(alone) for group in groups)
    place, joined = next(
      (pair for pair in pairs if pair[1]), (len(groups), alone)
    )
    groups[place : place + 1] = [joined]
  return [_sentence(group) for group in groups]


def _question(row: rows_lib.Row) -> tuple:
  """Returns what is asked, without the layer, the runs and the numbers."""
  sides, direction, _ = rows_lib.claimed(row)
  signs = tuple(sign for sign in (' / ', ' − ', ' and ') if sign in sides)
  statistic = _ASKED.sub('', row['statistic'])
  return row['figure'], row['size'], statistic, signs, direction


def _sentence(group: _Group) -> Sentence:
  claims, shared = group.claims, group.shared
  if len(claims) == 1:
    text = claims[0].row['statement']
    return Sentence(_ASIDE.sub('', text), tuple(claims), ((),))
  gaps = [_gaps(shared, _words(claim.row['statement'])) for claim in claims]
  text = ' '.join(
    word
    for place, after in enumerate([*shared, ''])
    for word in (any(gap[place] for gap in gaps) * '…', after)
    if word
  )
  text = _ASIDE.sub('', text.replace('( ', '(').replace(' )', ')'))
  return Sentence(text, tuple(claims), _labels(claims, gaps))


def _labels(claims: Sequence[Claim], gaps: Sequence) -> tuple[tuple, ...]:
  """Returns what tells claims apart: at most two words or names of each.

  The layer; the name of the runs; what stands in a gap of the sentence, unless
  the labels before tell it; and where that is not enough, the runs, or the id.
  """
  layers = [_LAYER.findall(claim.row['statistic']) for claim in claims]
  columns: list[Sequence[str]] = []
  for column in (
    [''.join(layer) for layer in layers],
    [claim.name for claim in claims],
    *zip(*gaps),
    [rows_lib.claimed(claim.row)[0] for claim in claims],
    [claim.row['id'] for claim in claims],
  ):
    known = list(zip(*columns)) if columns else [()] * len(claims)
    is_told = len(set(zip(known, column))) == len(set(known))
    if all(column) and not is_told and len(set(known)) < len(claims):
      columns.append(column)
  if len(columns) > 2:
    columns = [list(map(', '.join, zip(*columns[:-1]))), columns[-1]]
  # Fewer columns than rows: a page is higher than wide.
  columns.sort(key=lambda column: -len(set(column)))
  return tuple(zip(*columns))


def _words(text: str) -> list[str]:
  return re.findall(r'\(|\)\S*|[^\s()]+', text)


def _gaps(shared: Sequence[str], words: Sequence[str]) -> list[str]:
  """Returns what stands before each shared word, and after the last."""
  gaps, start = [], 0
  for word in shared:
    end = words.index(word, start)
    gaps.append(' '.join(words[start:end]).strip(',:;'))
    start = end + 1
  return [*gaps, ' '.join(words[start:]).strip(',:;')]
