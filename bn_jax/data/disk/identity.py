"""Says on which of a user's own data a run was trained, for its manifest.

Sets of TFDS have a name and a version; a folder may change under its name.
"""

from collections.abc import Mapping
from typing import Any

from bn_jax.data.disk import held_out, sets

_NAMED = 1000  # class names that a manifest has
_SHORT = 12  # characters of a digest in a message


def record(dataset: sets.Set, share: float | None, seed: int) -> dict[str, Any]:
  """Returns what a manifest says of a set, as JSON values.

  The digest is of the names, sizes and labels of the files in a folder, which
  are not read, or of the numbers in arrays.

  Args:
    share, seed: see `held_out.of`.
  """
  base = getattr(dataset, 'base', dataset)
  facts = {
    'name': base.name,
    'splits': dict(dataset.splits),
    'classes': list(dataset.class_names[:_NAMED]),
  }
  if hasattr(base, 'digest'):
    facts['digest'] = base.digest()
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
    old, new: of `record`; {} of a set of TFDS.
  """
  before, now = old.get('digest'), new.get('digest')
  if before == now or before is None or now is None:
    return None
  sizes = {
    split: (n, new['splits'].get(split)) for split, n in old['splits'].items()
  }
  counts = [
    f'{split} had {was:,} examples, has {n or 0:,}'
    for split, (was, n) in sizes.items()
    if was != n
  ]
  what = '; '.join([f'the data {new["name"]} have changed', *counts])
  return f'{what} (digest {before[:_SHORT]}... before, {now[:_SHORT]}... now)'
