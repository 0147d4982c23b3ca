"""Estimates anew the statistics that a trained network normalises with.

They come from training batches (Ioffe and Szegedy 2015, Algorithm 2), instead
of the running averages of training. For each seed it writes, beside the run's
own checkpoints,

  population/         a checkpoint whose batch_stats are the population's
  population.json     how they were estimated, and test results with old and new
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from bn_jax import commands, errors
from bn_jax.config import parser as parser_lib


def configure(parser: parser_lib.Parser) -> None:
  """Adds the words and flags of the command."""
  parser.set_defaults(run=run)
  commands.add_trained(parser)
  parser.add_argument(
    '--batches', metavar='N', type=parser_lib.count, default=100,
    help="how many training batches, of the run's batch size",
  )  # fmt: skip
  parser.add_argument(
    '--variance', choices=('within', 'pooled'), default='within',
    help="within: m/(m-1) times the mean of the batches' variances, as the "
    'paper has it; pooled: the variance of all values',
  )  # fmt: skip
  parser.add_switch(
    '--layerwise',
    'estimates a layer when those below it use their new statistics already: '
    'the literal reading of the paper, a pass over the batches for each layer',
  )


def run(arguments: argparse.Namespace) -> int:
  """Recalibrates the seeds of a run; returns the exit code."""
  commands.begin()
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.experiment import saved
  from bn_jax.storage import lock, run_folder
  from bn_jax.trained import statistics

  folders = run_folder.find(arguments.path)
  configs = [saved.config_of(folder) for folder in folders]

  def recalibrate(run):
    folder, config = run
    with lock.held(folder.path, 'population.lock'):
      sys.stdout.write(f'{_of_run(folder, config, arguments)}\n')
      sys.stdout.flush()

  statistics.having(zip(folders, configs), recalibrate)
  return 0


def _of_run(folder: Any, config: Any, arguments: argparse.Namespace) -> str:
  """Recalibrates one seed; returns a line about it."""
  from bn_jax.config import build
  from bn_jax.experiment import saved
  from bn_jax.trained import statistics
  from bn_jax.training import devices as devices_lib

  if arguments.data_dir is not None:
    config = config.replace(data_dir=arguments.data_dir)
  problem = build.problem(config)
  state = saved.newest(folder, config, problem)
  devices = build.mesh(config)
  whole = devices_lib.whole(devices)
  train, test = (x.placed(whole) for x in build.source(config).load())
  feed = train.feed(config.batch_size)
  try:
    population = problem.population(
      state,
      _Batches(feed, folder.seed, problem, state, devices, arguments.batches),
      variance=arguments.variance,
      layerwise=arguments.layerwise,
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
    'variance': arguments.variance,
    'layerwise': arguments.layerwise,
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
    self._feed, self._seed, self._problem, self._state = (
      feed,
      seed,
      problem,
      state,
    )
    self._devices, self._count = devices, count

  def __iter__(self) -> Iterator[Any]:
    from bn_jax.training import devices as devices_lib

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


_TESTED = ('loss', 'accuracy')


def _shown(test: dict[str, dict[str, float]]) -> tuple[str, str, str]:
  """Returns a name, and its values with running and population statistics."""
  results = (test['running'], test['population'])
  if 'accuracy' in results[0]:
    return 'accuracy', *(
      f'{100 * result["accuracy"]:.2f} %' for result in results
    )
  return 'loss', *(f'{result["loss"]:.6g}' for result in results)


def _tested(problem, state, test, config) -> dict[str, float]:
  """Returns loss and accuracy on the test set, with the state's batch_stats."""
  from bn_jax import analysis

  measure = analysis.make('evaluation')
  batches = test.batches(config.evaluation_batch_size)
  result = measure(problem, state, batches)
  return {name: float(result[name]) for name in _TESTED if name in result}


def _write_checkpoint(folder: Any, config: Any, state: Any) -> None:
  """Writes population/: under another name first, then renamed."""
  from bn_jax.experiment import run as run_lib
  from bn_jax.storage import chain

  place, step = folder.population, int(state.step)
  new, old = (place.with_name(f'{place.name}.{x}') for x in ('new', 'old'))
  for leftover in (new, old):
    shutil.rmtree(leftover, ignore_errors=True)
  saved = run_lib.checkpoints_of(config, folder, new)
  source = chain.state_digest(folder.checkpoints, step)
  try:
    saved.save(step, state, {'source': source})
    saved.wait()
  finally:
    saved.close()
  if place.exists():
    place.rename(old)
  new.rename(place)
  shutil.rmtree(old, ignore_errors=True)


def _written(folder: Any, facts: dict[str, Any]) -> str:
  """Writes population.json; returns a line about it."""
  from bn_jax.storage import chain, files

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


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
