"""What was measured after training, of checkpoints, beside what was before.

  seedK/analysis/NAME/settings.json         the measure, its statistics
  seedK/analysis/NAME/scalars.jsonl         lines called NAME, or
  seedK/analysis/NAME/arrays/NAME-STEP.npz

In the report it is one measure more, whose key is 'analysis/NAME'.
"""

from bn_jax import errors
from bn_jax.report.results import curves, series
from bn_jax.storage import records, run_folder


def added(seed: curves.Seed, folder: run_folder.RunFolder) -> curves.Seed:
  """The seed with the analyses of its folder, in the order of their names.

  One that has recorded nothing yet is left out, and so is one that cannot be
  read: the seed says so.
  """
  for analysis in folder.analyses():
    try:
      seed = _with(seed, analysis)
    except errors.StorageError as error:
      seed = seed._replace(left_out=(*seed.left_out, str(error)))
  return seed


def _with(
  seed: curves.Seed, analysis: run_folder.AnalysisFolder
) -> curves.Seed:
  """The seed with one analysis more.

  Raises:
    StorageError: it was changed after it was written.
  """
  settings, name = analysis.settings(), analysis.name
  found = series.read(analysis.scalars).get(name)
  arrays = records.read_arrays(analysis.arrays, name)
  if settings is None or (found is None and not arrays):
    return seed
  key = f'{curves.ANALYSIS}{name}'
  statistics = {'statistics': settings['statistics']}
  config = seed.manifest['config']
  measures = {**config['measures'], key: settings['measure'] | statistics}
  pages = dict(seed.manifest.get('measures') or {})
  if settings.get('page'):
    pages.setdefault(settings['measure']['name'], settings['page'])
  return seed._replace(
    manifest={
      **seed.manifest,
      'config': {**config, 'measures': measures},
      'measures': pages,
    },
    series=seed.series if found is None else {**seed.series, key: found},
    arrays={**seed.arrays, key: arrays} if arrays else seed.arrays,
  )
