"""Shows on the page how claims came off."""

import html
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from bn_jax import errors
from bn_jax.report.claims import alike, verifying
from bn_jax.report.claims import rows as rows_lib
from bn_jax.report.results import curves


class _Block(NamedTuple):
  """The claims of one figure at one size.

  Attributes:
    rows: at least one.
    names: of the working directories that have these rows.
  """

  rows: list[rows_lib.Row]
  names: list[str]


def section(
  workdirs: Sequence[pathlib.Path], runs: Sequence[curves.Run]
) -> str:
  """Returns section `claims` of the page; '' where there are no claims.

  Args:
    workdirs: whose verdicts.json is shown; of equal rows of a figure the first.
    runs: those of the page; the ones that differ in the norm alone are judged.
  """
  blocks, outdated = _blocks(workdirs)
  groups = alike.groups(runs)
  if not blocks and not groups:
    return ''
  tables = [
    _table(_caption(block, len(workdirs)), block.rows) for block in blocks
  ]
  tables += [_table(_compared(group), group.rows) for group in groups]
  return f"""<section id="claims">
<h2>What the papers claim, and these runs</h2>
{_notice(outdated)}<p>A claim holds if the whole 95 % interval over pairs of
seeds lies on the claimed side of the threshold, is contradicted if all of it
lies on the other side, and is undecided if it reaches across; one seed has no
interval. Means of a ratio, and of the two runs that it compares, are geometric;
those of runs in an order (→) are plain.</p>
{_of_figures(blocks)}{_of_groups(groups)}{chr(10).join(tables)}
</section>"""


def _blocks(
  workdirs: Sequence[pathlib.Path],
) -> tuple[list[_Block], list[str]]:
  """Returns all blocks, and the names of directories that are out of date."""
  blocks, outdated = [], []
  for workdir in workdirs:
    try:
      rows, changed = verifying.kept(workdir)
    except errors.StorageError:  # they can be judged again
      rows, changed = [], True
    name = workdir.resolve().name
    outdated += [name] if changed else []
    by_figure = {}
    for row in rows:
      by_figure.setdefault((row['figure'], row['size']), []).append(row)
    for figure_rows in by_figure.values():
      same = [block for block in blocks if block.rows == figure_rows]
      if same:
        same[0].names.append(name)
      else:
        blocks.append(_Block(figure_rows, [name]))
  return blocks, outdated


def _notice(outdated: Sequence[str]) -> str:
  if not outdated:
    return ''
  names = html.escape(', '.join(outdated))
  return (
    '<p class="notice"><strong>Out of date.</strong> Runs have changed since '
    f'these verdicts were made, or older rules made them ({names}); '
    '<code>python -m bn_jax papers verify</code> makes them anew.</p>\n'
  )


def _of_figures(blocks: Sequence[_Block]) -> str:
  """Returns the counts of verdicts on the claims of figures."""
  if not blocks:
    return ''
  counts = rows_lib.counted([row for block in blocks for row in block.rows])
  return f"""<p>Of the claims of figures, which were fixed before the runs that
they judge, {counts}.</p>
"""


def _of_groups(groups: Sequence[alike.Group]) -> str:
  """Returns the counts of these claims, and how to read their verdicts."""
  if not groups:
    return ''
  counts = rows_lib.counted([row for group in groups for row in group.rows])
  runs = [run for group in groups for run in group.runs.values()]
  kinds = {False: 'accuracy', True: 'loss'}
  metrics = [kinds[k] for k in sorted(set(map(curves.is_regression, runs)))]
  return f"""<p>Of the claims about networks that differ in the norm alone, at
the same learning rate, weights and batches, {counts}. Medians are over all of
training: a network that has fitted its data has a flat landscape for that
reason alone, so read them beside the {' or the '.join(metrics)}.</p>
"""


def _caption(block: _Block, workdirs: int) -> str:
  first = block.rows[0]
  caption = f'{first["figure"]} ({first["size"]}): {first["title"]}'
  if len(block.names) < workdirs:
    caption += f'; runs of {", ".join(block.names)}'
  return caption


def _compared(group: alike.Group) -> str:
  runs = ', '.join(f'{run.name} ({norm})' for norm, run in group.runs.items())
  return f'Compared: {runs}'


def _table(caption: str, rows: Sequence[rows_lib.Row]) -> str:
  body = '\n'.join(map(_row, rows))
  return f"""<div class="scroll"><table>
<caption>{html.escape(caption)}</caption>
<thead><tr><th>Claim</th><th>Measured</th><th>Verdict</th></tr></thead>
<tbody>
{body}
</tbody></table></div>"""


def _row(row: rows_lib.Row) -> str:
  text = {
    key: html.escape(value)
    for key, value in row.items()
    if isinstance(value, str)
  }
  word = html.escape(rows_lib.said(row))
  style = word.split(' ')[0]
  return f"""<tr><td>{text['statement']}
<small>{text['source']}</small></td>
<td>{text['measured'] or '–'}
<small>{text['threshold']}: <code>{text['statistic']}</code></small></td>
<td><b class="{style}">{word}</b>
<small>{text['detail']}</small></td></tr>"""
