"""Reads what explains the keys of a config: comments and docstrings.

The file of the defaults has a comment for each key: at the end of its line,
going on in lines that begin with a small letter, or in lines of its own above.
A comment after an empty line is of all keys up to the next one like it: its
words up to a colon or a full stop are their heading.
"""

import ast
import inspect
import io
import pathlib
import re
import tokenize
from collections.abc import Iterator
from typing import Any, NamedTuple

from bn_jax.config import defaults, schema

FILE = pathlib.Path(defaults.__file__)  # explains the keys
_ITEM = re.compile(
  r'^  +(\*{0,2}\w+(?:, \w+)*): (.*?)(?=^  {0,2}\S|\Z)', re.M | re.S
)


class Key(NamedTuple):
  """A key of the config, 'data.flip', its default as it is written, a text."""

  name: str
  default: str
  text: str


class Group(NamedTuple):
  """Keys below one heading, and what is said of all of them."""

  title: str
  text: str
  keys: list[Key]


def groups(source: str) -> list[Group]:
  """Returns the groups of keys of a file of defaults, in its order."""
  (body,) = (
    node.body
    for node in ast.parse(source).body
    if isinstance(node, ast.FunctionDef) and node.name == 'get_config'
  )
  comments = _Comments(source)
  found: list[Group] = []
  for node in body:
    if not isinstance(node, ast.Assign) or not isinstance(
      node.targets[0], ast.Attribute
    ):
      continue
    if heading := comments.heading(node.lineno):
      title, text = re.fullmatch(r'(.*?)[:.](?: (.*))?', heading).groups()
      found.append(Group(title, text or '', []))
    name = ast.unparse(node.targets[0]).removeprefix('config.')
    found[-1].keys.extend(_keys(name, node, node.value, comments))
  return found


def _keys(
  name: str, node: Any, value: ast.expr, comments: '_Comments'
) -> Iterator[Key]:
  """Yields the keys of a line, or of the dict that begins there."""
  text = comments.of(node.lineno, node.end_lineno)
  is_section = isinstance(value, ast.Call) and ast.unparse(value.func) == 'dict'
  if not is_section or not value.keywords:
    yield Key(name, _default(value), text)
    return
  for keyword in value.keywords:
    inner = f'{name}.{keyword.arg}'
    if node.lineno < node.end_lineno:
      yield from _keys(inner, keyword, keyword.value, comments)
    else:  # the comment of a line is about the constructor
      of_line = text if keyword.arg == 'name' else ''
      yield Key(inner, _default(keyword.value), of_line)


def _default(value: ast.expr) -> str:
  """Returns a default as it is written; a placeholder is None."""
  if not isinstance(value, ast.Call):
    return ast.unparse(value)
  function = ast.unparse(value.func)
  if function == 'config_dict.placeholder':
    return 'None'
  if function == 'runs':
    return ', '.join(keyword.arg for keyword in value.keywords)
  return ast.unparse(value.args[0]) if value.args else '{}'


class _Comments:
  """The comments of a file, by line; each is given to one key."""

  def __init__(self, source: str):
    self._lines = source.splitlines()
    self._at: dict[int, str] = {}
    self._ends: set[int] = set()  # of lines that have code before the comment
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
      if token.type == tokenize.COMMENT:
        line = token.start[0]
        self._at[line] = token.string.removeprefix('#').strip()
        if token.line[: token.start[1]].strip():
          self._ends.add(line)

  def heading(self, line: int) -> str:
    """Returns the comment above a line and below an empty one, or ''."""
    above = self._above(line)
    if not above or self._lines[above[0] - 2].strip():
      return ''
    return ' '.join(self._at[number] for number in above)

  def of(self, first: int, last: int) -> str:
    """Returns the comment of the lines of one key."""
    above = [] if self.heading(first) else self._above(first)
    lines = above + [at for at in {first, last} if at in self._ends]
    while lines and lines[-1] >= last and self._goes_on(lines[-1] + 1):
      lines.append(lines[-1] + 1)
    return ' '.join(self._at[number] for number in lines)

  def _above(self, line: int) -> list[int]:
    """Returns the lines above that are comments, and go on with none before."""
    lines: list[int] = []
    while (line := line - 1) in self._at and line not in self._ends:
      lines.insert(0, line)
    if line in self._ends:
      while lines and self._goes_on(lines[0]):
        lines.pop(0)
    return lines

  def _goes_on(self, line: int) -> bool:
    text = self._at.get(line, '')
    return line not in self._ends and text[:1].islower()


def constructors(kind: str) -> dict[str, list[Key]]:
  """Returns name -> keywords, of all that the name of a section may be.

  A keyword's text is that of the constructor; where that points elsewhere, or
  there is none, the comment of the config; else that of another constructor.
  """
  section = schema.of(kind)
  explained = {
    name: _explained(factory) for name, factory in section.registry.items()
  }
  commented = {
    key.name.rpartition('.')[2]: key.text
    for group in groups(FILE.read_text())
    for key in group.keys
    if key.name.startswith('measures.' if kind == 'measure' else f'{kind}.')
  }

  def text(name: str, keyword: str) -> str:
    own = explained[name].get(keyword, '')
    if own and 'see `' not in own:
      return own
    others = (each[keyword] for each in explained.values() if keyword in each)
    return commented.get(keyword) or own or next(others, '')

  return {
    name: [
      Key(keyword, _shown(parameter), text(name, keyword))
      for keyword, parameter in schema.parameters(section, name).items()
    ]
    for name in section.registry
  }


def _shown(parameter: inspect.Parameter) -> str:
  if parameter.default is inspect.Parameter.empty:
    return 'needed'
  return repr(parameter.default)


def _explained(factory: Any) -> dict[str, str]:
  """Returns keyword -> text: of the constructor, then of its module."""
  function = getattr(factory, 'func', factory)  # of a functools.partial
  function = getattr(function, 'make', function)  # of a Kind
  texts = described(inspect.getdoc(function) or '')
  module = inspect.getmodule(function)
  for each in vars(module).values():
    if getattr(each, '__module__', '') == module.__name__:
      for name, text in described(inspect.getdoc(each) or '').items():
        texts.setdefault(name, text)
  return texts


def described(docstring: str) -> dict[str, str]:
  """Returns name -> text of the sections Args and Attributes."""
  found: dict[str, str] = {}
  for section in re.findall(
    r'^(?:Args|Attributes)\b[^:]*:\n(.*?)(?=^\S|\Z)', docstring, re.M | re.S
  ):
    for names, text in _ITEM.findall(section):
      for name in names.split(', '):
        found.setdefault(name.lstrip('*'), ' '.join(text.split()))
  return found
