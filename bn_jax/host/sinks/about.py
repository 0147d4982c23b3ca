"""Says what sinks are told of a run, of its config and of a record."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bn_jax.storage import records, run_folder


class Run(NamedTuple):
  """What a service is told of one of its runs.

  Attributes:
    home: the folder for what the service writes on this machine.
    project: what its runs are of: the name of the working directory.
    name: of the run there, such as 'batchnorm/seed0'.
    group: what seeds have in common, such as 'batchnorm'; None of figures.
    config: key -> value, resolved, with the run's name and its seed.
  """

  home: pathlib.Path
  project: str
  name: str
  group: str | None
  config: dict[str, Any]


def seed(folder: run_folder.RunFolder, config: Mapping[str, Any]) -> Run:
  """Returns what is told of a run with one seed."""
  own = {'run': folder.run, 'seed': folder.seed}
  return Run(
    *_place(folder.workdir), folder.label, folder.run, {**own, **config}
  )


def figures(workdir: pathlib.Path) -> Run:
  """Returns what is told of the figures of all runs."""
  return Run(*_place(workdir), 'figures', None, {})


def _place(workdir: pathlib.Path) -> tuple[pathlib.Path, str]:
  return run_folder.sinks(workdir).absolute(), workdir.absolute().name


def flat(tree: Mapping[str, Any], above: str = '') -> dict[str, Any]:
  """Returns 'norm.name' -> value, of numbers, bools and texts.

  What is none of these becomes a text; what is None is left out.
  """
  leaves = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      leaves |= flat(value, f'{above}{key}.')
    elif isinstance(value, bool | int | float | str):
      leaves[above + key] = value
    elif value is not None:
      leaves[above + key] = str(value)
  return leaves


def numbers(record: records.Record) -> dict[str, float]:
  """Returns 'train/loss' -> number; of a list its minimum and maximum.

  The digits are those of scalars.jsonl.
  """
  result = {}
  for name, value in record.values.items():
    tag = f'{record.name}/{name}'
    if np.ndim(value) == 0:
      result[tag] = records.shortest(value)
    else:
      result[f'{tag}_min'] = records.shortest(np.min(value))
      result[f'{tag}_max'] = records.shortest(np.max(value))
  return result
