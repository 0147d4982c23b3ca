"""A claim, and what was measured of it, for people."""

import math

from bn_jax.report.claims import claim_files, compare, judge
from bn_jax.report.results import statistics


def statistic(standard: claim_files.Standard) -> str:
  """'band_width(measure=landscape, value=loss, reduce=median)'."""
  return statistics.words(standard.statistic)


def threshold(claim: claim_files.Claim, standard: claim_files.Standard) -> str:
  """'batchnorm / standard at most 0.7'."""
  sign = {'value': '', 'ratio': ' / ', 'difference': ' − '}[claim.compare]
  sides = sign.join(_side(side, claim.best) for side in claim.runs)
  if claim.direction == 'within':
    low, high = standard.threshold
    return f'{sides} within {low:g} and {high:g}'
  return f'{sides} {claim.direction} {standard.threshold:g}'


def measured(claim: claim_files.Claim, numbers: judge.Numbers | None) -> str:
  """'0.41 (0.38 to 0.44), 3 seeds; batchnorm 48, standard 118'."""
  if numbers is None:
    return ''
  count = len(numbers.values)
  seeds = f'{count} seed{"" if count == 1 else "s"}'
  if compare.fails_at_once(claim.compare, numbers.mean):
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


def _side(side: str | tuple[str, ...], best: str) -> str:
  if isinstance(side, str):
    return side
  return f'the {best} of {len(side)} ({side[0]} to {side[-1]})'


def _short(number: float) -> str:
  """Three digits, and all of them of what is counted, such as steps."""
  if 999.5 <= abs(number) < 1e6:
    return f'{number:,.0f}'
  return f'{number:.3g}'
