"""All figures of a report, in their order."""

from collections.abc import Iterator, Sequence

from bn_jax.report.drawing import canvas
from bn_jax.report.figures import (
  accuracy,
  activations,
  along,
  changes,
  covariate_shift,
  distance,
  landscape,
  loss,
  one_step,
  rates,
  signal,
  unit,
  weights,
)
from bn_jax.report.results import curves, looks

# Of all runs, and of each key of a kind of measure.
_OF_TRAINING = (accuracy, loss, rates)
_OF_A_KEY = (
  (landscape, distance, along),
  (covariate_shift,),
  (activations, changes, unit),
  (signal,),
  (weights,),
  (one_step,),
)


def hung(runs: Sequence[curves.Run]) -> list[canvas.Figure]:
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
  for kind in _OF_TRAINING:
    if (made := kind.figure(runs)) is not None:
      yield made
  for kinds in _OF_A_KEY:
    for key in looks.keys(runs, kinds[0].KIND):
      for kind in kinds:
        if (made := kind.figure(runs, key)) is not None:
          yield made
