"""Tells which code this is: its version, its commit, and how it was called."""

import os
import pathlib
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata

_FILE = pathlib.Path(__file__).resolve()
_PACKAGE = _FILE.parents[1]  # all of bn_jax


def version() -> str | None:
  """Returns the version of this code: a checkout's own, or the installed one.

  Another version than the checkout's may be installed. None is for a copy of
  the package in another project.
  """
  try:
    text = (_PACKAGE.parent / 'pyproject.toml').read_text(encoding='utf-8')
    project = tomllib.loads(text)['project']
    if project['name'] == 'bn_jax':
      return project['version']
  except (OSError, ValueError, KeyError, TypeError):
    pass  # there is none, or that of another project
  try:
    return metadata.version('bn_jax')
  except metadata.PackageNotFoundError:
    return None


def command() -> str:
  """Returns the command line of this process, as a shell takes it.

  Of the interpreter its name alone: its path says nothing of a run.
  """
  program, *words = sys.argv or ['']
  if pathlib.Path(program).name == '__main__.py':  # what -m makes of a package
    package = pathlib.Path(program).parent.name
    return shlex.join(['python', '-m', package, *words])
  return shlex.join(['python', program, *words])


def commit() -> str | None:
  """Returns the commit of this code, and '+' if changed; None outside git.

  A repository that only lies around the package, as where somebody copied it,
  tells nothing of it: git must track this file.
  """
  # Hooks of git set variables that would lead it to another repository.
  environment = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith('GIT_')
  }

  def git(*words):
    return subprocess.run(
      ['git', '-C', str(_PACKAGE), *words],
      env=environment,
      capture_output=True,
      text=True,
      errors='replace',  # names of files, in whatever encoding
      check=True,
    ).stdout.strip()

  try:
    git('ls-files', '--error-unmatch', '--', str(_FILE))
    changes = git('status', '--porcelain', '--untracked-files=no', '.')
    return git('rev-parse', 'HEAD') + ('+' if changes else '')
  except (OSError, subprocess.CalledProcessError):
    return None
