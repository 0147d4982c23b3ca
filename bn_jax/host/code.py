"""Tells which code this is: its version, its commit, and how it was called."""

import os
import pathlib
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from typing import Any

_FILE = pathlib.Path(__file__).resolve()
_PACKAGE = _FILE.parents[1]  # all of bn_jax


def checkout() -> pathlib.Path | None:
  """Returns the root of the checkout that this code lies in; None without one.

  It has train.py and configs/. None is for an installed package, and for a copy
  in another project.
  """
  root = _PACKAGE.parent
  return root if _project(root).get('name') == 'bn_jax' else None


def version() -> str | None:
  """Returns the version of this code: a checkout's own, or the installed one.

  Another version than the checkout's may be installed. None is for a copy of
  the package in another project.
  """
  if root := checkout():
    return _project(root)['version']
  try:
    return metadata.version('bn_jax')
  except metadata.PackageNotFoundError:
    return None


def training() -> list[str]:
  """Returns the words that start train.py, for a process of its own."""
  if root := checkout():
    return [sys.executable, str(root / 'train.py')]
  # -P: modules of the current folder are found as by train.py, not before all.
  return [sys.executable, '-P', '-m', 'bn_jax', 'train']


def command() -> str:
  """Returns the command line of this process, as a shell takes it.

  Of the interpreter its name alone: its path says nothing of a run.
  """
  program, *words = sys.argv or ['']
  if pathlib.Path(program).stem == 'bn_jax':  # the script that pip installs
    return shlex.join(['bn_jax', *words])
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


def _project(root: pathlib.Path) -> dict[str, Any]:
  """Returns the name and version that pyproject.toml gives; {} without."""
  try:
    text = (root / 'pyproject.toml').read_text(encoding='utf-8')
    project = tomllib.loads(text)['project']
    return {'name': project['name'], 'version': project['version']}
  except (OSError, ValueError, KeyError, TypeError):
    return {}  # there is none, or that of another project
