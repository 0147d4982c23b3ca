"""What a reader must know before reading numbers, and where these come from."""

import functools
from collections.abc import Iterable, Sequence

from bn_jax.report import figures
from bn_jax.report.results import conditions, curves, looks
from bn_jax.storage import run_folder

_FEW = 5  # steps that are listed


def of(runs: Sequence[curves.Run]) -> list[tuple[str, str]]:
  """(headline, sentence) of all that applies to these runs."""
  return [
    *_one_seed(runs),
    *_unfinished(runs),
    *_skipped(runs),
    *_left_out(runs),
    *_different(runs),
  ]


def _one_seed(runs):
  if max(len(run.seeds) for run in runs) == 1:
    yield (
      'An illustration:',
      'one seed. Whether a difference is more than chance, one run of each '
      'network cannot say; add seeds with --config.seeds=0,1,2.',
    )


def _unfinished(runs):
  said = [
    f'{run_folder.label(run.name, seed.seed)}: {seed.manifest["status"]} at '
    f'step {curves.reached(seed)}'
    for run in runs
    for seed in run.seeds
    if seed.manifest['status'] != 'done'
  ]
  if said:
    yield 'Not finished:', '; '.join(said) + '.'


def _skipped(runs):
  """Updates that never entered the parameters."""
  said = []
  for run in runs:
    for seed in run.seeds:
      train = seed.series.get('train')
      if train is None:
        continue
      steps = [int(t) for t in train.step[curves.skipped(train)]]
      if steps:
        listed = ', '.join(map(str, steps[:_FEW]))
        more = ' and others' if len(steps) > _FEW else ''
        said.append(
          f'{len(steps)} of {len(train.step)} updates of '
          f'{run_folder.label(run.name, seed.seed)} were left out, at step '
          f'{listed}{more}'
        )
  if said:
    yield (
      'Not finite:',
      '; '.join(said) + '. Objective, gradient, parameters, statistics or '
      'optimizer would not have been finite; means over training batches are '
      'without these.',
    )


def _left_out(runs):
  said = [why for run in runs for seed in run.seeds for why in seed.left_out]
  if said:
    yield 'Left out:', '; '.join(said) + '.'


def _different(runs):
  """Figures whose curves rest on different data, statistics or precision."""
  yield from _unlike('trained', runs, conditions.training)
  # That of the test set is drawn whatever its key is.
  read = functools.partial(conditions.looking, kind='evaluation')
  yield from _unlike('measured (evaluation)', runs, read)
  for kind in figures.measures(runs):
    keys = looks.keys(runs, kind)
    for key in keys:
      if kind == 'evaluation' and not curves.is_analysis(key):
        continue
      named = f'{kind}, {key}' if len(keys) > 1 else kind
      read = functools.partial(conditions.looking, kind=kind, key=key)
      shown = looks.of(runs, kind, key).runs
      yield from _unlike(f'measured ({named})', shown, read)


def _unlike(what, runs, read):
  different = conditions.different(runs, read)
  if different:
    yield 'Not alike:', f'how runs were {what}. {"; ".join(different)}.'


def provenance(runs: Sequence[curves.Run]) -> dict[str, str]:
  """On what, with what and when the numbers were made, by name.

  All that there are, where seeds differ.
  """
  manifests = [seed.manifest for run in runs for seed in run.seeds]
  # In ISO 8601, which sort as text.
  times = [m['written'] for m in manifests]
  return {
    'Device': _distinct(
      f'{m["device"]["count"]} × {m["device"]["kind"]}' for m in manifests
    ),
    'Layout': _distinct(m['layout'] for m in manifests),
    'Precision': _distinct(
      f'training in {m["precision"]["dtype"]}, products in '
      f'{m["precision"]["training"]} precision; measures in float32, '
      f'{m["precision"]["measures"]}'
      for m in manifests
    ),
    'Versions': _distinct(
      ', '.join(f'{name} {version}' for name, version in m['versions'].items())
      for m in manifests
    ),
    'Code': _distinct(m['git_commit'] or 'not in git' for m in manifests),
    'Written': conditions.span(min(times), max(times)),
  }


def _distinct(values: Iterable[str]) -> str:
  return '; '.join(dict.fromkeys(values))
