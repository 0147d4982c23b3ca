"""Measures of trained networks, checkpoint by checkpoint, beside their runs."""

import json
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from bn_jax import analysis, errors, types
from bn_jax.config import build, resolve, schema
from bn_jax.data import datasets
from bn_jax.experiment import init_from, probes, saved
from bn_jax.storage import journal, lock, records
from bn_jax.trained import cost
from bn_jax.training import devices

_SETTINGS = {'measure': {'name': str, 'data': str}, 'statistics': str}


class Request(NamedTuple):
  """What is to be measured.

  Attributes:
    section: the measure as a config has it: its name, data, keywords.
    statistics: 'batch', 'running', 'population', or None for the measure's own.
    steps: 'last', 'all' or some.
    name: of the folder of the results.
    data_dir: of tensorflow-datasets; None is where training found it.
  """

  section: dict[str, Any]
  statistics: str | None
  steps: str | tuple[int, ...]
  name: str
  data_dir: str | None


class Job(NamedTuple):
  """A request, understood for one run.

  Attributes:
    run: where it lies, with its config.
    made: its problem.
    section: the measure's, complete.
    statistics: which the records name.
    steps: the checkpoints, in order.
    folder: of the results.
  """

  run: saved.Trained
  made: types.Problem
  section: dict[str, Any]
  statistics: str
  steps: tuple[int, ...]
  folder: pathlib.Path


def done(path: pathlib.Path, request: Request, plan: bool) -> int:
  """Measures the runs at a path, or says what that costs; the exit code.

  Raises:
    ConfigError: no run, no such step, a measure or data that do not fit, a
      folder that holds another analysis.
    CheckpointError: no checkpoint, a damaged one, no population statistics.
    DataError, StorageError.
  """
  if not records.NAME.fullmatch(request.name):
    raise errors.ConfigError(
      f'--name: {request.name[:100]!r}; allowed: letters, digits, "_", "-"'
    )
  made = {}
  jobs = [_job(run, request, made) for run in saved.find(path)]
  if plan:
    for job in jobs:
      missing = missing_steps(job)
      if missing:
        state = _state(job, missing[-1])
        sys.stdout.write(cost.text(job, state, missing))
      else:
        sys.stdout.write(
          f'{job.run.label}: nothing left to measure; {job.folder} has it\n'
        )
    return 0
  loaded = {}
  try:
    for job in jobs:
      source = build.source(job.run.config)
      if id(source) not in loaded:
        loaded[id(source)] = source.load()
      for line in _lines(job, loaded[id(source)]):
        sys.stdout.write(f'{line}\n')
        sys.stdout.flush()
  except KeyboardInterrupt:
    raise errors.Interrupted(
      'interrupted; the same command goes on from there'
    ) from None
  return 0


def _job(
  run: saved.Trained, request: Request, problems: dict[str, types.Problem]
) -> Job:
  """The request for one run, checked before anything is read or compiled.

  Problems are made once for all seeds of a run: so are their programs.
  """
  config = dict(run.config)
  if request.data_dir is not None:
    config['data_dir'] = request.data_dir
  run = run._replace(config=config)
  section = schema.completed(
    f'--measure={request.section["name"]}', schema.MEASURE, request.section
  )
  resolve.check_data('--data', section)
  key = json.dumps(config)
  if key not in problems:
    problems[key] = build.problem(config)
  made = problems[key]
  with build.blaming(run.label):
    section = probes.where_apart(section, made)
    probes.check_one(section, config, made)
  folder = run.directory / 'analysis' / request.name
  statistics = request.statistics or section.get('statistics', 'running')
  steps = _steps(run, request)
  if statistics == 'population':
    _check_population(run, made, steps)
  job = Job(run, made, section, statistics, steps, folder)
  # A sum goes on in the chunks in which it was begun.
  begun = _settings(job)
  same = begun and begun['measure']['name'] == section['name']
  if same and section.get('chunk_size') == 'auto':
    section = {**section, 'chunk_size': begun['measure']['chunk_size']}
  with build.blaming(run.label):
    job = job._replace(section=probes.fitted(section, config, made))
  _check_folder(job)
  return job


def _check_population(run, made: types.Problem, steps: tuple[int, ...]) -> None:
  """Whether there are population statistics of each of these steps."""
  state = saved.newest(run, made)
  if not state.batch_stats:
    raise errors.ConfigError(
      f'--statistics: population; {run.label} keeps no statistics; allowed: '
      'batch, running'
    )
  saved.population(run, made, state)
  for step in steps:
    if step != int(state.step):
      raise errors.ConfigError(
        f'--steps: {step} with --statistics=population; {run.label} has those '
        f'of step {int(state.step)}, its newest; allowed: --steps=last'
      )


def _steps(run: saved.Trained, request: Request) -> tuple[int, ...]:
  """The checkpoints that are asked for."""
  there = saved.steps(run)
  if isinstance(request.steps, str):
    if not there:
      raise errors.CheckpointError(f'{run.directory} holds no checkpoint yet')
    return there[-1:] if request.steps == 'last' else there
  for step in request.steps:
    if step and step not in there:
      listed = ', '.join(map(str, there)) or 'none'
      raise errors.ConfigError(
        f'--steps: {run.label} has no checkpoint of step {step}; there are: '
        f'{listed}, and 0, which is made from the seed (config.checkpoint.keep '
        'says how many training keeps)'
      )
  return request.steps


