"""Draws the size of activations and of their gradients by layer."""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl
from matplotlib import ticker

from bn_jax.report.drawing import canvas, first_last, strokes
from bn_jax.report.results import curves, looks

MEASURE = 'signal'
_NAMED = 16  # layers at most that an axis names: more names would overlap
_CURVES = (
  ('activation_rms', 'Activations (rms)'),
  ('activation_gradient_norm', 'Gradient by activations'),
)
_SHARE = 'positive'


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws size of activations and of their gradients, a line a run."""
  entry = looks.of(runs, MEASURE, name)
  layers = [] if entry is None else looks.layers(entry, 'activation_rms')
  if not layers:
    return None
  has_shares = any(
    np.isfinite(_shares(seed, entry.name)).any() for seed in entry.seeds
  )
  return canvas.Figure(
    name=f'signal{entry.suffix}',
    title=f'Activations and gradients by layer{entry.note}',
    caption=f'Layers in forward order{_times(entry)} Activations: root mean '
    'square of what enters the nonlinearity. Gradient: the norm, over all '
    'examples together, of the gradient of the training loss with respect to '
    f'them (the weight penalty does not enter it). {_condition(has_shares)}'
    f'Logarithmic vertical axes{" but for the share" if has_shares else ""}. '
    f'{looks.circumstances(entry)}',
    alt='Size of activations and of the gradient with respect to them, by '
    'layer, one line a run. From the first to the last layer, at the first '
    'measurement: ' + '; '.join(_words(run, entry.name) for run in entry.runs),
    draw=lambda narrow: _drawn(entry, layers, has_shares, narrow),
    table=_table(entry, layers),
  )


def _times(entry: looks.Entry) -> str:
  """Returns when the layers were measured, with a full stop."""
  if len(first_last.ends(entry)) == 1:
    return '.'
  return (
    ', at the first measurement (step 0 is the initialization) and at the last.'
  )


def _condition(has_shares: bool) -> str:
  """Returns what the share of units is; it ends with a space."""
  if not has_shares:
    return ''
  return (
    'Units, <ŷ, g> > 0: in layers with a norm, the share of units (dashed: '
    'half) with a positive inner product of the normalized activations ŷ and '
    "the gradient g with respect to the norm's output: where this product and "
    "the norm's scale are positive, Theorem 4.2 of Santurkar et al. (2018) "
    'subtracts a positive term from the quadratic form of the Hessian along '
    "the gradient by the norm's input. "
  )


def _drawn(entry, layers, has_shares, narrow) -> mpl.Figure:
  # Names only where one run has all layers, so that they are in its order.
  has_one_order = any(
    _layers_of(run, entry.name) == layers for run in entry.runs
  )
  has_names = has_one_order and len(layers) <= _NAMED
  draw = functools.partial(
    _draw, name=entry.name, layers=layers if has_names else None
  )
  rows = [
    first_last.Row(label, functools.partial(draw, value=value))
    for value, label in _CURVES
  ]
  if has_shares:
    draw_share = functools.partial(draw, value=_SHARE)
    rows.append(
      first_last.Row('Units, <ŷ, g> > 0', draw_share, logarithmic=False)
    )
  drawing, axes = first_last.drawing(entry, rows, narrow, 'Layer')
  for axis in axes.flat:
    if has_names:
      axis.set_xticks(range(1, len(layers) + 1), layers, rotation=90)
    else:
      axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  for axis in axes[-1] if has_shares else ():
    axis.set_ylim(-0.03, 1.03)
    axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=' %'))
    strokes.across(axis, 0.5)
  strokes.legend_of(drawing, entry.indexed)
  return drawing


def _draw(axis, run, index, look, *, name, layers, value) -> None:
  """Draws a quantity against the layer's number, in `layers` or the run."""
  run_layers = _layers_of(run, name)
  numbers = [(layers or run_layers).index(layer) + 1 for layer in run_layers]
  quantities = [f'{layer}/{value}' for layer in run_layers]
  of_seeds = [
    first_last.values(seed, name, look, *quantities) for seed in run.seeds
  ]
  lines = [(numbers, np.array(row, float)) for row in of_seeds if row]
  within = strokes.SHARE if value == _SHARE else strokes.SIZE
  strokes.draw_mean(axis, lines, index, value != _SHARE, within)


def _layers_of(run, name) -> list[str]:
  """Returns the layers at which an entry of a run looked."""
  return looks.layers(looks.Entry(MEASURE, name, ((0, run),)), _CURVES[0][0])


def _shares(seed, name) -> np.ndarray:
  """Returns all shares of units that a seed has recorded."""
  series = seed.series.get(name)
  values = series.values if series is not None else {}
  shares = [v for key, v in values.items() if key.endswith(f'/{_SHARE}')]
  return np.concatenate(shares) if shares else np.zeros(0)


def _words(run, name) -> str:
  run_layers = _layers_of(run, name)
  parts = []
  for (value, _), what in zip(_CURVES, ('rms', 'gradient')):
    ends = [f'{layer}/{value}' for layer in (*run_layers[:1], *run_layers[-1:])]
    rows = [first_last.values(seed, name, 0, *ends) for seed in run.seeds]
    rows = [row for row in rows if row and np.isfinite(row).all()]
    if rows:
      first, last = np.mean(rows, axis=0)
      parts.append(f'{what} {first:.3g} to {last:.3g}')
  return f'{run.name} {", ".join(parts) or "has no numbers"}'


def _table(entry, layers):
  names = (*(value for value, _ in _CURVES), _SHARE, 'negative')

  def rows(seed, look):
    for layer in layers:
      values = [
        first_last.value(seed, entry.name, f'{layer}/{name}', look)
        for name in names
      ]
      if values[0] is not None:
        yield layer, *('' if v is None else f'{v:.6g}' for v in values)

  return first_last.table(entry, ('layer', *names), rows)
