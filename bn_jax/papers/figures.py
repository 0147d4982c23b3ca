"""Reads the figures of the papers as experiments: the configs that take a size.

A run stands for one of a figure if it is as configs/PAPER/FIGURE.py has it.
"""

import ast
import functools
import importlib.util
import pathlib
from typing import NamedTuple

from bn_jax import errors
from bn_jax.config import files, resolve
from bn_jax.config.run_config import RunConfig
from bn_jax.report.claims import reading

# Folders of configs/: the two papers, studies after others, and of our own.
PAPERS = ('santurkar2018', 'ioffe2015', 'curvature', 'place_of_bn')


class Reproduction(NamedTuple):
  """A figure at one size.

  Attributes:
    figure: such as 'santurkar2018/figure10'.
    size: 'paper' or 'small'.
    title: the first line of its config.
    runs: name -> resolved config.
    seeds: those of its config.
  """

  figure: str
  size: str
  title: str
  runs: dict[str, RunConfig]
  seeds: tuple[int, ...]

  @property
  def label(self) -> str:
    return f'{self.figure} ({self.size})'


def every(
  papers: tuple[str, ...] = PAPERS, folder: pathlib.Path | None = None
) -> tuple[Reproduction, ...]:
  """Returns all figures of papers at all sizes.

  Args:
    folder: that of the configs; None is where Python finds `configs`.

  Raises:
    ConfigError: no folder of configs, or a config that fails.
  """
  folder = folder or _folder()
  return tuple(
    figure
    for paper in papers
    for file in sorted((folder / paper).glob('*.py'), key=_natural)
    for figure in _of(file, paper)
  )


def _folder() -> pathlib.Path:
  spec = importlib.util.find_spec('configs')
  if spec is None or not spec.submodule_search_locations:
    raise errors.ConfigError(
      'no configs/ found; start the command in the folder of the repository'
    )
  return pathlib.Path(spec.submodule_search_locations[0])


@functools.cache
def _of(file: pathlib.Path, paper: str) -> tuple[Reproduction, ...]:
  """Returns the figure of a config at each size; () if it takes no size."""
  try:
    tree = ast.parse(file.read_text(encoding='utf-8'))
  except (OSError, ValueError, SyntaxError):
    files.load(str(file))  # raises, with file and line
    raise
  if not any(map(_takes_a_size, tree.body)):
    return ()
  title = (ast.get_docstring(tree) or file.stem).splitlines()[0]
  figures = []
  for size in reading.SIZES:
    config = files.load(f'{file}:{size}')
    resolved = resolve.experiment(config.to_dict(), {})
    name = f'{paper}/{file.stem}'
    figures.append(
      Reproduction(name, size, title, resolved.runs, resolved.seeds)
    )
  return tuple(figures)


def _takes_a_size(statement: ast.stmt) -> bool:
  return (
    isinstance(statement, ast.FunctionDef)
    and statement.name == 'get_config'
    and any(argument.arg == 'size' for argument in statement.args.args)
  )


def _natural(file: pathlib.Path) -> tuple:
  """Returns a key to sort figure2 before figure10, both before others."""
  stem = file.stem.removeprefix('figure')
  digits = ''.join(c for c in stem.partition('_')[0] if c.isdigit())
  is_figure = stem != file.stem and bool(digits)
  return (not is_figure, int(digits) if is_figure else 0, file.stem)
