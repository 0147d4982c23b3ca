"""Writes in HTML what several sections of the page have: names and tables."""

import html
import re
from collections.abc import Iterable


def breakable(name: str) -> str:
  """Returns a name that may be broken after a slash, a point or a line."""
  return re.sub('[/._]', r'\g<0><wbr>', html.escape(name))


def heading(label: str, sort: str = '', better: str = '') -> str:
  """Returns the heading of a column, with what the page's script sorts by."""
  told = {'sort': sort, 'better': better}
  data = ''.join(f' data-{key}="{of}"' for key, of in told.items() if of)
  return f'<th scope="col"{data}>{breakable(label)}</th>'


def row(name: str, cells: Iterable[str]) -> str:
  """Returns a row of a table, of cells that are HTML."""
  return (
    f'<tr><th scope="row" data-value="{html.escape(name)}">{breakable(name)}'
    f'</th>{"".join(cells)}</tr>'
  )


def table(
  kind: str, name: str, head: Iterable[str], rows: Iterable[str]
) -> str:
  """Returns a table in a box of its own, which keys can scroll."""
  lines = '\n'.join(rows)
  return f"""<div class="scroll" tabindex="0" role="region"
aria-label="{html.escape(name)}"><table class="{kind}">
<thead><tr>{''.join(head)}</tr></thead><tbody>
{lines}
</tbody></table></div>"""
