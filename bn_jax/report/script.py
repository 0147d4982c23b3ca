"""Puts the page's one script on it, which its hash allows to run."""

import base64
import collections
import functools
import hashlib
import itertools
import pathlib
import re
import string

_SOURCE = pathlib.Path(__file__).with_name('page.js')
# A text, which stays; or a comment, or blanks between words, which go.
_PARTS = re.compile(
  r"""('(?:[^'\\\n]|\\.)*'|`[^`]*`)|/\*.*?\*/|//[^\n]*|\s+""", re.DOTALL
)
_TOKENS = re.compile(r"""'(?:[^'\\]|\\.)*'|`[^`]*`|[\w$]+|.""")
_WITHIN = re.compile(r'(?<=\$\{)[^}]*')  # of a template: its code
_KEYWORDS = ('as', 'do', 'if', 'in', 'is', 'of')  # of one or two letters
_DECLARED = re.compile(r'\b(?:let|function|class) (\w+)')
_MARKS = re.compile(r' ?([{}()\[\];,=<>+\-*/?:&|!%]) ?')


@functools.cache
def text() -> str:
  """Returns the script without comments, and with short names and blanks."""
  source = _SOURCE.read_text(encoding='utf-8')
  kept, code = [], ''
  at = 0
  for part in _PARTS.finditer(source):
    code += source[at : part.start()]
    at = part.end()
    if part[1] is None:
      code += ' '
      continue
    kept += [_joined(code), part[1]]
    code = ''
  return _renamed(''.join([*kept, _joined(code + source[at:])]).strip())


def _joined(code: str) -> str:
  code = _MARKS.sub(r'\1', re.sub(' +', ' ', code))
  code = re.sub(r'[;,](?=[}\])])', '', code)
  code = re.sub(r'\bconst\b', 'let', code)
  code = re.sub(r'(?<![\w.$])0(?=\.\d)', '', code)  # 0.5
  return re.sub(r'(?<![\w$])\((\w+)\)=>', r'\1=>', code)


def _renamed(code: str) -> str:
  """Returns code with short names for what it declares, the same everywhere.

  Not of a word that is a property somewhere too: all of its places are read,
  none is understood.
  """
  tokens = _TOKENS.findall(code)
  inner = ' '.join(
    part for of in tokens if of[0] == '`' for part in _WITHIN.findall(of)
  )
  properties = _properties(tokens) | _properties(_TOKENS.findall(inner))
  words = collections.Counter(tokens + _TOKENS.findall(inner))
  names = {*_DECLARED.findall(code)} - properties - {*_KEYWORDS}
  names = sorted(names, key=lambda name: (-words[name] * (len(name) - 1), name))
  every = (
    ''.join(letters)
    for length in (1, 2)
    for letters in itertools.product(string.ascii_letters, repeat=length)
  )
  free = (new for new in every if new not in words and new not in _KEYWORDS)
  short = dict(zip(words, words))
  short |= {name: new for name, new in zip(names, free) if len(new) < len(name)}
  renamed = lambda code: ''.join(short[part] for part in _TOKENS.findall(code))
  return ''.join(
    _WITHIN.sub(lambda inner: renamed(inner[0]), token)
    if token[0] == '`'
    else short[token]
    for token in tokens
  )


def _properties(tokens: list[str]) -> set[str]:
  """Returns the words that are, somewhere, names of properties or of methods.

  And others that look like one: {a, b} may be an object.
  """
  found, open_brackets = set(), [('', '')]
  around = zip(['', '', *tokens], ['', *tokens], tokens, [*tokens[1:], ''])
  for place, (before, last, token, after) in enumerate(around):
    if token in ('(', '[', '{'):
      is_function = tokens[max(0, place - 3) : place - 1] == ['function', ' ']
      open_brackets.append((token, '' if is_function else last))
    elif token in (')', ']', '}'):
      _, name = open_brackets.pop()
      if token == ')' and after == '{':  # name(...) {
        found.add(name)
    is_part = last == '.' and before != '.'  # of ...spread
    is_key = last in '{,' and after == ':'
    is_short = open_brackets[-1][0] == '{' and last in '{,' and after in ',}='
    if is_part or is_key or is_short:
      found.add(token)
  return found


def policy() -> str:
  """Returns what the page may do: show itself, and run this script alone."""
  digest = base64.b64encode(hashlib.sha256(text().encode()).digest()).decode()
  return (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
    f"script-src 'sha256-{digest}'"
  )
