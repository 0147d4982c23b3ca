"""The part of the page that shows how the claims of the papers came off."""

import html
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from bn_jax.report.claims import judge, verdicts

_CLASSES = {judge.HOLDS: 'holds', judge.FAILS: 'fails'}


class _Block(NamedTuple):
  """The claims of one figure at one size.

  Attributes:
    rows: at least one.
    names: of the working directories that say so.
  """

  rows: list[verdicts.Row]
  names: list[str]


def section(workdirs: Sequence[pathlib.Path]) -> str:
  """Section `verdicts` of the page; nothing where none were made.

  What several working directories say alike is shown once.
  """
  blocks, changed = [], []
  for workdir in workdirs:
    rows, stale = verdicts.read(workdir)
    name = workdir.resolve().name
    changed += [name] if stale else []
    _add(blocks, rows, name)
  if not blocks:
    return ''
  tables = '\n'.join(_table(block, len(workdirs)) for block in blocks)
  said = [row['verdict'] for block in blocks for row in block.rows]
  counts = ', '.join(
    f'{said.count(verdict)} {words}'
    for verdict, words in (
      (judge.HOLDS, 'hold'), (judge.FAILS, 'fail'),
      (judge.UNKNOWN, 'are not measured'),
    )
  )  # fmt: skip
  return f"""<section id="verdicts">
<h2>The paper's claims</h2>
{_notice(changed)}<p>Fixed before the runs that are judged. A claim holds if the
mean over seeds and its whole 95 % interval, over pairs of seeds, lie on the
claimed side of the threshold. Means of a ratio and of its two runs are
geometric. Here {counts}.</p>
{tables}
</section>"""


def _add(blocks: list[_Block], rows: Sequence[verdicts.Row], name: str) -> None:
  """Adds the blocks of a working directory, or its name to equal ones."""
  of = {}
  for row in rows:
    of.setdefault((row['figure'], row['size']), []).append(row)
  for found in of.values():
    for block in blocks:
      if block.rows == found:
        block.names.append(name)
        break
    else:
      blocks.append(_Block(found, [name]))


def _notice(changed: Sequence[str]) -> str:
  if not changed:
    return ''
  names = html.escape(', '.join(changed))
  return (
    '<p class="notice"><strong>Out of date.</strong> Runs have changed since '
    f'these verdicts were made ({names}); <code>python -m bn_jax papers verify'
    '</code> makes them anew.</p>\n'
  )


def _table(block: _Block, workdirs: int) -> str:
  """The table of one figure at one size."""
  first = block.rows[0]
  caption = f'{first["figure"]} ({first["size"]}): {first["title"]}'
  if len(block.names) < workdirs:
    caption += f'; runs of {", ".join(block.names)}'
  body = '\n'.join(map(_row, block.rows))
  return f"""<div class="scroll"><table>
<caption>{html.escape(caption)}</caption>
<thead><tr><th>Claim</th><th>Measured</th><th>Verdict</th></tr></thead>
<tbody>
{body}
</tbody></table></div>"""


def _row(row: verdicts.Row) -> str:
  text = {
    key: html.escape(value)
    for key, value in row.items()
    if isinstance(value, str)
  }
  kind = _CLASSES.get(row['verdict'])
  shown = f' class="{kind}"' if kind else ''
  return f"""<tr><td>{text['statement']}
<small>{text['source']}</small></td>
<td>{text['measured'] or '–'}
<small>{text['threshold']}: <code>{text['statistic']}</code></small></td>
<td><b{shown}>{text['verdict']}</b>
<small>{text['detail']}</small></td></tr>"""
