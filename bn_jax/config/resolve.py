"""Resolves a config: says what each run is, complete and checked.

A flag of the command line beats a run's override, which beats the config.
A resolved run has every keyword of every constructor that it uses, defaults
too, as JSON can hold it: what is in the manifest is what was run.
"""

import argparse
import collections
import contextlib
import functools
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bn_jax import analysis, checks, errors, models, plugins
from bn_jax.config import build, epochs, merging, numbers, parser, schema
from bn_jax.config.run_config import (
  KEYS,
  MOST_SEEDS,
  RUN_KEYS,
  FrozenDict,
  RunConfig,
)  # fmt: skip
from bn_jax.data import datasets
from bn_jax.host import sinks as sinks_lib
from bn_jax.storage import records, run_folder
from bn_jax.training import devices as devices_lib

Config = dict[str, Any]

_COUNTS = (
  'batch_size', 'evaluation_batch_size', 'steps', 'log_every_steps', 'devices'
)  # fmt: skip
# Those that are lists of runs.
_LISTS = ('expected_divergence', 'recalibrate')
_EXPERIMENT_KEYS = ('runs', 'seeds', *_LISTS)
_PROBE_DATA = re.compile(r'current_batch|(train|test)(:[1-9]\d{0,8})?')
_CHOICES = {
  'matmul_precision': ('default', 'high', 'highest'),
  'compute_dtype': ('float32', 'bfloat16'),
  'measure_lowering': models.LOWERINGS,
  'on_nonfinite': ('stop', 'skip'),
  'layout': tuple(devices_lib.LAYOUTS),
}
_FLAGS = ('shard_state', 'remat')
_TAKEN = ('figures', 'sinks')  # folders beside those of the runs
_RANGE = re.compile(r'(\d{1,10}):(\d{1,10})')  # of seeds
_SEEDS_OF = re.compile(rf'(.+)/seed{_RANGE.pattern}')  # of a run


class Experiment(NamedTuple):
  """Runs x seeds.

  Attributes:
    runs: name -> the config of that run, complete.
    seeds: with each of which every run is trained.
    expected_divergence: runs for which diverging is no failure.
    recalibrate: runs whose statistics are estimated anew after training.
  """

  runs: dict[str, RunConfig]
  seeds: tuple[int, ...]
  expected_divergence: tuple[str, ...]
  recalibrate: tuple[str, ...] = ()

  def chosen(self, only: str | None) -> dict[str, tuple[int, ...]]:
    """Returns run -> seeds: of all runs, or of what --only asks for.

    Several runs and seeds are given with commas between them; seeds in a row
    as 'RUN/seed0:32', the last one left out.

    Raises:
      ConfigError: a run or seed that the experiment does not have.
    """
    everything = {name: self.seeds for name in self.runs}
    if only is None:
      return everything
    if ',' in only:
      chosen = {}
      for word in only.split(','):
        for name, seeds in self.chosen(word.strip()).items():
          chosen.setdefault(name, set()).update(seeds)
      return {
        name: tuple(seed for seed in self.seeds if seed in chosen[name])
        for name in self.runs
        if name in chosen
      }
    if only in everything:
      return {only: self.seeds}
    if match := _SEEDS_OF.fullmatch(only):
      run, *ends = match.groups()
      first, end = map(int, ends)
      seeds = tuple(seed for seed in self.seeds if first <= seed < end)
      if run in everything and 0 < end - first == len(seeds):
        return {run: seeds}
    run, _, several = only.rpartition('/')
    if run in everything and ':' in several:
      raise errors.ConfigError(
        f'--only: {only!r}; allowed: {run}/seedFIRST:END for FIRST to END - 1, '
        f'all of them in config.seeds, {len(self.seeds)} from '
        f'{min(self.seeds)} to {max(self.seeds)}'
      )
    labels = {
      run_folder.label(run, seed): (run, seed)
      for run in self.runs
      for seed in self.seeds
    }
    if only not in labels:
      names = (*everything, *labels)
      raise errors.ConfigError(f'--only: {errors.unknown("run", only, names)}')
    name, seed = labels[only]
    return {name: (seed,)}


