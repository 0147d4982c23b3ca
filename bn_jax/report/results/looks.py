"""Tells of the looks of a measure: when they were taken, of which runs, layers.

A look is what a measure records at one step. A figure shows the looks of one
entry of `config.measures`, of the runs and seeds that have it. Entries of
training come before analyses of checkpoints.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax.report.results import conditions, curves
from bn_jax.storage import records

_LISTED_STEPS = 6  # that a caption lists: more fill a line and tell no more
EVALUATION = 'evaluation'  # the measure that is drawn with training
AVERAGED = 'ema_'  # before the names of what it finds of an averaged network


class Entry(NamedTuple):
  """What one figure shows: an entry of `config.measures`, of some runs."""

  measure: str  # its key in `analysis.MEASURES`, such as 'along_gradient'
  name: str  # the entry's, such as 'landscape'; of an analysis 'analysis/NAME'
  # (index, run) of the runs that have it, with the seeds that do; the index,
  # among all runs of the page, gives the colour.
  indexed: tuple[tuple[int, curves.Run], ...]
  # Of the names of the figure's files; '' for the first entry of training.
  suffix: str = ''
  # Conditions that the page states once, for all figures of measures.
  shared: Mapping[str, str] = {}
  # Run -> its seeds that have it, where others of the run do not.
  partial: Mapping[str, Sequence[int]] = {}

  @property
  def runs(self) -> list[curves.Run]:
    """Returns the runs without their indices."""
    return [run for _, run in self.indexed]

  @property
  def seeds(self) -> list[curves.Seed]:
    """Returns the seeds of all runs."""
    return [seed for run in self.runs for seed in run.seeds]

  @property
  def has_several_seeds(self) -> bool:
    """Returns whether some run has more than one."""
    return max(len(run.seeds) for run in self.runs) > 1

  @property
  def sections(self) -> list[Mapping[str, Any]]:
    """Returns the entry's section of the config, of each of these seeds."""
    configs = [seed.config for seed in self.seeds]
    return [config['measures'][self.name] for config in configs]

  @property
  def note(self) -> str:
    """Returns what follows the title: ' (NAME)', ', at step 60' or ''.

    An analysis that is called after its measure is told by its steps.
    """
    if not self.suffix or self.name != f'analysis/{self.measure}':
      return f' ({self.name})' if self.suffix else ''
    at = steps(self)
    return f', at step {at[0]}' if len(at) == 1 else ', at checkpoints'

  def condition(self, key: str) -> str:
    """Returns one condition, and of which runs it is true where they differ."""
    read = conditions.of(self.measure, key, self.name)
    return conditions.by_run(self.runs, read)

  def values(self, key: str) -> list[str]:
    """Returns the values of a condition, each once."""
    read = conditions.of(self.measure, key, self.name)
    return list(conditions.by_value(self.runs, read))


def measures(runs: Sequence[curves.Run]) -> set[str]:
  """Returns the measures that some run has an entry of."""
  return {
    section['name'] for run in runs for section in curves.measures(run).values()
  }


def names(runs: Sequence[curves.Run], measure: str) -> list[str]:
  """Returns the names of all entries of a measure, those of training first."""
  every = [name for run in runs for name in curves.names(run, measure)]
  return sorted(dict.fromkeys(every), key=curves.is_analysis)


def suffix(entry_names: Sequence[str], measure: str, name: str) -> str:
  """Returns `Entry.suffix` of one of the `names` of a measure."""
  if name == entry_names[0] and not curves.is_analysis(name):
    return ''
  is_named = name != f'analysis/{measure}'
  return f'-{name.replace("/", "-") if is_named else "analysis"}'


def of(
  runs: Sequence[curves.Run], measure: str, name: str | None = None
) -> Entry | None:
  """Returns what a figure of this entry shows, or None if no run has it.

  `runs` are all of the page; name None is the first entry of the measure.
  """
  entry = _entry(runs, measure, name)
  return entry and entry._replace(shared=shared(runs))


def shared(runs: Sequence[curves.Run]) -> dict[str, str]:
  """Returns the conditions in which no two entries of these runs differ.

  Evaluations are not compared: their figures say how the test set is evaluated.
  """
  of_entries = [
    _conditions(_entry(runs, measure, name))
    for measure in measures(runs) - {EVALUATION}
    for name in names(runs, measure)
  ]
  return {
    key: words
    for key, words in (of_entries[0].items() if of_entries else ())
    if all(texts[key] == words for texts in of_entries)
  }


def circumstances(entry: Entry) -> str:
  """Returns a sentence for a caption: when, and what the page does not state.

  'Measured every 20 steps, on the first 256 examples of the test set.'
  """
  parts = [
    words
    for key, words in _conditions(entry).items()
    if words and key not in entry.shared
  ]
  sentence = f'Measured {", ".join([_when(entry), *parts])}.'
  for run, seeds in entry.partial.items():
    word = 'seed' if len(seeds) == 1 else 'seeds'
    sentence += f' Of {run}, {word} {", ".join(map(str, seeds))} only.'
  return sentence


