"""python -m bn_jax recalibrate WORKDIR/run: statistics of the training set."""

import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from bn_jax import commands, errors

_USAGE = """\
usage: python -m bn_jax recalibrate WORKDIR/run[/seedK] [options]

Estimates the statistics that a trained network normalises with anew, from
training batches (Ioffe and Szegedy 2015, Algorithm 2), instead of the running
averages of training. For each seed it writes, beside the run's own checkpoints,

  population/         a checkpoint whose batch_stats are the population's
  population.json     how they were found, and the test accuracy with both

  --batches=100       how many training batches, of the run's batch size
  --variance=within   m/(m-1) times the mean of the batches' variances, as the
                      paper has it; or pooled, the variance of all values
  --layerwise         measures a layer when those below it infer already: the
                      literal reading, a pass over the batches for each layer
  --data_dir=DIR      of tensorflow-datasets; default: where training found it
"""


def main(argv: Sequence[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  if any(word in ('-h', '--help') for word in argv[1:]):
    sys.stdout.write(_USAGE)
    return 0
  return commands.run(lambda: _recalibrate(argv))


def _recalibrate(argv: Sequence[str]) -> int:
  values = flags.FlagValues()
  flags.DEFINE_integer('batches', 100, '', 1, flag_values=values)
  flags.DEFINE_enum(
    'variance', 'within', ['within', 'pooled'], '', flag_values=values
  )
  flags.DEFINE_bool('layerwise', False, '', flag_values=values)
  flags.DEFINE_string('data_dir', None, '', flag_values=values)
  try:
    words = values(argv)[1:]
  except flags.Error as error:
    raise errors.ConfigError(str(error)) from error
  if len(words) != 1:
    raise errors.ConfigError(
      f'{len(words)} directories given; give one, WORKDIR/run'
    )
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.experiment import saved
  from bn_jax.host import compilation_cache
  from bn_jax.storage import lock, run_folder

  compilation_cache.keep()

  folders = run_folder.find(pathlib.Path(words[0]))
  configs = [saved.config_of(folder) for folder in folders]
  for folder, config in zip(folders, configs):
    try:
      with lock.held(folder.path, 'population.lock'):
        said = _of_run(folder, config, values)
    except _NoStatistics as error:
      if len(folders) == 1:
        raise
      said = f'{error}; left out'
    sys.stdout.write(f'{said}\n')
  return 0


class _NoStatistics(errors.ConfigError):
  """A network that has none."""


def _of_run(folder: Any, config: Any, values: flags.FlagValues) -> str:
  """Recalibrates one run; returns what to say of it."""
  from bn_jax import norms
  from bn_jax.config import build
  from bn_jax.experiment import saved
  from bn_jax.training import devices as devices_lib

  if values.data_dir is not None:
    config = config.replace(data_dir=values.data_dir)
  made = build.problem(config)
  state = saved.newest(folder, config, made)
  devices = build.mesh(config)
  whole = devices_lib.whole(devices)
  train, test = (x.placed(whole) for x in build.source(config).load())
  feed = train.feed(config.batch_size)
  try:
    found = norms.population_statistics(
      build.network(config.in_groups(), devices_lib.in_sight(devices)),
      {'params': state.params, 'batch_stats': state.batch_stats},
      _Batches(feed, folder.seed, made, state, devices, values.batches),
      variance=values.variance,
      layerwise=values.layerwise,
    )
  except errors.Failure:
    raise
  except ValueError as error:
    raise _NoStatistics(f'{folder.label}: {error}') from error
  new = state._replace(batch_stats=found.batch_stats)
  _write_checkpoint(folder.population, int(state.step), new)
  facts = {
    'step': int(state.step),
    'batches': found.batches,
    'examples': found.examples,
    'variance': values.variance,
    'layerwise': values.layerwise,
    'test': {
      'running': _tested(made, state, test, config),
      'population': _tested(made, new, test, config),
    },
  }
  return _written(folder, facts)


class _Batches:
  """The images of batches that training would see next, any number of times."""

  def __init__(self, feed, seed: int, made, state, devices, count: int):
    self._feed, self._seed, self._made, self._state = feed, seed, made, state
    self._devices, self._count = devices, count

  def __iter__(self) -> Iterator[Any]:
    from bn_jax.training import devices as devices_lib

    state, feed = self._state, self._feed
    feed.start(seed=self._seed, first_step=int(state.step))
    try:
      for _ in range(self._count):
        batch = self._made.batch(state, feed.take())
        yield devices_lib.laid(batch, self._devices).images
        state = state._replace(
          order=self._made.following(state), step=state.step + 1
        )
    finally:
      feed.close()


_TESTED = ('loss', 'accuracy')


def _shown(test: dict[str, dict[str, float]]) -> tuple[str, str, str]:
  """What is compared, with running averages and with the population's."""
  kinds = (test['running'], test['population'])
  if 'accuracy' in kinds[0]:
    return 'accuracy', *(f'{100 * kind["accuracy"]:.2f} %' for kind in kinds)
  return 'loss', *(f'{kind["loss"]:.6g}' for kind in kinds)


def _tested(made, state, test, config) -> dict[str, float]:
  """Loss and accuracy on the test set, with the statistics of the state."""
  from bn_jax import analysis

  measure = analysis.make('evaluation')
  batches = test.batches(config.evaluation_batch_size)
  result = measure(made, state, batches)
  return {name: float(result[name]) for name in _TESTED if name in result}


def _write_checkpoint(there: pathlib.Path, step: int, state: Any) -> None:
  """population/: written under another name first, then renamed."""
  from bn_jax.storage import checkpoint

  new, old = (there.with_name(f'{there.name}.{x}') for x in ('new', 'old'))
  for left in (new, old):
    shutil.rmtree(left, ignore_errors=True)
  saved = checkpoint.Checkpoints(new, keep=1)
  try:
    saved.save(step, state)
    saved.wait()
  finally:
    saved.close()
  if there.exists():
    there.rename(old)
  new.rename(there)
  shutil.rmtree(old, ignore_errors=True)


def _written(folder: Any, facts: dict[str, Any]) -> str:
  from bn_jax.storage import files

  files.write_json(folder.population_file, facts)
  what, running, population = _shown(facts['test'])
  return (
    f'{folder.label}: test {what} {running} with running averages, '
    f'{population} with statistics of {facts["batches"]} batches '
    f'({facts["examples"]:,} examples); wrote {folder.population}'
  )
