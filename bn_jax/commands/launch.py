"""python -m bn_jax launch --config=FILE --engine=ENGINE [--set KEY=V,V] ..."""

import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from bn_jax import commands, errors
from bn_jax.launch import engines, status, sweep

_USAGE = """\
usage: python -m bn_jax launch --config=FILE --engine=ENGINE [options]

Starts one train.py for each run and seed that is not done, and shows how far
all of them are. The same command again starts what failed or was interrupted,
and nothing twice; while one --engine=local is at work, a second one in the
same --workdir is refused.

  --engine=local        here; returns when all have ended
  --engine=slurm        through SLURM, as an array of jobs; returns at once
  --engine=print        prints the commands, a line each; starts nothing
  --set KEY=V1,V2       one experiment a value, each in a working directory of
                        its own below the --workdir; several --set: all
                        combinations. A value with commas in it: (0,1),(2,3)
  --set seeds=0:5       seeds 0 to 4, in one working directory
  --only=RUN[/seedK]    one run, or one seed of it
  --workdir=DIR         default: that of train.py
  --jobs=N              local: so many at once; default: 1
  --array=N             slurm: so many at once; default: as many as SLURM lets
  --slurm KEY=VALUE     slurm: an option of sbatch: time (needed), partition,
                        cpus-per-task, gpus, mem, ...
  --wait                slurm: returns when all have ended
  All others are those of train.py: --config.KEY=VALUE, --data_dir, ...

Exit codes: 0 all are done (slurm without --wait: submitted), 75 some are to be
started again, 5 one diverged that was not expected to, or how one failed.
"""


_OF_ENGINE = {'jobs': 'local', 'array': 'slurm', 'wait': 'slurm'}


class _Given(NamedTuple):
  """This command's own words, and those of train.py."""

  values: flags.FlagValues
  rest: list[str]


def main(argv: Sequence[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  if any(word in ('-h', '--help') for word in argv[1:]):
    sys.stdout.write(_USAGE)
    return 0
  return commands.run(lambda: _launch(_parse(argv)))


def _parse(argv: Sequence[str]) -> _Given:
  values = flags.FlagValues()
  values.set_gnu_getopt(True)
  for name in ('engine', 'workdir', 'only'):
    flags.DEFINE_string(name, None, '', flag_values=values)
  for name in ('set', 'slurm'):
    flags.DEFINE_multi_string(name, [], '', flag_values=values)
  for name in ('jobs', 'array'):
    flags.DEFINE_integer(name, None, '', flag_values=values)
  flags.DEFINE_bool('wait', False, '', flag_values=values)
  try:
    rest = values(argv, known_only=True)[1:]
  except flags.Error as error:
    raise errors.ConfigError(str(error)) from error
  if values.engine is None:
    raise errors.ConfigError('--engine is missing; give local, slurm or print')
  for name, engine in _OF_ENGINE.items():
    value = values[name].value
    if value is None or value is False:
      continue
    if values.engine != engine:
      raise errors.ConfigError(f'--{name}: allowed with --engine={engine}')
    if value < 1:
      raise errors.ConfigError(f'--{name}={value}: allowed: 1, 2, 3, ...')
  return _Given(values, rest)


def _launch(given: _Given) -> int:
  values = given.values
  options = engines.check(values.engine, values.slurm)
  found = sweep.expand(
    given.rest, values.set, workdir=values.workdir, only=values.only
  )
  before = status.of(found.workdir, found.cells)
  todo = [cell for cell, now in zip(found.cells, before) if now.is_to_start]
  if values.engine == 'print':
    for cell in todo:
      sys.stdout.write(f'{shlex.join(engines.printed(cell))}\n')
    sys.stderr.write(status.table(found.cells, before))
    return 0
  if values.engine == 'local':
    # Also with nothing to start: then it says that another one is at work.
    if not all(now.is_over for now in before):
      at_once = values.jobs or 1
      engines.locally(found.workdir, todo, at_once=at_once, say=_say)
  elif todo:
    engines.to_slurm(found.workdir, todo, at_once=values.array, options=options)
  wait = values.engine == 'local' or values.wait
  return _ended(found, todo, wait=wait)


def _ended(
  found: sweep.Sweep, started: Sequence[sweep.Cell], *, wait: bool
) -> int:
  """Shows how far everything is, at its end if that is waited for."""
  after = status.of(found.workdir, found.cells)
  if wait and any(now.is_alive for now in after):
    engines.wait(found.workdir, found.cells)
    after = status.of(found.workdir, found.cells)
  if wait:
    _report({cell.workdir for cell in started}, found.cells, after)
  sys.stdout.write(status.table(found.cells, after))
  if not wait and any(now.is_alive for now in after):
    _say('the same command shows how far they are')
    return 0
  return status.exit_code(after)


def _report(
  workdirs: set[pathlib.Path],
  cells: Sequence[sweep.Cell],
  standings: Sequence[status.Standing],
) -> None:
  """The page of each of these working directories in which several jobs wrote.

  Each of them wrote it at its own end, when others were not done.
  """
  over = {}
  for cell, now in zip(cells, standings):
    if now.is_over and cell.workdir in workdirs:
      over.setdefault(cell.workdir, []).append(cell)
  # Imported late: matplotlib takes a second.
  from bn_jax.papers import verify
  from bn_jax.report import page

  for workdir, cells in over.items():
    if len(cells) > 1:
      runs = verify.refresh(workdir)
      _say(f'report: {page.write([workdir], runs=runs)}')


def _say(line: str) -> None:
  sys.stderr.write(f'{line}\n')
