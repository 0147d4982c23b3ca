"""python -m bn_jax papers [PAPER] | papers verify WORKDIR..."""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from bn_jax import errors
from bn_jax.commands import outcome

_USAGE = """\
usage: python -m bn_jax papers [PAPER] [--runs=DIR]
       python -m bn_jax papers verify WORKDIR... [--out=FILE.csv]

Lists the figures of the papers (santurkar2018, ioffe2015) that configs/ can
train: their runs, about how long they take here, how far the runs below DIR
are. 'verify' judges the papers' claims by the runs of working directories,
whose seeds add up, and puts the verdicts into the report.

  --runs=DIR      where runs are looked for; default: runs
  --out=FILE.csv  writes the verdicts there, too

The exit code is 0 whatever the verdicts are.
"""
_PAPERS = ('santurkar2018', 'ioffe2015')


def main(argv: Sequence[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  if any(word in ('-h', '--help') for word in argv[1:]):
    sys.stdout.write(_USAGE)
    return 0
  return outcome.of(lambda: _papers(argv))


def _papers(argv: Sequence[str]) -> int:
  values = flags.FlagValues()
  values.set_gnu_getopt(True)
  flags.DEFINE_string('runs', None, '', flag_values=values)
  flags.DEFINE_string('out', None, '', flag_values=values)
  try:
    words = values(argv)[1:]
  except flags.Error as error:
    raise errors.ConfigError(str(error)) from error
  if words[:1] == ['verify']:
    if values.runs is not None:
      raise errors.ConfigError('--runs: verify is given each WORKDIR itself')
    return _verify(words[1:], values.out)
  if values.out is not None:
    raise errors.ConfigError('--out: allowed with papers verify WORKDIR...')
  return _list(words, values.runs or 'runs')


def _list(words: Sequence[str], runs: str) -> int:
  for word in words:
    if word not in _PAPERS:
      raise errors.ConfigError(errors.unknown('paper', word, _PAPERS))
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.commands import papers_list

  papers = tuple(paper for paper in _PAPERS if paper in (words or _PAPERS))
  sys.stdout.write(papers_list.text(papers, pathlib.Path(runs)))
  return 0


def _verify(words: Sequence[str], out: str | None) -> int:
  if not words:
    raise errors.ConfigError('WORKDIR is missing; give one or more')
  workdirs = [pathlib.Path(word) for word in words]
  for workdir in workdirs:
    if not workdir.is_dir():
      raise errors.ConfigError(f'{workdir} is not a directory')
    if not (workdir / 'experiment.json').exists():
      raise errors.ConfigError(
        f'{workdir} holds no experiment (no experiment.json); give the '
        '--workdir of a training'
      )
  if len({workdir.resolve() for workdir in workdirs}) < len(workdirs):
    raise errors.ConfigError('a WORKDIR is given twice; give each once')
  from bn_jax import records
  from bn_jax.commands import verdict_table, verification

  found = verification.of(workdirs)
  if not found.figures:
    raise verification.nothing(workdirs)
  sys.stdout.write(verdict_table.text(found.figures))
  if out is not None:
    records.write_text(pathlib.Path(out), verdict_table.as_csv(found.figures))
  verification.write(found)
  # Imported late: matplotlib takes a second.
  from bn_jax.report import page

  runs = found.runs[workdirs[0]] if len(workdirs) == 1 else None
  sys.stderr.write(f'report: {page.write(workdirs, runs=runs)}\n')
  return 0
