"""Draws internal covariate shift, as in Figure 3 of Santurkar et al. (2018)."""

from collections.abc import Sequence

from bn_jax.report.drawing import by_layer, overlay, record
from bn_jax.report.results import curves, looks, seeds

MEASURE = 'covariate_shift'
_ROWS = (
  by_layer.Row('l2', "|G − G'|", by_layer.read('l2')),
  by_layer.Row('relative_l2', "|G − G'| / |G|", by_layer.read('relative_l2')),
  by_layer.Row(
    'cosine',
    "Cosine of G and G'",
    by_layer.read('cosine'),
    logarithmic=False,
    mark=1.0,
    limits=(-1.05, 1.05),
    within=seeds.COSINE,
  ),
)
_AXES = 'Distances on logarithmic axes; the same axes in all columns. '


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> record.Figure | None:
  """Draws how a layer's gradient moves with the layers before it."""
  entry = looks.of(runs, MEASURE, name)
  layers = [] if entry is None else looks.layers(entry, 'l2')
  if not layers:
    return None
  once = looks.once(entry)
  matches_of = {} if once else _matches_of(entry, layers)
  matches = [match for panel in matches_of.values() for match in panel]
  panels = by_layer.panels(entry, layers, _ROWS, matches_of)
  return record.Figure(
    name=f'covariate-shift{entry.suffix}',
    title=f'Internal covariate shift{entry.note}',
    caption='Definition 2.1 of Santurkar et al. (2018): G is the gradient of '
    "the loss with respect to a layer's parameters, and G' the gradient on the "
    'same examples after the layers before it, and only they, have taken the '
    "optimizer's step. Their distance, that distance over |G|, and their "
    f'cosine ({"1 is" if once else "dashed: 1,"} no shift). {_moved(entry)} '
    'The loss is without the weight penalty. '
    f'{looks.told(entry) if once else _AXES}{looks.circumstances(entry)}'
    + overlay.sentence(matches, _stand(entry, layers)),
    rows=() if once else panels,
    keys=record.keys_of(entry.indexed),
    undrawn=sum(panels, ()) if once else (),
    numbers=by_layer.numbers(entry, layers, _ROWS) if once else (),
    reference=overlay.told(matches),
  )


def _matches_of(entry, layers: Sequence[str]) -> by_layer.MatchesOf:
  """Returns the paper's curves of the panels that have some."""
  matches_of = {
    (layer, row.name): overlay.of_layer(
      entry.indexed, row.name, layer, entry.name
    )
    for layer in layers
    for row in _ROWS
  }
  return {panel: matches for panel, matches in matches_of.items() if matches}


def _stand(entry, layers: Sequence[str]) -> str:
  """Returns which of our layers stand for which of the paper's; '' for none."""
  pairs = {
    f'{layer} for {number}': None
    for run in entry.runs
    for layer in layers
    if not overlay.is_whole(run)
    and (number := overlay.layer_of(run, layer, entry.name)) is not None
  }
  if not pairs:
    return ''
  return (
    "In our smaller network other layers stand for the paper's, by their "
    f'relative depth: {", ".join(pairs)}.'
  )


def _moved(entry) -> str:
  """Returns whether the norms' parameters are part of a layer."""
  condition = entry.condition('norm_parameters')
  sentences = {
    'True': "A layer is its weights and bias, and its norm's scale and bias.",
    'False': "A layer is its weights and bias, without its norm's parameters.",
  }
  if condition in sentences:
    return sentences[condition]
  return f"Norms' parameters in a layer: {condition or 'True'}."