def experiment(config: Config, overrides: Mapping[str, Any]) -> Experiment:
  """Returns the experiment that a config describes.

  Args:
    config: nested dicts with the keys of `defaults`.
    overrides: changes by the command line: 'schedule.learning_rate' -> 0.3, and
      of one run 'runs.batchnorm.norm.momentum' -> 0.8.

  Raises:
    ConfigError: a missing or unknown key or name, a value out of range, or a
      flag on a key that no run has or in which the runs differ.
    DataError: epochs of a dataset that cannot be used.
  """
  if 'seeds' in config:
    config = {**config, 'seeds': _listed_seeds(config['seeds'])}
  config = schema.jsonable('config', config)
  changes = schema.jsonable('--config', dict(overrides))
  _check_keys(config)
  for key in _EXPERIMENT_KEYS:
    config[key] = changes.pop(key, config[key])
  runs, seeds, *lists = (config.pop(key) for key in _EXPERIMENT_KEYS)
  _check_runs(runs)
  for key, names in zip(_LISTS, lists):
    schema.check(f'config.{key}', checks.names, names, 'runs')
    for name in names:
      if name not in runs:
        message = errors.unknown('run', name, runs)
        raise errors.ConfigError(f'config.{key}: {message}')
  complete = {}
  for name, run in _merged(config, runs, changes).items():
    with naming(name, runs):
      run = _completed(run)
      complete[name] = RunConfig.of(run, modules=_modules(run))
  seeds = _checked_seeds(seeds)
  for family in numbers.families(complete):
    for name in family.names:
      with naming(name, runs):
        _check_at_once(
          complete[name].seeds_at_once, len(seeds), len(family.names)
        )
  return Experiment(complete, seeds, *map(tuple, lists))


def _merged(config: Config, runs: Config, changes: Config) -> Config:
  """Returns name -> what the run is by the file and the command line.

  Args:
    config: of the file, for all runs.
    runs: name -> what the file changes in the run.
    changes: by the command line, path -> value.
  """
  config = merging.merged({}, config, 'config')
  own_flags = merging.nested(changes).pop('runs', {})
  for_all = {
    path: value
    for path, value in changes.items()
    if not path.startswith('runs.')
  }
  alone, complete, fits = {}, {}, {}
  for name, override in runs.items():
    with naming(name, runs):
      merging.check_taken_away(f'config.runs.{name}', config, override or {})
      flags = own_flags.pop(name, {})
      merging.check_taken_away(f'--config.runs.{name}', config, flags)
      alone[name] = merging.with_own({}, override or {}, flags)
      complete[name] = merging.with_own(config, override or {}, flags)
  for path in for_all:
    merging.check_agreed(path, alone)
  for name, run in complete.items():
    with naming(name, runs):
      fits[name] = merging.fitting(merging.nested(for_all), run)
      complete[name] = merging.merged(run, fits[name], 'run')
  merging.check_used(for_all, complete, fits)
  return complete


def _check_keys(config: Config) -> None:
  """Raises ConfigError for a key that is unknown or missing."""
  schema.check_keys('config', config, (*RUN_KEYS, *_EXPERIMENT_KEYS))
  for key in (*KEYS, *_EXPERIMENT_KEYS):
    if key not in config:
      raise errors.ConfigError(
        f'config.{key}: missing; start from the config of '
        'bn_jax.config.defaults'
      )


@contextlib.contextmanager
def naming(run: str, runs: Iterable[str]):
  """Adds the name of the run to a refusal, if there are several runs."""
  try:
    yield
  except errors.ConfigError as error:
    if len(tuple(runs)) == 1:
      raise
    raise errors.ConfigError(f'run {run!r}: {error}') from error


def _check_runs(runs: Any) -> None:
  if not isinstance(runs, dict) or not runs:
    raise errors.ConfigError(f'config.runs: {runs}; allowed: one run or more')
  for name, override in runs.items():
    if name.lower() in _TAKEN or not records.NAME.fullmatch(name):
      raise errors.ConfigError(
        f'config.runs: {name[:100]!r} is no name for a run; allowed: letters, '
        'digits, "_", "-", 100 at most, the first a letter or digit, and not '
        '"figures" or "sinks", whose folders hold something else'
      )
    if not isinstance(override or {}, dict):
      raise errors.ConfigError(
        f'config.runs.{name}: {override!r}; allowed: a dict of what it changes'
      )
    schema.check_keys(f'config.runs.{name}', override or {}, RUN_KEYS)


def _listed_seeds(seeds: Any) -> Any:
  """Returns seeds as a list: a range(3) or '0:3' is [0, 1, 2]."""
  seeds = checks.plain(seeds)
  parts = seeds if isinstance(seeds, list | tuple) else [seeds]
  listed = []
  for part in parts:
    match = isinstance(part, str) and _RANGE.fullmatch(part)
    if match:
      part = range(int(match[1]), int(match[2]))
    if isinstance(part, range):
      if not part:
        raise errors.ConfigError(
          f'config.seeds: {part.start}:{part.stop} has no seed; allowed: '
          'FIRST:END with END above FIRST, such as 0:3 for 0, 1, 2'
        )
      if len(part) > MOST_SEEDS:
        raise errors.ConfigError(
          f'config.seeds: {len(part)} seeds; allowed: 1 to {MOST_SEEDS}'
        )
      listed += part
    else:
      listed.append(part)
  return listed


