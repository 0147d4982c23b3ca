"""python -m bn_jax papers: list, verify WORKDIR..., draw FIGURE WORKDIR..."""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from bn_jax import commands, errors

_USAGE = """\
usage: python -m bn_jax papers [PAPER] [--runs=DIR]
       python -m bn_jax papers verify WORKDIR... [--out=FILE.csv]
       python -m bn_jax papers draw FIGURE WORKDIR... [--size=SIZE]
                                                      [--output=DIR]

Lists the figures of the papers (santurkar2018, ioffe2015) that configs/ can
train: their runs, about how long they take here, how far the runs below DIR
are. 'verify' judges the papers' claims by the runs of working directories,
whose seeds add up, and puts the verdicts into their reports. 'draw' makes the
page of one figure, of its runs and measures alone.

  --runs=DIR      where runs are looked for; default: runs
  --out=FILE.csv  writes the verdicts there, too
  --size=SIZE     paper or small; default: the one of which there are runs
  --output=DIR    default: the first WORKDIR/papers/FIGURE, or FIGURE-small

The exit code is 0 whatever the verdicts are.
"""
_PAPERS = ('santurkar2018', 'ioffe2015')
_SIZES = ('paper', 'small')
# Flag -> with which of the three it goes, and as what it is called there.
_FLAGS = {
  'runs': 'papers [PAPER]',
  'out': 'papers verify WORKDIR...',
  'size': 'papers draw FIGURE WORKDIR...',
  'output': 'papers draw FIGURE WORKDIR...',
}


def main(argv: Sequence[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  if any(word in ('-h', '--help') for word in argv[1:]):
    sys.stdout.write(_USAGE)
    return 0
  return commands.run(lambda: _papers(argv))


def _papers(argv: Sequence[str]) -> int:
  values = flags.FlagValues()
  values.set_gnu_getopt(True)
  for name in _FLAGS:
    flags.DEFINE_string(name, None, '', flag_values=values)
  try:
    words = values(argv)[1:]
  except flags.Error as error:
    raise errors.ConfigError(str(error)) from error
  if words[:1] == ['verify']:
    _check_flags(values, 'papers verify')
    return _verify(_workdirs(words[1:]), values.out)
  if words[:1] == ['draw']:
    _check_flags(values, 'papers draw')
    return _draw(words[1:], values.size, values.output)
  _check_flags(values, 'papers [PAPER]')
  return _list(words, values.runs or 'runs')


def _check_flags(values: flags.FlagValues, command: str) -> None:
  for name, allowed in _FLAGS.items():
    if values[name].value is not None and not allowed.startswith(command):
      raise errors.ConfigError(f'--{name}: allowed with {allowed}')


def _workdirs(words: Sequence[str]) -> list[pathlib.Path]:
  from bn_jax.storage import run_folder

  if not words:
    raise errors.ConfigError('WORKDIR is missing; give one or more')
  workdirs = [pathlib.Path(word) for word in words]
  for workdir in workdirs:
    if not workdir.is_dir():
      raise errors.ConfigError(f'{workdir} is not a directory')
    if not run_folder.is_workdir(workdir):
      raise errors.ConfigError(
        f'{workdir} holds no experiment (no experiment.json); give the '
        '--workdir of a training'
      )
  if len({workdir.resolve() for workdir in workdirs}) < len(workdirs):
    raise errors.ConfigError('a WORKDIR is given twice; give each once')
  return workdirs


# What follows is imported late: a wrong command line need not wait for JAX, or
# for matplotlib.


def _list(words: Sequence[str], runs: str) -> int:
  for word in words:
    if word not in _PAPERS:
      raise errors.ConfigError(errors.unknown('paper', word, _PAPERS))
  from bn_jax.papers import listing

  papers = tuple(paper for paper in _PAPERS if paper in (words or _PAPERS))
  sys.stdout.write(listing.text(papers, pathlib.Path(runs)))
  return 0


def _verify(workdirs: Sequence[pathlib.Path], out: str | None) -> int:
  from bn_jax.papers import verify
  from bn_jax.storage import files

  found = verify.of(workdirs)
  if not found.figures:
    raise verify.nothing(workdirs)
  sys.stdout.write(verify.text(found.figures))
  if out is not None:
    files.write(pathlib.Path(out), verify.as_csv(found.figures))
  verify.write(found)
  from bn_jax.report import page

  for workdir, runs in found.runs.items():
    sys.stderr.write(f'report: {page.write([workdir], runs=runs)}\n')
  if len(workdirs) > 1:
    sys.stderr.write(f'report: {page.write(workdirs)}\n')
  return 0


def _draw(words: Sequence[str], size: str | None, output: str | None) -> int:
  if not words:
    raise errors.ConfigError('FIGURE is missing; python -m bn_jax papers lists')
  if size not in (None, *_SIZES):
    raise errors.ConfigError(errors.unknown('size', size, _SIZES))
  figure, workdirs = words[0], _workdirs(words[1:])
  from bn_jax.papers import draw

  cut = draw.of(figure, workdirs, size)
  for line in draw.absent(cut):
    sys.stderr.write(f'{line}\n')
  place = (
    draw.default_output(cut.figure, workdirs[0])
    if output is None
    else pathlib.Path(output)
  )
  sys.stdout.write(f'{draw.write(cut, place)}\n')
  return 0
