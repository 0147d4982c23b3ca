"""The figures of a report, in their order; each is a file."""

from collections.abc import Iterator, Sequence

from bn_jax.report.drawing import canvas
from bn_jax.report.figures import (
  accuracy,
  activations,
  along,
  covariate_shift,
  distance,
  landscape,
  one_step,
  rates,
  signal,
  unit,
  weights,
)
from bn_jax.report.results import curves, looks

# Of all runs, and of each key of a kind of measure.
_OF_TRAINING = (accuracy.figure, accuracy.loss, rates.figure)
_OF_A_KEY = {
  landscape.KIND: (landscape.figure, distance.figure, along.figure),
  covariate_shift.KIND: (covariate_shift.figure,),
  activations.KIND: (activations.figure, activations.drift, unit.figure),
  signal.KIND: (signal.figure,),
  weights.KIND: (weights.figure,),
  one_step.KIND: (one_step.figure,),
}


def every(runs: Sequence[curves.Run]) -> list[canvas.Figure]:
  """The figures that these runs have something for; no two of one name."""
  found, names = [], set()
  for made in _made(runs):
    name, count = made.name, 1
    # A file system may not know upper from lower case.
    while name.lower() in names:
      count += 1
      name = f'{made.name}-{count}'
    names.add(name.lower())
    found.append(made._replace(name=name))
  return found


def _made(runs) -> Iterator[canvas.Figure]:
  for figure in _OF_TRAINING:
    if (made := figure(runs)) is not None:
      yield made
  for kind, figures in _OF_A_KEY.items():
    for key in looks.keys(runs, kind):
      for figure in figures:
        if (made := figure(runs, key)) is not None:
          yield made
