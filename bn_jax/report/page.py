"""report.html: one file that opens offline, and the files of its figures."""

import base64
import html
import pathlib
import string
from collections.abc import Sequence

from bn_jax import errors, records
from bn_jax.report import (
  accuracy,
  activations,
  claims,
  curves,
  figures,
  landscape,
  notices,
  summary,
)

_TEMPLATE = pathlib.Path(__file__).with_name('page.html')


def write(
  workdirs: Sequence[pathlib.Path], output: pathlib.Path | None = None
) -> pathlib.Path:
  """Writes report.html and figures/ from the records of working directories.

  Args:
    workdirs: one or more; several are put side by side.
    output: where to write; None is the working directory itself, or, for
      several, a folder beside the first that is called after all of them.

  Returns:
    The path of the page.

  Raises:
    StorageError: nothing to report, or no place to write it.
  """
  runs = curves.load(workdirs)
  output = output or _default_output(workdirs)
  try:
    (output / 'figures').mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.StorageError(
      f'cannot make {output / "figures"}: {error.strerror}'
    ) from error
  figures_of = (
    accuracy.figure,
    landscape.figure,
    activations.ridges,
    activations.changes,
  )
  drawn = [made for figure in figures_of if (made := figure(runs)) is not None]
  sections = [_section(made, output / 'figures') for made in drawn]
  rows = summary.table(runs)
  records.write_bytes(output / 'figures' / 'summary.csv', figures.as_csv(rows))
  answered = _claims(claims.claims(runs))
  title = ' + '.join(
    dict.fromkeys(workdir.resolve().name for workdir in workdirs)
  )
  page = string.Template(_TEMPLATE.read_text(encoding='utf-8')).substitute(
    title=html.escape(title),
    subtitle=html.escape(_subtitle(runs)),
    notices=_notices(runs),
    navigation=_navigation(answered, drawn),
    claims=answered,
    table=_table(rows),
    figures='\n'.join(sections),
    provenance=_provenance(runs),
  )
  path = output / 'report.html'
  records.write_text(path, page)
  return path


def _default_output(workdirs: Sequence[pathlib.Path]) -> pathlib.Path:
  if len(workdirs) == 1:
    return workdirs[0]
  name = '+'.join(workdir.resolve().name for workdir in workdirs)
  return workdirs[0].resolve().parent / name


def _section(made: figures.Figure, folder: pathlib.Path) -> str:
  """Writes a figure's files; returns its part of the page."""
  with figures.style():
    wide, narrow = (
      figures.settled(made.draw(narrow)) for narrow in (False, True)
    )
  for kind in ('png', 'pdf'):
    content = figures.rendered(wide, kind)
    records.write_bytes(folder / f'{made.name}.{kind}', content)
  records.write_bytes(folder / f'{made.name}.csv', figures.as_csv(made.table))
  files = ', '.join(
    f'<a href="figures/{made.name}.{kind}">{kind.upper()}</a>'
    for kind in ('png', 'pdf', 'csv')
  )
  return f'''<section id="{made.name}">
<h2>{html.escape(made.title)}</h2>
<figure>
<picture>
<source media="(max-width: 640px)" srcset="{_data_uri(narrow)}">
<img src="{_data_uri(wide)}" alt="{html.escape(made.alt)}">
</picture>
<figcaption>{html.escape(made.caption)} <span>{files}</span></figcaption>
</figure>
</section>'''


def _data_uri(drawing) -> str:
  encoded = base64.b64encode(figures.rendered(drawing, 'svg')).decode()
  return f'data:image/svg+xml;base64,{encoded}'


def _navigation(claims: str, drawn: Sequence[figures.Figure]) -> str:
  """Links to the parts that this page has."""
  parts = [('claims', 'Claims')] if claims else []
  parts.append(('summary', 'Summary'))
  parts += [(made.name, made.name.capitalize()) for made in drawn]
  parts.append(('provenance', 'Provenance'))
  return ''.join(f'<a href="#{name}">{text}</a>' for name, text in parts)


def _subtitle(runs: Sequence[curves.Run]) -> str:
  config = runs[0].config
  data, model = config['data'], config['model']
  width = f', {model["width"]:g} × width' if 'width' in model else ''
  count = max(len(run.seeds) for run in runs)
  return (
    f'{model["name"]}{width} on {data["name"]}, batches of '
    f'{config["batch_size"]}, {len(runs)} runs, '
    f'{count} seed{"" if count == 1 else "s"}'
  )


def _notices(runs: Sequence[curves.Run]) -> str:
  return '\n'.join(
    f'<p class="notice"><strong>{html.escape(headline)}</strong> '
    f'{html.escape(sentence)}</p>'
    for headline, sentence in notices.of(runs)
  )


def _claims(answered: Sequence[claims.Claim]) -> str:
  if not answered:
    return ''
  rows = '\n'.join(
    f'<tr><td>{html.escape(claim.statement)}</td>'
    f'<td class="number">{html.escape(claim.numbers)}</td>'
    f'<td><b class="{claim.verdict.replace(" ", "-")}">{claim.verdict}</b> '
    f'<small>{html.escape(claim.detail)}</small></td></tr>'
    for claim in answered
  )
  return f"""<section id="claims">
<h2>What the paper claims, and these runs</h2>
<p>Santurkar et al. (2018), sections 2.2 and 3.1. Networks that differ in the
norm alone, at the same learning rate, weights and batches, in the order that
is claimed; “holds” if the numbers grow in that order in every seed. Medians
are over all of training: a network that has fitted its data has a flat
landscape for that reason alone, so read them beside the accuracy.</p>
<div class="scroll"><table>
<thead><tr><th>Claim</th><th>Measured, by norm</th><th>Verdict</th></tr></thead>
<tbody>
{rows}
</tbody></table></div>
</section>"""


def _table(rows: Sequence[Sequence[str]]) -> str:
  head = ''.join(
    f'<th scope="col">{html.escape(cell)}</th>' for cell in rows[0]
  )
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


def _provenance(runs: Sequence[curves.Run]) -> str:
  manifests = [seed.manifest for run in runs for seed in run.seeds]
  facts = {
    'Device': _distinct(
      f'{m["device"]["count"]} × {m["device"]["kind"]}' for m in manifests
    ),
    'Layout': _distinct(m['layout'] for m in manifests),
    'Precision': _distinct(
      f'training in {m["precision"]["dtype"]}, products in '
      f'{m["precision"]["training"]} precision; measures in float32, '
      f'{m["precision"]["measures"]}'
      for m in manifests
    ),
    'Versions': _distinct(
      ', '.join(f'{name} {version}' for name, version in m['versions'].items())
      for m in manifests
    ),
    'Code': _distinct(m['git_commit'] or 'not in git' for m in manifests),
    'Written': _range([m['written'] for m in manifests]),
  }
  rows = ''.join(
    f'<dt>{name}</dt><dd>{html.escape(value)}</dd>'
    for name, value in facts.items()
  )
  return f'<dl>{rows}</dl>'


def _range(times: Sequence[str]) -> str:
  """'first to last' of times in ISO 8601, which sort as text."""
  return ' to '.join(dict.fromkeys((min(times), max(times))))


def _distinct(values) -> str:
  return '; '.join(dict.fromkeys(values))
