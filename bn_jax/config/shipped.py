"""Finds the configs that come with bn_jax by name: 'santurkar2018/figure4'.

They lie in configs/ of a checkout, and in the package where it is installed.
"""

import functools
import importlib.util
import pathlib
import types

from bn_jax import errors
from bn_jax.host import code

_INSTALLED = pathlib.Path(__file__).resolve().parents[1] / 'configs'


def folder() -> pathlib.Path:
  """Returns the folder of the shipped configs.

  Raises:
    ConfigError: this copy of the package has none.
  """
  root = code.checkout()
  path = root / 'configs' if root else _INSTALLED
  if not path.is_dir():
    raise errors.ConfigError(
      f'{path} does not exist: this copy of bn_jax has no configs; install it '
      'by pip, or start the command in a checkout'
    )
  return path


def names() -> list[str]:
  """Returns the names of all, sorted; [] where there are none."""
  try:
    root = folder()
  except errors.ConfigError:
    return []
  return sorted(
    str(file.relative_to(root).with_suffix(''))
    for file in root.glob('**/*.py')
    if file.name != '__init__.py'
  )


def module(name: str) -> types.ModuleType:
  """Returns the module of a shipped config, for a config that begins from it.

  Args:
    name: such as 'santurkar2018/vgg'.
  """
  return _module(folder() / f'{name}.py')


@functools.cache
def _module(path: pathlib.Path) -> types.ModuleType:
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
