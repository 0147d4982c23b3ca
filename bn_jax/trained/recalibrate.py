"""Estimates anew the statistics that trained networks normalise with."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from bn_jax import analysis, errors, types
from bn_jax.config import build
from bn_jax.config.run_config import RunConfig
from bn_jax.experiment import run as run_lib
from bn_jax.experiment import saved
from bn_jax.storage import chain, files, lock
from bn_jax.storage.run_folder import RunFolder
from bn_jax.trained import statistics
from bn_jax.training import devices as devices_lib

_TESTED = ('loss', 'accuracy')


class Request(NamedTuple):
  """How statistics are estimated; see `norms.population_statistics`.

  Attributes:
    batches: how many training batches, of the run's batch size.
    variance: 'within' or 'pooled'.
    layerwise: whether a layer is estimated with the new statistics of those
      below it.
    data_dir: of tensorflow-datasets; None is where training found it.
  """

  batches: int = 100
  variance: str = 'within'
  layerwise: bool = False
  data_dir: str | None = None


def done(
  folders: Sequence[RunFolder], request: Request, say: Callable[[str], Any]
) -> None:
  """Recalibrates runs, beside their own checkpoints.

  Args:
    say: is told a line about each.

  Raises:
    ConfigError: no run keeps statistics, or another process recalibrates it.
    CheckpointError, DataError, StorageError.
  """
  configs = [saved.config_of(folder) for folder in folders]

  def recalibrate(run):
    folder, config = run
    with lock.held(folder.path, 'population.lock'):
      say(_of_run(folder, config, request))

  statistics.having(zip(folders, configs), recalibrate)


def is_done(folder: RunFolder) -> bool:
  """Returns whether a run is recalibrated at the step that it has reached."""
  try:
    facts = chain.population(folder)
  except errors.StorageError:
    return False
  return facts is not None and facts['step'] == folder.step


def _of_run(folder: RunFolder, config: RunConfig, request: Request) -> str:
  """Recalibrates one seed; returns a line about it."""
  if request.data_dir is not None:
    config = config.replace(data_dir=request.data_dir)
  problem = build.problem(config)
  state = saved.newest(folder, config, problem)
  devices = build.mesh(config)
  whole = devices_lib.whole(devices)
  train, test = (x.placed(whole) for x in build.source(config).load())
  feed = train.feed(config.batch_size)
  try:
    population = problem.population(
      state,
      _Batches(feed, folder.seed, problem, state, devices, request.batches),
      variance=request.variance,
      layerwise=request.layerwise,
    )
  except errors.Failure:
    raise
  except ValueError as error:
    refusal = errors.ConfigError
    if not statistics.keeps(problem):
      refusal = statistics.NoStatistics
    raise refusal(f'{folder.label}: {error}') from error
  new_state = state._replace(batch_stats=population.batch_stats)
  facts = {
    'step': int(state.step),
    'batches': population.batches,
    'examples': population.examples,
    'variance': request.variance,
    'layerwise': request.layerwise,
    'test': {
      'running': _tested(problem, state, test, config),
      'population': _tested(problem, new_state, test, config),
    },
  }
  # One after the other: a kill between them leaves another's population.json.
  _write_checkpoint(folder, config, new_state)
  return _written(folder, facts)


class _Batches:
  """The images that training would see next, the same at each iteration."""

  def __init__(self, feed, seed: int, problem, state, devices, count: int):
    self._feed, self._seed = feed, seed
    self._problem, self._state = problem, state
    self._devices, self._count = devices, count

  def __iter__(self) -> Iterator[Any]:
    state, feed = self._state, self._feed
    feed.start(seed=self._seed, first_step=int(state.step))
    try:
      for _ in range(self._count):
        batch = self._problem.batch(state, feed.take())
        yield devices_lib.laid(batch, self._devices).images
        state = state._replace(
          order=self._problem.following(state), step=state.step + 1
        )
    finally:
      feed.close()


def _shown(test: dict[str, dict[str, float]]) -> tuple[str, str, str]:
  """Returns a name, and its values with running and population statistics."""
  results = (test['running'], test['population'])
  if 'accuracy' in results[0]:
    return 'accuracy', *(
      f'{100 * result["accuracy"]:.2f} %' for result in results
    )
  return 'loss', *(f'{result["loss"]:.6g}' for result in results)


def _tested(
  problem: types.Problem, state: types.TrainState, test, config: RunConfig
) -> dict[str, float]:
  """Returns loss and accuracy on the test set, with the state's batch_stats."""
  measure = analysis.make('evaluation')
  batches = test.batches(config.evaluation_batch_size)
  result = measure(problem, state, batches)
  return {name: float(result[name]) for name in _TESTED if name in result}


def _write_checkpoint(
  folder: RunFolder, config: RunConfig, state: types.TrainState
) -> None:
  """Writes population/: under another name first, then renamed."""
  place, step = folder.population, int(state.step)
  new, old = (place.with_name(f'{place.name}.{x}') for x in ('new', 'old'))
  for leftover in (new, old):
    shutil.rmtree(leftover, ignore_errors=True)
  checkpoints = run_lib.checkpoints_of(config, folder, new)
  source = chain.state_digest(folder.checkpoints, step)
  try:
    checkpoints.save(step, state, {'source': source})
    checkpoints.wait()
  finally:
    checkpoints.close()
  if place.exists():
    place.rename(old)
  new.rename(place)
  shutil.rmtree(old, ignore_errors=True)


def _written(folder: RunFolder, facts: dict[str, Any]) -> str:
  """Writes population.json; returns a line about it."""
  owner = {'run': folder.run, 'seed': folder.seed}
  state = chain.state_digest(folder.population, facts['step'])
  test = {
    statistics: {name: files.storable(x) for name, x in numbers.items()}
    for statistics, numbers in facts['test'].items()
  }
  content = {**facts, **owner, 'state': state, 'test': test}
  files.write_json(folder.population_file, content, digest=True)
  what, running, population = _shown(facts['test'])
  return (
    f'{folder.label}: test {what} {running} with running averages, '
    f'{population} with statistics of {facts["batches"]} batches '
    f'({facts["examples"]:,} examples); wrote {folder.population}'
  )
