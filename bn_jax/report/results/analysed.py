"""What was measured after training, of checkpoints, beside what was before.

  seedK/analysis/NAME/settings.json         the measure, its statistics
  seedK/analysis/NAME/scalars.jsonl         lines called NAME, or
  seedK/analysis/NAME/arrays/NAME-STEP.npz

In the report it is one measure more, whose key is 'analysis/NAME'.
"""

import pathlib

from bn_jax import errors
from bn_jax.report.results import curves, series
from bn_jax.storage import files, records

_SETTINGS = {'measure': {'name': str, 'data': str}, 'statistics': str}


def added(seed: curves.Seed, folder: pathlib.Path) -> curves.Seed:
  """The seed with the analyses of a folder, in the order of their names.

  One that has recorded nothing yet is left out, and so is one that cannot be
  read: the seed says so.
  """
  for place in sorted(folder.glob('*/settings.json')):
    if not records.NAME.fullmatch(place.parent.name):
      continue
    try:
      seed = _with(seed, place.parent)
    except errors.StorageError as error:
      seed = seed._replace(left_out=(*seed.left_out, str(error)))
  return seed


def _with(seed: curves.Seed, folder: pathlib.Path) -> curves.Seed:
  """The seed with one analysis more.

  Raises:
    StorageError: it was changed after it was written.
  """
  settings = files.read_json(folder / 'settings.json', _SETTINGS)
  found = series.read(folder / 'scalars.jsonl').get(folder.name)
  arrays = records.read_arrays(folder / 'arrays', folder.name)
  if settings is None or (found is None and not arrays):
    return seed
  key = f'{curves.ANALYSIS}{folder.name}'
  statistics = {'statistics': settings['statistics']}
  config = seed.manifest['config']
  measures = {**config['measures'], key: settings['measure'] | statistics}
  return seed._replace(
    manifest={**seed.manifest, 'config': {**config, 'measures': measures}},
    series=seed.series if found is None else {**seed.series, key: found},
    arrays={**seed.arrays, key: arrays} if arrays else seed.arrays,
  )
