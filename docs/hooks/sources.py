"""Gives files of the repository that pages link to a page on the site.

A page links to `../bn_jax/norms/batch.py`, as readers of the repository see it.
The site has that file as `source/bn_jax/norms/batch.py`, with its colours, and
so needs no network.
"""

import os
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs'
_LINK = re.compile(r'\]\(([^)\s#]+)((?:#[^)\s]*)?)\)')
_LANGUAGES = {'.py': 'python', '.sh': 'sh', '.json': 'json', '.js': 'js'}


def links(text: str) -> Iterator[tuple[str, str]]:
  """Yields (path, anchor) of each link to another file, as it is written."""
  for path, anchor in _LINK.findall(text):
    if not re.match('[a-z]+:', path):
      yield path, anchor


def outside(page: str, link: str) -> str | None:
  """Returns the path below the repository of a link that leaves docs/.

  Args:
    page: path of the page below docs/.
    link: as it is written in the page.
  """
  target = (DOCS / page).parent / link
  target = pathlib.Path(os.path.normpath(target))
  return None if target.is_relative_to(DOCS) else f'{target.relative_to(ROOT)}'


def place(path: str) -> str:
  """Returns the page of a file of the repository, below docs/."""
  return f'source/{path}.md'


def page(path: str) -> str:
  """Returns the text of the page of a file, or of a folder its list.

  Raises:
    FileNotFoundError: there is no such file.
  """
  file = ROOT / path
  if file.is_dir():
    names = sorted(each.name for each in file.iterdir() if each.is_file())
    text = '\n'.join(f'* `{name}`' for name in names)
  else:
    language = _LANGUAGES.get(file.suffix, 'text')
    text = f'`````{language}\n{file.read_text().rstrip()}\n`````'
  # A search is for what pages say.
  return f'---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n{text}\n'


def relinked(text: str, page: str) -> str:
  """Returns a page's text whose links out of docs/ lead to pages of sources."""

  def of(match: re.Match) -> str:
    link, anchor = match.groups()
    if re.match('[a-z]+:', link) or (path := outside(page, link)) is None:
      return match[0]
    start = pathlib.PurePosixPath(page).parent
    return f']({os.path.relpath(place(path), start)}{anchor})'

  return _LINK.sub(of, text)
