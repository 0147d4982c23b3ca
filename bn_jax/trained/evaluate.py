"""Evaluates trained networks on a whole split, alone and as an ensemble."""

import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import checks, errors, losses, modules, types
from bn_jax.analysis import evaluation
from bn_jax.config import build
from bn_jax.config.run_config import RunConfig
from bn_jax.data import datasets
from bn_jax.experiment import cost, saved
from bn_jax.storage import files, run_folder
from bn_jax.trained import adaptation
from bn_jax.trained import members as members_lib
from bn_jax.trained import statistics as statistics_lib
from bn_jax.trained.members import Member
from bn_jax.training import devices as devices_lib


class Mean(NamedTuple):
  """How several outputs for an example become one, and its loss.

  Attributes:
    of_outputs: outputs [B, K] -> what the mean is of.
    mean: [M, B, K] -> [B, K].
    loss: takes that mean.
  """

  of_outputs: Callable[[jax.Array], jax.Array]
  mean: Callable[[jax.Array], jax.Array]
  loss: losses.Loss


def printed(paths: Sequence[pathlib.Path], values: Any) -> int:
  """Evaluates the networks at the paths, prints a table; returns the exit code.

  Args:
    paths: of runs or seeds.
    values: the flags of the command `evaluate`, as attributes.

  Raises:
    ConfigError: no run, one given twice, runs over different data,
      regressions with different losses, batches or crops that do not fit, no
      folder for --out.
    CheckpointError: one has no checkpoint, or no population statistics.
    DataError: the data are not there, or cannot be used.
    StorageError: a changed manifest, or --out cannot be written.
  """
  folders = [folder for path in paths for folder in run_folder.find(path)]
  configs = [saved.config_of(folder) for folder in folders]
  config = _shared_config(folders, configs, values.data_dir)
  shared = {'data_dir': config.data_dir, 'devices': config.devices}
  networks = statistics_lib.having(
    zip(folders, configs),
    lambda run: members_lib.of(run[0], run[1].replace(**shared), values),
  )
  labels = [members[0].label for members in networks]
  members = [member for members in networks for member in members]
  if len(set(labels)) < len(labels):  # of several working directories
    members = [member._replace(label=str(member.path)) for member in members]
  source = build.source(config)
  crops = int(values.crops)
  _check(members, source, config, values, crops)
  kinds = adaptation.kinds(values.corruption, source, config)
  dataset = source.load()
  examples = getattr(dataset, values.data)
  if values.examples:
    examples = examples.head(values.examples)
  means = lambda examples: _means(members, examples, config, values, crops)
  facts = {
    'data': f'{config.data["name"]} {values.data}',
    'weights': values.weights,
    'crops': crops,
  }
  if len(values.statistics) == 1 and not kinds:
    facts |= _alone_and_together(values.statistics[0], members, means(examples))
    sys.stdout.write(_table(facts))
  else:
    facts |= adaptation.results(members, examples, kinds, means)
    sys.stdout.write(adaptation.table(facts))
  if values.out:
    storable = lambda x: files.storable(x) if isinstance(x, float) else x
    files.write_json(pathlib.Path(values.out), jax.tree.map(storable, facts))
  return 0


def _alone_and_together(statistics, members, rows) -> dict[str, Any]:
  """Returns what is written of networks with one kind of statistics."""
  facts = {
    'statistics': statistics,
    'networks': {
      member.label: {'step': int(member.state.step), **row}
      for member, row in zip(members, rows)
    },
  }
  return facts | ({'together': rows[-1]} if len(members) > 1 else {})


def _shared_config(folders, configs, data_dir: str | None) -> RunConfig:
  """Returns the first run's config; all must be trained on its data."""
  if len({folder.path.resolve() for folder in folders}) < len(folders):
    raise errors.ConfigError('a run is given twice; give each once')
  if data_dir is not None:
    configs = [config.replace(data_dir=data_dir) for config in configs]
  for folder, config in zip(folders, configs):
    _check_data(folders[0], configs[0], folder, config)
    if not _classifies(config):
      _check_alike(
        'config.loss.', folders[0], configs[0].loss, folder, config.loss,
        'with the same loss',
      )  # fmt: skip
  return configs[0]


def _classifies(config: RunConfig) -> bool:
  return build.source(config).shapes(config.batch_size).labels.ndim == 1


def _check_data(first, first_config, folder, config) -> None:
  """Raises ConfigError for a run over other data than the first one's.

  A module, a folder or a set may have changed under its name, or lie elsewhere.
  """
  _check_alike('config.data.', first, first_config.data, folder, config.data)
  sources = build.source(first_config), build.source(config)
  if sources[0] is not sources[1]:
    facts = [{**source.record, **source.facts._asdict()} for source in sources]
    _check_alike('', first, facts[0], folder, facts[1])


def _check_alike(
  prefix, first, first_facts, folder, facts, needed='over the same data'
) -> None:
  for key in dict.fromkeys((*first_facts, *facts)):
    one, other = first_facts.get(key), facts.get(key)
    if one != other:
      what = f'{prefix}{key}' if prefix else f'the {key} of their data'
      raise errors.ConfigError(
        f'{first.path} and {folder.path} differ in {what}: '
        f'{checks.shown(one)} and {checks.shown(other)}; give runs {needed}'
      )


