"""Writes the page of one figure, cut from runs that other figures share.

A protocol, such as santurkar2018/linear, trains the runs of several figures
with the measures of all; the page has those of one figure, under its names.
"""

import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bn_jax import errors
from bn_jax.papers import figures, matching, verify
from bn_jax.report import page
from bn_jax.report.claims import reading, verifying
from bn_jax.report.results import curves, read
from bn_jax.storage import files, run_folder


class Cut(NamedTuple):
  """What working directories have of a figure.

  Attributes:
    figure: at the size of which there are runs.
    match: the folders that stand for the figure's runs.
    runs: those with folders, in the figure's order, with its measures alone.
    judged: the figure's claims; None if it has none.
  """

  figure: figures.Reproduction
  match: verifying.Standing
  runs: tuple[curves.Run, ...]
  judged: verifying.Judged | None


def of(name: str, workdirs: Sequence[pathlib.Path], size: str | None) -> Cut:
  """Returns the runs of a figure, seeds of all directories together.

  Args:
    name: of the figure, such as 'santurkar2018/figure10'.
    workdirs: with its runs, and perhaps others.
    size: 'paper' or 'small'; None is the one of which there are runs.

  Raises:
    ConfigError: no such figure, no runs of it, or runs of both sizes.
    StorageError: a manifest or records that were changed.
  """
  all_figures = figures.every()
  sizes = [figure for figure in all_figures if figure.figure == name]
  if not sizes:
    names = dict.fromkeys(figure.figure for figure in all_figures)
    raise errors.ConfigError(errors.unknown('figure', name, tuple(names)))
  sizes = [figure for figure in sizes if size in (None, figure.size)]
  figure, match = _with_runs(sizes, workdirs)
  seeds = {
    run: {
      number: _only(read.seed(folder), config.as_json()['measures'])
      for number, folder in sorted(match.folders[run].items())
    }
    for run, config in figure.runs.items()
    if run in match.folders
  }
  runs = [
    curves.Run(run, tuple(by_number.values()))
    for run, by_number in seeds.items()
  ]
  claims = reading.load()
  judged = None
  if name in claims:
    judged = verifying.judged(match, seeds, claims[name])
  return Cut(figure, match, tuple(runs), judged)


def write(cut: Cut, output: pathlib.Path) -> pathlib.Path:
  """Writes report.html, figures/, verdicts.json and verdicts.csv.

  Returns:
    The path of the page.

  Raises:
    ConfigError: `output` is a working directory, which has a page of its own.
    StorageError: the files cannot be written.
  """
  if run_folder.is_workdir(output):
    raise errors.ConfigError(
      f'--output: {output} is a working directory; give another folder'
    )
  files.make_folder(output)
  judged = [] if cut.judged is None else [cut.judged]
  verifying.write(output, [row for figure in judged for row in figure.rows])
  files.write(output / 'verdicts.csv', verify.as_csv(judged))
  title = f'{cut.figure.label}: {cut.figure.title.rstrip(".")}'
  return page.write([output], runs=cut.runs, title=title)


def default_output(
  figure: figures.Reproduction, workdir: pathlib.Path
) -> pathlib.Path:
  """Returns WORKDIR/papers/figure10, or .../figure10-small."""
  stem = figure.figure.rpartition('/')[2]
  suffix = '-small' if figure.size == 'small' else ''
  return workdir / 'papers' / f'{stem}{suffix}'


def absent(cut: Cut) -> list[str]:
  """Returns a sentence for each missing run, and for each seed left out."""
  notes = cut.match.notes
  missing = [
    f'no run {run}' + (f': {notes[run]}' if run in notes else '')
    for run in cut.figure.runs
    if run not in cut.match.folders
  ]
  return missing + [f'left out: {seed}' for seed in cut.match.twice]


def _with_runs(
  sizes: Sequence[figures.Reproduction], workdirs: Iterable[pathlib.Path]
) -> tuple[figures.Reproduction, verifying.Standing]:
  """Returns the one size of which there are runs, and the folders of these."""
  runs = matching.begun(workdirs)
  matches = [(figure, matching.match(figure, runs)) for figure in sizes]
  with_runs = [(figure, match) for figure, match in matches if match.folders]
  if len(with_runs) > 1:
    labels = ' and of '.join(figure.label for figure, _ in with_runs)
    raise errors.ConfigError(
      f'there are runs of {labels}; give --size=paper or --size=small'
    )
  if not with_runs:
    labels = ' or '.join(figure.label for figure in sizes)
    hint = matching.nearest(sizes, runs) or (
      f'python -m bn_jax papers verify {" ".join(map(str, workdirs))} lists '
      'the figures of which there are runs'
    )
    raise errors.ConfigError(f'no run is one of {labels}; {hint}')
  return with_runs[0]


def _only(seed: curves.Seed, entries: dict[str, dict]) -> curves.Seed:
  """Returns a seed as if it had been trained with these measures alone.

  Its seconds stay those of the whole training.

  Args:
    entries: the sections of the figure, which say what its page shows.
  """
  config = {**seed.manifest['config'], 'measures': entries}
  return seed._replace(
    manifest={**seed.manifest, 'config': config},
    series={
      name: series
      for name, series in seed.series.items()
      if name == 'train' or name in entries
    },
    arrays={name: seed.arrays[name] for name in entries},
    left_out=(),
  )
