"""Draws internal covariate shift, as in Figure 3 of Santurkar et al. (2018)."""

from collections.abc import Sequence

from bn_jax.report.drawing import by_layer, overlay, record
from bn_jax.report.results import looks, seeds

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
_AXES = 'Distances on logarithmic axes; the same axes in all columns.'
# `norm_parameters` -> whether those of the norms are part of a layer.
_LAYERS = {
  'True': "A layer is its weights and bias, and its norm's scale and bias.",
  'False': "A layer is its weights and bias, without its norm's parameters.",
}


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws how a layer's gradient moves with the layers before it."""
  layers = looks.layers(entry, 'l2')
  if not layers:
    return None
  once = looks.once(entry)
  moved = entry.condition('norm_parameters')
  other = f"Norms' parameters in a layer: {moved or 'True'}."
  matches_of = {} if once else _matches_of(entry, layers)
  matches = [match for panel in matches_of.values() for match in panel]
  made = record.of_entry(
    entry,
    'covariate-shift',
    'Internal covariate shift',
    record.caption(
      'Definition 2.1 of Santurkar et al. (2018): G is the gradient of the '
      "loss with respect to a layer's parameters, and G' the gradient on the "
      'same examples after the layers before it, and only they, have taken the '
      "optimizer's step. Their distance, that distance over |G|, and their "
      f'cosine ({"1 is" if once else "dashed: 1,"} no shift).',
      {moved: other, **_LAYERS}[moved],
      'The loss is without the weight penalty.',
      looks.told(entry) if once else _AXES,
      looks.circumstances(entry),
      overlay.sentence(matches, _stand(entry, layers)),
    ),
    rows=by_layer.panels(entry, layers, _ROWS, matches_of),
    reference=overlay.told(matches),
  )
  return by_layer.as_numbers(made, entry) if once else made


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