def _check(members, source, config, values, crops) -> None:
  """Traces a batch of each network, before data are read or programs compiled.

  Raises:
    ConfigError: batches that a network refuses, crops of images that are not
      square, a part of a stream, no folder for --out.
  """
  if values.examples and source.streams:
    raise errors.ConfigError(
      f'--examples: {config.data["name"]} is read as a stream; allowed: sets '
      'in memory'
    )
  if values.out and not pathlib.Path(values.out).absolute().parent.is_dir():
    raise errors.ConfigError(f'--out: {values.out}: there is no such folder')
  size = values.batch_size or config.evaluation_batch_size
  if crops > 1:
    if len(source.facts.shape) != 3:
      raise errors.ConfigError('--crops: of vectors; allowed: of images')
    height, width, _ = source.facts.shape
    if height != width:
      raise errors.ConfigError(
        f'--crops: images of {height} x {width}; allowed: squares'
      )
    size = max(1, size // crops) * crops
  where = (
    '--batch_size' if values.batch_size else 'config.evaluation_batch_size'
  )
  cost.check_batch(where, size, source.facts.shape)
  batch = types.Batch(
    jax.ShapeDtypeStruct((size, *source.facts.shape), jnp.float32),
    jax.ShapeDtypeStruct((size,), jnp.int32),
    jax.ShapeDtypeStruct((size,), bool),
  )
  for member in members:
    try:
      jax.eval_shape(
        lambda state, batch, member=member: member._replace(
          state=state
        ).outputs(batch),
        member.state,
        batch,
      )
    except ValueError as error:
      raise errors.ConfigError(
        f'{member.label}: batches of {size}: {error}'
      ) from error


def _means(
  members: Sequence[Member],
  examples: datasets.Examples,
  config: RunConfig,
  values: Any,
  crops: int,
) -> list[dict[str, float]]:
  """Returns the means of each network, and last those of the ensemble."""
  totals = [{} for _ in range(len(members) + 1)]
  size = values.batch_size or config.evaluation_batch_size
  devices = build.mesh(config)
  mean = _mean(config)
  with jax.default_matmul_precision('highest'):
    for batch in _views(examples, size, crops):
      batch = devices_lib.laid(batch, devices)
      of_each = [_outputs(m, mean, batch, crops) for m in members]
      of_all = mean.mean(jnp.stack(of_each))
      for total, outputs in zip(totals, (*of_each, of_all)):
        _add(total, mean.loss, outputs, batch, crops)
  return [evaluation.means(total) for total in totals]


def _views(
  examples: datasets.Examples, size: int, crops: int
) -> Iterator[types.Batch]:
  """Returns batches, the crops of an image in one batch, side by side."""
  if crops == 1:
    return examples.batches(size)
  return examples.crops(max(1, size // crops), crops)


def _mean(config: RunConfig) -> Mean:
  """Returns that of probabilities, by their logs, or of a regression's outputs.

  The loss is the cross-entropy or, of a regression, that of the config.
  """
  if _classifies(config):
    return Mean(jax.nn.log_softmax, _log_mean, losses.cross_entropy())
  with modules.bound(config.modules):
    loss = losses.make(**config.loss)
  return Mean(lambda outputs: outputs, lambda x: x.mean(0), loss)


def _outputs(
  member: Member, mean: Mean, batch: types.Batch, crops: int
) -> jax.Array:
  """Returns a network's mean over an image's crops, [B, K]."""
  values = mean.of_outputs(member.outputs(batch).astype(jnp.float32))
  return mean.mean(values.reshape(-1, crops, values.shape[-1]).swapaxes(0, 1))


def _log_mean(log_probabilities: jax.Array) -> jax.Array:
  """Returns the log of the mean over axis 0, without underflow."""
  return jax.nn.logsumexp(log_probabilities, axis=0) - jnp.log(
    jnp.float32(len(log_probabilities))
  )


def _add(total, loss, outputs, batch, crops) -> None:
  mask = None if batch.mask is None else batch.mask[::crops]
  sums = losses.sums(loss, outputs, batch.labels[::crops], mask)
  for name, value in jax.device_get(sums).items():
    total[name] = total.setdefault(name, 0.0) + np.float64(value)


def _of_weights(facts: dict[str, Any]) -> str:
  return ', averaged weights' if facts['weights'] == 'ema' else ''


def _table(facts: dict[str, Any]) -> str:
  # One crop is the whole image, or the central square of a streamed one.
  crops = '1 crop' if facts['crops'] == 1 else f'{facts["crops"]} crops'
  rows = dict(facts['networks'])
  if 'together' in facts:
    rows['together'] = facts['together']
  width = max(map(len, rows))
  lines = [
    f'{facts["data"]}, {next(iter(rows.values()))["count"]:,.0f} examples, '
    f'{crops}, {facts["statistics"]} statistics{_of_weights(facts)}',
  ]
  if 'accuracy' not in next(iter(rows.values())):  # of regressions
    lines += [f'{"":{width}}       loss']
    lines += [f'{n:{width}} {row["loss"]:10.4g}' for n, row in rows.items()]
    return '\n'.join(lines) + '\n'
  lines += [f'{"":{width}}     top-1     top-5      loss']
  for name, row in rows.items():
    top5 = f'{100 * row["top5"]:7.2f} %' if 'top5' in row else ' ' * 9
    lines.append(
      f'{name:{width}} {100 * row["accuracy"]:7.2f} % {top5} {row["loss"]:9.4f}'
    )
  return '\n'.join(lines) + '\n'
