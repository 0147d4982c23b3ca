"""What keywords of several models may be; each refusal is one line."""

from collections.abc import Sequence
from typing import Any

from bn_jax.models.lowering import lowering as lowering_lib


def check_num_classes(value: int) -> None:
  """Raises ValueError unless the size of the output is 1, 2, 3, ..."""
  if type(value) is not int or value < 1:
    raise ValueError(f'num_classes is {value}; allowed: 1 or more')


def check_width(value: float) -> None:
  """Raises ValueError unless channels can be multiplied by value."""
  if not 0 < value < float('inf'):
    raise ValueError(f'width is {value}; allowed: more than 0')


def check_dropout(value: float) -> None:
  """Raises ValueError unless value is a probability below 1."""
  if not 0 <= value < 1:
    raise ValueError(f'dropout is {value}; allowed: 0 <= dropout < 1')


def check_lowering(value: str) -> None:
  """Raises ValueError unless value names a lowering."""
  check_one_of('lowering', value, lowering_lib.LOWERINGS)


def check_one_of(name: str, value: Any, allowed: Sequence[Any]) -> None:
  """Raises ValueError unless value is one of those that are allowed."""
  if value not in allowed:
    raise ValueError(
      f'{name} is {value!r}; allowed: {", ".join(map(str, allowed))}'
    )


def check_bool(name: str, value: Any) -> None:
  """Raises ValueError unless value is True or False."""
  if type(value) is not bool:
    raise ValueError(f'{name} is {value!r}; allowed: True or False')


def scaled(channels: int, width: float) -> int:
  """A number of channels times the width: rounded, at least one."""
  return max(1, round(channels * width))


def check_count(name: str, value: Any) -> None:
  """Raises ValueError unless value is 1, 2, 3, ..."""
  if type(value) is not int or value < 1:
    raise ValueError(f'{name} is {value!r}; allowed: 1, 2, 3, ...')
