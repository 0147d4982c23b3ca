"""On what the curves of runs rest: data, network, statistics, precision.

Each condition is a key and a text, read from a seed, for those of one run may
differ too: from what its records say of themselves, and else from its manifest.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bn_jax.report.results import curves
from bn_jax.storage import run_folder

Read = Callable[[curves.Seed], str | None]  # None: it has no say in this
_FEW = 6  # names that are listed

# Of a config: what training rests on, beside the norm's name, the optimizer and
# the learning rate, which the summary shows.
_TRAINING = (
  'data', 'loss', 'model', 'norm', 'init_from', 'batch_size',
  'micro_batch_size',
)  # fmt: skip
# Of a measure: what changes no number (chunks: but for rounding).
_NOT_LOOKING = ('name', 'spread', 'chunk_size', 'per_layer', 'curvature')


def training(seed: curves.Seed) -> dict[str, str]:
  """What the curves of training rest on, by key."""
  config = seed.manifest['config']
  found = {}
  for key in (key for key in _TRAINING if key in config):
    section = config[key]
    if not isinstance(section, dict):
      found[key] = _text(section)
      continue
    found |= {f'{key}.{name}': _text(value) for name, value in section.items()}
  found.pop('norm.name', None)
  precision = seed.manifest['precision']
  return found | {
    'compute_dtype': precision['dtype'],
    'matmul_precision': precision['training'],
  }


def looking(
  seed: curves.Seed, kind: str, key: str | None = None
) -> dict[str, str]:
  """What a measure rests on, by key; empty where there is none.

  Args:
    seed: whose.
    kind: the measure's name.
    key: its own; None is the first of this kind that training has.
  """
  config = seed.manifest['config']
  for name, section in config['measures'].items():
    wanted = not curves.is_analysis(name) if key is None else key == name
    if section['name'] != kind or not wanted:
      continue
    found = {'precision': seed.manifest['precision']['measures'], **section}
    examples = _examples(section['data'], config['batch_size'])
    if examples is not None:
      found['examples'] = examples
    found = {k: _text(value) for k, value in found.items()}
    found |= _recorded(seed, name)
    return {k: said for k, said in found.items() if k not in _NOT_LOOKING}
  return {}


def of(kind: str, condition: str, key: str | None = None) -> Read:
  """Reads one condition of a measure."""
  return lambda seed: looking(seed, kind, key).get(condition)


def network(seed: curves.Seed) -> str:
  """'vgg11 of 0.25 × width'."""
  model = seed.manifest['config']['model']
  width = f' of {model["width"]:g} × width' if 'width' in model else ''
  return f'{model["name"]}{width}'


def data(seed: curves.Seed) -> str:
  """The name of the dataset."""
  return seed.manifest['config']['data']['name']


def batch_size(seed: curves.Seed) -> str:
  """Examples of a training batch."""
  return f'{seed.manifest["config"]["batch_size"]}'


def loss(seed: curves.Seed) -> str | None:
  """'squared_error (factor 1, reduction sum)'; None where it is not told."""
  section = dict(seed.manifest['config'].get('loss') or {})
  name = section.pop('name', None)
  said = ', '.join(f'{key} {_text(value)}' for key, value in section.items())
  return f'{name} ({said})' if said else name


def counted(number: int, what: str) -> str:
  """'1 seed', '3 seeds'."""
  return f'{number} {what}{"" if number == 1 else "s"}'


def span(first: Any, last: Any) -> str:
  """'3 to 7', or '3' where both are."""
  return ' to '.join(map(str, dict.fromkeys((first, last))))


def by_value(runs: Sequence[curves.Run], read: Read) -> dict[str, list[str]]:
  """What is read -> the runs that have it, or the seeds where these differ."""
  found = {}
  for run in runs:
    values = {
      run_folder.label(run.name, seed.seed): value
      for seed in run.seeds
      if (value := read(seed)) is not None
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
  runs: Sequence[curves.Run], read: Callable[[curves.Seed], Mapping[str, str]]
) -> list[str]:
  """'statistics: batch (a) or running (b)' for each key that differs.

  A key that a run lacks is no difference: one without BN has no group size.
  """
  keys = dict.fromkeys(
    key for run in runs for seed in run.seeds for key in read(seed)
  )
  found = {
    key: by_value(runs, lambda seed, key=key: read(seed).get(key))
    for key in keys
  }
  return [
    f'{key}: {_named(values)}'
    for key, values in found.items()
    if len(values) > 1
  ]


def _named(found: Mapping[str, Sequence[str]]) -> str:
  return ' or '.join(
    f'{value} ({_listed(names)})' for value, names in found.items()
  )


def _listed(names: Sequence[str]) -> str:
  more = len(names) - _FEW
  return ', '.join(names[:_FEW]) + (f' and {more} more' if more > 0 else '')


def _examples(where: str, batch_size: int) -> int | None:
  """How many a measure's data are, if they say so."""
  if where == 'current_batch':
    return batch_size
  count = where.partition(':')[2]
  return int(count) if count.isdecimal() else None


def _recorded(seed: curves.Seed, name: str) -> dict[str, str]:
  """What the records of a measure say of themselves, all that occurs."""
  series = seed.series.get(name)
  taken = list(series.conditions) if series is not None else []
  looks = seed.arrays.get(name, ())
  taken += [look.conditions for look in looks if look.conditions]
  found = {}
  for key, value in (item for one in taken for item in one.items()):
    found.setdefault(key, {})[_text(value)] = None
  return {key: ', then '.join(values) for key, values in found.items()}


def _text(value: Any) -> str:
  if isinstance(value, list | tuple):
    return f'{{{", ".join(map(_text, value))}}}'
  return f'{value:g}' if isinstance(value, float) else f'{value}'
