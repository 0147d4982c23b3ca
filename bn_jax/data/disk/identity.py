"""Says on which of a user's own data a run was trained, for its manifest.

A set of TFDS has a name and a version; a folder may change under its name, and
so may what a function returns.
"""

from collections.abc import Mapping
from typing import Any

from bn_jax import errors
from bn_jax.data.disk import held_out, sets

_NAMED = 1000  # class names that a manifest has


def record(dataset: sets.Set, share: float | None, seed: int) -> dict[str, Any]:
  """Returns what a manifest says of a set, as JSON values.

  The digest is of the files of a folder, see `folders.Folder.digest`, of the
  numbers in arrays, or of version and shards of a set of TFDS.

  Args:
    share, seed: see `held_out.of`.
  """
  base = getattr(dataset, 'base', dataset)
  facts = {
    'name': base.name,
    'splits': dict(dataset.splits),
    'classes': list(dataset.class_names[:_NAMED]),
    'digest': base.digest(),
  }
  if dataset is not base:
    facts['held_out'] = {
      'share': held_out.SHARE if share is None else share,
      'seed': seed,
      'examples': dataset.splits['test'],
    }
  return facts


def change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
  """Returns a sentence on data that are others than they were, or None.

  Args:
    old, new: of `record`; {} where there is none. An older one may lack the
      digest.
  """
  if not old or not new:
    return None
  digests = old.get('digest'), new.get('digest')
  has_changed = None not in digests and digests[0] != digests[1]
  if old['splits'] == new['splits'] and not has_changed:
    return None
  none = dict.fromkeys((*old['splits'], *new['splits']), 0)
  had, has = none | old['splits'], none | new['splits']
  counts = [
    f'{split} had {had[split]:,} examples, has {has[split]:,}'
    for split in none
    if had[split] != has[split]
  ]
  what = '; '.join([f'the data {new["name"]} have changed', *counts])
  if not has_changed:
    return what
  return f'{what} ({errors.digests(*digests)})'
