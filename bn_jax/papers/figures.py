"""Reads shipped configs as experiments, the figures of the papers above all.

A run stands for one of a figure if it is as configs/PAPER/FIGURE.py has it.
"""

import ast
import functools
import pathlib
from typing import NamedTuple

from bn_jax.config import files, resolve, shipped
from bn_jax.config.run_config import RunConfig
from bn_jax.report.claims import reading

# Folders of configs/: the two papers, studies after others, and of our own.
PAPERS = ('santurkar2018', 'ioffe2015', 'curvature', 'place_of_bn')


class Reproduction(NamedTuple):
  """A figure at one size, or another config that is shipped.

  Attributes:
    figure: such as 'santurkar2018/figure10'.
    size: 'paper' or 'small'; '' of a config that takes no size.
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
    return f'{self.figure} ({self.size})' if self.size else self.figure


def every(
  papers: tuple[str, ...] = PAPERS, folder: pathlib.Path | None = None
) -> tuple[Reproduction, ...]:
  """Returns all figures of papers at all sizes.

  Args:
    folder: that of the configs; None is that of the shipped ones.

  Raises:
    ConfigError: no folder of configs, or a config that fails.
  """
  folder = folder or shipped.folder()
  return tuple(
    figure
    for paper in papers
    for file in sorted((folder / paper).glob('*.py'), key=_natural)
    if file.name != '__init__.py'
    for figure in of(f'{paper}/{file.stem}', file)
    if figure.size
  )


@functools.cache
def of(name: str, file: pathlib.Path) -> tuple[Reproduction, ...]:
  """Returns a config at each size that it takes, or as it is.

  Raises:
    ConfigError: it fails.
  """
  try:
    tree = ast.parse(file.read_text(encoding='utf-8'))
  except (OSError, ValueError, SyntaxError):
    files.load(str(file))  # raises, with file and line
    raise
  takes_a_size = any(map(_takes_a_size, tree.body))
  title = (ast.get_docstring(tree) or file.stem).splitlines()[0]
  figures = []
  for size in reading.SIZES if takes_a_size else ('',):
    config = files.load(f'{file}:{size}' if size else str(file))
    resolved = resolve.experiment(config.to_dict(), {})
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
