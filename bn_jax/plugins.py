"""Takes functions of users: a reference, 'my_module:make', names one.

`modules` says where the module is looked for.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bn_jax import checks, errors, modules

_REFERENCE = re.compile(
  r'(?!folder:)([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)'
)


def is_reference(name: Any) -> bool:
  """Returns whether a name is of the form 'my_package.my_module:make'."""
  return isinstance(name, str) and _REFERENCE.fullmatch(name) is not None


def load(reference: str) -> Any:
  """Returns what a reference names.

  Raises:
    ConfigError: there is no such module or attribute, or the module fails.
  """
  module_name, name = _REFERENCE.fullmatch(reference).groups()
  module, _ = modules.load(module_name)
  try:
    return getattr(module, name)
  except AttributeError:
    names = [other for other in vars(module) if not other.startswith('_')]
    message = errors.unknown('name', name, names, see='the file')
    raise errors.ConfigError(
      f'{modules.shown(module.__file__)} has it not: {message}'
    ) from None


def files(names: Iterable[Any]) -> dict[str, dict[str, str]]:
  """Returns the modules of references, with the neighbours that they import.

  Args:
    names: those that are no references are left out.

  Returns:
    module -> {'file': path, 'digest': SHA-256 of its bytes}, for
      `modules.bound`.
  """
  entries = {}
  for name in filter(is_reference, names):
    entries |= modules.load(name.partition(':')[0])[1]
  return {module: dict(entry) for module, entry in sorted(entries.items())}


def takes(function: Callable[..., Any], keyword: str) -> bool:
  """Returns whether a function has a keyword, or takes any."""
  return keyword in keywords_of(function) or takes_any(function)


def takes_any(function: Callable[..., Any]) -> bool:
  """Returns whether a function takes any keyword, as **keywords."""
  return any(
    parameter.kind is parameter.VAR_KEYWORD
    for parameter in inspect.signature(function).parameters.values()
  )


def defined(function: Callable[..., Any]) -> str:
  """Returns FILE:LINE of a function, as a message shows it."""
  code = inspect.unwrap(function).__code__
  return f'{modules.shown(code.co_filename)}:{code.co_firstlineno}'


def keywords_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  """Returns the keywords that a function names."""
  return {
    keyword: parameter
    for keyword, parameter in inspect.signature(function).parameters.items()
    if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
  }


def made(
  reference: str,
  keywords: Mapping[str, Any],
  is_right: Callable[[Any], bool],
  returns: str,
  *,
  optional: Iterable[str] = (),
) -> Any:
  """Returns what the function of a reference makes, if it is of the right kind.

  Args:
    keywords: of the function.
    is_right: whether a result is of that kind.
    returns: what is, in words.
    optional: keywords that are left out for a function that lacks them.

  Raises:
    ConfigError: there is no such function.
    ValueError: it fails, or returns another kind.
  """
  function = constructor(reference)
  absent = {name for name in optional if not takes(function, name)}
  result = call(
    reference,
    function,
    **{name: x for name, x in keywords.items() if name not in absent},
  )
  if not is_right(result):
    raise ValueError(
      f'{reference} returned {checks.shown(result)}; it must return {returns}'
    )
  return result


def constructor(reference: str) -> Callable[..., Any]:
  """Returns the function, or class, that a reference names.

  Raises:
    ConfigError: see `load`; or it is no function.
  """
  function = load(reference)
  if not callable(function):
    raise errors.ConfigError(
      f'{reference} is {checks.shown(function)}; give the name of a function'
    )
  return function


def call(
  reference: str, function: Any, *arguments: Any, **keywords: Any
) -> Any:
  """Returns what a user's function returns.

  Raises:
    ValueError: it fails; the line names its file and line.
    Failure, Refused: as the function raises them.
  """
  try:
    return function(*arguments, **keywords)
  except (errors.Failure, checks.Refused):
    raise
  except (Exception, SystemExit) as error:
    if errors.is_out_of_memory(error):
      raise
    raise ValueError(f'{reference}: {modules.described(error)}') from error