def _checked_seeds(seeds: Any) -> tuple[int, ...]:
  seeds = _listed_seeds(seeds)
  for seed in seeds:
    if not checks.is_whole(seed) or not 0 <= seed < 2**31:
      raise errors.ConfigError(
        f'config.seeds: {checks.shown(seed)}; allowed: whole numbers from 0 to '
        '2**31 - 1, or 0:3 for 0, 1, 2'
      )
  if len(seeds) > MOST_SEEDS:
    raise errors.ConfigError(
      f'config.seeds: {len(seeds)} seeds; allowed: 1 to {MOST_SEEDS}'
    )
  if len(set(seeds)) < len(seeds):
    (seed, times), *_ = collections.Counter(seeds).most_common(1)
    raise errors.ConfigError(
      f'config.seeds: {seed} is there {times} times; allowed: each once'
    )
  if not seeds:
    raise errors.ConfigError('config.seeds: []; allowed: one seed or more')
  return tuple(seeds)


def _check_at_once(number: int | str, seeds: int, runs: int) -> None:
  """Raises ConfigError for more seeds at once than runs that share have."""
  count = seeds * runs
  if number != 'auto' and number > count:
    which = f', of {runs} runs that differ in numbers alone' if runs > 1 else ''
    raise errors.ConfigError(
      f'config.seeds_at_once: {number} of {count} seeds{which}; allowed: 1 to '
      f"{count}, or 'auto'"
    )


def _completed(config: Config) -> Config:
  """Checks a run's config and fills in the defaults of all constructors."""
  for key in ('data_dir', 'init_from'):
    config[key] = _absolute(f'config.{key}', config[key])
  schema.check('config.batch_size', checks.count, config['batch_size'])
  config['data'] = data = schema.completed(
    'config.data', schema.of('data'), config['data']
  )
  # A later command may run in another folder.
  data['name'] = datasets.absolute(data['name'])
  config = epochs.in_steps(config, lambda: _examples(data, config['data_dir']))
  for key, section in schema.SECTIONS.items():
    config[key] = schema.completed(f'config.{key}', section, config[key])
  _check_norm(config)
  for key in _COUNTS:
    schema.check(f'config.{key}', checks.count, config[key])
  for key in _FLAGS:
    schema.check(f'config.{key}', checks.flag, config[key])
  _check_checkpoint(config['checkpoint'])
  for key, allowed in _CHOICES.items():
    schema.check(f'config.{key}', checks.one_of, config[key], allowed)
  _check_skips(config['on_nonfinite'], config['max_skips'])
  schema.check(
    'config.seeds_at_once', functools.partial(checks.count, also=('auto',)),
    config['seeds_at_once'],
  )  # fmt: skip
  _check_division(config)
  config['sinks'] = _checked_sinks(config['sinks'])
  config['measures'] = _completed_measures(config['measures'])
  return {key: config[key] for key in KEYS}


def takes_norm(model: Mapping[str, Any]) -> bool:
  """Returns whether the network of a section `model` gets the config's norm.

  The function of a user that lacks the argument has norms of its own, or none.
  """
  name = model['name']
  return not plugins.is_reference(name) or plugins.takes(
    plugins.constructor(name), 'norm'
  )


def _check_norm(config: Config) -> None:
  """Refuses a norm for a network that would not get it.

  Else runs that differ in the norm would be compared, and be the same. That of
  `defaults`, which one may leave alone, is not refused.
  """
  usual = schema.completed('config.norm', schema.of('norm'), {'name': 'batch'})
  if takes_norm(config['model']) or config['norm'] == usual:
    return
  name, norm = config['model']['name'], config['norm']
  changes = [f'{k}={x!r}' for k, x in norm.items() if usual.get(k) != x]
  raise errors.ConfigError(
    f"config.norm: {name} takes no 'norm', so {', '.join(changes)} would have "
    'no effect; leave config.norm as it is by default, or give the '
    'function that argument'
  )


def _examples(data: Config, data_dir: str | None) -> int:
  """Returns how many examples there are to train on."""
  modules = FrozenDict.of(_modules({'data': data}))
  return build.dataset(FrozenDict.of(data), data_dir, modules).facts.num_train


def _modules(run: Config) -> dict[str, Any]:
  """Returns the modules of users that a run refers to."""
  return plugins.files(schema.references(run))


