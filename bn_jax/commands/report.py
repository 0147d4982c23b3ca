"""Builds report.html and figures/ again from what was recorded, without JAX.

Several working directories are put side by side. With --watch it is built again
whenever records have grown, while training goes on in another process.
"""

import argparse
import contextlib
import logging
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bn_jax import commands, errors
from bn_jax.config import parser as parser_lib

_log = logging.getLogger('bn_jax')
_EVERY = 10  # seconds between two looks at the records
# What a page is made of, below a working directory.
_FILES = (
  'experiment.json', '*/seed*/*.json', '*/seed*/*.jsonl',
  '*/seed*/arrays/*.npz', '*/seed*/analysis/*/*.json',
  '*/seed*/analysis/*/*.jsonl', '*/seed*/analysis/*/arrays/*.npz',
)  # fmt: skip
# Seconds of training from its first record to its first page: what ends sooner
# has its page without that.
_FIRST = 15.0
_TURN = 2.0  # seconds between two looks for that record
_TAIL = 1 << 14  # bytes at the end of a file that have its last records
_ROOT = pathlib.Path(__file__).resolve().parents[2]
# Of a process that gives way to training.
_BUILD = (
  'import os, sys; getattr(os, "nice", int)(10); from bn_jax import __main__; '
  'sys.exit(__main__.main(sys.argv))'
)


def configure(parser: parser_lib.Parser) -> None:
  """Adds the words and flags of the command."""
  parser.set_defaults(run=run)
  parser.add_argument(
    'workdirs', metavar='WORKDIR', nargs='+', type=parser_lib.path_object,
    help='the --workdir of a training',
  )  # fmt: skip
  parser.add_argument(
    '--output', metavar='DIR', type=parser_lib.path_object,
    help='where to write; default: the WORKDIR, or, for several, a folder '
    'beside the first that is named after all of them',
  )  # fmt: skip
  parser.add_switch(
    '--watch',
    'builds it again whenever records have grown, until all runs have ended or '
    'Ctrl-C',
  )
  parser.add_argument(
    '--every', metavar='SECONDS', type=parser_lib.count,
    help='with --watch: between two looks at the records, or as long as the '
    f'last page took where that is more; default: {_EVERY}',
  )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
  """Writes the page; returns the exit code."""
  workdirs = arguments.workdirs
  for workdir in workdirs:
    if not workdir.is_dir():
      raise errors.ConfigError(f'{workdir} is not a directory')
  if arguments.every is not None and not arguments.watch:
    raise errors.ConfigError(
      f'--every: {arguments.every}; allowed with --watch alone'
    )

  def build():
    path = commands.draw(workdirs, arguments.output)
    sys.stdout.write(f'{path}\n')
    sys.stdout.flush()

  if arguments.watch:
    watch(workdirs, build, arguments.every or _EVERY)
  else:
    build()
  return 0


def watch(
  workdirs: Sequence[pathlib.Path],
  build: Callable[[], Any],
  every: float,
) -> None:
  """Builds a page whenever records have grown, until all runs have ended.

  Where a page cannot be built, as with a file that is just being replaced, that
  is said, and the next records are waited for.

  Args:
    every: seconds between two looks at the records, or as many as the last
      page took where those are more.

  Raises:
    ConfigError: a directory that is given twice.
    StorageError, CheckpointError: the page of runs that have ended cannot be
      built.
  """
  built, failure, seconds, said = None, None, 0.0, None
  while True:
    files, left = _files(workdirs), _left(workdirs)
    can_build = not left or all(map(_sizes, workdirs))
    is_new = can_build and files != built
    waiting = None
    if is_new:
      built, failure, begun = files, None, time.monotonic()
      try:
        build()
      except (errors.StorageError, errors.CheckpointError) as error:
        failure = error
        _say(f'not built: {error}')
      seconds = time.monotonic() - begun
    elif not left:
      if failure is not None:
        raise failure
      return
    elif not can_build:
      waiting = 'nothing is recorded yet; waiting for the first record'
    elif not any(left.values()):
      waiting = (
        f'waiting for what has not begun, such as {next(iter(left))}; Ctrl-C '
        'ends this'
      )
    if waiting not in (None, said):
      _say(said := waiting)
    if left or not is_new:
      time.sleep(max(every, seconds))


