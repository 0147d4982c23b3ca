"""Finds in what two configs of a run differ so that they are two experiments.

An experiment is continued in the working directory that holds it; a change
that would mix the records of two experiments is refused.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

from bn_jax import errors
from bn_jax.config import parser, resolve, schema
from bn_jax.storage import run_folder

Config = resolve.Config


# Keys that are younger than some runs -> what those runs did.
_ADDED = {
  'on_nonfinite': 'stop', 'max_skips': None, 'clip_norm': None,
  'adaptive_clip': None, 'rates': {}, 'trainable': 'all', 'ema': None,
  'measure_lowering': 'auto', 'seeds_at_once': 'auto',
  'sinks': ['tensorboard'],
}  # fmt: skip


def check_same(workdir: pathlib.Path, experiment: resolve.Experiment) -> None:
  """Refuses a working directory that holds another experiment.

  Raises:
    ConfigError: it holds a run of the same name that is another one.
    StorageError: experiment.json or a manifest is damaged.
  """
  begun = run_folder.read_experiment(workdir) or {'runs': {}}
  for name, run in experiment.runs.items():
    folders = (run_folder.at(workdir, name, seed) for seed in experiment.seeds)
    manifests = [folder.manifest for folder in folders if folder.manifest]
    configs = [manifest['config'] for manifest in manifests]
    if name in begun['runs']:
      configs.append(begun['runs'][name])
    for config in configs:
      different = difference(config, run.as_json())
      if different:
        raise errors.ConfigError(
          f'{workdir} holds another experiment, run {name!r}: {different}; '
          'give another --workdir'
        )


def difference(old: Config, new: Config) -> str | None:
  """Says in what two configs of a run are not one experiment; None if they are.

  Each key that makes them two is named with its values before and now.
  """
  old, new = filled(old), filled(new)
  changes = []
  for key in resolve.KEYS:
    if key not in run_folder.MAY_CHANGE:
      changes += changed(f'config.{key}', old.get(key), new.get(key))
  # A measure may come, go, or look at other times; under one name it must
  # stay one measure, or its records could not stand in one file.
  for name in sorted(old['measures'].keys() & new['measures'].keys()):
    before, now = (
      {**schema.measured(run['measures'][name]), 'every_steps': None}
      for run in (old, new)
    )
    changes += changed(f'config.measures.{name}', before, now)
  return parser.listed(changes) or None


def changed(path: str, old: Any, new: Any) -> Iterator[str]:
  """Yields 'PATH was OLD, is NEW' of each value in which two configs differ.

  Args:
    path: of both values, such as 'config.norm'.
    old: the value before, or a section with values at any depth.
    new: the same now.
  """
  if old == new:
    return
  was, now = ({} if value is None else value for value in (old, new))
  if not (isinstance(was, dict) and isinstance(now, dict)) or was == now:
    yield f'{path} was {old!r}, is {new!r}'
    return
  keys = {**was, **now}
  if was.get('name') != now.get('name'):
    # Another constructor has other keywords, which would tell nothing more.
    keys = dict.fromkeys(['name', *(key for key in was if key in now)])
  for key in keys:
    yield from changed(f'{path}.{key}', was.get(key), now.get(key))


def filled(run: Config) -> Config:
  """Returns a resolved run with the keys and keywords that are younger than it.

  A run from before a keyword existed did what is the keyword's default.
  """
  run = {**_ADDED, **run}
  sections = {
    key: schema.filled(section, run[key])
    for key, section in schema.SECTIONS.items()
    if key in run
  }
  if 'measures' in run:
    sections['measures'] = {
      name: schema.filled(schema.MEASURE, section)
      for name, section in run['measures'].items()
    }
  return {**run, **sections}
