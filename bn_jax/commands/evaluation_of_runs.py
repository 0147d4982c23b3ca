"""Trained networks on a whole split, each alone and all as one."""

import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import (
  assemble,
  checkpoint,
  errors,
  parallel,
  records,
  trained,
  trainer,
  types,
)
from bn_jax.analysis import evaluation
from bn_jax.data import datasets


class Member(NamedTuple):
  """A trained network.

  Attributes:
    run: where it lies.
    problem: its functions.
    state: its parameters, and the statistics that were asked for.
  """

  run: trained.Trained
  problem: types.Problem
  state: types.TrainState


def printed(paths: Sequence[pathlib.Path], values: Any) -> int:
  """Evaluates what lies at the paths, prints a table; returns the exit code.

  Args:
    paths: of runs or seeds.
    values: the flags of the command `evaluate`.

  Raises:
    ConfigError: no run, runs over different data, a regression.
    CheckpointError: one has no checkpoint, or no population statistics.
    DataError: the data are not there.
  """
  runs = [run for path in paths for run in trained.find(path)]
  config = _shared_config(runs, values.data_dir)
  members = [_member(run, values.statistics) for run in runs]
  source = assemble.source(config)
  crops = int(values.crops)
  dataset = source.load()
  sums = _sums(members, getattr(dataset, values.data), config, values, crops)
  facts = {
    'data': f'{config["data"]["name"]} {values.data}',
    'statistics': values.statistics,
    'crops': crops,
    'networks': {
      member.run.label: {'step': int(member.state.step), **means}
      for member, means in zip(members, sums)
    },
  }
  if len(members) > 1:
    facts['together'] = sums[-1]
  sys.stdout.write(_table(facts))
  if values.out:
    records.write_json(pathlib.Path(values.out), facts)
  return 0


def _shared_config(runs, data_dir: str | None) -> dict[str, Any]:
  """The config of the first run, whose data all of them were trained on."""
  first = runs[0]
  if len({run.directory.resolve() for run in runs}) < len(runs):
    raise errors.ConfigError('a run is given twice; give each once')
  for run in runs:
    if run.config['data'] != first.config['data']:
      raise errors.ConfigError(
        f'{run.label} was trained on {run.config["data"]}, {first.label} on '
        f'{first.config["data"]}; give runs over the same data'
      )
    if run.config['loss']['name'] != 'cross_entropy':
      raise errors.ConfigError(
        f'{run.label} has the loss {run.config["loss"]["name"]}; allowed: '
        'classifiers'
      )
  config = dict(first.config)
  if data_dir is not None:
    config['data_dir'] = data_dir
  return config


def _member(run: trained.Trained, statistics: str) -> Member:
  problem = assemble.problem(run.config)
  state = trained.newest(run, problem)
  if statistics == 'population':
    state = _population(run, state)
  return Member(run, problem, state)


def _population(run, state: types.TrainState) -> types.TrainState:
  folder = run.directory / 'population'
  if not folder.is_dir():
    raise errors.CheckpointError(
      f'{run.directory} holds no population statistics; make them: python -m '
      f'bn_jax recalibrate {run.directory}'
    )
  saved = checkpoint.Checkpoints(folder)
  try:
    return saved.restore(saved.latest(), trainer.without_ring(state))
  finally:
    saved.close()


def _sums(
  members: Sequence[Member],
  examples: datasets.Examples,
  config: dict[str, Any],
  values: Any,
  crops: int,
) -> list[dict[str, float]]:
  """Means of each network, and of all as one behind them."""
  totals = [{} for _ in range(len(members) + 1)]
  size = values.batch_size or config['evaluation_batch_size']
  mode = 'batch' if values.statistics == 'batch' else 'running'
  devices = assemble.mesh(config)
  with jax.default_matmul_precision('highest'):
    for batch in _views(examples, size, crops):
      laid = parallel.laid(batch, devices)
      each = [_probabilities(m, laid, crops, mode) for m in members]
      together = sum(each) / len(each)
      for total, probabilities in zip(totals, (*each, together)):
        _add(total, probabilities, laid, crops)
  return [evaluation.means(total) for total in totals]


def _views(
  examples: datasets.Examples, size: int, crops: int
) -> Iterator[types.Batch]:
  """Batches whose neighbours are the crops of one image."""
  if crops == 1:
    return examples.batches(size)
  return examples.crops(max(1, size // crops), crops)


def _probabilities(
  member: Member, batch: types.Batch, crops: int, mode: str
) -> jax.Array:
  """[B, K], the mean over the crops of an image."""
  logits = member.problem.outputs(member.state, batch, statistics=mode)
  probabilities = jax.nn.softmax(logits.astype(jnp.float32))
  return probabilities.reshape(-1, crops, logits.shape[-1]).mean(axis=1)


def _add(total, probabilities, batch, crops) -> None:
  mask = None if batch.mask is None else batch.mask[::crops]
  sums = evaluation.of_probabilities(probabilities, batch.labels[::crops], mask)
  for name, value in jax.device_get(sums).items():
    total[name] = total.setdefault(name, 0.0) + np.float64(value)


def _table(facts: dict[str, Any]) -> str:
  crops = 'centre crop' if facts['crops'] == 1 else f'{facts["crops"]} crops'
  rows = dict(facts['networks'])
  if 'together' in facts:
    rows['together'] = facts['together']
  width = max(map(len, rows))
  lines = [
    f'{facts["data"]}, {next(iter(rows.values()))["count"]:,.0f} examples, '
    f'{crops}, {facts["statistics"]} statistics',
    f'{"":{width}}     top-1     top-5      loss',
  ]
  for name, row in rows.items():
    top5 = f'{100 * row["top5"]:7.2f} %' if 'top5' in row else ' ' * 9
    lines.append(
      f'{name:{width}} {100 * row["accuracy"]:7.2f} % {top5} {row["loss"]:9.4f}'
    )
  return '\n'.join(lines) + '\n'
