"""python -m bn_jax recalibrate WORKDIR/run: statistics of the training set."""

import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from bn_jax import errors
from bn_jax.commands import outcome

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
  return outcome.of(lambda: _recalibrate(argv))


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
  from bn_jax.experiment import saved as saved_lib
  from bn_jax.host import compilation_cache
  from bn_jax.storage import lock

  compilation_cache.keep()

  runs = saved_lib.find(pathlib.Path(words[0]))
  for run in runs:
    try:
      with lock.held(run.directory, 'population.lock'):
        said = _of_run(run, values)
    except _NoStatistics as error:
      if len(runs) == 1:
        raise
      said = f'{error}; left out'
    sys.stdout.write(f'{said}\n')
  return 0


class _NoStatistics(errors.ConfigError):
  """A network that has none."""


def _of_run(run: Any, values: flags.FlagValues) -> str:
  """Recalibrates one run; returns what to say of it."""
  from bn_jax import norms
  from bn_jax.config import build
  from bn_jax.experiment import saved as saved_lib
  from bn_jax.training import devices as devices_lib

  config = run.config
  if values.data_dir is not None:
    config = {**config, 'data_dir': values.data_dir}
    run = run._replace(config=config)
  made = build.problem(config)
  state = saved_lib.newest(run, made)
  devices = build.mesh(config)
  whole = devices_lib.whole(devices)
  train, test = (x.placed(whole) for x in build.source(config).load())
  try:
    found = norms.population_statistics(
      build.network(build.in_groups(config), devices_lib.in_sight(devices)),
      {'params': state.params, 'batch_stats': state.batch_stats},
      _Batches(run, made, state, train, devices, values.batches),
      variance=values.variance,
      layerwise=values.layerwise,
    )
  except errors.Failure:
    raise
  except ValueError as error:
    raise _NoStatistics(f'{run.label}: {error}') from error
  new = state._replace(batch_stats=found.batch_stats)
  _write_checkpoint(run.directory, int(state.step), new)
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
  return _written(run, facts)


class _Batches:
  """The images of batches that training would see next, any number of times."""

  def __init__(self, run, made, state, train, devices, count: int):
    self._run, self._made, self._state = run, made, state
    self._train, self._devices, self._count = train, devices, count

  def __iter__(self) -> Iterator[Any]:
    from bn_jax.training import devices as devices_lib

    state = self._state
    feed = self._train.feed(self._run.config['batch_size'])
    feed.start(seed=self._run.manifest['seed'], first_step=int(state.step))
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
  batches = test.batches(config['evaluation_batch_size'])
  result = measure(made, state, batches)
  return {name: float(result[name]) for name in _TESTED if name in result}


def _write_checkpoint(directory: pathlib.Path, step: int, state: Any) -> None:
  """population/: written under another name first, then renamed."""
  from bn_jax.storage import checkpoint

  new, old = directory / 'population.new', directory / 'population.old'
  there = directory / 'population'
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


def _written(run: Any, facts: dict[str, Any]) -> str:
  from bn_jax.storage import records

  records.write_json(run.directory / 'population.json', facts)
  what, running, population = _shown(facts['test'])
  return (
    f'{run.label}: test {what} {running} with running averages, {population} '
    f'with statistics of {facts["batches"]} batches ({facts["examples"]:,} '
    f'examples); wrote {run.directory / "population"}'
  )
