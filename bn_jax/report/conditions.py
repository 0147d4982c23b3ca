"""On what the curves of runs rest: data, network, statistics, precision.

Each condition is a key and a text, read from the manifest of a seed, for seeds
of one run may differ too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bn_jax.report import curves

Manifest = Mapping[str, Any]
Read = Callable[[Manifest], str | None]  # None: it has no say in this

# Of a config: what training rests on, beside the norm's name, the optimizer and
# the learning rate, which the summary shows.
_TRAINING = (
  'data', 'loss', 'model', 'norm', 'init_from', 'batch_size',
  'micro_batch_size',
)  # fmt: skip
# Of a measure: what changes no number.
_NOT_LOOKING = ('name', 'spread')


def training(manifest: Manifest) -> dict[str, str]:
  """What the curves of training rest on, by key."""
  config = manifest['config']
  found = {}
  for key in (key for key in _TRAINING if key in config):
    section = config[key]
    if not isinstance(section, dict):
      found[key] = _text(section)
      continue
    found |= {f'{key}.{name}': _text(value) for name, value in section.items()}
  found.pop('norm.name', None)
  precision = manifest['precision']
  return found | {
    'compute_dtype': precision['dtype'],
    'matmul_precision': precision['training'],
  }


def looking(manifest: Manifest, kind: str) -> dict[str, str]:
  """What the first measure of a kind rests on, by key; empty for none."""
  for section in manifest['config']['measures'].values():
    if section['name'] == kind:
      found = {
        key: _text(value)
        for key, value in section.items()
        if key not in _NOT_LOOKING
      }
      return found | {'precision': manifest['precision']['measures']}
  return {}


def of(kind: str, key: str) -> Read:
  """Reads one condition of the first measure of a kind."""
  return lambda manifest: looking(manifest, kind).get(key)


def network(manifest: Manifest) -> str:
  """'vgg11 of 0.25 × width'."""
  model = manifest['config']['model']
  width = f' of {model["width"]:g} × width' if 'width' in model else ''
  return f'{model["name"]}{width}'


def data(manifest: Manifest) -> str:
  """The name of the dataset."""
  return manifest['config']['data']['name']


def batch_size(manifest: Manifest) -> str:
  """Examples of a training batch."""
  return f'{manifest["config"]["batch_size"]}'


def loss(manifest: Manifest) -> str | None:
  """'squared_error (factor 1, reduction sum)'; None where it is not told."""
  section = dict(manifest['config'].get('loss') or {})
  name = section.pop('name', None)
  said = ', '.join(f'{key} {_text(value)}' for key, value in section.items())
  return f'{name} ({said})' if said else name


def by_value(runs: Sequence[curves.Run], read: Read) -> dict[str, list[str]]:
  """What is read -> the runs that have it, or the seeds where these differ."""
  found = {}
  for run in runs:
    values = {
      f'{run.name}/seed{seed.seed}': value
      for seed in run.seeds
      if (value := read(seed.manifest)) is not None
    }
    if len(set(values.values())) == 1:
      values = {run.name: next(iter(values.values()))}
    for name, value in values.items():
      found.setdefault(value, []).append(name)
  return found


def distinct(runs: Sequence[curves.Run], read: Read) -> str:
  """'batch', or 'batch or running'."""
  return ' or '.join(by_value(runs, read))


def said(runs: Sequence[curves.Run], read: Read) -> str:
  """'batch', or 'batch (a, b) or running (c)' where the runs differ."""
  found = by_value(runs, read)
  return next(iter(found)) if len(found) == 1 else _named(found)


def different(
  runs: Sequence[curves.Run], read: Callable[[Manifest], Mapping[str, str]]
) -> list[str]:
  """'statistics: batch (a) or running (b)' for each key that differs.

  A key that a run lacks is no difference: one without BN has no group size.
  """
  keys = dict.fromkeys(
    key for run in runs for seed in run.seeds for key in read(seed.manifest)
  )
  found = {
    key: by_value(runs, lambda manifest, key=key: read(manifest).get(key))
    for key in keys
  }
  return [
    f'{key}: {_named(values)}'
    for key, values in found.items()
    if len(values) > 1
  ]


def _named(found: Mapping[str, Sequence[str]]) -> str:
  return ' or '.join(
    f'{value} ({", ".join(names)})' for value, names in found.items()
  )


def _text(value: Any) -> str:
  if isinstance(value, list | tuple):
    return f'{{{", ".join(map(_text, value))}}}'
  return f'{value:g}' if isinstance(value, float) else f'{value}'
