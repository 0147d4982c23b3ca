"""Measures trained networks, checkpoint by checkpoint, beside their runs."""

import functools
import logging
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax import analysis, errors, modules, plugins, types
from bn_jax.analysis import kind as kind_lib
from bn_jax.config import build, differences, parser, resolve, schema
from bn_jax.config.run_config import RunConfig
from bn_jax.data import datasets
from bn_jax.experiment import probes, saved, states
from bn_jax.host import memory
from bn_jax.storage import (
  analysis_chain,
  analysis_folder,
  array_files,
  chain,
  files,
  journal,
  lock,
  records,
  run_folder,
)  # fmt: skip
from bn_jax.trained import cost
from bn_jax.trained import statistics as statistics_lib
from bn_jax.training import devices

_log = logging.getLogger('bn_jax')


class Request(NamedTuple):
  """What is to be measured.

  Attributes:
    section: the measure as a config has it: its name, data, keywords.
    statistics: 'batch', 'running', 'population', or None for the measure's own.
    steps: of the checkpoints: 'last', 'all' or numbers.
    name: of the folder of the results.
    data_dir: of tensorflow-datasets; None is where training found it.
    yes: whether it may take more than a day.
  """

  section: dict[str, Any]
  statistics: str | None
  steps: str | tuple[int, ...]
  name: str
  data_dir: str | None
  yes: bool = False


class Job(NamedTuple):
  """A request for one run and seed.

  Attributes:
    section: of the measure, with all its keywords.
    statistics: 'batch', 'running' or 'population', as the records name them.
    steps: of the checkpoints, in order.
    others: reference -> what tells whether it is still the same checkpoint, of
      those that the measure looks at beside the one of the step.
    results: the folder of the analysis.
  """

  folder: run_folder.RunFolder
  config: RunConfig
  problem: types.Problem
  section: dict[str, Any]
  statistics: str
  steps: tuple[int, ...]
  others: dict[str, str]
  results: analysis_folder.AnalysisFolder


def done(path: pathlib.Path, request: Request, plan: bool) -> int:
  """Measures the runs at a path, or prints the plan; returns the exit code.

  Raises:
    ConfigError: no run, no such step, a measure or data that do not fit, a
      folder that holds another analysis, or that another process writes in;
      more than a day's work that was not asked for.
    CheckpointError: no checkpoint, a damaged one, no population statistics.
    DataError: the data are not there, or cannot be used.
    StorageError: a changed manifest, or a folder that cannot be written.
    Interrupted: Ctrl-C; what is measured is kept.
  """
  if not records.NAME.fullmatch(request.name):
    raise errors.ConfigError(
      f'--name: {request.name[:100]!r}; allowed: letters, digits, "_", "-"'
    )
  problems = {}
  jobs = statistics_lib.having(
    run_folder.find(path), lambda folder: _job(folder, request, problems)
  )
  if plan:
    for job in jobs:
      sys.stdout.write(_plan(job))
    return 0
  if not request.yes:
    _check_times(jobs)
  dataset_of = {}  # by id: build.source returns one object for equal configs
  try:
    for job in jobs:
      source = build.source(job.config)
      if id(source) not in dataset_of:
        dataset_of[id(source)] = source.load()
      for line in _lines(job, dataset_of[id(source)]):
        sys.stdout.write(f'{line}\n')
        sys.stdout.flush()
      memory.drop_old_programs()
  except KeyboardInterrupt:
    raise errors.Interrupted(
      'interrupted; the same command goes on from there'
    ) from None
  return 0


def _plan(job: Job) -> str:
  """Returns what is left of a job, and what it costs."""
  missing = missing_steps(job)
  if not missing:
    return f'{_nothing_left(job)}\n'
  with modules.bound(job.config.modules):
    return cost.text(job, _state(job, missing[-1]), missing)


def _check_times(jobs: Sequence[Job]) -> None:
  """Refuses jobs of more than a day; a run's seeds take the same time."""
  tried = set()
  for job in jobs:
    missing = missing_steps(job)
    if missing and job.folder.run not in tried:
      tried.add(job.folder.run)
      read = functools.partial(_state, job, missing[-1])
      with modules.bound(job.config.modules):
        cost.check_time(job, read, missing)


def _job(
  folder: run_folder.RunFolder,
  request: Request,
  problems: dict[RunConfig, types.Problem],
) -> Job:
  """Returns the request for one run, checked before any data are read.

  Args:
    problems: those built before; a run's seeds share one, and its programs.
  """
  config = saved.config_of(folder)
  with modules.bound(config.modules):
    return _bound_job(folder, config, request, problems)


