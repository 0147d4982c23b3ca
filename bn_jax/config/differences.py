"""Whether two configs of a run are one experiment, and in what they differ.

An experiment is taken up again in the working directory that holds it; what
would make its records those of another one is refused.
"""

import pathlib

from bn_jax import errors
from bn_jax.config import resolve, schema
from bn_jax.storage import run_folder

Config = resolve.Config

# What may differ when an experiment is taken up again: none of it changes a
# number by more than rounding. Updates that may be left out change none before
# the one at which a run without them stops: it can go on from there.
_MAY_CHANGE = (
  'steps', 'measures', 'log_every_steps', 'checkpoint', 'evaluation_batch_size',
  'layout', 'devices', 'shard_state', 'remat', 'data_dir', 'on_nonfinite',
  'max_skips',
)  # fmt: skip

# Keys that came later, with what runs before them did.
_ADDED = {'on_nonfinite': 'stop', 'max_skips': None}


def check_same(workdir: pathlib.Path, experiment: resolve.Experiment) -> None:
  """Refuses a working directory that holds another experiment.

  Raises:
    ConfigError: a run of the same name that is another one.
    StorageError: experiment.json is damaged.
  """
  old = run_folder.read_experiment(workdir)
  for name, run in experiment.runs.items():
    if old is None or name not in old['runs']:
      continue
    different = difference(old['runs'][name], run.as_json())
    if different:
      raise errors.ConfigError(
        f'{workdir} holds another experiment, run {name!r}: {different}; give '
        'another --workdir'
      )


def difference(old: Config, new: Config) -> str | None:
  """The first key in which two configs of a run are not the same experiment."""
  old, new = filled(old), filled(new)
  for key in resolve.KEYS:
    if key not in _MAY_CHANGE and old.get(key) != new.get(key):
      return f'config.{key} was {old.get(key)}, is {new.get(key)}'
  # A measure may come, go, or look at other times; under one name it must
  # stay one measure, or its records could not stand in one file.
  for name in old['measures'].keys() & new['measures'].keys():
    before, after = (
      {k: v for k, v in run['measures'][name].items() if k != 'every_steps'}
      for run in (old, new)
    )
    if before != after:
      return f'config.measures.{name} was {before}, is {after}'
  return None


def filled(run: Config) -> Config:
  """A resolved run of before with keys and keywords that came later.

  What ran before a keyword was there, did what is its default.
  """
  run = {**_ADDED, **run}
  made = {
    key: schema.filled(section, run[key])
    for key, section in schema.SECTIONS.items()
    if key in run
  }
  if 'measures' in run:
    made['measures'] = {
      name: schema.filled(schema.MEASURE, section)
      for name, section in run['measures'].items()
    }
  return {**run, **made}