def steps_of(seed: curves.Seed, name: str) -> list[int]:
  """Returns the steps at which an entry has looked."""
  series = seed.series.get(name)
  if series is not None:
    return [int(step) for step in series.step]
  return [record.step for record in seed.arrays.get(name, ())]


def steps(entry: Entry) -> list[int]:
  """Returns all steps at which some seed was looked at."""
  return sorted({t for s in entry.seeds for t in steps_of(s, entry.name)})


def evenly(count: int, most: int) -> list[int]:
  """Returns at most so many of `count` places, with the first and the last."""
  places = np.linspace(0, count - 1, min(count, most)).round()
  return list(map(int, places))


def once(entry: Entry) -> bool:
  """Returns whether there are looks, but of no seed two: nothing is a curve."""
  return max(len(steps_of(seed, entry.name)) for seed in entry.seeds) == 1


def loss(entry: Entry, label: str = 'Loss') -> str:
  """Returns 'Loss (nats)'; of a squared error, which has no unit, 'Loss'."""
  return label + ' (nats)' * (not any(map(curves.is_regression, entry.runs)))


def told(entry: Entry) -> str:
  """Returns how a table of numbers is read; '' of one seed."""
  means = 'Means over seeds ± half of their 95 % intervals.'
  return means if entry.has_several_seeds else ''


def has(seed: curves.Seed, measure: str, name: str | None) -> bool:
  """Returns whether a seed has an entry of this name and measure."""
  section = seed.config['measures'].get(name)
  return section is not None and section['name'] == measure


def recorded(entry: Entry, value: str) -> bool:
  """Returns whether some seed has recorded a value."""
  return any(curves.recorded(seed, entry.name, value) for seed in entry.seeds)


def quantities(entry: Entry) -> list[str]:
  """Returns the names of all that some seed has recorded, in order."""
  of_seeds = [
    s.series[entry.name] for s in entry.seeds if entry.name in s.series
  ]
  return list(dict.fromkeys(name for of in of_seeds for name in of.values))


def layers(entry: Entry, quantity: str) -> list[str]:
  """Returns the layers of which LAYER/quantity is recorded, in order."""
  parts = [name.rpartition('/') for name in quantities(entry)]
  return [layer for layer, _, last in parts if last == quantity]


def activation_layers(run: curves.Run, name: str) -> list[str]:
  """Returns the layers whose activations were measured, in forward order."""
  for seed in run.seeds:
    for record in seed.arrays.get(name, ()):
      means = [value for value in record.values if value.endswith('/mean')]
      return [value.removesuffix('/mean') for value in means]
  return []


def activations(
  seed: curves.Seed, name: str, layer: str, value: str = 'mean'
) -> list[records.Record]:
  """Returns the looks that have a value of a layer's activations, by step."""
  looks = seed.arrays.get(name, ())
  return [look for look in looks if f'{layer}/{value}' in look.values]


def _when(entry: Entry) -> str:
  """Returns 'every 100 steps', or at which checkpoints."""
  if period := entry.condition('every_steps'):
    return f'every {period} steps'
  at = steps(entry)
  if len(at) > _LISTED_STEPS:
    return f'at {len(at)} checkpoints from step {at[0]} to {at[-1]}'
  listed = ', '.join(map(str, at))
  return f'at the checkpoint{"s" * (len(at) > 1)} of step {listed}'


def _entry(
  runs: Sequence[curves.Run], measure: str, name: str | None
) -> Entry | None:
  """Returns an entry as `of` does, without what it shares with others."""
  entry_names = names(runs, measure)
  name = entry_names[0] if name is None and entry_names else name
  indexed = tuple(
    (index, run._replace(seeds=seeds))
    for index, run in enumerate(runs)
    if (seeds := tuple(s for s in run.seeds if has(s, measure, name)))
  )
  if not indexed:
    return None
  return Entry(
    measure,
    name,
    indexed,
    suffix=suffix(entry_names, measure, name),
    partial={
      run.name: [seed.seed for seed in run.seeds]
      for index, run in indexed
      if len(run.seeds) < len(runs[index].seeds)
    },
  )


def _conditions(entry: Entry) -> dict[str, str]:
  """Returns what a caption says of data, statistics, precision and noise."""
  of_data = conditions.data_of(entry.measure, entry.name)
  data = conditions.by_run(entry.runs, of_data)
  statistics, precision = map(entry.condition, ('statistics', 'precision'))
  # A network is noisy only as it trains: with the statistics of the batch.
  noisy_runs = list(filter(curves.is_noisy, entry.runs))
  of_statistics = conditions.of(entry.measure, 'statistics', entry.name)
  noisy = 'batch' in conditions.by_value(noisy_runs, of_statistics)
  return {
    'data': f'on {data}',
    'statistics': f'with {statistics} statistics' if statistics else '',
    'noise': 'with the noise of the training step that follows' * noisy,
    'precision': f'in float32 with matrix products in {precision} precision',
  }