def again(path: pathlib.Path) -> None:
  """Builds the page again that the working directory of a run has, if any.

  What was measured stands, whatever hinders the page: that is said.

  Args:
    path: as of `run_folder.find`.
  """
  # Imported late, as in `_left`: a wrong command line need not wait for NumPy.
  from bn_jax.storage import run_folder

  try:
    for workdir in {folder.workdir for folder in run_folder.find(path)}:
      if run_folder.is_workdir(workdir) and (workdir / 'report.html').is_file():
        _say(f'report: {commands.draw([workdir])}')
  except errors.Failure as failure:
    _say(f'the page is as it was: {failure}')


@contextlib.contextmanager
def first(workdir: pathlib.Path) -> Iterator[None]:
  """Writes a page while a `with` block trains, once, by another process.

  So training is no other and cannot fail by it. BN_JAX_FIRST_PAGE=off leaves it
  out.

  Raises:
    ConfigError: BN_JAX_FIRST_PAGE is neither on nor off.
  """
  setting = os.environ.get('BN_JAX_FIRST_PAGE') or 'on'
  if setting not in ('on', 'off'):
    raise errors.ConfigError(
      f'BN_JAX_FIRST_PAGE is {setting!r}; allowed: on, off'
    )
  if setting == 'off':
    yield
    return
  ended, processes = threading.Event(), []
  sizes = _sizes(workdir)

  def look():
    begun = None
    while not ended.wait(_TURN):
      grown = {path for path, size in _sizes(workdir) - sizes}
      if not grown:
        continue
      begun = begun or time.monotonic()
      is_due = time.monotonic() - begun >= _FIRST
      if is_due and any(map(_has_trained, grown)):
        processes.append(_started(workdir))
        return

  thread = threading.Thread(target=look, name='first page', daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    started = list(filter(None, processes))
    for process in started:
      process.terminate()
  # The page that comes now must not be replaced by it. Where training was
  # interrupted none comes, and nobody waits.
  for process in started:
    process.wait()


def _started(workdir: pathlib.Path) -> subprocess.Popen | None:
  """Returns a process that writes the page, None if there can be none."""
  try:
    process = subprocess.Popen(
      [sys.executable, '-c', _BUILD, 'report', str(workdir.absolute())],
      cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )  # fmt: skip
  except OSError:
    return None
  _log.info(
    'a first page, in a moment: %s; python -m bn_jax report --watch %s builds '
    'it again as records grow', workdir / 'report.html', workdir,
  )  # fmt: skip
  return process


def _files(workdirs: Sequence[pathlib.Path]) -> dict[pathlib.Path, tuple]:
  """Returns path -> size and time of each file that a page is made of."""
  files = {}
  for workdir in workdirs:
    for pattern in _FILES:
      for path in workdir.glob(pattern):
        with contextlib.suppress(OSError):  # just removed
          status = path.stat()
          files[path] = status.st_size, status.st_mtime_ns
  return files


def _sizes(workdir: pathlib.Path) -> set[tuple[pathlib.Path, int]]:
  """Returns the files of records, with how large they are."""
  files = _files([workdir])
  return {(p, files[p][0]) for p in files if p.name == 'scalars.jsonl'}


def _has_trained(scalars: pathlib.Path) -> bool:
  """Returns whether a file of records has a row of training near its end."""
  with contextlib.suppress(OSError), scalars.open('rb') as file:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    return b'"name": "train"' in file.read()
  return False


def _left(workdirs: Sequence[pathlib.Path]) -> dict[str, bool]:
  """Returns what is not trained to its end -> whether it has begun."""
  from bn_jax.storage import run_folder

  left = {}
  for workdir in workdirs:
    try:
      experiment = run_folder.read_experiment(workdir)
      folders = [
        run_folder.at(workdir, name, seed)
        for name in (experiment or {'runs': ()})['runs']
        for seed in experiment['seeds']
      ]
      left |= {
        str(folder.path): folder.manifest is not None
        for folder in folders
        if not folder.has_ended
      }
    except errors.StorageError:  # said by who reads the runs
      experiment = None
    if experiment is None:
      left[str(workdir)] = True
  return left


def _say(line: str) -> None:
  sys.stderr.write(f'{line}\n')


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
