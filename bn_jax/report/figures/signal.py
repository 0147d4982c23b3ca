"""Draws the size of activations and of their gradients by layer."""

from collections.abc import Iterator, Sequence

import numpy as np

from bn_jax.report.drawing import first_last, over_steps, record
from bn_jax.report.results import looks, seeds

MEASURE = 'signal'
_SHARE = record.Axis(
  'Units, <ŷ, g> > 0', 'positive', within=seeds.SHARE, limits=(-0.03, 1.03),
  fixed=True, percent=True,
)  # fmt: skip
_RMS = record.Axis('Activations (rms)', 'activation_rms', True, seeds.SIZE)
_GRADIENT = record.Axis(
  'Gradient by activations', 'activation_gradient_norm', True, seeds.SIZE
)

_TIMES = (
  ', at the first measurement (step 0 is the initialization) and at the last'
)
_CONDITION = (
  'Units, <ŷ, g> > 0: in layers with a norm, the share of units (dashed: half) '
  'with a positive inner product of the normalized activations ŷ and the '
  "gradient g with respect to the norm's output: where this product and the "
  "norm's scale are positive, Theorem 4.2 of Santurkar et al. (2018) subtracts "
  'a positive term from the quadratic form of the Hessian along the gradient '
  "by the norm's input."
)


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws size of activations and of their gradients, a line a run."""
  layers = looks.layers(entry, 'activation_rms')
  if not layers:
    return None
  shares = [f'{layer}/{_SHARE.name}' for layer in layers]
  has_shares = len(over_steps.values(entry, *shares)) > 0
  # Names only where one run has all layers, so that they are in its order.
  has_one_order = any(
    _layers_of(run, entry.name) == layers for run in entry.runs
  )
  names = tuple(layers) if has_one_order else ()
  rows = [
    _row(entry.name, axis, names)
    for axis in (_RMS, _GRADIENT, *((_SHARE,) if has_shares else ()))
  ]
  return record.of_entry(
    entry,
    'signal',
    'Activations and gradients by layer',
    record.caption(
      f'Layers in forward order{_TIMES * (len(first_last.ends(entry)) > 1)}.',
      'Activations: root mean square of what enters the nonlinearity. '
      'Gradient: the norm, over all examples together, of the gradient of the '
      'training loss with respect to them (the weight penalty does not enter '
      'it).',
      has_shares and _CONDITION,
      f'Logarithmic vertical axes{" but for the share" * has_shares}.',
      looks.circumstances(entry),
    ),
    **first_last.panels(
      entry, rows, record.Axis('Layer', 'layer', names=names)
    ),
  )


def _row(name: str, axis: record.Axis, layers: Sequence[str]) -> first_last.Row:
  """Returns a quantity by the number of a layer, in `layers` or in its run."""

  def marks(index, run, of) -> Iterator[record.Lines]:
    run_layers = tuple(_layers_of(run, name))
    number_L = np.array(
      [(layers or run_layers).index(layer) + 1 for layer in run_layers]
    )
    quantities = [axis.name] + ['negative'] * (axis is _SHARE)
    for quantity in quantities:
      of_layers = (f'{layer}/{quantity}' for layer in run_layers)
      every = tuple(
        record.Curve(seed, number_L, np.array(row, float), step=step)
        for seed, step, row in first_last.of_looks(run, name, of, *of_layers)
        if np.isfinite(row).any()
      )
      if every:
        yield record.Lines(
          index, quantity, every,
          style='hidden' if quantity == 'negative' else 'line',
          names=layers or run_layers,
        )  # fmt: skip

  share = (record.Rule(0.5),) if axis is _SHARE else ()
  return first_last.Row(axis, marks, lambda of: share)


def _layers_of(run, name) -> list[str]:
  """Returns the layers at which an entry of a run looked."""
  return looks.layers(looks.Entry(MEASURE, name, ((0, run),)), _RMS.name)
