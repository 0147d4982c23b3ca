"""Times ways of doing the same in turns, and prints their ratio."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import results


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
  limit: float | None = None,
  at_least: bool = False,
  **row: Any,
) -> None:
  """Prints the ratio of times to the base, and whether it is within a limit.

  Args:
    what: is compared with what.
    base, times: of each pair. Where the ratio should be large, the base is
      ours; else the times are.
    limit: of the median.
    **row: more of the row of `results`, such as `share`.
  """
  ratios = [b / a for a, b in zip(base, times)]
  median = round(statistics.median(ratios), 3)
  text, holds = '', None
  if limit is not None:
    holds = median >= limit if at_least else median <= limit
    text = (
      f'; limit at {"least" if at_least else "most"} {limit}: '
      f'{"holds" if holds else "does not hold"}'
    )
  print(
    f'{what}: {median:.3f} ({min(ratios):.3f} to {max(ratios):.3f}, '
    f'{len(ratios)} pairs){text}',
    flush=True,
  )
  ours, peer = (base, times) if at_least else (times, base)
  results.add(
    what, ours=statistics.median(ours), peer=statistics.median(peer),
    unit=row.pop('unit', 's'), ratio=median, low=min(ratios),
    high=max(ratios), pairs=len(ratios), limit=limit, holds=holds, **row,
  )  # fmt: skip
