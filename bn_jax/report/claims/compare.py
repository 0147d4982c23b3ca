"""One number of a seed, from the statistics of the runs that it compares.

A number of steps may be inf: never within the steps of the run. It is taken so
that the claim is not helped: where more steps would be for the claim, as the
number of steps that the run had; where they are against it, the seed fails.
"""

import math
from collections.abc import Sequence

# Where a seed fails for what was never reached: by comparison.
_HIGHEST = {'value': math.inf, 'ratio': math.inf, 'difference': math.inf}
_LOWEST = {'value': -math.inf, 'ratio': 0.0, 'difference': -math.inf}


def number(
  compare: str, direction: str, sides: Sequence[float], steps: Sequence[int]
) -> float:
  """a, a / b or a - b of a seed.

  inf, -inf or, of a ratio, 0 where it fails for what was never reached; nan
  where a side is nan or a ratio is not of two positive numbers.

  Args:
    compare: 'value', 'ratio' or 'difference'.
    direction: 'at most', 'at least' or 'within'.
    sides: (a,) or (a, b).
    steps: that the run of each side had.
  """
  if any(map(math.isnan, sides)):
    return math.nan
  fails = (_LOWEST if direction == 'at least' else _HIGHEST)[compare]
  never = [math.isinf(side) for side in sides]
  if all(never) and len(sides) > 1:
    return fails
  if any(never):
    # More steps of a make the number higher, more of b lower.
    helps = 'at least' if never[0] else 'at most'
    if direction != helps:
      return (_HIGHEST if never[0] else _LOWEST)[compare]
    sides = [
      float(most) if inf else side
      for side, most, inf in zip(sides, steps, never)
    ]
  return _compared(compare, sides)


def fails_at_once(compare: str, number: float) -> bool:
  """Whether a number stands for what was never reached."""
  return math.isinf(number) or (compare == 'ratio' and number == 0)


def _compared(compare: str, sides: Sequence[float]) -> float:
  if compare == 'value':
    return sides[0]
  a, b = sides
  if compare == 'difference':
    return a - b
  return a / b if a > 0 and b > 0 else math.nan
