"""Draws how alike layers are: a map of layers by layers, and curves over steps.

The map is of the last look: of the layers of one network, or of a network and
another checkpoint of it.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib import cm, colors, ticker
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, first_last
from bn_jax.report.figures import generic
from bn_jax.report.results import curves, looks

MEASURE = 'cka'
# Of one layer at both checkpoints, with the labels of their axes.
_SAME = {'debiased_cka': 'Debiased CKA', 'cka': 'CKA'}
_EACH = ('debiased_cka_with', 'cka_with')
_NAMED = 16  # layers at most that an axis names: more names would overlap
_CELL = 0.33  # inches of a cell with a number of two digits
_MAP = 'viridis'
_BRIGHT = 0.6  # of the map's colours: letters on brighter ones are black


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws the debiased CKA of each layer with each, a map a run."""
  entry = looks.of(runs, MEASURE, name)
  maps = {} if entry is None else _maps(entry)
  if max((len(layers) for layers, _ in maps.values()), default=0) < 2:
    return None
  other = entry.condition('to')
  there = _there(other)
  whose = f', columns those at {there}' if other else ' of one network'
  return canvas.Figure(
    name=f'cka-layers{entry.suffix}',
    title=f'Similarity of layers with each other{entry.note}',
    caption='Debiased linear CKA (Kornblith et al., 2019; Nguyen et al., 2021) '
    'of what enters the nonlinearities, at the last measurement: 1 where two '
    'layers are the same up to rotation, length and shift; near 0, at times '
    f'below, where they are independent. Rows are the layers{whose}, both in '
    f'forward order. White: no value, of a layer without spread. {_mean(entry)}'
    'The CSV has all measurements, and the biased CKA, which is larger the '
    f'fewer examples there are. {looks.circumstances(entry)}',
    alt='Maps of the debiased CKA of layers, one a run. Means '
    + ('of the same layer at both' if other else 'of two different layers')
    + ': '
    + '; '.join(_words(run, maps[run.name][1], other) for run in entry.runs),
    draw=lambda narrow: _drawn(entry, maps, there, narrow),
    table=_table(entry),
  )


def over_steps(runs: Sequence[curves.Run], name: str) -> canvas.Figure | None:
  """Draws the CKA of each layer with itself at the other checkpoint."""
  drawn = generic.figure(runs, MEASURE, name, only=_SAME)
  if drawn is None:
    return None
  entry = looks.of(runs, MEASURE, name)
  return drawn._replace(
    title=f'Similarity of each layer with itself{entry.note}',
    caption='Linear CKA of what enters a nonlinearity with the same at '
    f'{_there(entry.condition("to"))}, debiased (Nguyen et al., 2021) and '
    'biased (Kornblith et al., 2019): 1 where both are the same up to '
    f'rotation, length and shift. {looks.circumstances(entry)}',
  )


def _there(other: str) -> str:
  """Returns the other checkpoint in words."""
  return f'step {other}' if other.isdigit() else other


def _mean(entry: looks.Entry) -> str:
  several = max(len(run.seeds) for run in entry.runs) > 1
  return 'Means over seeds. ' if several else ''


def _maps(entry: looks.Entry) -> dict[str, tuple[list[str], np.ndarray]]:
  """Returns run -> (its layers, CKA [L, L] at the last look, mean of seeds)."""
  maps = {}
  for index, run in entry.indexed:
    layers = looks.layers(entry._replace(indexed=((index, run),)), _EACH[0])
    quantities = [f'{layer}/{_EACH[0]}' for layer in layers]
    of_seeds = [
      first_last.values(seed, entry.name, -1, *quantities) for seed in run.seeds
    ]
    matrices = [np.array(rows, float) for rows in of_seeds if rows]
    mean = np.mean(matrices, axis=0) if matrices else np.zeros((0, 0))
    maps[run.name] = layers, mean
  return maps


def _drawn(entry, maps, there: str, narrow: bool) -> mpl.Figure:
  drawing, axes = canvas.panels(1, len(entry.runs), narrow, shared=False)
  values = np.concatenate([matrix.ravel() for _, matrix in maps.values()])
  low = min(0.0, values[np.isfinite(values)].min(initial=0.0))
  norm = colors.Normalize(low, 1.0)
  for axis, run in zip(axes[0], entry.runs):
    layers, matrix = maps[run.name]
    edges = np.arange(len(layers) + 1) + 0.5
    axis.pcolormesh(
      edges, edges, np.ma.masked_invalid(matrix), norm=norm, cmap=_MAP,
      rasterized=True,
    )  # fmt: skip
    axis.grid(visible=False)
    _write_values(axis, matrix, norm)
    for scale in (axis.xaxis, axis.yaxis):
      if len(layers) <= _NAMED:
        scale.set_ticks(range(1, len(layers) + 1), layers)
      else:
        scale.set_major_locator(ticker.MaxNLocator(integer=True))
    axis.tick_params('x', rotation=90)
    canvas.label_top(axis, run.name)
    axis.set_xlabel(canvas.fitted(f'Layer at {there}', 150) if there else '')
    canvas.label_left(axis, 'Layer')
  bar = drawing.colorbar(
    cm.ScalarMappable(norm, _MAP), ax=list(axes[0]), label='Debiased CKA'
  )
  bar.outline.set_visible(False)
  return drawing


def _write_values(axis, matrix: np.ndarray, norm: colors.Normalize) -> None:
  """Writes each value into its cell, if they have room."""
  inches = axis.get_position().width * axis.figure.get_figwidth()
  if len(matrix) * _CELL > inches:
    return
  for (row, column), value in np.ndenumerate(matrix):
    if np.isfinite(value):
      axis.text(
        column + 1, row + 1, f'{value:.2f}', ha='center', va='center',
        fontsize=8, color='black' if norm(value) > _BRIGHT else 'white',
      )  # fmt: skip


def _words(run: curves.Run, matrix: np.ndarray, other: str) -> str:
  is_same = np.eye(len(matrix), dtype=bool)
  values = matrix[is_same if other else ~is_same]
  values = values[np.isfinite(values)]
  return (
    f'{run.name} {values.mean():.3g}' if len(values) else f'{run.name} none'
  )


def _table(entry: looks.Entry) -> list[Sequence]:
  """Returns each pair of layers at each look."""

  def rows(seed, look):
    layers = looks.layers(entry, _EACH[0])
    own = [
      layer
      for layer in layers
      if curves.recorded(seed, entry.name, f'{layer}/{_EACH[0]}')
    ]
    for layer in own:
      both = first_last.values(
        seed, entry.name, look, *(f'{layer}/{each}' for each in _EACH)
      )
      for other, *pair in zip(own, *map(np.ravel, both)):
        yield layer, other, *canvas.digits(pair)

  return first_last.table(entry, ('layer', 'with', *_SAME), rows)
