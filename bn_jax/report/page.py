"""report.html: one file that opens offline, and the files of its figures."""

import base64
import html
import pathlib
import re
import string
from collections.abc import Sequence

from bn_jax.report import figures, notices, summary
from bn_jax.report.claims import showing
from bn_jax.report.drawing import canvas
from bn_jax.report.results import conditions, curves, read
from bn_jax.storage import files as files_lib

_TEMPLATE = pathlib.Path(__file__).with_name('page.html')
_PIXELS = 133  # of an inch of a figure at most: letters as large as a title's


def write(
  workdirs: Sequence[pathlib.Path],
  output: pathlib.Path | None = None,
  *,
  runs: Sequence[curves.Run] | None = None,
  title: str | None = None,
) -> pathlib.Path:
  """Writes report.html and figures/ from the records of working directories.

  Args:
    workdirs: one or more; several are put side by side.
    output: where to write; None is the working directory itself, or, for
      several, a folder beside the first that is called after all of them.
    runs: what `read.runs` gives of them, where they were read already.
    title: of the page; None is the names of the working directories.

  Returns:
    The path of the page.

  Raises:
    ConfigError: a directory that is given twice.
    StorageError: nothing to report, or no place to write it.
  """
  runs = read.runs(workdirs) if runs is None else runs
  output = output or _default_output(workdirs)
  files_lib.make_folder(output / 'figures')
  for folder in (output, output / 'figures'):
    files_lib.remove_torn(folder)
  drawn = figures.every(runs)
  sections = [_section(made, output / 'figures') for made in drawn]
  rows = summary.table(runs)
  files_lib.write(output / 'figures' / 'summary.csv', canvas.as_csv(rows))
  claims = showing.section(workdirs, runs)
  places = dict.fromkeys(workdir.resolve().name for workdir in workdirs)
  title = ' + '.join(places) if title is None else title
  page = string.Template(_TEMPLATE.read_text(encoding='utf-8')).substitute(
    title=html.escape(title),
    subtitle=html.escape(_subtitle(runs)),
    notices=_notices(runs),
    navigation=_navigation(claims, drawn),
    claims=claims,
    table=_table(rows),
    figures='\n'.join(sections),
    provenance=_provenance(runs),
  )
  path = output / 'report.html'
  files_lib.write(path, page)
  return path


def _default_output(workdirs: Sequence[pathlib.Path]) -> pathlib.Path:
  if len(workdirs) == 1:
    return workdirs[0]
  name = '+'.join(workdir.resolve().name for workdir in workdirs)
  return workdirs[0].resolve().parent / name


def _section(made: canvas.Figure, folder: pathlib.Path) -> str:
  """Writes a figure's files; returns its part of the page."""
  with canvas.style():
    wide, narrow = (
      canvas.settled(made.draw(narrow)) for narrow in (False, True)
    )
  for kind in ('png', 'pdf'):
    content = canvas.rendered(wide, kind)
    files_lib.write(folder / f'{made.name}.{kind}', content)
  files_lib.write(folder / f'{made.name}.csv', canvas.as_csv(made.table))
  files = ', '.join(
    f'<a href="figures/{made.name}.{kind}">{kind.upper()}</a>'
    for kind in ('png', 'pdf', 'csv')
  )
  return f'''<section id="{made.name}">
<h2>{html.escape(made.title)}</h2>
<figure>
<picture>
<source media="(max-width: 640px)" srcset="{_data_uri(narrow)}">
<img src="{_data_uri(wide)}" alt="{html.escape(made.alt)}"
style="max-width: {_PIXELS * wide.get_figwidth():.0f}px">
</picture>
<figcaption>{html.escape(made.caption)} <span>{files}</span></figcaption>
</figure>
</section>'''


def _data_uri(drawing) -> str:
  encoded = base64.b64encode(canvas.rendered(drawing, 'svg')).decode()
  return f'data:image/svg+xml;base64,{encoded}'


def _navigation(claims: str, drawn: Sequence[canvas.Figure]) -> str:
  """Links to the parts that this page has."""
  parts = [('claims', 'Claims')] if claims else []
  parts.append(('summary', 'Summary'))
  parts += [(made.name, _words(made.name)) for made in drawn]
  parts.append(('provenance', 'Provenance'))
  return ' '.join(f'<a href="#{name}">{text}</a>' for name, text in parts)


def _words(name: str) -> str:
  """'Covariate shift' of 'covariate-shift'."""
  return re.sub('[-_]', ' ', name[:1].upper() + name[1:])


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


def _notices(runs: Sequence[curves.Run]) -> str:
  return '\n'.join(
    f'<p class="notice"><strong>{html.escape(headline)}</strong> '
    f'{html.escape(sentence)}</p>'
    for headline, sentence in notices.of(runs)
  )


def _table(rows: Sequence[Sequence[str]]) -> str:
  head = ''.join(f'<th scope="col">{_breakable(cell)}</th>' for cell in rows[0])
  body = '\n'.join(
    f'<tr><th scope="row">{html.escape(row[0])}</th>'
    + ''.join(
      f'<td class="number">{html.escape(cell)}</td>' for cell in row[1:]
    )
    + '</tr>'
    for row in rows[1:]
  )
  return (
    f'<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>'
  )


def _breakable(name: str) -> str:
  """A run's name that may go on in the next line after a mark."""
  return re.sub('[/_]', r'\g<0><wbr>', html.escape(name))


def _provenance(runs: Sequence[curves.Run]) -> str:
  rows = ''.join(
    f'<dt>{name}</dt><dd>{html.escape(value)}</dd>'
    for name, value in notices.provenance(runs).items()
  )
  return f'<dl>{rows}</dl>'