def _settings(job: Job) -> dict[str, Any] | None:
  """The settings of what the folder holds; None where it holds nothing yet."""
  begun = ('scalars.jsonl', 'arrays', 'partial')
  if not any((job.folder / name).exists() for name in begun):
    return None
  return records.read_json(job.folder / 'settings.json', _SETTINGS)


def _check_folder(job: Job) -> None:
  """Refuses a folder that holds the results of another analysis."""
  old = _settings(job)
  if old is None:
    return
  new = _described(job)
  for where in ('measure', 'statistics', 'population'):
    was, now = (one.get(where) for one in (old, new))
    if was == now:
      continue
    if isinstance(was, dict) and isinstance(now, dict):
      # What is looked at first, then how.
      keys = [
        key
        for key in ('name', 'data', *was, *now)
        if was.get(key) != now.get(key)
      ]
      was, now = (f'{keys[0]} {one.get(keys[0])}' for one in (was, now))
    raise errors.ConfigError(
      f'{job.folder} holds another analysis: {was}, not {now}; give another '
      '--name'
    )


def _described(job: Job) -> dict[str, Any]:
  """settings.json: what was measured, and how."""
  population = {}
  if job.statistics == 'population':
    facts = records.read_json(job.run.directory / 'population.json') or {}
    kept = {key: value for key, value in facts.items() if key != 'test'}
    population = {'population': kept}
  return {
    'measure': job.section,
    'statistics': job.statistics,
    **population,
    'precision': probes.PRECISION,
    'conditions': probes.conditions(
      job.section, job.run.config, job.statistics
    ),
  }


def _lines(job: Job, dataset: datasets.Dataset) -> Iterator[str]:
  """Measures one run, checkpoint by checkpoint; says what it found."""
  with lock.held(job.run.directory, f'analysis-{job.folder.name}.lock'):
    missing = missing_steps(job)
    for step in set(job.steps) - set(missing):  # of one killed at its end
      _journal(job, step).clear()
    if not missing:
      yield f'{job.run.label}: nothing left to measure; {job.folder} has it'
      return
    yield from _measured(job, dataset, missing)


def _measured(
  job: Job, dataset: datasets.Dataset, missing: list[int]
) -> Iterator[str]:
  fresh = _settings(job) is None
  whole = devices.whole(build.mesh(job.run.config))
  dataset = datasets.Dataset(*(part.placed(whole) for part in dataset))
  feed = dataset.train.feed(job.run.config['batch_size'])
  bound = probes.bound(
    job.section, job.run.config, job.made, dataset, feed,
    statistics=job.statistics,
  )  # fmt: skip
  for step in missing:
    state = _state(job, step)
    if fresh:
      _make(job.folder)
      records.write_json(job.folder / 'settings.json', _described(job))
      fresh = False
    kept = _journal(job, step)
    feed.start(seed=job.run.manifest['seed'], first_step=step)
    try:
      values = bound.look(state, kept)
    except ValueError as error:
      raise errors.ConfigError(f'{job.run.label}: {error}') from error
    finally:
      feed.close()
    _write(job, records.Record(step, job.folder.name, values, bound.conditions))
    kept.clear()
    yield f'{job.run.label} step {step}: {_summary(values)}'
  yield f'wrote {job.folder}'


def _journal(job: Job, step: int) -> journal.Journal:
  return journal.Journal(job.folder / 'partial' / f'{step}')


def missing_steps(job: Job) -> list[int]:
  """The checkpoints that were not measured yet."""
  return [step for step in job.steps if not _has(job, step)]


def _has(job: Job, step: int) -> bool:
  """Whether a checkpoint was measured."""
  if job.section['name'] in analysis.ARRAYS:
    return (job.folder / 'arrays' / f'{job.folder.name}-{step}.npz').exists()
  found = records.read(job.folder / 'scalars.jsonl')
  return any(record.step == step for record in found)


def _write(job: Job, record: records.Record) -> None:
  """Adds a record to what is there, in the order of steps."""
  if job.section['name'] in analysis.ARRAYS:
    records.Arrays(job.folder / 'arrays').write(record)
    return
  path = job.folder / 'scalars.jsonl'
  records.write_all(path, [*records.read(path), record])


def _state(job: Job, step: int) -> types.TrainState:
  """The state of a checkpoint, with the statistics that are asked for."""
  if step or step in saved.steps(job.run):
    state = saved.newest(job.run, job.made, step)
  else:
    init = build.init(job.run.config, job.made)
    state = init_from.beginning(job.run.config, job.made, init)(
      job.run.manifest['seed']
    )
  if job.statistics == 'population':
    return saved.population(job.run, job.made, state)
  return state


def _make(folder: pathlib.Path) -> None:
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.StorageError(
      f'cannot make {folder}: {error.strerror}'
    ) from error


def _summary(values: Mapping[str, Any]) -> str:
  """A few of the numbers: those that are single, and ranges of the others."""
  said = []
  for name, value in values.items():
    array = np.asarray(value)
    if not array.size or name in ('edges', 'levels'):
      continue
    if array.ndim == 0:
      said.append(f'{name} {array:.4g}')
    else:
      finite = array[np.isfinite(array)]
      ends = (np.min(finite), np.max(finite)) if finite.size else (np.nan,) * 2
      said.append(f'{name} {ends[0]:.4g} to {ends[1]:.4g}')
  more = f', and {len(said) - 8} more' if len(said) > 8 else ''
  return ', '.join(said[:8]) + more
