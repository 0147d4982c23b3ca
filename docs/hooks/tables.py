"""Writes the parts of pages that are generated, as Markdown."""

import argparse
import ast
import importlib
import inspect
import re
from collections.abc import Iterable

from flax import linen as nn

from bn_jax import __main__
from docs.hooks import files, keys

_WORDS = {
  'data': 'dataset', 'loss': 'loss', 'model': 'network', 'norm': 'norm',
  'optimizer': 'optimizer', 'schedule': 'schedule', 'measure': 'measure',
}  # fmt: skip


def config_keys(source: str | None = None) -> str:
  """Returns the keys of the defaults, group by group.

  Args:
    source: of the file that explains them, if not the one there is.

  Raises:
    ValueError: keys that nothing explains.
  """
  parts, silent = [], []
  of_name = {kind: keys.constructors(kind) for kind in _WORDS}
  for group in keys.groups(source or keys.FILE.read_text()):
    rows = [(key, _text(key, group, of_name)) for key in group.keys]
    silent += [key.name for key, text in rows if not text]
    parts.append(f'## {group.title}\n')
    text = _said(group.text)
    parts.append(f'{text[:1].upper()}{text[1:]}\n')
    parts.append(
      _table(
        ('key', 'default', ''),
        ((_anchor(key.name), _code(key.default), text) for key, text in rows),
      )
    )
  if silent:
    raise ValueError(f'{keys.FILE}: no comment explains {", ".join(silent)}')
  return '\n'.join(parts)


def _text(key: keys.Key, group: keys.Group, of_name: dict) -> str:
  """Returns what a key is, as Markdown: its comment, or its constructor's."""
  section, _, last = key.name.rpartition('.')
  kind = 'measure' if section.startswith('measures.') else section
  if key.text:
    return _said(key.text)
  if last == 'name':
    return f'the {_WORDS[kind]}, with its keywords: [which there are](#{kind})'
  same = (
    each.text
    for each in group.keys
    if kind == 'measure' and each.name.endswith(f'.{last}')
  )
  chosen = (
    ast.literal_eval(each.default)
    for each in group.keys
    if each.name == f'{section}.name'
  )
  texts = (
    each.text
    for name in chosen
    for each in of_name[kind][name]
    if each.name == last
  )
  return _said(next(filter(None, (*same, *texts)), ''))


def keywords(kind: str) -> str:
  """Returns the names that a section may have, with the keywords of each.

  Names with the same keywords share a table.

  Raises:
    ValueError: keywords that nothing explains.
  """
  alike: dict[tuple, list[str]] = {}
  for name, found in keys.constructors(kind).items():
    alike.setdefault(tuple(found), []).append(name)
    silent = [key.name for key in found if not key.text]
    if silent:
      raise ValueError(f'{kind} {name!r}: nothing explains {", ".join(silent)}')
  parts = []
  for found, names in alike.items():
    parts.append(f'**{", ".join(map(_code, names))}**\n')
    if found:
      rows = ((_code(k.name), _code(k.default), _said(k.text)) for k in found)
      parts.append(_table(('keyword', 'default', ''), rows))
    else:
      parts.append('takes no keywords.\n')
  return '\n'.join(parts)


def commands() -> str:
  """Returns all commands, each with its help and those of its actions."""
  parts = []
  for name, line in __main__.COMMANDS.items():
    parser = _subparsers(__main__.parser([name]))[name]
    parts.append(f'## {name}\n\n{line[0].upper()}{line[1:]}.\n')
    parts.append(_help(parser))
    for action, inner in _subparsers(parser).items():
      parts.append(f'### {name} {action}\n\n{_help(inner)}')
  return '\n'.join(parts)


def _subparsers(parser: argparse.ArgumentParser) -> dict:
  """Returns name -> parser of what a command line goes on with, if any."""
  if parser._subparsers is None:
    return {}
  (action,) = parser._subparsers._group_actions
  return action.choices


def _help(parser: argparse.ArgumentParser) -> str:
  return f'```text\n{parser.format_help().rstrip()}\n```\n'


def run_files() -> str:
  """Returns the files of a working directory, in the order of their list."""
  rows = ((_code(file.path), _said(file.text)) for file in files.listed())
  return _table(('file', ''), rows)


def api(name: str) -> str:
  """Returns what mkdocstrings makes the entries of a module's names of."""
  module = importlib.import_module(name)
  parts = []
  names = sorted(
    module.__all__, key=lambda each: inspect.isclass(getattr(module, each))
  )
  for each in names:  # functions first
    value = getattr(module, each)
    is_ours = getattr(value, '__module__', '').startswith('bn_jax')
    if not is_ours or not callable(value):
      continue  # tables and modules
    options = [f'heading: {each}', f'toc_label: {each}']
    if inspect.isclass(value) and issubclass(value, nn.Module):
      options.append('members: [__call__]')
    # A module of the same name would be taken for a function.
    lines = [f'::: {value.__module__}.{value.__qualname__}', '    options:']
    parts.append('\n'.join((*lines, *(f'      {o}' for o in options), '')))
  return '\n'.join(parts)


GENERATED = {
  'config keys': config_keys,
  **{f'{kind} keywords': lambda kind=kind: keywords(kind) for kind in _WORDS},
  **{
    f'api {name}': lambda name=name: api(name)
    for name in (
      'bn_jax.analysis',
      'bn_jax.analysis.theory',
      'bn_jax.models',
      'bn_jax.norms',
      'bn_jax.optim',
    )
  },
  'commands': commands,
  'files': run_files,
}
_COMMENT = re.compile(
  r'`([^`]+)`|\b(bn_jax(?:\.\w+)+)|\bdocs/([\w/]+\.md)((?:#[\w-]+)?)|(.)', re.S
)
_MARK = re.compile('^<!-- generated: (.*) -->$', re.M)


def filled(text: str) -> str:
  """Returns a page whose marks, <!-- generated: NAME -->, have what they name.

  Raises:
    KeyError: a mark that names nothing.
  """
  return _MARK.sub(lambda mark: GENERATED[mark[1]](), text)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
  head = tuple(head)
  lines = (head, ('---',) * len(head), *rows)
  return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def _anchor(name: str) -> str:
  return f'<a id="{name}"></a>{_code(name)}'


def _code(text: str) -> str:
  return f'<code>{_escaped(text)}</code>'


def _escaped(text: str) -> str:
  """Returns a text that Markdown, also in a table, shows as it is."""
  special = lambda match: f'&#{ord(match[0])};'
  return re.sub(r'[\\`*_{}\[\]|<>&#~]', special, text)


def _said(text: str) -> str:
  """Returns a comment as Markdown: its code as code, its pages as links."""

  def marked(match: re.Match) -> str:
    code, name, page, anchor, other = match.groups()
    if code or name:
      return _code(code or name)
    if page:
      return f'[{page}](../{page}{anchor})'
    return _escaped(other)

  return _COMMENT.sub(marked, text)
