"""Tells on what the curves of runs rest: data, network, statistics, precision.

Each condition is a key and a text of one seed, since seeds of a run may differ:
from its records, if these have the key, else from its manifest.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bn_jax.report.results import curves, optimizers
from bn_jax.storage import run_folder

Read = Callable[[curves.Seed], str | None]  # None: not a condition of the seed
# Of runs, and of values: more make a notice longer than it is useful.
_LISTED_NAMES, _LISTED_VALUES = 6, 3

# Keys of a config on which training rests.
_TRAINING = (
  'data', 'loss', 'model', 'norm', 'optimizer', 'schedule', 'init_from',
  'batch_size', 'micro_batch_size',
)  # fmt: skip
# Further keys, which older runs lack -> what those did.
_UNCHANGED = {
  'clip_norm': None, 'adaptive_clip': None, 'rates': {}, 'trainable': 'all',
  'ema': None,
}  # fmt: skip
_RATE = 'schedule.learning_rate'
_IN_SUMMARY = ('norm.name', _RATE)  # what it shows
# Of a measure: what changes no number (chunks: but for rounding).
_NOT_MEASURING = ('name', 'spread', 'chunk_size', 'per_layer', 'curvature')


def flat(
  section: Mapping[str, Any], above: str = ''
) -> Iterator[tuple[str, Any]]:
  """Yields ('norm.epsilon', 1e-5) of a config: each key that is no section."""
  for key, value in section.items():
    if isinstance(value, Mapping) and value:
      yield from flat(value, f'{above}{key}.')
    else:
      yield f'{above}{key}', value


def training(seed: curves.Seed) -> dict[str, str]:
  """Returns what the curves of training rest on, by key."""
  config = seed.config
  texts = {
    name: shown(value)
    for key in _TRAINING
    if key in config
    for name, value in _keywords(key, config[key]).items()
    if name not in _IN_SUMMARY
  }
  changes = {**_UNCHANGED, **config}
  texts |= {key: shown(changes[key]) for key in _UNCHANGED}
  if 'lowering' in seed.manifest:  # of which the config may say 'auto'
    texts['model.lowering'] = seed.manifest['lowering']
  precision = seed.manifest['precision']
  return texts | {
    'compute_dtype': precision['dtype'],
    'matmul_precision': precision['training'],
  }


def _keywords(key: str, section: Any) -> dict[str, Any]:
  """Returns 'norm.epsilon' -> value of a section, 'batch_size' -> of a key."""
  if not isinstance(section, dict):
    return {key: section}
  return {f'{key}.{name}': value for name, value in section.items()}


def settings(seed: curves.Seed) -> dict[str, Any]:
  """Returns what a seed was trained with, as key -> value of its config.

  Keys are 'batch_size', or 'norm.name' of a section with a constructor; with
  the number of parameters. Without what may change while a run is trained, such
  as the number of steps.
  """
  values = {'parameters': seed.manifest['parameters']}
  for key, section in {**_UNCHANGED, **seed.config}.items():
    if key in run_folder.MAY_CHANGE:
      continue
    has_keywords = isinstance(section, dict) and 'name' in section
    values |= _keywords(key, section) if has_keywords else {key: section}
  config = seed.config
  rate = optimizers.rate(config)
  return values | {
    'norm.name': norm(seed),
    'optimizer.name': (config.get('optimizer') or {}).get('name') or 'sgd',
    # A user's schedule may state none.
    _RATE: config['schedule']['name'] if rate is None else rate,
  }


def varied(runs: Sequence[curves.Run]) -> list[str]:
  """Returns the keys of `settings` in which runs differ.

  Keywords of a constructor are compared among those that have the same one:
  beside another norm another epsilon tells nothing more. A key that a run lacks
  is no difference.
  """
  values_of = {}
  for seed in (seed for run in runs for seed in run.seeds):
    of_seed = settings(seed)
    for key, value in of_seed.items():
      constructor = of_seed.get(f'{key.partition(".")[0]}.name')
      alone = key == _RATE or key.endswith('.name')
      values = values_of.setdefault(key, {})
      values.setdefault(None if alone else constructor, set()).add(shown(value))
  return [
    key
    for key, by_constructor in values_of.items()
    if any(len(values) > 1 for values in by_constructor.values())
  ]


def measuring(
  seed: curves.Seed, measure: str, name: str | None = None
) -> dict[str, str]:
  """Returns what an entry of a measure rests on, by key; {} without an entry.

  If `name` is None, it is the first entry of this measure in training.
  """
  config = seed.config
  for entry, section in config['measures'].items():
    wanted = not curves.is_analysis(entry) if name is None else name == entry
    if section['name'] != measure or not wanted:
      continue
    values = {'precision': seed.manifest['precision']['measures'], **section}
    examples = _examples(section['data'], config['batch_size'])
    if examples is not None:
      values['examples'] = examples
    texts = {key: shown(value) for key, value in values.items()}
    texts |= _recorded(seed, entry)
    return {k: text for k, text in texts.items() if k not in _NOT_MEASURING}
  return {}


def of(measure: str, condition: str, name: str | None = None) -> Read:
  """Returns a reader of one condition of an entry."""
  return lambda seed: measuring(seed, measure, name).get(condition)


def data_of(measure: str, name: str) -> Read:
  """Returns a reader of which examples an entry looks at, in words.

  'the current training batch of 128 examples', '256 of the first 1024 examples
  of the test set', where the whole 1024 go through the network.
  """

  def read(seed: curves.Seed) -> str:
    texts = measuring(seed, measure, name)
    source, examples = texts['data'], texts.get('examples')
    if source == 'current_batch':
      size = batch_size(seed)
      some = f'{examples} of ' * (examples != size)
      return f'{some}the current training batch of {size} examples'
    split, _, count = source.partition(':')
    of_set = f'the {"training" if split == "train" else split} set'
    if count:
      some = f'{examples} of ' * (examples not in (None, count))
      return f'{some}the first {count} examples of {of_set}'
    return f'{of_set}, {examples} examples' if examples else of_set

  return read


def network(seed: curves.Seed) -> str:
  """Returns 'vgg11 of 0.25 × width', or 'vit_tiny of width 48'."""
  model = seed.config['model']
  if 'width' not in model:
    return model['name']
  # A transformer's width is its channels, and no factor of a paper's.
  form = 'width {:g}' if model['name'] == 'vit_tiny' else '{:g} × width'
  return f'{model["name"]} of {form.format(model["width"])}'


def norm(seed: curves.Seed) -> str:
  """Returns the name of the norm, or "the network's own"."""
  norm_of_config = seed.config['norm']['name']
  return seed.manifest.get('normalization') or norm_of_config


def data(seed: curves.Seed) -> str:
  """Returns the name of the dataset."""
  return seed.config['data']['name']


def batch_size(seed: curves.Seed) -> str:
  """Returns the number of examples of a training batch."""
  return f'{seed.config["batch_size"]}'


def loss(seed: curves.Seed) -> str | None:
  """Returns 'squared_error (factor 1, reduction sum)'; None where untold."""
  section = dict(seed.config.get('loss') or {})
  name = section.pop('name', None)
  keywords = ', '.join(
    f'{key} {shown(value)}' for key, value in section.items()
  )
  return f'{name} ({keywords})' if keywords else name


def counted(number: int, what: str) -> str:
  """Returns '1 seed', '3 seeds'."""
  return f'{number} {what}{"" if number == 1 else "s"}'


def span(first: Any, last: Any) -> str:
  """Returns '3 to 7', or '3' where both are."""
  return ' to '.join(map(str, dict.fromkeys((first, last))))


def listed(texts: Iterable[str]) -> str:
  """Returns 'a, b and c'."""
  *first, last = texts
  return f'{", ".join(first)} and {last}' if first else last


def by_value(runs: Sequence[curves.Run], read: Read) -> dict[str, list[str]]:
  """Returns value -> the runs that have it, or the seeds where these differ."""
  names_of = {}
  for run in runs:
    values = {
      run_folder.label(run.name, seed.seed): value
      for seed in run.seeds
      if (value := read(seed)) is not None
    }
    if len(set(values.values())) == 1:
      values = {run.name: next(iter(values.values()))}
    for name, value in values.items():
      names_of.setdefault(value, []).append(name)
  return names_of


def distinct(runs: Sequence[curves.Run], read: Read) -> str:
  """Returns 'batch', or 'batch or running'."""
  return ' or '.join(by_value(runs, read))


def by_run(runs: Sequence[curves.Run], read: Read) -> str:
  """Returns 'batch', or 'batch (a, b) or running (c)' where runs differ."""
  names_of = by_value(runs, read)
  return next(iter(names_of)) if len(names_of) == 1 else _named(names_of)


def different(
  runs: Sequence[curves.Run], read: Callable[[curves.Seed], Mapping[str, str]]
) -> list[str]:
  """Returns 'statistics: batch (a) or running (b)' for each key that differs.

  A key that a run lacks is no difference: without BN there is no group size.
  """
  keys = dict.fromkeys(
    key for run in runs for seed in run.seeds for key in read(seed)
  )
  of = lambda key: by_value(runs, lambda seed: read(seed).get(key))
  return [
    f'{key}: {_named(values, _LISTED_VALUES)}'
    for key in keys
    if len(values := of(key)) > 1
  ]


def _named(
  names_of: Mapping[str, Sequence[str]], most: int | None = None
) -> str:
  parts = [
    f'{value} ({_listed(names, _LISTED_NAMES, ", ")})'
    for value, names in names_of.items()
  ]
  return _listed(parts, len(parts) if most is None else most, ' or ')


def _listed(names: Sequence[str], most: int, separator: str) -> str:
  more = len(names) - most
  listed = separator.join(names[:most])
  return listed + (f' and {more} more' if more > 0 else '')


def _examples(source: str, batch: int) -> int | None:
  """Returns how many examples `data` of a measure are, if its text tells."""
  if source == 'current_batch':
    return batch
  count = source.partition(':')[2]
  return int(count) if count.isdecimal() else None


def _recorded(seed: curves.Seed, name: str) -> dict[str, str]:
  """Returns the conditions in an entry's records: 'batch, then running'."""
  series = seed.series.get(name)
  conditions = list(series.conditions) if series is not None else []
  looks = seed.arrays.get(name, ())
  conditions += [look.conditions for look in looks if look.conditions]
  values_of = {}
  for key, value in (item for texts in conditions for item in texts.items()):
    values_of.setdefault(key, {})[shown(value)] = None
  return {key: ', then '.join(values) for key, values in values_of.items()}


def shown(value: Any) -> str:
  """Returns a config's value in words: '{0.5, 1}', '0.1', 'batch'."""
  if isinstance(value, list | tuple):
    return f'{{{", ".join(map(shown, value))}}}'
  return f'{value:g}' if isinstance(value, float) else f'{value}'
