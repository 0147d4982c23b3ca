"""Checks that the records of an analysis are as they were written.

  analysis/NAME/settings.json    run, seed, and `records`: of each step the
                                 digest, and that of the checkpoint measured

It is the part of `chain` for what is measured after training.
"""

import itertools

from bn_jax import errors
from bn_jax.storage import array_files, chain, files, records
from bn_jax.storage.analysis_folder import AnalysisFolder
from bn_jax.storage.run_folder import RunFolder


def add_digest(analysis: AnalysisFolder, folder: RunFolder, step: int) -> None:
  """Adds to an analysis the digest of what was just recorded at a step."""
  settings = analysis.settings()
  found = _digests(analysis)
  before = settings.get('records')
  if before is None:  # of an earlier version
    before = {
      str(k): {'digest': digest, 'checkpoint': None}
      for k, digest in found.items()
    }
  one = {
    'digest': found[step],
    'checkpoint': chain.state_digest(folder.checkpoints, step),
  }
  analysis.write_settings({**settings, 'records': {**before, str(step): one}})


def check(
  analysis: AnalysisFolder, folder: RunFolder, *, goes_on: bool = False
) -> set[int]:
  """Returns the steps of an analysis whose records are as they were written.

  Args:
    goes_on: whether what was lost is no error, as it is measured again.

  Raises:
    StorageError: a record was changed or is of another checkpoint; or one was
      lost, or has no digest as the process was killed.
  """
  settings = analysis.settings() or {}
  owner = chain.other_owner(settings, folder)
  if owner is not None:
    raise errors.StorageError(f'{analysis.path} {owner}')
  found = _digests(analysis)
  wanted = settings.get('records')
  if wanted is None:
    return set(found)
  whole = set()
  for step in map(int, wanted):
    if step not in found:
      continue
    if found[step] != tuple(wanted[str(step)]['digest']):
      raise errors.StorageError(
        f'{analysis.path}: its record of step {step} is not what was written; '
        'restore it, or remove the folder and measure again'
      )
    measured, now = (
      wanted[str(step)]['checkpoint'],
      chain.state_digest(folder.checkpoints, step),
    )
    if measured and now and measured != now:
      raise errors.StorageError(
        f'{analysis.path}: step {step} was measured at another checkpoint than '
        f'{folder.checkpoints / str(step)}; restore that, or give another '
        '--name'
      )
    whole.add(step)
  odd = sorted((set(found) | set(map(int, wanted))) - whole)
  if odd and not goes_on:
    raise errors.StorageError(
      f'{analysis.path} is not complete at step {odd[0]}: the same `analyze` '
      'measures it again'
    )
  return whole


def _digests(analysis: AnalysisFolder) -> dict[int, files.Digest]:
  """Returns step -> digest of what was recorded, as a line or a file.

  Raises:
    StorageError: a file cannot be read, a line is no record, or a step is there
      twice.
  """
  digests = {}
  lines = (
    (record.step, line)
    for line, record in records.parsed_lines(analysis.scalars)
  )
  whole_files = (
    (step, files.read(path))
    for step, path in array_files.files_of(analysis.arrays)
  )
  for step, content in itertools.chain(lines, whole_files):
    if step in digests:
      raise errors.StorageError(
        f'{analysis.path} has two records of step {step}: it was changed after '
        'it was written; restore it'
      )
    digests[step] = files.digest_of(content)
  return digests
