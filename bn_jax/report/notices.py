"""Tells what to know before reading the numbers, and where these come from."""

import functools
import json
import math
from collections.abc import Iterable, Sequence

from bn_jax.report import figures, reached
from bn_jax.report.results import conditions, curves, looks
from bn_jax.storage import run_folder

_LISTED_STEPS = 5  # of updates left out: of many, the first as examples
_LISTED_COMMANDS = 3  # a sweep has one for each run and seed


def of(runs: Sequence[curves.Run]) -> list[tuple[str, str]]:
  """Returns (headline, sentence) of each notice that these runs need."""
  return [
    *_one_seed(runs),
    *_unfinished(runs),
    *_skipped(runs),
    *_left_out(runs),
    *_recalibrated(runs),
    *_different(runs),
  ]


def _one_seed(runs):
  if all(len(run.seeds) == 1 for run in runs):
    yield (
      'One seed: an illustration.',
      'One run of each network cannot show whether a difference is more than '
      'chance; add seeds with --config.seeds=0,1,2.',
    )


def _unfinished(runs):
  parts = [
    f'{run_folder.label(run.name, seed.seed)}: {seed.manifest["status"]} at '
    f'step {curves.reached(seed)}'
    for run in runs
    for seed in run.seeds
    if seed.manifest['status'] != 'done'
  ]
  if parts:
    yield 'Not finished:', '; '.join(parts) + '.'


def _skipped(runs):
  """Yields how many updates were left out, and at which steps."""
  trained = {
    run_folder.label(run.name, seed.seed): seed.series['train']
    for run in runs
    for seed in run.seeds
    if 'train' in seed.series
  }
  parts = []
  for label, train in trained.items():
    steps = train.step[curves.skipped(train)]
    numbers = ', '.join(map(str, steps[:_LISTED_STEPS]))
    more = ' and others' * (len(steps) > _LISTED_STEPS)
    if len(steps):
      parts.append(
        f'{len(steps)} of {len(train.step)} updates of {label} were left out, '
        f'at step {numbers}{more}'
      )
  if parts:
    yield (
      'Not finite:',
      '; '.join(parts) + '. They would have made the loss, the gradient, the '
      'parameters, the statistics or the optimizer infinite or nan; means over '
      'training batches are without them.',
    )


def _left_out(runs):
  reasons = [why for run in runs for seed in run.seeds for why in seed.left_out]
  if reasons:
    yield 'Left out:', '; '.join(reasons) + '.'


def _recalibrated(runs):
  """Yields what the test set gives by running averages and by new statistics.

  Of seeds that have not gone on since.
  """
  parts, noisy = [], False
  read = curves.of_population
  for run in runs:
    value, show = 'accuracy', reached.percent
    if all(math.isnan(read(seed, value)) for seed in run.seeds):
      value, show = 'loss', '{:.3g}'.format
    if all(math.isnan(read(seed, value)) for seed in run.seeds):
      continue
    old, new = (
      curves.in_words([read(seed, value, kind) for seed in run.seeds], show)
      for kind in ('running', 'population')
    )
    parts.append(
      f'test {value} of {run.name} is {old} with the running averages of '
      f'training, and {new} with statistics of training batches taken '
      'afterwards'
    )
    noisy = noisy or curves.is_noisy(run)
  if parts:
    yield (
      'Recalibrated:',
      f'{"; ".join(parts)}.'
      + ' Running averages of a noisy network were collected with the noise, '
      'which is off in testing.' * noisy,
    )


def _different(runs):
  """Yields conditions in which the curves of a figure differ."""
  yield from _unlike('trained', runs, conditions.training)
  # The figure of accuracy draws the test set, whatever its entry is called.
  read = functools.partial(conditions.measuring, measure=looks.EVALUATION)
  yield from _unlike('measured (evaluation)', runs, read)
  for measure in figures.measures(runs):
    names = looks.names(runs, measure)
    for name in names:
      if measure == looks.EVALUATION and not curves.is_analysis(name):
        continue
      which = f'{measure}, {name}' if len(names) > 1 else measure
      read = functools.partial(conditions.measuring, measure=measure, name=name)
      runs_with_entry = looks.of(runs, measure, name).runs
      yield from _unlike(f'measured ({which})', runs_with_entry, read)


