"""The figure of covariate shift: Figure 3 of Santurkar et al. (2018)."""

from collections.abc import Sequence

from bn_jax.report.drawing import by_layer, canvas, overlay, strokes
from bn_jax.report.results import curves, looks

KIND = 'covariate_shift'
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
  ),
)


def figure(
  runs: Sequence[curves.Run], key: str | None = None
) -> canvas.Figure | None:
  """How layers below move a layer's gradient, a column a layer."""
  seen = looks.of(runs, KIND, key)
  layers = [] if seen is None else looks.layers(seen, 'l2')
  if not layers:
    return None
  papers = _papers(seen, layers)
  matches = [match for found in papers.values() for match in found]
  return canvas.Figure(
    name=f'covariate-shift{seen.suffix}',
    title=f'Internal covariate shift{seen.note}',
    caption='Definition 2.1 of Santurkar et al. (2018): G is the gradient of '
    "the loss by the parameters of a layer, and G' the same after the layers "
    "before it, and they alone, have made the optimizer's step. Their "
    'distance, that distance over |G|, and their cosine (dashed: 1, no '
    f'shift). {_moved(seen)} The loss without a penalty, both times of '
    f'{looks.where(seen)}, {looks.when(seen)}, {looks.precisely(seen)}. '
    'Distances on logarithmic axes; axes are shared by the columns. '
    + _means(seen.runs)
    + overlay.sentence(matches, _stand(seen, layers)),
    alt="Distance, relative distance and cosine of a layer's gradients before "
    'and after the step of the layers before it, over training, one column a '
    f'layer ({", ".join(layers)}). Median cosine of {layers[-1]}: '
    + by_layer.medians(seen, layers[-1], _ROWS[2])
    + overlay.words(matches),
    draw=lambda narrow: by_layer.drawing(seen, layers, _ROWS, narrow, papers),
    table=by_layer.table(seen, layers, _ROWS),
  )


def _papers(seen, layers: Sequence[str]) -> by_layer.Papers:
  """The paper's curves of the panels that have some."""
  found = {
    (layer, row.name): overlay.of_layer(seen.indexed, row.name, layer, seen.key)
    for layer in layers
    for row in _ROWS
  }
  return {panel: matches for panel, matches in found.items() if matches}


def _stand(seen, layers: Sequence[str]) -> str:
  """For which layers of the paper others stand, where they do."""
  found = {
    f'{layer} for {number}': None
    for run in seen.runs
    for layer in layers
    if not overlay.is_whole(run)
    and (number := overlay.layer_of(run, layer, seen.key)) is not None
  }
  if not found:
    return ''
  return (
    "In our smaller network other layers stand for the paper's, by their "
    f'relative depth: {", ".join(found)}.'
  )


def _moved(seen) -> str:
  """Whether the norms' parameters are part of a layer."""
  said = {
    'True': "A layer is its norm's scale and bias too.",
    'False': "A layer is its weights and bias, without its norm's parameters.",
  }
  found = seen.said('norm_parameters')
  return said.get(found) or f"Norms' parameters in a layer: {found or 'True'}."


def _means(runs) -> str:
  said = strokes.seeds_sentence(runs, logarithmic=True)
  return said.replace('geometric means', 'means (of distances, geometric)')
