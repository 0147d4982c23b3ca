"""Compares statistics at test time, on clean and on corrupted images.

Schneider et al. (2020), arXiv:2006.16971: a network with Batch Normalization
that takes the statistics of corrupted test batches, or mixes them with its own,
does better on these images than with its own alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bn_jax.data.batches.examples import Examples
from bn_jax.trained.members import Member

Rows = Sequence[Mapping[str, float]]  # one a member: loss, count, accuracy, ...


def results(
  members: Sequence[Member],
  examples: Examples,
  corruptions: Sequence[tuple[str, int]],
  means: Callable[[Examples], Rows],
) -> dict[str, Any]:
  """Returns what is written of networks with several statistics.

  Args:
    corruptions: (name, strength) of each kind of corrupted images.
    means: gives the means of all members, over these examples.
  """
  networks: dict[str, Any] = {}
  entries = []
  for member, row in zip(members, means(examples)):
    network = networks.setdefault(
      member.label, {'step': int(member.state.step), 'statistics': {}}
    )
    entry = network['statistics'][member.statistics] = {'clean': dict(row)}
    entries.append(entry)
  return {'networks': networks}


def table(facts: Mapping[str, Any]) -> str:
  """Returns a row for each network and statistics, and what they reach."""
  rows = [
    (label, statistics, entry)
    for label, network in facts['networks'].items()
    for statistics, entry in network['statistics'].items()
  ]
  one = rows[0][2]['clean']
  quantity = 'accuracy' if 'accuracy' in one else 'loss'
  label_width = max(len(label) for label, *_ in rows)
  width = max(len(statistics) for _, statistics, _ in rows)
  lines = [
    f'{facts["data"]}, {one["count"]:,.0f} examples, {quantity}',
    f'{"":{label_width + width + 3}}    clean',
  ]
  for label, statistics, entry in rows:
    cell = _shown(entry['clean'][quantity], quantity)
    lines.append(f'{label:{label_width}}  {statistics:{width}}  {cell}')
  return '\n'.join(lines) + '\n'


def _shown(value: float, quantity: str) -> str:
  return f'{100 * value:7.2f} %' if quantity == 'accuracy' else f'{value:9.4g}'
