"""The figure of the signal at depth: activations and gradients by layer."""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl
from matplotlib import ticker

from bn_jax.report.drawing import canvas, first_last, strokes
from bn_jax.report.results import curves, looks

KIND = 'signal'
_NAMED = 16  # layers at most that an axis names; more are numbered
_CURVES = (
  ('activation_rms', 'Activations (rms)'),
  ('activation_gradient_norm', 'Gradient by them'),
)
_SHARE = 'positive'


def figure(
  runs: Sequence[curves.Run], key: str | None = None
) -> canvas.Figure | None:
  """Size of activations and of their gradients, by layer, a line a run."""
  seen = looks.of(runs, KIND, key)
  layers = [] if seen is None else looks.layers(seen, 'activation_rms')
  if not layers:
    return None
  signed = any(
    np.isfinite(_shares(seed, seen.key)).any() for seed in seen.seeds
  )
  return canvas.Figure(
    name=f'signal{seen.suffix}',
    title=f'Signal at depth{seen.note}',
    caption='By layer, in forward order, at the first look (step 0 is the '
    'initialization) and at the last: the root mean square of what enters the '
    'nonlinearity, and the norm of the gradient of the objective by it, over '
    f'all examples together{_condition(signed)}. On {looks.where(seen)}, with '
    f'{looks.precisely(seen)}. '
    + strokes.seeds_sentence(seen.runs, logarithmic=True).replace(
      'geometric means', 'means (of the upper two, geometric)'
    ),
    alt='Size of activations and of the gradient by them against the layer, '
    'one line a run. From the first to the last layer, at the first look: '
    + '; '.join(_words(run, seen.key) for run in seen.runs),
    draw=lambda narrow: _drawn(seen, layers, signed, narrow),
    table=_table(seen, layers),
  )


def _condition(signed: bool) -> str:
  if not signed:
    return ''
  return (
    '; and of layers with a norm the share of units with <ŷ, g> > 0 (dashed: '
    'half of them), ŷ what is normalized, g the gradient by what the norm '
    'makes: where it is not below 0, Theorem 4.2 of Santurkar et al. (2018) '
    'promises a smaller quadratic form'
  )


def _drawn(seen, layers, signed, narrow) -> mpl.Figure:
  # By name where these are the layers of one network, or some of them.
  shared = any(_own(run, seen.key) == layers for run in seen.runs)
  named = shared and len(layers) <= _NAMED
  draw = functools.partial(
    _draw, key=seen.key, layers=layers if named else None
  )
  rows = [
    first_last.Row(label, functools.partial(draw, value=value))
    for value, label in _CURVES
  ]
  if signed:
    draw_share = functools.partial(draw, value=_SHARE)
    rows.append(
      first_last.Row('Units, <ŷ, g> > 0', draw_share, logarithmic=False)
    )
  drawing, axes = first_last.drawing(seen, rows, narrow, 'Layer')
  for axis in axes.flat:
    if named:
      axis.set_xticks(range(1, len(layers) + 1), layers, rotation=90)
    else:
      axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  for axis in axes[-1] if signed else ():
    axis.set_ylim(-0.03, 1.03)
    axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=' %'))
    strokes.across(axis, 0.5)
  strokes.legend_of(drawing, seen.indexed)
  return drawing


def _draw(axis, run, index, place, *, key, layers, value) -> None:
  """Against the number of the layer: among `layers`, or else of the run."""
  own = _own(run, key)
  at = [(layers or own).index(name) + 1 for name in own]
  names = [f'{name}/{value}' for name in own]
  found = [first_last.values(seed, key, place, *names) for seed in run.seeds]
  lines = [(at, np.array(row, float)) for row in found if row is not None]
  strokes.draw_mean(axis, lines, index, logarithmic=value != _SHARE)


def _own(run, key) -> list[str]:
  """The layers that a run looked at."""
  of_run = looks.Looks(KIND, key, ((0, run),), '')
  return looks.layers(of_run, 'activation_rms')


def _shares(seed, key) -> np.ndarray:
  """All shares of units that a seed has recorded."""
  series = seed.series.get(key)
  found = [
    values_T
    for name, values_T in (series.values if series is not None else {}).items()
    if name.endswith(f'/{_SHARE}')
  ]
  return np.concatenate(found) if found else np.zeros(0)


def _words(run, key) -> str:
  own = _own(run, key)
  said = []
  for value, what in zip((name for name, _ in _CURVES), ('rms', 'gradient')):
    names = [f'{own[end]}/{value}' for end in (0, -1)] if own else []
    rows = [first_last.values(seed, key, 0, *names) for seed in run.seeds]
    rows = [row for row in rows if row and np.isfinite(row).all()]
    if rows:
      first, last = np.mean(rows, axis=0)
      said.append(f'{what} {first:.3g} to {last:.3g}')
  return f'{run.name} {", ".join(said) or "has no numbers"}'


def _table(seen, layers):
  names = ('activation_rms', 'activation_gradient_norm', 'positive', 'negative')

  def rows(seed, place):
    for layer in layers:
      found = [
        first_last.value(seed, seen.key, f'{layer}/{name}', place)
        for name in names
      ]
      if found[0] is not None:
        yield layer, *('' if v is None else f'{v:.6g}' for v in found)

  return first_last.table(seen, ('layer', *names), rows)