def _bound_job(
  folder: run_folder.RunFolder,
  config: RunConfig,
  request: Request,
  problems: dict[RunConfig, types.Problem],
) -> Job:
  if request.data_dir is not None:
    config = config.replace(data_dir=request.data_dir)
  section = schema.completed(
    f'--measure={request.section["name"]}', schema.MEASURE, request.section
  )
  resolve.check_data('--data', section)
  if config not in problems:
    problems[config] = build.problem(config)
  problem = problems[config]
  with build.blaming(folder.label):
    section = probes.where_apart(section, problem)
    probes.check_one(section, config, problem)
    others = states.check(
      folder, problem, analysis.kind_of(section['name']).others(section)
    )
  statistics = request.statistics or probes.statistics_of(section)
  steps = _steps(folder, request)
  _check_every(folder, section, statistics, steps)
  if statistics == 'population':
    _check_others(section, others)
    _check_population(folder, config, problem, steps)
  results = folder.analysis(request.name)
  # A sum that the journal has goes on in chunks of the size that it began with.
  old = results.settings()
  is_same = old and old['measure']['name'] == section['name']
  if is_same and section.get('chunk_size') == 'auto':
    section = {**section, 'chunk_size': old['measure']['chunk_size']}
  with build.blaming(folder.label):
    section = probes.fitted(section, config, problem)
  job = Job(
    folder, config, problem, section, statistics, steps, others, results
  )
  _check_results(job)
  return job


def _check_every(folder, section, statistics: str, steps) -> None:
  """Checks a measure that looks at every checkpoint up to that of a step."""
  kind = analysis.kind_of(section['name'])
  if kind_lib.EVERY not in kind.others(section):
    return
  fewest, saved_steps = kind.fewest(section), saved.steps(folder)
  for step in steps:
    count = 1 + sum(other < step for other in saved_steps)
    if count < fewest:
      raise errors.ConfigError(
        f'--steps: {folder.label} has {count} checkpoint'
        f'{"s" * (count > 1)} up to step {step}, and {section["name"]} looks '
        f'at {fewest} or more; allowed: '
        f'{", ".join(map(str, saved_steps[fewest - 1 :])) or "none here"} '
        '(config.checkpoint.keep says how many training keeps)'
      )
  if statistics == 'population':
    raise errors.ConfigError(
      f'--statistics: population; {section["name"]} looks at every checkpoint, '
      'and but the newest none has those; allowed: batch, running'
    )


def _check_others(section, others: Mapping[str, str]) -> None:
  """Refuses population statistics beside another checkpoint's running ones."""
  if others:
    raise errors.ConfigError(
      f'--statistics: population; {section["name"]} looks at '
      f'{", ".join(others)} too, with its running averages; allowed: batch, '
      'running'
    )


def _check_population(folder, config, problem, steps: tuple[int, ...]) -> None:
  """Checks that there are population statistics of each of these steps."""
  statistics_lib.check(folder, problem)
  state = saved.newest(folder, config, problem)
  saved.population(folder, config, problem, state)
  for step in steps:
    if step != int(state.step):
      raise errors.ConfigError(
        f'--steps: {step} with --statistics=population; {folder.label} has '
        f'those of step {int(state.step)}, its newest; allowed: --steps=last'
      )


def _steps(folder: run_folder.RunFolder, request: Request) -> tuple[int, ...]:
  """Returns the steps of the request; all but step 0 must have checkpoints."""
  if isinstance(request.steps, str):
    saved_steps = saved.steps(folder)
    if not saved_steps:
      raise errors.CheckpointError(f'{folder.path} holds no checkpoint yet')
    return saved_steps[-1:] if request.steps == 'last' else saved_steps
  for step in request.steps:
    saved.check_step(folder, step, '--steps: ')
  return request.steps


def _check_results(job: Job) -> None:
  """Refuses a folder that holds another analysis, or results of another run.

  Raises:
    ConfigError: another measure, statistics or keywords.
    StorageError: results of another run, or that were changed.
  """
  old = job.results.settings()
  if old is None:
    return
  missing_steps(job)
  new = _described(job)
  for change in modules.changes(old.get('modules') or {}, new['modules']):
    _log.warning('%s goes on, though %s', job.results.path, change)
  measures = (schema.measured(one['measure']) for one in (old, new))
  changes = list(differences.changed('measure', *measures))
  for key in ('statistics', 'population', 'others'):
    changes += differences.changed(key, old.get(key), new.get(key))
  if changes:
    raise errors.ConfigError(
      f'{job.results.path} holds another analysis: '
      f'{parser.listed(changes)}; give another --name'
    )


