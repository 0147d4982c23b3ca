"""Checks values of keywords; a refusal says keyword, value, what is allowed.

A value must be of the keyword's own type, of Python's or of NumPy's scalars, a
number of JAX's too: True is no number, 2.0 no whole number, and '1e-3', which
YAML makes of 1e-3, no number either. nan is allowed nowhere, and infinity where
it is said.
"""

import math
import numbers
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

_LONGEST = 60  # characters of a value in a message: it stays one line
_SIZES = 2**31  # JAX counts with 32 bits


class Refused(ValueError):
  """A value that a keyword cannot have.

  Attributes:
    value: as a message shows it.
    allowed: in words.
  """

  def __init__(self, name: str, value: Any, allowed: str):
    self.value, self.allowed = shown(value), allowed
    super().__init__(f'{name} is {self.value}; allowed: {allowed}')


def count(
  name: str,
  value: Any,
  *,
  least: int = 1,
  most: int = _SIZES - 1,
  also: Sequence[Any] = (),
) -> None:
  """Checks a whole number: a size, or how often.

  Args:
    least: the smallest that is allowed.
    most: the largest; more than is listed only where a value is above it.
    also: what is allowed beside numbers, such as None.

  Raises:
    Refused: another value.
  """
  words = f'{least}, {least + 1}, {least + 2}, ...'
  if is_whole(value) and value > most:
    words += f' to {most:,}'
  is_count = is_whole(value) and least <= value <= most
  if not is_count and not _is_one(value, also):
    raise Refused(name, value, _listed(words, also))


def whole(name: str, value: Any) -> None:
  """Checks 0, 1, 2, ... of any size, such as a seed; raises Refused."""
  if not (is_whole(value) and value >= 0):
    raise Refused(name, value, '0, 1, 2, ...')


def number(
  name: str,
  value: Any,
  *,
  least: float | None = None,
  above: float | None = None,
  most: float | None = None,
  below: float | None = None,
  infinite: bool = False,
  any_size: bool = False,
  also: Sequence[Any] = (),
) -> None:
  """Checks a number between bounds, which are allowed, or just not.

  A number that JAX traces is unknown, and passes: see `config.numbers`.

  Args:
    least, most: the smallest and the largest allowed.
    above, below: the bounds that are not allowed themselves.
    infinite: whether infinity is allowed; minus infinity is not.
    any_size: whether whole numbers may be 2**31 or more. JAX has no room for
      them, so this is for numbers that it never gets.
    also: what is allowed beside numbers, such as None.

  Raises:
    Refused: another value.
  """
  if is_traced(value):
    return
  x = plain(value)
  is_inside = is_number(x) and (
    (math.isfinite(x) or (infinite and x > 0))
    and (least is None or x >= least)
    and (above is None or x > above)
    and (most is None or x <= most)
    and (below is None or x < below)
  )
  # JAX would take it for an integer, which it has no room for.
  is_large = not any_size and is_whole(x) and abs(x) >= _SIZES
  if (is_inside and not is_large) or _is_one(value, also):
    return
  words = _range(name, least, above, most, below, infinite)
  if is_inside:
    words += '; from 2**31 on with a point, such as 3e9'
  if not is_number(value):
    text = ', not text' if isinstance(value, str) else ''
    words = f'a number{text}: {words}'
  raise Refused(name, value, _listed(words, also))


def is_traced(value: Any) -> bool:
  """Returns whether JAX traces a value, which is then unknown."""
  # What has not imported JAX has nothing that it traces.
  jax = sys.modules.get('jax')
  return jax is not None and isinstance(value, jax.core.Tracer)


def axis(value: Any) -> None:
  """Checks that the keyword `axis` can be one of channels; raises Refused."""
  if not (is_whole(value) and is_size(abs(value))):
    raise Refused('axis', value, '1, 2, 3, ..., or from the end -1, -2, ...')


def flag(name: str, value: Any, *, also: Sequence[Any] = ()) -> None:
  """Checks True or False; raises Refused for another value, 1 and 0 too."""
  if not _is_one(value, (True, False, *also)):
    raise Refused(name, value, _listed('True, False', also))


def one_of(name: str, value: Any, allowed: Sequence[Any]) -> None:
  """Checks a choice; raises Refused for a value that is not in `allowed`."""
  if not _is_one(value, allowed):
    raise Refused(name, value, ', '.join(map(str, allowed)))