def _absolute(where: str, path: Any) -> str | None:
  """Returns the path of a folder for later commands, which run in others."""
  if not isinstance(path, str | None) or path == '':
    raise errors.ConfigError(
      f'{where}: {checks.shown(path)}; allowed: the path of a folder, or None'
    )
  try:
    return path if path is None else os.path.abspath(parser.path(path))
  except argparse.ArgumentTypeError as error:
    raise errors.ConfigError(f'{where}: {error}') from error


def _check_skips(on_nonfinite: str, max_skips: Any) -> None:
  """Checks max_skips: a number with on_nonfinite 'skip', else None."""
  if on_nonfinite == 'skip':
    where = "config.max_skips, with on_nonfinite 'skip'"
    schema.check(where, checks.count, max_skips)
  elif max_skips is not None:
    raise errors.ConfigError(
      f'config.max_skips: {max_skips!r} with on_nonfinite {on_nonfinite!r}; '
      "allowed: None, or a number with on_nonfinite 'skip'"
    )


def _check_division(config: Config) -> None:
  """Checks that a batch divides into micro-batches, devices and groups."""
  batch, devices = config['batch_size'], config['devices']
  micro = config['micro_batch_size']
  if micro is None:
    where, micro = 'config.batch_size', batch
  else:
    where = 'config.micro_batch_size'
    schema.check(where, checks.count, micro)
    if batch % micro:
      raise errors.ConfigError(
        f'{where}: {micro} does not divide the batch of {batch}; allowed: '
        'its divisors'
      )
  if micro % devices:
    below = micro // devices * devices
    near = f'{below} and {below + devices}' if below else str(devices)
    raise errors.ConfigError(
      f'{where}: {micro} does not divide over {devices} devices; the nearest '
      f'that does: {near}'
    )
  if config['layout'] == 'jit':
    return
  if config['shard_state']:
    raise errors.ConfigError(
      f'config.shard_state: True with layout {config["layout"]!r}; allowed: '
      "with layout 'jit'"
    )
  per_device, group = micro // devices, config['norm'].get('group_size')
  if not checks.is_size(group):  # None, or what the norm refuses
    return
  if group not in (None, micro) and per_device % group:
    raise errors.ConfigError(
      f'config.norm.group_size: {group} with layout {config["layout"]!r}; '
      f'allowed: what divides {per_device}, the examples of one device, or '
      f'{micro}, all of them'
    )


def _check_checkpoint(checkpoint: Any) -> None:
  keys = ('every_steps', 'keep')
  if not isinstance(checkpoint, dict) or set(checkpoint) != set(keys):
    raise errors.ConfigError(
      f'config.checkpoint: {checkpoint}; allowed: a dict of every_steps and '
      'keep'
    )
  for key in keys:
    schema.check(f'config.checkpoint.{key}', checks.count, checkpoint[key])


def _checked_sinks(sinks: Any) -> list[str]:
  """Returns the names of sinks, each once; a single one may be no list."""
  where = 'config.sinks'
  names = [sinks] if isinstance(sinks, str) else sinks
  schema.check(where, checks.names, names, 'sinks, or () for none')
  for name in names:
    schema.check(where, checks.one_of, name, sinks_lib.NAMES)
  return list(dict.fromkeys(names))


def _completed_measures(measures: Any) -> Config:
  if not isinstance(measures, dict):
    raise errors.ConfigError(f'config.measures: {measures!r}; allowed: a dict')
  complete = {}
  for name, entry in measures.items():
    if entry is None:  # taken away
      continue
    where = f'config.measures.{name}'
    if name == 'train' or not records.NAME.fullmatch(name):
      raise errors.ConfigError(
        f'{where}: no name for a measure; allowed: letters, digits, "_", "-", '
        'and not "train"'
      )
    section = schema.completed(where, schema.MEASURE, entry)
    every_steps = section.get('every_steps')
    schema.check(f'{where}.every_steps', checks.count, every_steps)
    check_data(f'{where}.data', section)
    complete[name] = section
  return complete


def check_data(where: str, section: Config) -> None:
  """Raises ConfigError unless a measure can look at its section's data."""
  data = section.get('data')
  allowed = ['current_batch', 'train:N', 'test:N']
  if not analysis.kind_of(section['name']).one_batch:
    allowed += ['train', 'test']
  has_form = isinstance(data, str) and _PROBE_DATA.fullmatch(data)
  if not has_form or re.sub(r':\d+', ':N', data) not in allowed:
    raise errors.ConfigError(
      f'{where}: {data!r}; allowed for {section["name"]}: '
      f'{", ".join(allowed)} (N: the first N, as one batch)'
    )
