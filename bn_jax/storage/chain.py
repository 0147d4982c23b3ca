"""Checks that the files of a run belong together, and are as they were written.

Each names what it belongs to, and the digests of what came before it:

  manifest.json              run, seed, config; when training has stopped,
                             `records`: the digests of all records
  checkpoints/STEP/          run, seed, step, config; `records` before STEP
  population/STEP/           the same; `source`: the checkpoint it is made from
  analysis/NAME/             see `analysis_chain`

So none is used in the place of another, or after a change, without a word: not
a copied folder, a lost line, another seed's checkpoint. What was recorded since
the newest checkpoint of a run that was killed has no digest yet; it is cut off
when the run goes on. Runs of earlier versions lack some of these; what they
have is compared. Digests show accidents: they do not stop people who can write
there.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from bn_jax import errors
from bn_jax.storage import array_files, files, run_folder
from bn_jax.storage import digests as digests_lib
from bn_jax.storage.run_folder import RunFolder

_ABSENT = (0, '')  # the digest of a file that is not there


def on_disk(folder: RunFolder) -> dict[str, Any]:
  """Returns the digests of all records of a run, in types of JSON."""
  return {
    'scalars': _beginning(folder.scalars),
    'arrays': array_files.digests(folder.arrays),
  }


def other_owner(about: Mapping[str, Any], folder: RunFolder) -> str | None:
  """Says which run's a checkpoint or an analysis is, if not that of a folder.

  Args:
    about: its `run` and `seed`, which those of earlier versions lack.
  """
  ours = {'run': folder.run, 'seed': folder.seed}
  theirs = {**ours, **{key: about[key] for key in ours if key in about}}
  if theirs == ours:
    return None
  return f'is of run {theirs["run"]!r} with seed {theirs["seed"]}'


def check(folder: RunFolder) -> None:
  """Checks config, newest checkpoint and records of a run that has begun.

  A manifest that is missing is written again when the run goes on.

  Raises:
    CheckpointError: the checkpoint is another run's.
    StorageError: records are lost or were changed, or the manifest was.
  """
  about = check_owner(folder)
  manifest = folder.manifest or {}
  try:
    if manifest.get('records') is not None:
      check_records(folder, manifest['records'], all_of_them=True)
    elif about is not None:
      check_records(folder, about.get('records'))
  except errors.StorageError:
    # A run that goes on meanwhile has other records than it had.
    if (folder.again().manifest or {}) == manifest:
      raise


def check_restorable(folder: RunFolder) -> None:
  """Checks that a run that is to go on has a checkpoint that is whole.

  Raises:
    CheckpointError: all are damaged, or there are records and none.
  """
  tried = {}
  # Listed anew each time: another process may train, and remove one meanwhile.
  listed = lambda: digests_lib.steps(folder.checkpoints)
  while untried := [step for step in listed() if step not in tried]:
    try:
      facts = digests_lib.read_of(folder.checkpoints, untried[-1])
      digests_lib.verify(folder.checkpoints / str(untried[-1]), facts)
      return
    except digests_lib.Damaged as error:
      tried[untried[-1]] = str(error)
  damaged = {step: why for step, why in tried.items() if step in listed()}
  if damaged:
    raise digests_lib.none_is_whole(folder.checkpoints, damaged)
  if folder.has_records:
    raise errors.CheckpointError(
      f'{folder.path} holds records and no checkpoint: it was removed; '
      'restore it, or give another --workdir to begin again'
    )


def check_owner(folder: RunFolder) -> Mapping[str, Any] | None:
  """Checks that the manifest and the newest checkpoint are of one run.

  Returns:
    What the checkpoint says beside its arrays; None where there is none.

  Raises:
    CheckpointError: the checkpoint is another run's.
    StorageError: the manifest is of another experiment, or was changed.
  """
  config = folder.manifest['config'] if folder.manifest else {}
  # A folder that was moved out of its experiment is compared with none.
  above = folder.path.absolute().parent
  if above.name == folder.run:
    experiment = run_folder.read_experiment(above.parent) or {'runs': {}}
    key = _conflict(experiment['runs'].get(folder.run) or {}, config)
    if key is not None:
      raise errors.StorageError(
        f'{folder.manifest_file} has another {key} than experiment.json: they '
        'are of two experiments; restore the folder from a copy'
      )
  about = _newest_about(folder)
  if about is None:
    return None
  owner = other_owner(about, folder)
  if owner is not None:
    raise errors.CheckpointError(f'{folder.checkpoints} {owner}')
  key = _conflict(about.get('config') or {}, config)
  if key is not None:
    raise errors.CheckpointError(
      f'{folder.checkpoints} has another {key} than {folder.manifest_file}: '
      'they are of two experiments; restore the folder from a copy'
    )
  return about


def _conflict(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
  """Returns the first key in which two configs of one run cannot differ."""
  return _different(
    'config', *(
      {k: v for k, v in config.items() if k not in run_folder.MAY_CHANGE}
      for config in (one, other)
    ),
  )  # fmt: skip


def _different(key: str, one: Any, other: Any) -> str | None:
  """Returns the first key with two values; what only one has is younger."""
  if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
    return key if one != other else None
  keys = (
    _different(f'{key}.{name}', one[name], other[name])
    for name in one
    if name in other
  )
  return next(filter(None, keys), None)


def check_records(
  folder: RunFolder,
  digests: Mapping[str, Any] | None,
  *,
  all_of_them: bool = False,
) -> None:
  """Compares the records of a run with their digests.

  Args:
    digests: as of `on_disk`, of all or earlier records; None of an earlier
      version of this code.
    all_of_them: whether there must be no further records.

  Raises:
    StorageError: records are lost or were changed.
  """
  if digests is None:
    return
  size, _ = wanted = tuple(digests['scalars'])
  found = _beginning(folder.scalars, None if all_of_them else size)
  if found != wanted:
    raise _changed(folder, folder.scalars, found[0], size)
  stored = array_files.digests(folder.arrays)
  names = stored if all_of_them else {}
  for name in sorted({*digests['arrays'], *names}):
    size, _ = wanted = tuple(digests['arrays'].get(name) or _ABSENT)
    found = stored.get(name) or _ABSENT
    if found != wanted:
      raise _changed(folder, folder.arrays / name, found[0], size)


def state_digest(checkpoints: pathlib.Path, step: int) -> str | None:
  """Returns the digest of the arrays in the checkpoint of a step.

  None where there is none of this step, or it is damaged or without a digest.
  """
  try:
    return digests_lib.read_of(checkpoints, step).get('state')
  except (digests_lib.Damaged, errors.CheckpointError):
    return None


def population(folder: RunFolder) -> dict[str, Any] | None:
  """Returns the content of population.json, None without such a file.

  Raises:
    StorageError: it was lost or changed, or is not of the checkpoint beside it.
  """
  facts = folder.read_population()
  if facts is None:
    if not folder.population.exists():
      return None
    raise errors.StorageError(
      f'{folder.population_file} is missing; make it anew: python -m bn_jax '
      f'recalibrate {folder.path}'
    )
  owner, state = other_owner(facts, folder), facts.get('state')
  if owner is not None:
    raise errors.StorageError(f'{folder.population_file} {owner}')
  if state and state != state_digest(folder.population, facts['step']):
    raise errors.StorageError(
      f'{folder.population_file} is of another checkpoint than '
      f'{folder.population}; make both anew: python -m bn_jax recalibrate '
      f'{folder.path}'
    )
  return facts


def _newest_about(folder: RunFolder) -> dict[str, Any] | None:
  """Returns what the newest checkpoint that says something says; or None."""
  for step in reversed(digests_lib.steps(folder.checkpoints)):
    try:
      return digests_lib.read_of(folder.checkpoints, step)['about']
    except (digests_lib.Damaged, errors.CheckpointError):
      continue  # `checkpoint` says so where it is used
  return None


def _changed(folder, path, size: int, wanted: int) -> errors.StorageError:
  """Returns the refusal of a file of records."""
  what = f'has {size:,} bytes, {wanted:,} were written'
  if size == wanted:
    what = 'is not what was written'
  return errors.StorageError(
    f'{path} {what}: records of {folder.label} were lost or changed; restore '
    'the folder from a copy, or train again in another --workdir'
  )


def _beginning(path: pathlib.Path, size: int | None = None) -> files.Digest:
  """Returns the digest of a file's first `size` bytes, or of all."""
  return files.digest_of(files.read(path)[:size] if path.exists() else b'')
