"""Puts the page's one script on it, which its hash allows to run."""

import base64
import functools
import hashlib
import pathlib
import re

_SOURCE = pathlib.Path(__file__).with_name('page.js')
# A text, which stays; or a comment, or blanks between words, which go.
_PARTS = re.compile(
  r"""('(?:[^'\\\n]|\\.)*'|`[^`]*`)|/\*.*?\*/|//[^\n]*|\s+""", re.DOTALL
)
_MARKS = re.compile(r' ?([{}()\[\];,=<>+\-*/?:&|!%]) ?')


@functools.cache
def text() -> str:
  """Returns the script without its comments, and with blanks between words."""
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
  return ''.join([*kept, _joined(code + source[at:])]).strip()


def _joined(code: str) -> str:
  code = _MARKS.sub(r'\1', re.sub(' +', ' ', code))
  code = re.sub(r'[;,](?=[}\])])', '', code)
  code = re.sub(r'\bconst ', 'let ', code)
  code = re.sub(r'(?<![\w.$])0(?=\.\d)', '', code)  # 0.5
  return re.sub(r'(?<![\w$])\((\w+)\)=>', r'\1=>', code)


def policy() -> str:
  """Returns what the page may do: show itself, and run this script alone."""
  digest = base64.b64encode(hashlib.sha256(text().encode()).digest()).decode()
  return (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
    f"script-src 'sha256-{digest}'"
  )
