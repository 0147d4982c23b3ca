"""Reads which files a working directory has, from where they are named."""

import re
from typing import NamedTuple

from bn_jax.storage import analysis_folder, run_folder

_LINE = re.compile(r'^( *)(\S.*?)(?: {2,}(\S.*))?$')


class File(NamedTuple):
  """A file or folder below WORKDIR, and what is in it."""

  path: str
  text: str


def listed() -> list[File]:
  """Returns the files that the docstrings of their modules list."""
  return [*of(run_folder.__doc__), *of(analysis_folder.__doc__)]


def of(docstring: str) -> list[File]:
  """Returns the files of the list in a docstring, with their whole paths.

  Its lines begin with a path, such as WORKDIR/experiment.json, and after two
  spaces or more what it is; what is indented below a folder lies in it.
  """
  (block,) = re.findall(r'^WORKDIR/.*?(?=\n\n|\Z)', docstring, re.M | re.S)
  found, above = [], ''
  for line in block.rstrip().splitlines():
    indent, path, text = _LINE.match(line).groups()
    if not indent:
      above = path
    elif len(indent) > 2:  # goes on
      found[-1] = File(found[-1].path, f'{found[-1].text} {line.strip()}')
      continue
    if text:  # what only begins a list is in another
      found.append(File(f'{above}{path}' if indent else path, text))
  return found
