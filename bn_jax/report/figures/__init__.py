"""Lists the figures of a report, in their order; each has a file here."""

from collections.abc import Iterator, Sequence

from bn_jax.report.drawing import record, tails
from bn_jax.report.figures import (
  activations,
  along,
  batch_sharpness,
  cka,
  covariate_shift,
  distance,
  generic,
  landscape,
  one_step,
  path,
  radius,
  rates,
  sharpness,
  signal,
  spectrum,
  surface,
  trace,
  training,
  unit,
  weights,
)
from bn_jax.report.results import curves, looks

_OF_ALL_RUNS = (training.figure, rates.figure)
# Of each entry of a measure; other measures get a generic figure.
_OF_A_MEASURE = {
  landscape.MEASURE: (landscape.figure, distance.figure, along.figure),
  covariate_shift.MEASURE: (covariate_shift.figure,),
  activations.MEASURE: (activations.figure, activations.drift, unit.figure),
  signal.MEASURE: (signal.figure,),
  sharpness.MEASURE: (sharpness.figure,),
  spectrum.MEASURE: (spectrum.figure,),
  trace.MEASURE: (trace.figure,),
  radius.MEASURE: (radius.figure,),
  weights.MEASURE: (weights.figure,),
  one_step.MEASURE: (one_step.figure,),
  batch_sharpness.MEASURE: (batch_sharpness.figure,),
  surface.MEASURE: (surface.figure,),
  path.MEASURE: (path.figure,),
  cka.MEASURE: (cka.figure, cka.over_steps),
}


def measures(runs: Sequence[curves.Run]) -> tuple[str, ...]:
  """Returns the measures of runs in the order of the page."""
  return (*_OF_A_MEASURE, *unknown(runs), looks.EVALUATION)


def unknown(runs: Sequence[curves.Run]) -> tuple[str, ...]:
  """Returns those measures of runs that have no figure of their own."""
  with_figures = {*_OF_A_MEASURE, looks.EVALUATION}
  return tuple(sorted(looks.measures(runs) - with_figures))


def every(runs: Sequence[curves.Run]) -> list[record.Figure]:
  """Returns the figures that these runs have, each with its own name."""
  figures, names = [], set()
  for figure in filter(None, _every(runs)):
    name, count = figure.name, 1
    # A file system may not know upper from lower case.
    while name.lower() in names:
      count += 1
      name = f'{figure.name}-{count}'
    names.add(name.lower())
    figures.append(tails.cut_off(figure)._replace(name=name))
  return figures


def _every(runs: Sequence[curves.Run]) -> Iterator[record.Figure | None]:
  yield from (figure(runs) for figure in _OF_ALL_RUNS)
  others = dict.fromkeys(unknown(runs), (generic.figure,))
  for measure, figures in (_OF_A_MEASURE | others).items():
    for name in looks.names(runs, measure):
      entry = looks.of(runs, measure, name)
      yield from (figure(entry) for figure in figures)
