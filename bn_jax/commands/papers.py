"""Lists the papers' figures that configs/ can train, and judges their claims.

The list has the number of runs of each figure, about how long they take here,
and how far those below --runs are. 'verify' judges the claims by the runs of
working directories, 'draw' makes the page of one figure.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from bn_jax import commands, errors
from bn_jax.config import parser as parser_lib

_VERIFY = """\
Judges the papers' claims by the runs of working directories, seeds of all
together, and puts the verdicts into their reports. The exit code is 0 whatever
the verdicts are.
"""
# Folder of configs/ -> what it has.
_PAPERS = {
  'santurkar2018': 'figures of this paper',
  'ioffe2015': 'figures of this paper',
  'curvature': 'studies of curvature',
  'place_of_bn': 'studies of what can take the place of BN',
}


def configure(parser: parser_lib.Parser) -> None:
  """Adds the words and flags of the command."""
  parser.set_defaults(run=_list, papers=tuple(_PAPERS))
  _add_runs(parser, default='runs')
  actions = parser.add_subparsers(metavar='ACTION', title='actions')
  for paper, contents in _PAPERS.items():
    line = f'lists the {contents}'
    listing = actions.add_parser(
      paper, help=line, description=f'{line.capitalize()}.'
    )
    listing.set_defaults(papers=(paper,))
    # Suppressed, so that `papers --runs=DIR santurkar2018` keeps its DIR.
    _add_runs(listing, default=argparse.SUPPRESS)
  verify = actions.add_parser(
    'verify', help='judges the claims by runs', description=_VERIFY
  )
  verify.set_defaults(run=_verify)
  _add_workdirs(verify)
  verify.add_argument(
    '--out', metavar='FILE.csv', type=parser_lib.path,
    help='writes the verdicts there, too',
  )  # fmt: skip
  draw = actions.add_parser(
    'draw',
    help='makes the page of one figure',
    description='Makes the page of one figure, of its runs and measures alone.',
  )
  draw.set_defaults(run=_draw)
  draw.add_argument(
    'figure', metavar='FIGURE', help='such as santurkar2018/figure10'
  )
  _add_workdirs(draw)
  draw.add_argument(
    '--size', choices=('paper', 'small'),
    help='default: the one of which there are runs',
  )  # fmt: skip
  draw.add_argument(
    '--output', metavar='DIR', type=parser_lib.path_object,
    help='default: the first WORKDIR/papers/FIGURE, or FIGURE-small',
  )  # fmt: skip


def _add_runs(parser: parser_lib.Parser, default: str) -> None:
  parser.add_argument(
    '--runs', metavar='DIR', type=parser_lib.path, default=default,
    help='where runs are looked for',
  )  # fmt: skip


def _add_workdirs(parser: parser_lib.Parser) -> None:
  parser.add_argument(
    'workdirs', metavar='WORKDIR', nargs='+', type=parser_lib.path,
    help='the --workdir of a training',
  )  # fmt: skip


def _workdirs(words: Sequence[str]) -> list[pathlib.Path]:
  from bn_jax.storage import run_folder

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


def _list(arguments: argparse.Namespace) -> int:
  from bn_jax.papers import listing

  commands.begin()

  runs = pathlib.Path(arguments.runs)
  sys.stdout.write(listing.text(arguments.papers, runs))
  return 0


def _verify(arguments: argparse.Namespace) -> int:
  workdirs = _workdirs(arguments.workdirs)
  commands.begin()
  from bn_jax.papers import verify
  from bn_jax.storage import files

  verdicts = verify.of(workdirs)
  if not verdicts.figures:
    raise verify.nothing(workdirs)
  sys.stdout.write(verify.text(verdicts.figures))
  if arguments.out is not None:
    files.write(pathlib.Path(arguments.out), verify.as_csv(verdicts.figures))
  verify.write(verdicts)
  for workdir, runs in verdicts.runs.items():
    sys.stderr.write(f'report: {commands.draw([workdir], runs=runs)}\n')
  if len(workdirs) > 1:
    sys.stderr.write(f'report: {commands.draw(workdirs)}\n')
  return 0


def _draw(arguments: argparse.Namespace) -> int:
  workdirs = _workdirs(arguments.workdirs)
  commands.begin()
  from bn_jax.papers import draw

  cut = draw.of(arguments.figure, workdirs, arguments.size)
  for line in draw.absent(cut):
    sys.stderr.write(f'{line}\n')
  output = arguments.output
  if output is None:
    output = draw.default_output(cut.figure, workdirs[0])
  sys.stdout.write(f'{draw.write(cut, output)}\n')
  return 0


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