def _unlike(how, runs, read):
  different = conditions.different(runs, read)
  if different:
    yield (
      'Different conditions:',
      f'runs were not all {how} alike. {"; ".join(different)}.',
    )


def provenance(runs: Sequence[curves.Run]) -> dict[str, str]:
  """Returns device, versions, time and the like of all numbers, by name.

  Where seeds differ, all values are there.
  """
  manifests = [seed.manifest for run in runs for seed in run.seeds]
  # ISO 8601: the order of the texts is that of the times.
  times = [m['written'] for m in manifests]
  return {
    'Device': _distinct(
      f'{m["device"]["count"]} × {m["device"]["kind"]}' for m in manifests
    ),
    **_told(manifests, 'processor', 'Processor'),
    'Layout': _distinct(m['layout'] for m in manifests),
    'Precision': _distinct(
      f'training in {m["precision"]["dtype"]}, products in '
      f'{m["precision"]["training"]} precision; measures in float32, '
      f'{m["precision"]["measures"]}'
      for m in manifests
    ),
    **_lowerings(manifests),
    'Versions': _distinct(
      ', '.join(f'{name} {version}' for name, version in m['versions'].items())
      for m in manifests
    ),
    'Code': _distinct(m['git_commit'] or 'not in git' for m in manifests),
    **_told(manifests, 'command', 'Command'),
    'Seeds': _seeds(runs),
    'Written': conditions.span(min(times), max(times)),
  }


def configs(runs: Sequence[curves.Run]) -> list[tuple[str, str]]:
  """Returns (name, lines) of what runs were trained with, resolved.

  First, without a name, what all runs share; then of each the rest, if there is
  any.
  """
  texts = [
    {
      key: json.dumps(value, ensure_ascii=False)
      for key, value in conditions.flat(run.config)
    }
    for run in runs
  ]
  shared = set.intersection(*(set(text.items()) for text in texts))
  parts = [('', shared)]
  parts += [(run.name, t.items() - shared) for run, t in zip(runs, texts)]
  return [
    (name, '\n'.join(f'{key}: {value}' for key, value in sorted(items)))
    for name, items in parts
    if items
  ]


def _told(manifests: Sequence[dict], key: str, name: str) -> dict[str, str]:
  """Returns what manifests tell under a key; {} where none does."""
  values = list(dict.fromkeys(m[key] for m in manifests if m.get(key)))
  rest = len(values) - _LISTED_COMMANDS
  if rest > 0:
    values[_LISTED_COMMANDS:] = [f'and {rest} more, in manifest.json of seeds']
  return {name: '; '.join(values)} if values else {}


def _seeds(runs: Sequence[curves.Run]) -> str:
  """Returns '0, 1', or '0, 1 (a); 0 (b)' where runs differ."""
  names_of = {}
  for run in runs:
    numbers = ', '.join(str(seed.seed) for seed in run.seeds)
    names_of.setdefault(numbers, []).append(run.name)
  if len(names_of) == 1:
    return next(iter(names_of))
  return '; '.join(f'{k} ({", ".join(v)})' for k, v in names_of.items())


def _lowerings(manifests: Sequence[dict]) -> dict[str, str]:
  """Returns how convolutions were computed; {} where no manifest tells."""
  told = [m for m in manifests if 'measure_lowering' in m]
  if not told:
    return {}
  text = _distinct(
    f'{m["lowering"]} in training, {m["measure_lowering"]} in measures'
    for m in told
  )
  if any(m['lowering'] != m['measure_lowering'] for m in told):
    text += ' (the loss of a step and that of a look there differ by rounding)'
  return {'Convolutions': text}


def _distinct(values: Iterable[str]) -> str:
  return '; '.join(dict.fromkeys(values))
