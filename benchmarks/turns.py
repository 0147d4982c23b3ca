"""Times ways of doing the same in turns, and prints their ratio."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def alternating(
  rounds: int, *ways: Callable[[], Any]
) -> tuple[list[list[float]], list[Any]]:
  """Times functions in turns; returns the seconds of each, and its last value.

  Whatever else loads the machine then affects all of them.
  """
  times, values = [[] for _ in ways], [None] * len(ways)
  for _ in range(rounds):
    for i, way in enumerate(ways):
      start = time.perf_counter()
      values[i] = way()
      times[i].append(time.perf_counter() - start)
  return times, values


def say(
  what: str,
  base: list[float],
  times: list[float],
  *,
  limit: float,
  at_least: bool = False,
) -> None:
  """Prints the ratio of times to the base, and whether it is within a limit."""
  ratios = [b / a for a, b in zip(base, times)]
  median = round(statistics.median(ratios), 3)
  holds = median >= limit if at_least else median <= limit
  print(
    f'{what}: {median:.3f} ({min(ratios):.3f} to {max(ratios):.3f}, '
    f'{len(ratios)} pairs); limit at {"least" if at_least else "most"} '
    f'{limit}: {"holds" if holds else "does not hold"}',
    flush=True,
  )
