"""Finds which runs in working directories stand for the runs of a figure.

Runs are matched by config, not by name: a run of another experiment with the
same config and measures is the same run.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from bn_jax import errors
from bn_jax.config import differences, resolve, schema
from bn_jax.papers import figures as figures_lib
from bn_jax.report.claims import verifying
from bn_jax.storage import run_folder

_SHOWN = 40  # characters of a value: the message stays one line
# Most runs of other figures differ in these keys; comparing all takes longer.
_TELLING = ('steps', 'batch_size', 'data', 'model', 'norm', 'schedule')


# Folder of a run with a seed -> its config, filled by `differences.filled`.
Begun = Mapping[run_folder.RunFolder, dict[str, Any]]


def begun(workdirs: Iterable[pathlib.Path]) -> Begun:
  """Returns the runs that have begun in working directories, and their configs.

  Raises:
    StorageError: a manifest that was changed.
  """
  return {
    folder: _config(folder)
    for workdir in workdirs
    for folder in run_folder.below(workdir)
  }


def below(folder: pathlib.Path) -> tuple[Begun, list[str]]:
  """Returns the runs that have begun in all working directories below a folder.

  Returns:
    The runs, and what is wrong with each run, or whole working directory, that
    is left out as it is damaged.
  """
  all_runs, damage = {}, []
  for workdir in run_folder.workdirs(folder):
    try:
      runs = run_folder.below(workdir)
    except errors.StorageError as error:
      damage.append(str(error))
      continue
    for run in runs:
      try:
        all_runs[run] = _config(run)
      except errors.StorageError as error:
        damage.append(str(error))
  return all_runs, damage


def _config(folder: run_folder.RunFolder) -> dict[str, Any]:
  config = folder.whole_manifest()['config']
  # A user's function is in no figure, and need not be loaded.
  return config if schema.references(config) else differences.filled(config)


def match(figure: figures_lib.Reproduction, runs: Begun) -> verifying.Standing:
  """Returns which of some runs stand for the runs of a figure."""
  folders, notes, twice = {}, {}, []
  for name, run in figure.runs.items():
    expected = run.as_json()
    for folder, config in runs.items():
      config = _named(folder, config, expected['model'].get('lowering'))
      is_near = folder.run == name and _alike(config, expected)
      if not is_near and any(
        config.get(key) != expected[key] for key in _TELLING
      ):
        continue
      different = difference(config, expected)
      if different is None:
        seeds = folders.setdefault(name, {})
        if seeds.setdefault(folder.seed, folder) is not folder:
          twice.append(f'{folder.path}: seed {folder.seed} of {name} again')
      elif is_near:
        notes.setdefault(name, f'not as configured: {different}')
  return verifying.Standing(
    figure.figure,
    figure.size,
    tuple(figure.runs),
    folders,
    {name: note for name, note in notes.items() if name not in folders},
    tuple(twice),
  )


def _named(
  folder: run_folder.RunFolder, config: dict[str, Any], lowering: str | None
) -> dict[str, Any]:
  """Returns a run's config, its 'auto' named if a figure names the same."""
  model = config['model']
  if model.get('lowering') != 'auto' or lowering in (None, 'auto'):
    return config
  if (folder.manifest or {}).get('lowering') != lowering:
    return config
  return {**config, 'model': {**model, 'lowering': lowering}}


def difference(
  config: Mapping[str, Any], expected: Mapping[str, Any]
) -> str | None:
  """Says why a run does not stand for that of a figure; None if it does.

  Whatever changes numbers must be the same, and each measure of the figure must
  have been taken as its config says; further measures change nothing.
  """
  for key in resolve.KEYS:
    value = config.get(key)
    if key == 'measures' or value == expected[key]:
      continue
    if differences.difference({**expected, key: value}, expected):
      return _leaf(key, value, expected[key])
  for key in ('steps', 'on_nonfinite', 'max_skips'):
    if config.get(key) != expected[key]:
      return _leaf(key, config.get(key), expected[key])
  for name, section in expected['measures'].items():
    if name not in config['measures']:
      return f'measure {name} was not taken'
    own, wanted = map(schema.measured, (config['measures'][name], section))
    if own != wanted:
      return _leaf(f'measures.{name}', own, wanted)
  return None


def _leaf(path: str, value: Any, expected: Any) -> str:
  """Names the first key with two values: 'steps 10 instead of 15000'."""
  if isinstance(value, Mapping) and isinstance(expected, Mapping):
    for key in (*expected, *value):
      values = value.get(key), expected.get(key)
      if values[0] != values[1]:
        return _leaf(f'{path}.{key}', *values)
  return f'{path} {_short(value)} instead of {_short(expected)}'


def _short(value: Any) -> str:
  text = str(value)
  return text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...'


def _alike(config: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
  """Returns whether network, norm and data have the same names."""
  return all(
    config[key]['name'] == expected[key]['name']
    for key in ('data', 'model', 'norm')
  )


def nearest(
  figures: Iterable[figures_lib.Reproduction], runs: Begun
) -> str | None:
  """Names a run that is nearly one of a figure, and how it differs."""
  for figure in figures:
    for name, note in match(figure, runs).notes.items():
      return f'run {name} is that of {figure.label}, but {note}'
  return None
