"""Writes resolved runs as text: what they share once, then what differs."""

from collections.abc import Iterator, Mapping
from typing import Any

from bn_jax.config import build, resolve
from bn_jax.config.run_config import KEYS, SECTIONS, RunConfig


def text(experiment: resolve.Experiment, only: str | None) -> str:
  """Returns the runs of an experiment, a key a line.

  A section whose names differ stands whole in each run.

  Args:
    only: a run, or one seed of it, RUN/seedK; None is for all.

  Raises:
    ConfigError: a run or seed that the experiment does not have; a value that
      its constructor refuses.
    DataError: data that cannot be used.
  """
  chosen = experiment.chosen(only)
  runs = {}
  for name in chosen:
    config = experiment.runs[name]
    with resolve.naming(name, experiment.runs):
      build.check(config)
    runs[name] = dict(_lines(config))
  whole = {
    key
    for key in SECTIONS
    if len({lines[f'{key}.name'] for lines in runs.values()}) > 1
  }
  first, *others = runs.values()
  shared = {
    path: line
    for path, line in first.items()
    if path.partition('.')[0] not in whole
    and all(lines.get(path) == line for lines in others)
  }
  seeds = ', '.join(map(str, next(iter(chosen.values()))))
  name = 'all runs' if others else f'run {next(iter(runs))}'
  paragraphs = [f'seeds = {seeds}\n', _paragraph(name, shared)]
  for name, lines in runs.items() if others else ():
    own = {path: line for path, line in lines.items() if path not in shared}
    paragraphs.append(_paragraph(f'run {name}', own))
  return '\n'.join(paragraphs)


def _paragraph(head: str, lines: Mapping[str, str]) -> str:
  return ''.join([f'{head}:\n', *(f'  {line}\n' for line in lines.values())])


def _lines(config: RunConfig) -> Iterator[tuple[str, str]]:
  """Yields (path, line) of each key of a run."""
  for path, value in _leaves({key: getattr(config, key) for key in KEYS}):
    comment = _in_epochs(config) if path == 'steps' else ''
    yield path, f'{path} = {value!r}{comment}'


def _leaves(
  tree: Mapping[str, Any], above: str = ''
) -> Iterator[tuple[str, Any]]:
  """Yields (path, value) of each key that is no section."""
  for key, value in tree.items():
    if isinstance(value, dict) and value:
      yield from _leaves(value, f'{above}{key}.')
    else:
      yield above + key, value


def _in_epochs(config: RunConfig) -> str:
  """Returns a comment on the steps of a run."""
  examples = build.source(config).facts.num_train
  epochs = config.steps * config.batch_size / examples
  return f'  # {epochs:.4g} epochs of {examples} examples'
