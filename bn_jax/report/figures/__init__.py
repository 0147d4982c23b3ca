"""The figures of a report, in their order; each is a file."""

from collections.abc import Iterator, Sequence

from bn_jax.report.drawing import canvas
from bn_jax.report.figures import (
  accuracy,
  activations,
  along,
  covariate_shift,
  distance,
  generic,
  landscape,
  one_step,
  rates,
  signal,
  unit,
  weights,
)
from bn_jax.report.results import curves, looks

# Of all runs, and of each key of a measure; other measures get a generic one.
_OF_TRAINING = (accuracy.figure, accuracy.loss, rates.figure)
_OF_A_KEY = {
  landscape.KIND: (landscape.figure, distance.figure, along.figure),
  covariate_shift.KIND: (covariate_shift.figure,),
  activations.KIND: (activations.figure, activations.drift, unit.figure),
  signal.KIND: (signal.figure,),
  weights.KIND: (weights.figure,),
  one_step.KIND: (one_step.figure,),
}


_OF_ACCURACY = 'evaluation'  # drawn with training


def measures(runs: Sequence[curves.Run]) -> tuple[str, ...]:
  """Returns the measures of runs in the order of the page."""
  return (*_OF_A_KEY, *unknown(runs), _OF_ACCURACY)


def unknown(runs: Sequence[curves.Run]) -> tuple[str, ...]:
  """Returns those measures of runs that have no figure of their own."""
  found = {
    section['name']: None
    for run in runs
    for section in curves.measures(run).values()
  }
  return tuple(sorted(found.keys() - {*_OF_A_KEY, _OF_ACCURACY}))


def every(runs: Sequence[curves.Run]) -> list[canvas.Figure]:
  """The figures that these runs have something for; no two of one name."""
  found, names = [], set()
  for made in filter(None, _made(runs)):
    name, count = made.name, 1
    # A file system may not know upper from lower case.
    while name.lower() in names:
      count += 1
      name = f'{made.name}-{count}'
    names.add(name.lower())
    found.append(made._replace(name=name))
  return found


def _made(runs) -> Iterator[canvas.Figure | None]:
  yield from (figure(runs) for figure in _OF_TRAINING)
  for kind, figures in _OF_A_KEY.items():
    for key in looks.keys(runs, kind):
      yield from (figure(runs, key) for figure in figures)
  for kind in unknown(runs):
    for key in looks.keys(runs, kind):
      yield generic.figure(runs, kind, key)
