"""Compares statistics at test time, on clean and on corrupted images.

Schneider et al. (2020), arXiv:2006.16971: a network with Batch Normalization
that takes the statistics of corrupted test batches, or mixes them with its own,
does better on these images than with its own alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bn_jax import errors
from bn_jax.config.run_config import RunConfig
from bn_jax.data import corruptions as corruptions_lib
from bn_jax.data.batches import in_memory
from bn_jax.data.batches.examples import Examples, Source
from bn_jax.trained.members import Member

Rows = Sequence[Mapping[str, float]]  # one a member: loss, count, accuracy, ...
# Columns of the table of corruptions; more would not fit beside each other.
_MOST = 8


def kinds(
  given: Sequence[tuple[str, int | None]], source: Source, config: RunConfig
) -> tuple[tuple[str, int], ...]:
  """Returns (name, strength) of each kind of corrupted images asked for.

  Args:
    given: (name, strength); None is all strengths, and the name 'all' stands
      for all corruptions that the images can have.

  Raises:
    ConfigError: images that cannot have it.
  """
  if not given:
    return ()
  if source.streams:
    raise errors.ConfigError(
      f'--corruption: {config.data["name"]} is read as a stream; allowed: sets '
      'in memory'
    )
  if 'binarize' in config.data and config.data['binarize'] is not None:
    raise errors.ConfigError(
      '--corruption: images are black and white (config.data.binarize); '
      'allowed: grey levels'
    )
  facts, pairs = source.facts, []
  for name, strength in given:
    names = (name,)
    if name == 'all':
      names = [
        name
        for name, kind in corruptions_lib.CORRUPTIONS.items()
        if kind.of_grey or facts.shape[-1] != 1
      ]
    for name in names:
      try:
        corruptions_lib.check(name, facts.shape, facts.dtype)
      except ValueError as error:
        raise errors.ConfigError(f'--corruption: {error}') from error
      strengths = corruptions_lib.STRENGTHS if strength is None else (strength,)
      pairs += [(name, strength) for strength in strengths]
  return tuple(dict.fromkeys(pairs))


def results(
  members: Sequence[Member],
  examples: Examples,
  pairs: Sequence[tuple[str, int]],
  means: Callable[[Examples], Rows],
) -> dict[str, Any]:
  """Returns what is written of networks with several statistics.

  Images are corrupted once for all networks, and not kept.

  Args:
    pairs: (name, strength) of each kind of corrupted images.
    means: gives the means of all members, over these examples.
  """
  entries = [{'clean': dict(row)} for row in means(examples)]
  for name, strength in pairs:
    for entry, row in zip(entries, means(_corrupted(examples, name, strength))):
      rows = entry.setdefault('corrupted', {}).setdefault(name, {})
      rows[str(strength)] = dict(row)
  networks: dict[str, Any] = {}
  for member, entry in zip(members, entries):
    if pairs:
      entry['mean'] = _mean(
        [row for rows in entry['corrupted'].values() for row in rows.values()]
      )
    network = networks.setdefault(
      member.label, {'step': int(member.state.step), 'statistics': {}}
    )
    network['statistics'][member.statistics] = entry
  return {'networks': networks}


def _corrupted(examples: in_memory.Resident, name: str, strength: int):
  images = np.asarray(examples.split.images)
  return examples.with_images(corruptions_lib.corrupted(images, name, strength))


def _mean(rows: Rows) -> dict[str, float]:
  """Returns the means over kinds of images, which have as many examples."""
  return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def table(facts: Mapping[str, Any]) -> str:
  """Returns what networks reach with each of their statistics.

  Where images were corrupted, a second table has the mean over its strengths
  of each corruption, or of a single one each strength.
  """
  rows = [
    (f'{label}  {statistics}', entry)
    for label, network in facts['networks'].items()
    for statistics, entry in network['statistics'].items()
  ]
  clean = rows[0][1]['clean']
  quantity = 'accuracy' if 'accuracy' in clean else 'loss'
  lines = [f'{facts["data"]}, {clean["count"]:,.0f} examples, {quantity}']
  columns = ['clean'] + ['mean'] * ('mean' in rows[0][1])
  titles = ['clean', 'corrupted'][: len(columns)]
  cells = [[entry[column] for column in columns] for _, entry in rows]
  labels = _aligned([label for label, _ in rows])
  if len(columns) == 1 or len(rows) > _MOST:
    return '\n'.join([*lines, *_table(labels, titles, cells, quantity), ''])
  numbered = [f'{n}  {label}' for n, label in enumerate(labels, 1)]
  lines += [*_table(numbered, titles, cells, quantity), '']
  names, columns = zip(*_by_kind([entry for _, entry in rows]))
  numbers = [str(n) for n in range(1, len(rows) + 1)]
  lines += _table(_aligned(names), numbers, columns, quantity)
  return '\n'.join([*lines, ''])


def _by_kind(entries) -> Iterator[tuple[str, list[Mapping[str, float]]]]:
  """Yields a name, and what all members reach there."""
  first = entries[0]['corrupted']
  for name, strengths in first.items():
    of_each = [entry['corrupted'][name] for entry in entries]
    if len(first) == 1:
      for strength in strengths:
        yield f'{name}:{strength}', [rows[strength] for rows in of_each]
    else:
      yield name, [_mean(list(rows.values())) for rows in of_each]


def _aligned(labels: Sequence[str]) -> list[str]:
  """Returns labels of two parts, or of one, as columns of equal width."""
  parts = [label.split('  ') for label in labels]
  widths = [max(map(len, column)) for column in zip(*parts)]
  return [
    '  '.join(f'{part:{width}}' for part, width in zip(row, widths))
    for row in parts
  ]


def _table(labels, titles, cells, quantity: str) -> list[str]:
  """Returns the lines of a table of means."""
  shown = {
    'accuracy': lambda row: f'{100 * row["accuracy"]:8.2f} %',
    'loss': lambda row: f'{row["loss"]:10.4g}',
  }[quantity]
  lines = [' ' * len(labels[0]) + ''.join(f'{title:>10}' for title in titles)]
  for label, row in zip(labels, cells):
    lines.append(label + ''.join(map(shown, row)))
  return lines
