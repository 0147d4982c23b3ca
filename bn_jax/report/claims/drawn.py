"""Finds the figure of a page that draws what a claim is about."""

import re
from collections.abc import Container, Sequence

from bn_jax.report.claims import rows as rows_lib
from bn_jax.report.results import curves, looks

_KEYWORD = re.compile(r'(\w+)=([^,)]*)')
# Names of figures, of which the first on the page counts. By statistic:
_OF_STATISTICS = {
  'activation_std': ('activations',),
  'at_factor': ('distance', 'along'),
  'growth': ('distance', 'along'),
  'moment_change': ('drift',),
  'shape_distance': ('drift',),
  'unit_movement': ('unit', 'activations'),
}
# By measure, where a figure is not called after it.
_OF_MEASURES = {
  'along_gradient': ('landscape', 'along'),
  'cka': ('cka-layers',),
  'one_step_loss': ('one-step',),
  'spectral_density': ('spectrum',),
}
_TRAINED = ('accuracy', 'loss', 'diverged')  # read off training, evaluations
_UNDRAWN = ('bias_norm',)  # the weights' figure has no room for it


def figure(
  row: rows_lib.Row, runs: Sequence[curves.Run], names: Container[str]
) -> str | None:
  """Returns the name of the figure, or None: not on this page.

  Args:
    row: of the claim.
    runs: those of the page.
    names: of the figures of the page.
  """
  statistic, _, keywords = row['statistic'].partition('(')
  keywords = dict(_KEYWORD.findall(keywords))
  name = keywords.get('name')
  value = keywords.get('value') or statistic
  measures = [curves.measures(run).get(name) for run in runs]
  measure = next((entry['name'] for entry in measures if entry), None)
  if value in _UNDRAWN or (name and not measure):
    return None
  if measure in (None, looks.EVALUATION):
    of_training = any(word in value for word in _TRAINED)
    candidates = ('training',) if of_training else ()
  else:
    stems = _OF_STATISTICS.get(statistic) or _OF_MEASURES.get(measure)
    stems = stems or (re.sub('[_:.]', '-', measure),)
    suffix = looks.suffix(looks.names(runs, measure), measure, name)
    candidates = [f'{stem}{suffix}' for stem in stems]
  return next((figure for figure in candidates if figure in names), None)
