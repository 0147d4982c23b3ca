"""Hooks of MkDocs: what the site has that no page of docs/ holds."""

import pathlib

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from docs.hooks import notebook, outside, sources, tables

TOUR = sources.DOCS / 'tour.ipynb'


def on_files(files: Files, *, config) -> Files:
  """Adds the tour, and each file of the repository that a page links to."""
  text, pictures = notebook.page(TOUR)
  for path, content in {'tour.md': text, **pictures}.items():
    files.append(File.generated(config, path, content=content))
  paths = {
    path
    for file in files.documentation_pages()
    for link, _ in sources.links(file.content_string)
    if (path := sources.outside(file.src_uri, link))
  }
  for path in sorted(paths):
    text = sources.page(path)
    files.append(File.generated(config, sources.place(path), content=text))
  return files


def on_page_markdown(markdown: str, *, page, **_) -> str:
  """Fills in what is generated, and leads links out of docs/ to sources."""
  if page.file.src_uri.startswith('source/'):
    return markdown
  if page.file.src_uri != 'tour.md':  # which leads to the notebook itself
    markdown = markdown.replace(f']({TOUR.name})', '](tour.md)')
  return sources.relinked(tables.filled(markdown), page.file.src_uri)


def on_post_build(*, config) -> None:
  """Raises PluginError for a site that fetches anything from elsewhere."""
  found = list(outside.fetched(pathlib.Path(config.site_dir)))
  if found:
    lines = '\n'.join(f'  {file}: {address}' for file, address in found[:20])
    raise PluginError(f'the site is not for use offline; it fetches\n{lines}')
