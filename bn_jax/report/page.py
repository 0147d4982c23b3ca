"""Writes report.html, one file that opens offline, and its figures' files."""

import html
import pathlib
import string
from collections.abc import Callable, Iterable, Sequence

from bn_jax.report import figures, notices, script, summary
from bn_jax.report.claims import markup, showing
from bn_jax.report.drawing import (
  canvas,
  interactive,
  picture,
  record,
  static,
  tables,
  tails,
)
from bn_jax.report.results import conditions, curves, flat, looks, read, seeds
from bn_jax.storage import files as files_lib

_TEMPLATE = pathlib.Path(__file__).with_name('page.html')
# Of an inch of a figure at most: letters of 10 points are then as large as in a
# heading, in a small figure too.
_PIXELS = 133


def write(
  workdirs: Sequence[pathlib.Path],
  output: pathlib.Path | None = None,
  *,
  runs: Sequence[curves.Run] | None = None,
  title: str | None = None,
  shown: Callable[[Sequence[record.Figure]], Iterable[record.Figure]] = iter,
) -> pathlib.Path:
  """Writes report.html and figures/ from the records of working directories.

  Args:
    workdirs: one or more; several are put side by side.
    output: folder to write to; None is the working directory itself, or, for
      several, a folder beside the first that is called after all of them.
    runs: what `read.runs` returns for them; None reads them.
    title: that of the page; None is the names of the working directories.
    shown: yields the figures that it is given, each when the one before it is
      drawn, as `host.progress.drawing` does to show that.

  Returns:
    The path of the page.

  Raises:
    ConfigError: a directory that is given twice.
    StorageError: nothing to report, files that were changed, or no place to
      write.
  """
  runs = read.runs(workdirs) if runs is None else runs
  output = output or _default_output(workdirs)
  files_lib.make_folder(output / 'figures')
  for folder in (output, output / 'figures'):
    files_lib.remove_torn(folder)
  page_figures = figures.every(runs)
  claims = showing.of(
    workdirs, runs, {figure.name: figure.title for figure in page_figures}
  )
  sections = [
    _section(figure, output / 'figures', claims.beside.get(figure.name) or '')
    for figure in shown(page_figures)
  ]
  columns = summary.columns(runs)
  for name, rows in (
    ('figures/summary.csv', summary.numbers(runs, columns)),
    ('results.csv', flat.last(runs)),
  ):
    files_lib.write(output / name, tables.as_csv(rows))
  names = dict.fromkeys(workdir.resolve().name for workdir in workdirs)
  title = ' + '.join(names) if title is None else title
  page = string.Template(_TEMPLATE.read_text(encoding='utf-8')).substitute(
    title=html.escape(title),
    subtitle=html.escape(_subtitle(runs)),
    notices=_notices(runs),
    navigation=_navigation(claims.section, page_figures),
    claims=claims.section,
    summary=summary.section(runs, columns),
    conditions=html.escape(_conditions(runs)),
    figures='\n'.join(sections),
    provenance=_provenance(runs),
    policy=script.policy(),
    runs=interactive.runs(runs),
    script=script.text(),
  )
  path = output / 'report.html'
  files_lib.write(path, page)
  return path


def _default_output(workdirs: Sequence[pathlib.Path]) -> pathlib.Path:
  if len(workdirs) == 1:
    return workdirs[0]
  name = '+'.join(workdir.resolve().name for workdir in workdirs)
  return workdirs[0].resolve().parent / name


def _section(figure: record.Figure, folder: pathlib.Path, claims: str) -> str:
  """Writes a figure's files; returns its part of the page, with its claims."""
  files_lib.write(folder / f'{figure.name}.csv', tables.csv_of(figure))
  if not figure.rows:
    shown, suffixes, data = _numbers(figure), ('csv',), ''
  else:
    shown, suffixes = _picture(figure, folder), ('png', 'pdf', 'csv')
    kind, text = interactive.encoded(figure)
    told = f'type="application/{kind}" data-figure="{html.escape(figure.name)}"'
    data = f'<script {told}>{text}</script>'
  files = ', '.join(
    f'<a href="figures/{figure.name}.{suffix}">{suffix.upper()}</a>'
    for suffix in suffixes
  )
  caption = html.escape(figure.caption + picture.left_out(figure))
  static.forget()
  return f'''<section id="{figure.name}">
<h2>{html.escape(figure.title)}</h2>
{claims}<figure>
{shown}
<figcaption>{caption} <span>{files}</span></figcaption>
</figure>
{data}
</section>'''


