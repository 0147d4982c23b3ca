"""Which runs in working directories stand for the runs of a figure.

By what they are, not by their names: a run of another experiment with the same
config and measures is the same run.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bn_jax import errors
from bn_jax.config import differences, resolve
from bn_jax.papers import figures as figures_lib
from bn_jax.storage import files

_MANIFEST = {
  'status': str, 'step': int | None, 'seed': int,
  'config': {
    'data': {'name': str}, 'model': {'name': str}, 'norm': {'name': str},
    'measures': {...: {'name': str}},
  },
}  # fmt: skip

_SHOWN = 40  # characters of a value
_TELLING = ('steps', 'batch_size', 'data', 'model', 'norm', 'schedule')


class Cell(NamedTuple):
  """A run with one seed that lies in a working directory.

  Attributes:
    workdir: in which.
    run: its name there.
    seed: its number.
    config: resolved, with the keys that came later.
    status, step: of its manifest.
  """

  workdir: pathlib.Path
  run: str
  seed: int
  config: dict[str, Any]
  status: str
  step: int

  @property
  def place(self) -> pathlib.Path:
    return self.workdir / self.run / f'seed{self.seed}'

  @property
  def has_ended(self) -> bool:
    return self.status in ('done', 'diverged')


class Match(NamedTuple):
  """What was found of a figure.

  Attributes:
    cells: run of the figure -> seed -> what stands for it.
    notes: run of the figure that nothing stands for -> what nearly does.
    twice: what was left out, as its run and seed were there already.
  """

  cells: dict[str, dict[int, Cell]]
  notes: dict[str, str]
  twice: tuple[str, ...]


def cells(workdir: pathlib.Path) -> list[Cell]:
  """What has begun in a working directory, run by run and seed by seed.

  Raises:
    StorageError: a manifest that is damaged.
  """
  found = []
  for path in workdir.glob('*/seed*/manifest.json'):
    manifest = files.read_json(path, _MANIFEST)
    found.append(
      Cell(
        workdir, path.parent.parent.name, manifest['seed'],
        differences.filled(manifest['config']), manifest['status'],
        manifest['step'] or 0,
      )
    )  # fmt: skip
  return sorted(found, key=lambda cell: (cell.run, cell.seed))


def below(folder: pathlib.Path) -> list[Cell]:
  """The same of all working directories in a folder and below it.

  What is damaged is left out.
  """
  found = []
  for path in sorted(folder.glob('**/experiment.json')):
    try:
      found += cells(path.parent)
    except errors.StorageError:
      continue
  return found


def match(figure: figures_lib.Reproduction, found: Sequence[Cell]) -> Match:
  """What of some cells stands for the runs of a figure."""
  taken, notes, twice = {}, {}, []
  for name, wanted in figure.runs.items():
    for cell in found:
      nearly = cell.run == name and _alike(cell.config, wanted)
      # Most are of other figures: that is seen at once.
      if not nearly and any(
        cell.config.get(key) != wanted[key] for key in _TELLING
      ):
        continue
      different = difference(cell.config, wanted)
      if different is None:
        seeds = taken.setdefault(name, {})
        if seeds.setdefault(cell.seed, cell) is not cell:
          twice.append(f'{cell.place}: seed {cell.seed} of {name} again')
      elif nearly:
        notes.setdefault(name, f'not as configured: {different}')
  left = {name: note for name, note in notes.items() if name not in taken}
  return Match(taken, left, tuple(twice))


def difference(
  theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> str | None:
  """Why a run does not stand for that of a figure, or None.

  Whatever changes numbers must be the same, and each measure of the figure must
  have been taken as it says; further measures change nothing.
  """
  for key in resolve.KEYS:
    given = theirs.get(key)
    if key == 'measures' or given == ours[key]:
      continue
    if differences.difference({**ours, key: given}, ours):
      return _leaf(key, given, ours[key])
  for key in ('steps', 'on_nonfinite', 'max_skips'):
    if theirs.get(key) != ours[key]:
      return _leaf(key, theirs.get(key), ours[key])
  for name, section in ours['measures'].items():
    if name not in theirs['measures']:
      return f'measure {name} is not there'
    if theirs['measures'][name] != section:
      return _leaf(f'measures.{name}', theirs['measures'][name], section)
  return None


def _leaf(path: str, theirs: Any, ours: Any) -> str:
  """The first key in which two values differ: 'steps 10 instead of 15000'."""
  if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
    for key in (*ours, *theirs):
      pair = theirs.get(key), ours.get(key)
      if pair[0] != pair[1]:
        return _leaf(f'{path}.{key}', *pair)
  return f'{path} {_short(theirs)} instead of {_short(ours)}'


def _short(value: Any) -> str:
  text = str(value)
  return text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...'


def _alike(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
  """Whether it is the same network on the same data, by their names."""
  return all(
    theirs[key]['name'] == ours[key]['name']
    for key in ('data', 'model', 'norm')
  )


def nearest(
  figures: Iterable[figures_lib.Reproduction], found: Sequence[Cell]
) -> str | None:
  """The first run that is nearly one of a figure, and what is different."""
  for figure in figures:
    for name, note in match(figure, found).notes.items():
      return f'run {name} is that of {figure.label}, but {note}'
  return None
