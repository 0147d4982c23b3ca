"""Shows on the page how claims came off: a line a sentence, details to open."""

import collections
import html
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from bn_jax import errors
from bn_jax.report.claims import (
  alike,
  drawn,
  judging,
  markup,
  sentences,
  verifying,
)
from bn_jax.report.claims import rows as rows_lib
from bn_jax.report.results import curves, optimizers

# Beside the word, so that a verdict is told without its colour.
_SIGNS = dict(zip(judging.VERDICTS, '✓✗?–'))


class Shown(NamedTuple):
  """What the page has of claims."""

  section: str  # `claims` of the page; '' where there are none
  # Name of a figure -> its claims, to stand under its title.
  beside: Mapping[str, str]


class _Block(NamedTuple):
  """The claims of one figure at one size."""

  rows: list[rows_lib.Row]  # at least one
  names: list[str]  # of the working directories that have these rows


def of(
  workdirs: Sequence[pathlib.Path],
  runs: Sequence[curves.Run],
  titles: Mapping[str, str],
) -> Shown:
  """Returns the section of claims, and what stands beside the figures.

  Args:
    workdirs: whose verdicts.json is shown; of equal rows of a figure the first.
    runs: those of the page; the ones that differ in the norm alone are judged.
    titles: name of a figure of the page -> its title.
  """
  blocks, outdated = _blocks(workdirs)
  groups = alike.groups(runs)
  used = set()
  headed = []
  for title, claims in _headed(blocks, groups, len(workdirs)):
    placed = [
      claim._replace(
        id=_identity(claim.id, used),
        figure=drawn.figure(claim.row, runs, titles),
      )
      for claim in claims
    ]
    headed.append((title, sentences.of(placed)))
  if not headed:
    return Shown('', {})
  every = [sentence for _, of_title in headed for sentence in of_title]
  beside = collections.defaultdict(str)
  for sentence in every:
    figures = (claim.figure for claim in sentence.claims)
    for figure in dict.fromkeys(filter(None, figures)):
      beside[figure] += (
        f'<li>{_said(sentence.rows)} <a href="#{sentence.claims[0].id}">'
        f'{html.escape(sentence.text)}</a></li>\n'
      )
  lists = [
    f'<h3>{html.escape(title)}</h3>\n'
    + _list(_item(sentence, titles) for sentence in of_title)
    for title, of_title in headed
  ]
  section = f"""<section id="claims">
<h2>What the papers claim, and these runs</h2>
<p>{_counts([row for sentence in every for row in sentence.rows])}</p>
{_notice(outdated)}{_rules(bool(blocks), groups)}
{chr(10).join(lists)}
</section>"""
  return Shown(section, {key: _list([text]) for key, text in beside.items()})


def _headed(
  blocks: Sequence[_Block], groups: Sequence[alike.Group], workdirs: int
) -> Iterator[tuple[str, list[sentences.Claim]]]:
  """Yields (title, claims), not yet with places and figures of their own."""
  for rows, names in blocks:
    figure, size, title = (rows[0][k] for k in ('figure', 'size', 'title'))
    whose = f'; runs of {", ".join(names)}' * (len(names) < workdirs)
    yield (
      f'{figure} ({size}): {title}{whose}',
      [
        sentences.Claim(row, f'{figure}-{size}-{row["id"]}', None)
        for row in rows
      ],
    )
  if groups:
    yield (
      'Networks that differ in the norm alone',
      [
        sentences.Claim(
          row, f'norms-{group.plain.name}-{row["id"]}', None,
          ', '.join(f'{run.name} ({k})' for k, run in group.runs.items()),
          name,
        )
        for group, name in zip(groups, _names(groups))
        for row in group.rows
      ],
    )  # fmt: skip


def _list(items: Iterable[str]) -> str:
  return f'<ul class="claims">\n{"".join(items)}</ul>\n'


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


def _names(groups: Sequence[alike.Group]) -> list[str]:
  """Returns what tells groups apart: the learning rate, or the plain run."""
  if len(groups) == 1:
    return ['']
  configs = [group.plain.config for group in groups]
  rates = [optimizers.rate(config) for config in configs]
  without = [{**config, 'schedule': None} for config in configs]
  are_rates = None not in rates and len(set(rates)) == len(rates)
  if not are_rates or any(config != without[0] for config in without):
    return [group.plain.name for group in groups]
  return [f'rate {rate:g}' for rate in rates]


def _notice(outdated: Sequence[str]) -> str:
  if not outdated:
    return ''
  names = html.escape(', '.join(outdated))
  return (
    '<p class="notice"><strong>Out of date.</strong> Runs have changed since '
    f'these verdicts were made, or older rules made them ({names}); '
    '<code>python -m bn_jax papers verify</code> makes them anew.</p>\n'
  )


def _rules(of_figures: bool, groups: Sequence[alike.Group]) -> str:
  """Returns how verdicts are found, to open."""
  text = """A claim holds if the whole 95 % interval over pairs of seeds lies
on the claimed side of the threshold, is contradicted if all of it lies on the
other side, and is undecided if it reaches across; one seed has no interval.
Means of a ratio, and of the two runs that it compares, are geometric; those of
runs in an order (→) are plain."""
  if of_figures:
    text += """ Claims of figures were fixed before the runs that they
judge."""
  if groups:
    runs = [run for group in groups for run in group.runs.values()]
    kinds = {False: 'accuracy', True: 'loss'}
    metrics = [kinds[k] for k in sorted(set(map(curves.is_regression, runs)))]
    text += f""" Runs that are compared differ in the norm alone, at the same
learning rate, weights and batches. Medians are over all of training: a network
that has fitted its data has a flat landscape for that reason alone, so read
them beside the {' or the '.join(metrics)}."""
  return (
    f'<details><summary>How a claim is judged</summary><p>{text}</p></details>'
  )


