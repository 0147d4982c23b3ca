"""Rewrites docstrings as mkdocstrings reads them.

A formula stands two columns in, after an empty line:

  y = (x - mean) / sqrt(var + epsilon)

Markdown wants four, and would make a paragraph of it. Two names that Args
explains together, `width, height: pixels`, are one name to mkdocstrings.
"""

import re

_TOGETHER = re.compile(r'^( +)(\w+(?:, \w+)+)(: .*(?:\n\1 +.*)*)', re.M)
_BESIDE = re.compile(r'^(Attributes|Args)(, [^:]+):$', re.M)
_SECTION = re.compile('(Args|Attributes)[,:]|(Raises|Returns|Yields):$')


def rewritten(docstring: str) -> str:
  """Returns a docstring as mkdocstrings reads it."""
  return item_each(headed(with_code(docstring)))


def with_code(docstring: str) -> str:
  """Returns a docstring whose indented paragraphs are indented by four more."""
  lines, in_section, is_code = [], False, False
  above = ''
  for line in docstring.splitlines():
    if line.strip() and not line.startswith(' '):
      in_section = bool(_SECTION.match(line)) and not above.strip()
      is_code = False
    elif line.strip() and not above.strip():
      is_code = not in_section
    lines.append(f'    {line}' if is_code and line.strip() else line)
    above = line
  return '\n'.join(lines)


def item_each(docstring: str) -> str:
  """Returns a docstring in which names explained together have an item each."""

  def apart(match: re.Match) -> str:
    indent, names, text = match.groups()
    return '\n'.join(f'{indent}{name}{text}' for name in names.split(', '))

  return _TOGETHER.sub(apart, docstring)


def headed(docstring: str) -> str:
  """Returns a docstring in which 'Attributes, beside ...:' is a sentence."""
  return _BESIDE.sub(r'\1\2.\n\n\1:', docstring)
