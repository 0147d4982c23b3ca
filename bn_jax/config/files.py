"""Loads configs, by file or shipped name: Python with `get_config()`.

A config file is code: whoever loads one trusts it.
"""

import difflib
import importlib.util
import pathlib
from typing import Any

import ml_collections

from bn_jax import errors, modules
from bn_jax.config import shipped


def load(name: str) -> ml_collections.ConfigDict:
  """Returns the config of FILE or FILE:ARGUMENT, locked against unknown keys.

  FILE may be the name of a shipped config. The argument, if there is one, is
  passed to `get_config`. Modules that the config refers to, and those that it
  imports, are looked for beside it.

  Raises:
    ConfigError: no such file, one that is no Python or fails, or without a
      get_config() that returns a ConfigDict.
  """
  file, colon, argument = name.partition(':')
  path = find(file)
  if not path.is_file():
    raise errors.ConfigError(_not_a_file(path))
  modules.search(path.parent)
  try:
    with modules.beside(path):
      config = _returned(path, (argument,) if colon else ())
  except OSError as error:
    raise errors.ConfigError(_blamed(path, error)) from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise errors.ConfigError(
      f'--config: get_config() of {path} returned {type(config).__name__}; '
      'it must return a ConfigDict'
    )
  config.lock()
  return config


def find(file: str) -> pathlib.Path:
  """Returns the path of a config that is given as a file or a shipped name.

  A file comes before a shipped config of that name. It need not exist.
  """
  path = pathlib.Path(file)
  if not path.is_file() and file in shipped.names():
    return shipped.folder() / f'{file}.py'
  return path


def _returned(path: pathlib.Path, arguments: tuple[str, ...]) -> Any:
  """Returns what get_config() of a file returns."""
  module = _run(path)
  if not callable(getattr(module, 'get_config', None)):
    raise errors.ConfigError(
      f'--config: {path} must define get_config(), which returns a ConfigDict'
    )
  try:
    config = module.get_config(*arguments)
    if isinstance(config, ml_collections.ConfigDict):
      # A required placeholder that is not filled raises only when it is read.
      config.to_dict()
  except (Exception, SystemExit) as error:
    raise errors.ConfigError(_blamed(path, error)) from error
  return config


def _run(path: pathlib.Path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None or spec.loader is None:
    raise errors.ConfigError(f'--config: {path} is not a Python file')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except (Exception, SystemExit) as error:
    raise errors.ConfigError(_blamed(path, error)) from error
  return module


def _blamed(path: pathlib.Path, error: BaseException) -> str:
  """Returns the error with the last line of the user's files that led to it."""
  where = modules.place(error) or path
  text = str(error).strip().replace('\n', ' ')
  return f'--config: {where}: {type(error).__name__}: {text}'


def _not_a_file(path: pathlib.Path) -> str:
  """Returns the message; names are as near as those of errors.unknown."""
  what = 'is a directory' if path.is_dir() else 'does not exist'
  names = shipped.names()
  wanted = str(path.with_suffix('')).removeprefix('configs/')
  near = [name for name in names if pathlib.Path(name).name == path.stem]
  near = near or difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
  hint = f'did you mean {" or ".join(near)}?' if near else 'see bn_jax configs'
  return f'--config: {path} {what}; {hint}'
