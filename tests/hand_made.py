"""Seeds of runs with records written by hand, as the report reads them."""

import numpy as np

from bn_jax.report.results import curves
from bn_jax.storage import records


def seed(
  number=0, *, status='done', steps=1000, rate=0.1, arrays=None, **names
):
  """A seed; each further name is (steps, {value: [...]})."""
  config = {'steps': steps, 'schedule': {'learning_rate': rate}}
  return curves.Seed(
    seed=number,
    manifest={'status': status, 'step': steps, 'config': config},
    series={
      name: curves.Series(
        np.array(looks), {k: np.array(v, float) for k, v in values.items()}
      )
      for name, (looks, values) in names.items()
    },
    seconds={},
    arrays={
      name: [records.Record(step, name, values) for step, values in looks]
      for name, looks in (arrays or {}).items()
    },
  )
