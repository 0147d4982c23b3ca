"""Measures of trained networks, checkpoint by checkpoint, beside their runs."""

import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from bn_jax import (
  analysis,
  assemble,
  errors,
  inherit,
  journal,
  measures,
  parallel,
  records,
  resolve,
  sections,
  trained,
  types,
)
from bn_jax.commands import analysis_cost
from bn_jax.data import datasets

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

  run: trained.Trained
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
  jobs = [_job(run, request) for run in trained.find(path)]
  for job in jobs:
    _check_folder(job)
  if plan:
    for job in jobs:
      sys.stdout.write(analysis_cost.text(job, _state(job, job.steps[-1])))
    return 0
  loaded = {}
  for job in jobs:
    source = assemble.source(job.run.config)
    if id(source) not in loaded:
      loaded[id(source)] = source.load()
    for line in _lines(job, loaded[id(source)]):
      sys.stdout.write(f'{line}\n')
      sys.stdout.flush()
  return 0


def _job(run: trained.Trained, request: Request) -> Job:
  """The request for one run, checked before anything is read or compiled."""
  config = dict(run.config)
  if request.data_dir is not None:
    config['data_dir'] = request.data_dir
  run = run._replace(config=config)
  section = sections.completed(
    f'--measure={request.section["name"]}', sections.MEASURE, request.section
  )
  resolve.check_data('--data', section)
  made = assemble.problem(config)
  with assemble.blaming(run.label):
    measures.check_one(section, config, made)
  folder = run.directory / 'analysis' / request.name
  statistics = request.statistics or section.get('statistics', 'running')
  job = Job(run, made, section, statistics, (), folder)
  if statistics == 'population':
    trained.population(run, trained.newest(run, made))
  # A sum goes on in the chunks in which it was begun.
  begun = _settings(job)
  if begun and section.get('chunk_size') == 'auto':
    section = {**section, 'chunk_size': begun['measure']['chunk_size']}
  with assemble.blaming(run.label):
    section = measures.fitted(section, config, made)
  return job._replace(section=section, steps=_steps(run, request))


def _steps(run: trained.Trained, request: Request) -> tuple[int, ...]:
  """The checkpoints that are asked for."""
  there = trained.steps(run)
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
  return records.read_json(job.folder / 'settings.json', _SETTINGS)


def _check_folder(job: Job) -> None:
  """Refuses a folder that holds the results of another analysis."""
  old = _settings(job)
  if old is None:
    return
  new = _described(job)
  for where in ('measure', 'statistics'):
    if old[where] == new[where]:
      continue
    was, now = old[where], new[where]
    if isinstance(was, dict):
      keys = [k for k in (*was, *now) if was.get(k) != now.get(k)]
      was, now = (f'{keys[0]} {one.get(keys[0])}' for one in (was, now))
    raise errors.ConfigError(
      f'{job.folder} holds another analysis: {was}, not {now}; give another '
      '--name'
    )


def _described(job: Job) -> dict[str, Any]:
  """settings.json: what was measured, and how."""
  return {
    'measure': job.section,
    'statistics': job.statistics,
    'precision': measures.PRECISION,
    'conditions': measures.conditions(
      job.section, job.run.config, job.statistics
    ),
  }


def _lines(job: Job, dataset: datasets.Dataset) -> Iterator[str]:
  """Measures one run, checkpoint by checkpoint; says what it found."""
  missing = [step for step in job.steps if not _has(job, step)]
  if not missing:
    yield f'{job.run.label}: nothing left to measure; {job.folder} has it'
    return
  _make(job.folder)
  records.write_json(job.folder / 'settings.json', _described(job))
  whole = parallel.whole(assemble.mesh(job.run.config))
  dataset = datasets.Dataset(*(part.placed(whole) for part in dataset))
  feed = dataset.train.feed(job.run.config['batch_size'])
  bound = measures.bound(
    job.section, job.run.config, job.made, dataset, feed,
    statistics=job.statistics,
  )  # fmt: skip
  for step in missing:
    state = _state(job, step)
    kept = journal.Journal(job.folder / 'partial' / f'{step}')
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
  shutil.rmtree(job.folder / 'partial', ignore_errors=True)
  yield f'wrote {job.folder}'


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
  if step or step in trained.steps(job.run):
    state = trained.newest(job.run, job.made, step)
  else:
    placed = assemble.placement(job.run.config, job.made)
    init = jax.jit(job.made.init, out_shardings=placed)
    state = inherit.beginning(job.run.config, job.made, init)(
      job.run.manifest['seed']
    )
  if job.statistics == 'population':
    return trained.population(job.run, state)
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
      said.append(f'{name} {np.min(array):.4g} to {np.max(array):.4g}')
  more = f', and {len(said) - 8} more' if len(said) > 8 else ''
  return ', '.join(said[:8]) + more
