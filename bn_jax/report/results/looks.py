"""The looks of a measure: which runs took them, when, where, of which layers.

A figure shows one key of a measure, of each run that has it the seeds that have
it; keys of training come first, then those that were looked at afterwards.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bn_jax.report.results import conditions, curves
from bn_jax.storage import records

_SAID = 6  # steps that a caption lists


class Looks(NamedTuple):
  """What one figure shows: a measure of some runs.

  Attributes:
    kind: its name, such as 'along_gradient'.
    key: in the config, or 'analysis/NAME'.
    indexed: (index, run) of the runs that have it, with the seeds that do; by
      the index they are coloured.
    suffix: of the names of the figure's files; '' for the first measure of
      training.
  """

  kind: str
  key: str
  indexed: tuple[tuple[int, curves.Run], ...]
  suffix: str

  @property
  def runs(self) -> list[curves.Run]:
    """The runs alone."""
    return [run for _, run in self.indexed]

  @property
  def seeds(self) -> list[curves.Seed]:
    """Those of all runs."""
    return [seed for run in self.runs for seed in run.seeds]

  @property
  def note(self) -> str:
    """What follows the title: ' (analysis/NAME)', or nothing."""
    return f' ({self.key})' if self.suffix else ''

  def said(self, condition: str) -> str:
    """One condition, and of which runs it is true where they differ."""
    read = conditions.of(self.kind, condition, self.key)
    return conditions.said(self.runs, read)


def keys(runs: Sequence[curves.Run], kind: str) -> list[str]:
  """The keys of all measures of a kind, those of training first."""
  found = [key for run in runs for key in curves.measure_named(run, kind)]
  return sorted(dict.fromkeys(found), key=curves.is_analysis)


def of(
  runs: Sequence[curves.Run], kind: str, key: str | None = None
) -> Looks | None:
  """What a figure of this key shows, or None if no run has it.

  Args:
    runs: of the report.
    kind: name of a measure.
    key: of the measure; None is the first.
  """
  known = keys(runs, kind)
  if key is None and known:
    key = known[0]
  indexed = tuple(
    (index, run._replace(seeds=seeds))
    for index, run in enumerate(runs)
    if (seeds := tuple(s for s in run.seeds if has(s, kind, key)))
  )
  if not indexed:
    return None
  suffix = '-' + key.replace('/', '-')
  if key == known[0] and not curves.is_analysis(key):
    suffix = ''
  return Looks(kind, key, indexed, suffix)


def where(seen: Looks) -> str:
  """'the current batch of 128 examples', 'the first 4096 examples of train'."""
  data, examples = seen.said('data'), seen.said('examples')
  split, _, count = data.partition(':')
  if data == 'current_batch':
    return f'the current batch of {examples} examples'
  if count and count == examples:
    return f'the first {count} examples of {split}'
  return f'{data} ({examples} examples)' if examples else data


def when(seen: Looks) -> str:
  """'every 100 steps', or at which checkpoints."""
  every = seen.said('every_steps')
  if every:
    return f'every {every} steps'
  steps = sorted({step for s in seen.seeds for step in steps_of(s, seen.key)})
  if len(steps) > _SAID:
    return f'at {len(steps)} checkpoints from step {steps[0]} to {steps[-1]}'
  listed = ', '.join(map(str, steps))
  return f'at the checkpoint{"s" * (len(steps) > 1)} of step {listed}'


def precisely(seen: Looks) -> str:
  """'batch statistics, float32 with products in highest precision'."""
  return (
    f'{seen.said("statistics")} statistics, float32 with products in '
    f'{seen.said("precision")} precision'
  )


def steps_of(seed: curves.Seed, key: str) -> list[int]:
  """The steps at which a measure has looked."""
  series = seed.series.get(key)
  if series is not None:
    return [int(step) for step in series.step]
  return [record.step for record in seed.arrays.get(key, ())]


def once(seen: Looks) -> bool:
  """Whether it is an analysis of one step: of training, more looks come."""
  counts = [len(steps_of(seed, seen.key)) for seed in seen.seeds]
  return curves.is_analysis(seen.key) and max(counts) < 2


def has(seed: curves.Seed, kind: str, key: str | None) -> bool:
  """Whether a seed's measure of this key is of this kind."""
  section = seed.manifest['config']['measures'].get(key)
  return section is not None and section['name'] == kind


def layers(seen: Looks, quantity: str) -> list[str]:
  """The layers of which a measure has recorded LAYER/quantity, in order."""
  found = {}
  for seed in seen.seeds:
    series = seed.series.get(seen.key)
    for name in series.values if series is not None else ():
      layer, _, what = name.rpartition('/')
      if what == quantity:
        found[layer] = None
  return list(found)


def activation_layers(run: curves.Run, key: str) -> list[str]:
  """The layers whose activations a measure looked at, in forward order."""
  for seed in run.seeds:
    for record in seed.arrays.get(key, ()):
      names = [name for name in record.values if name.endswith('/mean')]
      return [name.removesuffix('/mean') for name in names]
  return []


def activations(
  seed: curves.Seed, key: str, layer: str, value: str = 'mean'
) -> list[records.Record]:
  """What has a value of a layer's activations, in the order of steps."""
  found = seed.arrays.get(key, ())
  return [look for look in found if f'{layer}/{value}' in look.values]
