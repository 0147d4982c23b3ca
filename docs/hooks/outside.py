"""Finds what a built site would fetch from elsewhere: it is to work offline."""

import html.parser
import pathlib
import re
from collections.abc import Iterator

_FETCHED = {
  'audio': 'src', 'iframe': 'src', 'img': 'src', 'link': 'href',
  'script': 'src', 'source': 'src', 'video': 'src',
}  # fmt: skip
_ELSEWHERE = re.compile('(https?:)?//')
_IN_STYLE = re.compile(
  r'(?:url\(|@import)\s*["\']?((?:https?:)?//[^"\')\s]+)', re.I
)


class _Fetched(html.parser.HTMLParser):
  """Collects the addresses elsewhere that a page fetches as it is opened."""

  def __init__(self) -> None:
    super().__init__()
    self.found: list[str] = []

  def handle_starttag(self, tag, attrs):
    address = dict(attrs).get(_FETCHED.get(tag, ''), '') or ''
    if _ELSEWHERE.match(address):
      self.found.append(address)


def of_page(text: str) -> list[str]:
  """Returns the addresses elsewhere that an HTML page fetches."""
  parser = _Fetched()
  parser.feed(text)
  return parser.found + _IN_STYLE.findall(text)


def fetched(site: pathlib.Path) -> Iterator[tuple[str, str]]:
  """Yields (file, address) of all that a built site fetches from elsewhere."""
  for file in sorted(site.rglob('*')):
    if file.suffix == '.html':
      found = of_page(file.read_text())
    elif file.suffix == '.css':
      found = _IN_STYLE.findall(file.read_text())
    else:
      continue
    for address in found:
      yield f'{file.relative_to(site)}', address
