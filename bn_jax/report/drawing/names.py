"""Names of runs as they fit into a figure: in lines, shortened in the middle.

A name may have 100 characters, and its working directory in front.
"""

import functools
import re

from matplotlib import font_manager, textpath

_LINES = 3


def width(text: str) -> float:
  """The width of a text in a figure, in points."""
  return sum(map(_advance, text))


def fitted(name: str, points: float) -> str:
  """A name in at most three lines of so many points."""
  shown, kept = name, len(name)
  while len(rows := _wrapped(shown, points)) > _LINES:
    kept -= 1
    shown = f'{name[: (kept + 1) // 2]}…{name[-(kept // 2) :]}'
  return '\n'.join(rows)


def _wrapped(text: str, points: float) -> list[str]:
  """Lines of so many points, broken after one of -_./ where there is one."""
  rows = ['']
  for character in text:
    last = rows[-1]
    if last and width(last + character) > points:
      head = re.match(r'(.*[-_./])?', last)[0] or last
      rows[-1:] = [head, last[len(head) :]]
    rows[-1] += character
  return rows


@functools.cache
def _advance(character: str) -> float:
  measure = textpath.text_to_path.get_text_width_height_descent
  return measure(character, font_manager.FontProperties(size=10), False)[0]
