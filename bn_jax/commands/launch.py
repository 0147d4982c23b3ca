"""Trains all runs and seeds of one or many experiments.

Starts one train.py for each run and seed that is not done, or for each group of
seeds that config.seeds_at_once trains in one program, and shows how far all of
them are. The same command again starts what failed or was interrupted,
and nothing twice; while a launch --engine=local is at work, a second one in its
--workdir is refused.

All flags but those below are those of train: --config.KEY=VALUE, --data_dir,
... (python -m bn_jax train --help).

Exit codes: 0 all are done (slurm without --wait: submitted), that of the failed
(1 if these differ), 75 some are to be started again, 5 one diverged that was
not expected to.
"""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Sequence

from bn_jax import commands, errors
from bn_jax.config import parser as parser_lib
from bn_jax.host import environment

_ENGINE_OF_FLAG = {'jobs': 'local', 'array': 'slurm', 'wait': 'slurm'}


def configure(parser: parser_lib.Parser) -> None:
  """Adds the command's own flags; all others are those of train."""
  parser.set_defaults(run=run)
  parser.keeps_rest = True
  parser.add_argument(
    '--engine', choices=('local', 'slurm', 'print'),
    help='local: here, returns when all have ended; slurm: through SLURM, as '
    'an array of jobs, returns at once; print: prints the commands, a line '
    'each, and starts nothing',
  )  # fmt: skip
  parser.add_argument(
    '--set', metavar='KEY=V1,V2', action='append', default=[],
    help='one experiment a value, each in a working directory of its own below '
    'the --workdir; several --set: all combinations. A value with commas in '
    'it: (0,1),(2,3). seeds=0:5 are seeds 0 to 4, in one working directory',
  )  # fmt: skip
  parser.add_argument(
    '--only', metavar='RUN/seedK',
    help='one run, RUN, or one seed of it; several: as train.py takes them',
  )  # fmt: skip
  parser.add_argument(
    '--workdir', metavar='DIR', type=parser_lib.path,
    help='default: that of train.py',
  )  # fmt: skip
  parser.add_argument(
    '--jobs', metavar='N', type=parser_lib.count,
    help='local: N at once; default: 1',
  )  # fmt: skip
  parser.add_argument(
    '--array', metavar='N', type=parser_lib.count,
    help='slurm: N at once; default: as many as SLURM lets',
  )  # fmt: skip
  parser.add_argument(
    '--slurm', metavar='KEY=VALUE', action='append', default=[],
    help='slurm: an option of sbatch: time (needed), partition, cpus-per-task, '
    'gpus, mem, ...',
  )  # fmt: skip
  parser.add_switch('--wait', 'slurm: returns when all have ended')


def run(arguments: argparse.Namespace) -> int:
  """Starts what is not done, shows how far all is; returns the exit code."""
  from bn_jax.config import flags

  # A wrong flag may be meant for this command as well as for train.
  flags.train(['train.py', *arguments.rest], beside=arguments.parser)
  _check_engine(arguments)
  environment.check()
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.launch import engines, status
  from bn_jax.launch import sweep as sweep_lib

  options = engines.check(arguments.engine, arguments.slurm)
  sweep = sweep_lib.expand(
    arguments.rest,
    arguments.set,
    workdir=arguments.workdir,
    only=arguments.only,
  )
  before = status.of(sweep.workdir, sweep.cells)
  to_start = [c for c, now in zip(sweep.cells, before) if now.is_to_start]
  if arguments.engine == 'print':
    for group in sweep_lib.groups(sweep.cells, to_start):
      sys.stdout.write(f'{shlex.join(engines.printed(group))}\n')
    sys.stderr.write(status.table(sweep.cells, before))
    return 0
  engines.check_folder(sweep.workdir)
  if arguments.engine == 'local':
    # With nothing to start, too: it refuses if another launch is at work.
    if not all(standing.is_over for standing in before):
      at_once = arguments.jobs or 1
      groups = sweep_lib.groups(sweep.cells, to_start, shares=at_once)
      engines.locally(sweep.workdir, groups, at_once=at_once, say=_say)
  elif to_start:
    groups = [sweep_lib.Group((cell,)) for cell in to_start]
    if not engines.has_tasks(options):
      groups = sweep_lib.groups(sweep.cells, to_start)
    engines.to_slurm(
      sweep.workdir, groups, at_once=arguments.array, options=options
    )
  wait = arguments.engine == 'local' or arguments.wait
  return _ended(sweep, to_start, wait=wait)


def _check_engine(arguments: argparse.Namespace) -> None:
  """Refuses a line without an engine, or with a flag of another engine."""
  if arguments.engine is None:
    raise errors.ConfigError('--engine is missing; give local, slurm or print')
  for name, engine in _ENGINE_OF_FLAG.items():
    if vars(arguments)[name] and arguments.engine != engine:
      raise errors.ConfigError(f'--{name}: allowed with --engine={engine}')


def _ended(sweep, started: Sequence, *, wait: bool) -> int:
  """Shows how far all is, with `wait` at the end; returns the exit code."""
  from bn_jax.launch import engines, status

  after = status.of(sweep.workdir, sweep.cells)
  if wait and any(standing.is_alive for standing in after):
    engines.wait(sweep.workdir, sweep.cells)
    after = status.of(sweep.workdir, sweep.cells)
  if wait:
    _report({cell.workdir for cell in started}, sweep.cells, after)
  sys.stdout.write(status.table(sweep.cells, after))
  if not wait and any(standing.is_alive for standing in after):
    _say('the same command shows how far they are')
    return 0
  return status.exit_code(after)


def _report(
  workdirs: set[pathlib.Path], cells: Sequence, standings: Sequence
) -> None:
  """Writes the page of each working directory of several jobs.

  Each job wrote it at its own end, before others were done.
  """
  ended = {}
  for cell, standing in zip(cells, standings):
    if standing.is_over and cell.workdir in workdirs:
      ended.setdefault(cell.workdir, []).append(cell)
  # Imported late: matplotlib takes a second.
  from bn_jax.papers import verify

  for workdir, cells in ended.items():
    if len(cells) > 1:
      runs = verify.refresh(workdir)
      _say(f'report: {commands.draw([workdir], runs=runs)}')


def _say(line: str) -> None:
  sys.stderr.write(f'{line}\n')


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