def _described(job: Job) -> dict[str, Any]:
  """Returns the content of settings.json: what is measured, and how."""
  population = {}
  if job.statistics == 'population':
    facts = chain.population(job.folder) or {}
    population = {'population': {k: v for k, v in facts.items() if k != 'test'}}
  return {
    'run': job.folder.run,
    'seed': job.folder.seed,
    'measure': schema.jsonable('measure', job.section),
    'modules': plugins.files([job.section['name']]),
    'page': analysis.kind_of(job.section['name']).page(),
    'statistics': job.statistics,
    **population,
    **({'others': job.others} if job.others else {}),
    'precision': probes.PRECISION,
    'conditions': probes.conditions(job.section, job.config, job.statistics),
  }


def _nothing_left(job: Job) -> str:
  where = job.results.path
  return f'{job.folder.label}: nothing left to measure; {where} has it'


def _lines(job: Job, dataset: datasets.Dataset) -> Iterator[str]:
  """Measures one run, checkpoint by checkpoint, and yields what to print."""
  with (
    lock.held(job.folder.path, f'analysis-{job.results.name}.lock'),
    modules.bound(job.config.modules),
  ):
    missing = missing_steps(job)
    # A process killed after its last record has left its journal.
    for step in set(job.steps) - set(missing):
      _journal(job, step).clear()
    if not missing:
      yield _nothing_left(job)
      return
    yield from _measured(job, dataset, missing)


def _measured(
  job: Job, dataset: datasets.Dataset, missing: list[int]
) -> Iterator[str]:
  is_new = job.results.settings() is None
  config = job.config
  whole = devices.whole(build.mesh(config))
  dataset = datasets.Dataset(*(part.placed(whole) for part in dataset))
  feed = dataset.train.feed(config.batch_size)
  bound = probes.bound(
    job.section, config, job.problem, dataset, feed, statistics=job.statistics,
  )  # fmt: skip
  for step in missing:
    state = _state(job, step)
    if is_new:
      files.make_folder(job.results.path)
      job.results.write_settings({**_described(job), 'records': {}})
      is_new = False
    journal_of_step = _journal(job, step)
    feed.start(seed=job.folder.seed, first_step=step)
    try:
      values = bound.look(
        state, journal_of_step,
        states=states.Kept(job.folder, config, job.problem, step),
      )  # fmt: skip
    except ValueError as error:
      raise errors.ConfigError(f'{job.folder.label}: {error}') from error
    finally:
      feed.close()
    record = records.Record(step, job.results.name, values, bound.conditions)
    _write(job, record)
    journal_of_step.clear()
    yield f'{job.folder.label} step {step}: {_summary(values)}'
  yield f'wrote {job.results.path}'


def _journal(job: Job, step: int) -> journal.Journal:
  state = chain.state_digest(job.folder.checkpoints, step)
  owner = f'{job.folder.label} at step {step}, {state}'
  return journal.Journal(job.results.partial(step), owner)


def missing_steps(job: Job) -> list[int]:
  """Returns the steps of a job that are not measured yet, in order.

  Raises:
    StorageError: what was measured has been changed since.
  """
  measured = analysis_chain.check(job.results, job.folder, goes_on=True)
  return [step for step in job.steps if step not in measured]


def _write(job: Job, record: records.Record) -> None:
  """Adds a record to the results, which are in the order of steps."""
  results = job.results
  if analysis.kind_of(job.section['name']).arrays:
    array_files.Arrays(results.arrays).write(record)
  else:
    others = (
      one for one in records.read(results.scalars) if one.step != record.step
    )
    records.write_all(results.scalars, [*others, record])
  analysis_chain.add_digest(results, job.folder, record.step)


def _state(job: Job, step: int) -> types.TrainState:
  """Returns the state of a step, with the job's statistics."""
  folder, config, problem = job.folder, job.config, job.problem
  state = states.at(folder, config, problem, step)
  if job.statistics == 'population':
    return saved.population(folder, config, problem, state)
  return state


def _summary(values: Mapping[str, Any]) -> str:
  """Returns values as a line of text, 8 at most: scalars, ranges of arrays."""
  texts = []
  for name, value in values.items():
    array = np.asarray(value)
    if not array.size or name in ('edges', 'levels'):
      continue
    if array.ndim == 0:
      texts.append(f'{name} {array:.4g}')
    else:
      finite = array[np.isfinite(array)]
      ends = (np.min(finite), np.max(finite)) if finite.size else (np.nan,) * 2
      texts.append(f'{name} {ends[0]:.4g} to {ends[1]:.4g}')
  rest = f', and {len(texts) - 8} more' if len(texts) > 8 else ''
  return ', '.join(texts[:8]) + rest
