"""Finds which runs in working directories stand for the runs of a figure.

They are matched by what they are, not by name: a run of another experiment with
the same config and measures is the same run.
"""

import contextlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from bn_jax import errors
from bn_jax.config import differences, resolve
from bn_jax.papers import figures as figures_lib
from bn_jax.report.claims import verifying
from bn_jax.storage import run_folder

_SHOWN = 40  # characters of a value: a message stays one line
# Keys by which most runs are seen to be no match, before all are compared.
_TELLING = ('steps', 'batch_size', 'data', 'model', 'norm', 'schedule')


# Folder of a run and seed -> its config, with the keys that came later.
Begun = Mapping[run_folder.RunFolder, dict[str, Any]]


def begun(workdirs: Iterable[pathlib.Path]) -> Begun:
  """Returns what has begun in working directories, by run and seed.

  Raises:
    StorageError: a manifest that is damaged.
  """
  return {
    folder: differences.filled(folder.whole_manifest()['config'])
    for workdir in workdirs
    for folder in run_folder.below(workdir)
  }


def below(folder: pathlib.Path) -> Begun:
  """Returns what has begun in all working directories below a folder.

  Damaged runs are left out.
  """
  all_begun = {}
  for workdir in run_folder.workdirs(folder):
    with contextlib.suppress(errors.StorageError):
      all_begun |= begun([workdir])
  return all_begun


def match(figure: figures_lib.Reproduction, begun: Begun) -> verifying.Standing:
  """Returns what of some runs stands for the runs of a figure."""
  folders, notes, twice = {}, {}, []
  for name, run in figure.runs.items():
    wanted = run.as_json()
    for folder, config in begun.items():
      nearly = folder.run == name and _alike(config, wanted)
      # Most are of other figures: that is seen at once.
      if not nearly and any(config.get(key) != wanted[key] for key in _TELLING):
        continue
      different = difference(config, wanted)
      if different is None:
        seeds = folders.setdefault(name, {})
        if seeds.setdefault(folder.seed, folder) is not folder:
          twice.append(f'{folder.path}: seed {folder.seed} of {name} again')
      elif nearly:
        notes.setdefault(name, f'not as configured: {different}')
  return verifying.Standing(
    figure.figure,
    figure.size,
    tuple(figure.runs),
    folders,
    {name: note for name, note in notes.items() if name not in folders},
    tuple(twice),
  )


def difference(
  theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> str | None:
  """Says why a run does not stand for that of a figure; None if it does.

  Whatever changes numbers must be the same, and each measure of the figure must
  have been taken as it says; further measures change nothing.
  """
  for key in resolve.KEYS:
    value = theirs.get(key)
    if key == 'measures' or value == ours[key]:
      continue
    if differences.difference({**ours, key: value}, ours):
      return _leaf(key, value, ours[key])
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
  """Names the first key in which two differ: 'steps 10 instead of 15000'."""
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
  """Returns whether network, norm and data have the same names."""
  return all(
    theirs[key]['name'] == ours[key]['name']
    for key in ('data', 'model', 'norm')
  )


def nearest(
  figures: Iterable[figures_lib.Reproduction], begun: Begun
) -> str | None:
  """Names a run that is nearly one of a figure, and what is different."""
  for figure in figures:
    for name, note in match(figure, begun).notes.items():
      return f'run {name} is that of {figure.label}, but {note}'
  return None
