"""Draws how alike layers are: a map of layers by layers, and curves over steps.

The map is of the last look: of the layers of one network, or of a network and
another checkpoint of it.
"""

from collections.abc import Iterator

import numpy as np

from bn_jax.report.drawing import first_last, record
from bn_jax.report.figures import generic
from bn_jax.report.results import curves, looks

MEASURE = 'cka'
# Of one layer at both checkpoints, with the labels of their axes.
_SAME = {'debiased_cka': 'Debiased CKA', 'cka': 'CKA'}
_WITH = {'debiased_cka': 'debiased_cka_with', 'cka': 'cka_with'}


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws the debiased CKA of each layer with each, a map a run."""
  if max(len(_layers(entry, run)) for run in entry.runs) < 2:
    return None
  other = entry.condition('to')
  whose = f', columns those at {_there(other)}' if other else ' of one network'
  scale = record.Scale('Debiased CKA', _lowest(entry), 1.0)

  def row(of: first_last.Of) -> tuple[record.Panel, ...]:
    return tuple(_panel(entry, run, of, scale) for run in entry.runs)

  return record.of_entry(
    entry,
    'cka-layers',
    'Similarity of layers with each other',
    'Debiased linear CKA (Kornblith et al., 2019; Nguyen et al., 2021) '
    'of what enters the nonlinearities, at the last measurement: 1 where two '
    'layers are the same up to rotation, length and shift; near 0, at times '
    f'below, where they are independent. Rows are the layers{whose}, both in '
    'forward order. White: no value, of a layer without spread. '
    f'{"Means over seeds. " * entry.has_several_seeds}'
    'The CSV has all measurements, and the biased CKA, which is larger the '
    f'fewer examples there are. {looks.circumstances(entry)}',
    rows=(row(lambda seed: [-1]),),
    shares=False,
    undrawn=tuple(_of_seeds(entry, scale)),
    frames=first_last.frames(
      entry,
      lambda step: (row(lambda seed: first_last.at(seed, entry.name, step)),),
      1,
    ),
  )


def over_steps(entry: looks.Entry) -> record.Figure | None:
  """Draws the CKA of each layer with itself at the other checkpoint."""
  drawn = generic.figure(entry, only=_SAME)
  return drawn and drawn._replace(
    title=f'Similarity of each layer with itself{entry.note}',
    caption='Linear CKA of what enters a nonlinearity with the same at '
    f'{_there(entry.condition("to"))}, debiased (Nguyen et al., 2021) and '
    'biased (Kornblith et al., 2019): 1 where both are the same up to '
    f'rotation, length and shift. {looks.circumstances(entry)}',
  )


def _there(other: str) -> str:
  """Returns the other checkpoint in words."""
  return f'step {other}' if other.isdigit() else other


def _layers(entry: looks.Entry, run: curves.Run) -> list[str]:
  of_run = entry._replace(indexed=((0, run),))
  return looks.layers(of_run, _WITH['debiased_cka'])


def _lowest(entry: looks.Entry) -> float:
  """Returns the lowest value of all looks, at most 0: where colours begin."""
  values = [
    np.ravel(value)
    for seed in entry.seeds
    if entry.name in seed.series
    for name, value in seed.series[entry.name].values.items()
    if name.endswith(f'/{_WITH["debiased_cka"]}')
  ]
  every = np.concatenate(values)
  return float(every[np.isfinite(every)].min(initial=0.0))


def _matrices(
  entry: looks.Entry, run: curves.Run, of: first_last.Of, quantity: str
) -> list[tuple[int, int, np.ndarray]]:
  """Returns (seed, step, CKA [L, L]) of these looks."""
  names = [f'{layer}/{_WITH[quantity]}' for layer in _layers(entry, run)]
  return [
    (seed, step, np.array(rows, float))
    for seed, step, rows in first_last.of_looks(run, entry.name, of, *names)
    if rows
  ]


def _panel(entry, run, of: first_last.Of, scale: record.Scale) -> record.Panel:
  """Returns the map of a run at these looks, the mean over seeds."""
  every = _matrices(entry, run, of, 'debiased_cka')
  count = len(_layers(entry, run))
  mean = np.mean([m for *_, m in every] or [np.full((count, count), np.nan)], 0)
  step = max((step for _, step, _ in every), default=None)
  cells = {'written': True, 'seed': 'mean', 'step': step}
  return _map(entry, run, 'debiased_cka', mean, scale, **cells)


def _map(entry, run, quantity, matrix, scale, **cells) -> record.Panel:
  layers = tuple(_layers(entry, run))
  edges = np.arange(len(layers) + 1) + 0.5
  there = _there(entry.condition('to'))
  at = f' at {there}' * bool(there)
  return record.Panel(
    record.Axis(f'Layer{at}', 'with', names=layers),
    record.Axis('Layer', 'layer', names=layers),
    (record.Cells(quantity, edges, edges, matrix, scale, **cells),),
    title=run.name,
    run=run.name,
  )


def _of_seeds(entry, scale: record.Scale) -> Iterator[record.Panel]:
  """Yields the maps of all seeds and looks, debiased and biased."""
  every = lambda seed: range(len(looks.steps_of(seed, entry.name)))
  for run in entry.runs:
    for quantity in _WITH:
      for seed, step, matrix in _matrices(entry, run, every, quantity):
        cells = {'seed': seed, 'step': step}
        yield _map(entry, run, quantity, matrix, scale, **cells)