def _identity(words: str, used: set[str]) -> str:
  """Returns claim-WORDS, with a number where that is used already."""
  name = stem = f'claim-{re.sub(r"[^A-Za-z0-9_]+", "-", words)}'
  count = 1
  while name in used:
    count += 1
    name = f'{stem}-{count}'
  used.add(name)
  return name


def _counts(rows: Sequence[rows_lib.Row]) -> str:
  """Returns the signs and '3 hold, 1 contradicted', without what is none."""
  verdicts = {row['verdict'] for row in rows}
  return ', '.join(
    _marked(verdict, rows_lib.count(rows, verdict))
    for verdict in judging.VERDICTS
    if verdict in verdicts
  )


def _marked(verdict: str, words: str, style: str = '') -> str:
  """Returns words in the colour of a verdict, after its sign."""
  # In a file that was changed by hand a verdict may be any text.
  name, sign = html.escape(verdict.split(' ')[0]), _SIGNS.get(verdict) or '–'
  return (
    f'<b class="{name}"><span aria-hidden="true">{sign}</span>'
    f'<span{style}> {html.escape(words)}</span></b>'
  )


def _said(rows: Sequence[rows_lib.Row]) -> str:
  """Returns the verdict on a claim, or how many of several have which."""
  if len(rows) > 1:
    return _counts(rows)
  return _marked(rows[0]['verdict'], rows_lib.said(rows[0]))


def _item(sentence: sentences.Sentence, titles: Mapping[str, str]) -> str:
  """Returns the line of a sentence, its grid, and the details of its claims."""
  first, *others = sentence.claims
  text = (
    f'{_said(sentence.rows)} {html.escape(sentence.text)} '
    f'<small>{html.escape(_numbers(sentence.rows))}</small>'
  )
  if not others:
    return f"""<li id="{first.id}"><details>
<summary>{text}</summary>
{_details(first, titles)}
</details></li>
"""
  # The line has the id of the first claim.
  ids = ['', *(f' id="{claim.id}"' for claim in others)]
  parts = [
    f'<h4{of_claim}>{html.escape(", ".join(labels))}: {_said([claim.row])}'
    f'</h4>\n{_details(claim, titles)}'
    for of_claim, labels, claim in zip(ids, sentence.labels, sentence.claims)
  ]
  return f"""<li id="{first.id}"><p>{text}</p>
{_grid(sentence)}
<details><summary>Details of these {len(parts)}</summary>
{chr(10).join(parts)}
</details></li>
"""


def _numbers(rows: Sequence[rows_lib.Row]) -> str:
  """Returns those of one claim, or what all of several ask for."""
  if len(rows) == 1:
    return rows_lib.in_short(rows[0])
  if len({row['threshold'] for row in rows}) == 1:
    return f'claimed {rows[0]["threshold"]}'
  asked = {rows_lib.asked(row) for row in rows}
  return asked.pop() if len(asked) == 1 else ''


def _grid(sentence: sentences.Sentence) -> str:
  """Returns the verdicts by what differs: a list, or rows and columns."""
  cells = {}
  for labels, row in zip(sentence.labels, sentence.rows):
    # The sign of a verdict, its word for those who hear it, and a number.
    verdict = _marked(row['verdict'], rows_lib.said(row), ' class="unseen"')
    mean = html.escape(rows_lib.plain(row['mean']))
    cells[labels] = f'{verdict} <small>{mean}</small>'
  if len(sentence.labels[0]) == 1:
    items = ''.join(
      f'<li>{html.escape(label)} {cell}</li>'
      for (label,), cell in cells.items()
    )
    return f'<ul class="grid">{items}</ul>'
  names, columns = (dict.fromkeys(side) for side in zip(*sentence.labels))
  rows = (
    markup.row(
      name, (f'<td>{cells.get((name, c)) or ""}</td>' for c in columns)
    )
    for name in names
  )
  head = '<td></td>', *map(markup.heading, columns)
  return markup.table('grid', sentence.text, head, rows)


def _details(claim: sentences.Claim, titles: Mapping[str, str]) -> str:
  row, figure = claim.row, claim.figure
  seeds = ', '.join(
    f'{rows_lib.plain(value)} (seed {seed})'
    for seed, value in row['values'].items()
  )
  terms = {
    'Claim': html.escape(f'{row["statement"]}. {row["source"]}'),
    'Runs': html.escape(claim.runs),
    'Quantity': f'<code>{html.escape(row["statistic"])}</code>',
    'Holds if': html.escape(row['threshold']),
    'Measured': html.escape(row['measured']),
    'By seed': html.escape(seeds),
    'Why': html.escape(row['detail']),
    'To decide': html.escape(rows_lib.would_decide(row)),
    'Drawn in': figure
    and f'<a href="#{html.escape(figure)}">{html.escape(titles[figure])}</a>',
  }
  entries = ''.join(
    f'<dt>{term}</dt><dd>{text}</dd>\n' for term, text in terms.items() if text
  )
  return f'<dl>\n{entries}</dl>'
