"""The line along which a landscape was looked at, in words for captions."""

from collections.abc import Sequence

from bn_jax.report.results import conditions, curves, looks

_DIRECTIONS = {
  'descent': ('along the gradient', 'd = g'),
  'ascent': ('up the gradient', 'd = −g'),
  'random': (
    'along a random direction',
    'd a normal vector of the length of g, another one at each look',
  ),
  'update': (
    "along the optimizer's update",
    "d what the optimizer would subtract, for a learning rate of 1",
  ),
}  # fmt: skip


def along(seen: looks.Looks) -> str:
  """'along the gradient', for a title."""
  directions = _directions(seen)
  if len(directions) > 1:
    return 'along a line'
  return _DIRECTIONS[directions[0]][0]


def definition(seen: looks.Looks) -> str:
  """Where the points of the line lie, and on what the numbers rest."""
  directions = _directions(seen)
  d = _DIRECTIONS[directions[0]][1]
  if len(directions) > 1:
    d = f'd by direction: {seen.said("direction")}'
  return (
    f'At θ − e·d, with g the gradient on {looks.where(seen)}, {d}, and e = '
    f'{_sizes(seen)}, {looks.when(seen)}. The same examples at every point, '
    f'all parameters together, {looks.precisely(seen)}.'
  )


def _directions(seen: looks.Looks) -> Sequence[str]:
  """Those that occur; records without the word are of descent."""
  read = conditions.of(seen.kind, 'direction', seen.key)
  found = [
    said if (said := read(seed)) in _DIRECTIONS else 'descent'
    for seed in seen.seeds
  ]
  return tuple(dict.fromkeys(found))


def _sizes(seen: looks.Looks) -> str:
  """'{0.5, 1} × the learning rate', or the sizes themselves."""
  factors, given = (
    conditions.said(seen.runs, _read(seen, absolute=absolute))
    for absolute in (False, True)
  )
  said = [f'{factors} × the learning rate'] if factors else []
  return ' or '.join([*said, *([given] if given else [])])


def _read(seen: looks.Looks, *, absolute: bool) -> conditions.Read:
  def read(seed: curves.Seed) -> str | None:
    found = conditions.looking(seed, seen.kind, seen.key)
    has = found.get('step_sizes') not in (None, '{}')
    if has is not absolute:
      return None
    return found.get('step_sizes' if absolute else 'step_factors')

  return read