def _picture(figure: record.Figure, folder: pathlib.Path) -> str:
  """Draws a figure; writes its PNG and PDF, and returns its pictures.

  One is for telephones; the page's style shows the other.
  """
  with canvas.style():
    wide, narrow = (
      canvas.settled(picture.drawn(figure, narrow)) for narrow in (False, True)
    )
  for suffix in ('png', 'pdf'):
    content = canvas.rendered(wide, suffix)
    files_lib.write(folder / f'{figure.name}.{suffix}', content)
  label = html.escape(tables.alternative(figure))
  return '\n'.join(
    canvas.inline(
      drawing,
      f'{figure.name}-{size}',
      f'class="still {size}" role="img" aria-label="{label}" '
      f'style="max-width: {_PIXELS * drawing.get_figwidth():.0f}px"',
    )
    for size, drawing in (('wide', wide), ('narrow', narrow))
  )


def _navigation(claims: str, page_figures: Sequence[record.Figure]) -> str:
  """Returns links to the sections of the page."""
  parts = [('claims', 'Claims')] if claims else []
  parts.append(('summary', 'Summary'))
  parts += [(figure.name, figure.title) for figure in page_figures]
  parts.append(('provenance', 'Provenance'))
  return ' '.join(
    f'<a href="#{name}">{html.escape(text)}</a>' for name, text in parts
  )


def _subtitle(runs: Sequence[curves.Run]) -> str:
  count = max(len(run.seeds) for run in runs)
  network, data, batch = (
    conditions.distinct(runs, of)
    for of in (conditions.network, conditions.data, conditions.batch_size)
  )
  return (
    f'{network} on {data}, batches of {batch}, '
    f'{conditions.counted(len(runs), "run")}, '
    f'{conditions.counted(count, "seed")}'
  )


def _conditions(runs: Sequence[curves.Run]) -> str:
  """Returns what all figures have in common, in sentences above them.

  A caption states only what these do not; see `looks.circumstances`.
  """
  counts = sorted({len(run.seeds) for run in runs})
  every = sorted({seed.seed for run in runs for seed in run.seeds})
  numbers = ', '.join(map(str, every))
  if counts == [1]:
    sentences = [f'Each run has one seed ({numbers}).']
  else:
    around = {
      False: 'thin lines the seeds',
      True: 'shades the 95 % intervals of these means (Student)',
    }
    enough = sorted({seeds.shows_interval(count) for count in counts})
    mixed = f' (from {seeds.FEWEST} seeds on)' * (len(enough) > 1)
    sentences = [
      'Lines and edges of bands are means over '
      f'{conditions.span(counts[0], counts[-1])} seeds ({numbers}), '
      f'{", ".join(map(around.get, enough))}{mixed}; on logarithmic axes both '
      'are of the logarithms.'
    ]
    if any(s.manifest['status'] != 'done' for run in runs for s in run.seeds):
      sentences.append('Where a seed has ended, the others go on.')
  if any(curves.has_diverged(seed) for run in runs for seed in run.seeds):
    sentences.append(
      f'Of a seed that diverged, what is more than {tails.TIMES} times its '
      'first number and its median lies beyond the axis.'
    )
  shared = ', '.join(filter(None, looks.shared(runs).values()))
  if shared:
    sentences.append(
      f'All measures but evaluations of accuracy and loss are taken {shared}.'
    )
  return ' '.join(sentences)


def _notices(runs: Sequence[curves.Run]) -> str:
  return '\n'.join(
    f'<p class="notice"><strong>{html.escape(headline)}</strong> '
    f'{html.escape(sentence)}</p>'
    for headline, sentence in notices.of(runs)
  )


def _numbers(figure: record.Figure) -> str:
  head, *rows = figure.numbers
  cells = '<td class="number">{}</td>'.format
  return markup.table(
    '',
    figure.title,
    map(markup.heading, head),
    (markup.row(name, map(cells, map(html.escape, of))) for name, *of in rows),
  )


def _provenance(runs: Sequence[curves.Run]) -> str:
  rows = ''.join(
    f'<dt>{name}</dt><dd>{html.escape(value)}</dd>'
    for name, value in notices.provenance(runs).items()
  )
  configs = ''.join(
    f'<h3>{html.escape(name)}</h3>' * bool(name)
    + f'<pre>{html.escape(lines)}</pre>'
    for name, lines in notices.configs(runs)
  )
  return (
    f'<dl>{rows}</dl>\n<details><summary>Resolved config</summary>{configs}'
    '</details>'
  )