def sequence(
  name: str,
  value: Any,
  is_item: Callable[[Any], bool],
  allowed: str,
  *,
  length: int | None = None,
  least: int = 0,
) -> None:
  """Checks a list, tuple or range; of a text each letter would be an item.

  Args:
    is_item: whether an item is allowed.
    allowed: the items in words.
    length: how many items there must be; None: any number from `least`.

  Raises:
    Refused: another value.
  """
  if (
    not isinstance(value, list | tuple | range)
    or length not in (None, len(value))
    or len(value) < least
    or not all(map(is_item, value))
  ):
    raise Refused(name, value, allowed)


def sizes(name: str, value: Any) -> None:
  """Checks a list or tuple of sizes, or an empty one; raises Refused."""
  sequence(name, value, is_size, 'a list or tuple of 1, 2, 3, ...')


def names(name: str, value: Any, of: str) -> None:
  """Checks a list or tuple of names; raises Refused for another value."""
  sequence(
    name, value, lambda item: isinstance(item, str),
    f'a list or tuple of names of {of}',
  )  # fmt: skip


def path(name: str, value: str) -> None:
  """Checks that a text is no address of a bucket; raises Refused."""
  if re.match('[A-Za-z][A-Za-z0-9+.-]*://', value):
    raise Refused(
      name, value, 'a path; mount a bucket as a folder (gcsfuse, mount-s3) and '
      'give that'
    )  # fmt: skip


def mask(value: Any, *shapes: tuple[int, ...]) -> None:
  """Checks that `mask` is an array of bool in one of the shapes.

  Numbers are refused: a sum over them would not be a count.

  Raises:
    ValueError: another value.
  """
  if not (hasattr(value, 'dtype') and value.dtype == bool):
    kind = getattr(value, 'dtype', f'a {type(value).__name__}')
    raise ValueError(
      f'mask is {kind}; allowed: an array of bool, such as jnp.asarray(mask, '
      'bool), False for padding'
    )
  if value.shape not in shapes:
    allowed = ' or '.join(map(str, dict.fromkeys(shapes)))
    raise ValueError(f'mask has shape {value.shape}; allowed: {allowed}')


def is_whole(value: Any) -> bool:
  """Returns whether a value is a whole number, and no bool."""
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_size(value: Any) -> bool:
  """Returns whether a value is one of 1, 2, 3, ... below 2**31."""
  return is_whole(value) and 1 <= value < _SIZES


def is_number(value: Any) -> bool:
  """Returns whether a value is a real number that a float can hold, or nan.

  A fraction is none, nor a long double: what takes numbers, JSON and JAX among
  them, takes neither.
  """
  value = plain(value)
  if isinstance(value, bool) or not isinstance(value, int | float):
    return False
  try:
    float(value)
  except OverflowError:
    return False
  return True


def plain(value: Any) -> Any:
  """Returns Python's number, text or list for a scalar or array.

  They are NumPy's or JAX's. Anything else stays as it is, and so does what JAX
  traces: it has no value before the program runs.
  """
  try:
    return value.tolist() if hasattr(value, 'tolist') else value
  except TypeError:
    return value


def shown(value: Any) -> str:
  """Returns a value as a message shows it: one line, and not a long one."""
  try:
    if isinstance(value, numbers.Number):
      text = str(value)  # not np.float32(0.5)
    else:
      is_scalar = getattr(value, 'shape', None) == ()
      text = repr(plain(value) if is_scalar else value)
    text = ' '.join(text.split())
  except ValueError:  # Python writes no number of more than 4300 digits
    text = 'a number of thousands of digits'
  return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}...'


def _is_one(value: Any, allowed: Sequence[Any]) -> bool:
  """Returns whether a value is one of these; 1 is not True."""
  value = plain(value)
  return any(
    type(value) is type(choice) and value == choice for choice in allowed
  )


def _listed(words: str, also: Sequence[Any]) -> str:
  """Returns what is allowed: "1, 2, 3, ..., 'auto' or None"."""
  *others, last = [words, *map(repr, also)]
  return f'{", ".join(others)} or {last}' if others else last


def _range(name, least, above, most, below, infinite) -> str:
  """Returns a range in words."""
  if least is not None and below is not None:
    return f'{least} <= {name} < {below}'
  if above is not None and below is not None:
    return f'above {above}, below {below}'
  if most is not None:
    return f'{least} to {most}' if above is None else f'above {above} to {most}'
  upper = 'infinity included' if infinite else 'and finite'
  return (
    f'{least} or more, {upper}' if above is None else f'above {above} {upper}'
  )
