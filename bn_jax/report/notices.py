"""What a reader must know before reading numbers: one sentence each."""

import functools
from collections.abc import Sequence

from bn_jax.report import conditions, curves

_KINDS = ('along_gradient', 'activations', 'evaluation')


def of(runs: Sequence[curves.Run]) -> list[tuple[str, str]]:
  """(headline, sentence) of all that applies to these runs."""
  return [*_one_seed(runs), *_unfinished(runs), *_different(runs)]


def _one_seed(runs):
  if max(len(run.seeds) for run in runs) == 1:
    yield (
      'An illustration:',
      'one seed. Whether a difference is more than chance, one run of each '
      'network cannot say; add seeds with --config.seeds=0,1,2.',
    )


def _unfinished(runs):
  said = [
    f'{run.name}/seed{seed.seed}: {seed.manifest["status"]} at step '
    f'{curves.reached(seed)}'
    for run in runs
    for seed in run.seeds
    if seed.manifest['status'] != 'done'
  ]
  if said:
    yield 'Not finished:', '; '.join(said) + '.'


def _different(runs):
  """Figures whose curves rest on different data, statistics or precision."""
  grounds = {
    'trained': conditions.training,
    **{
      f'measured ({kind})': functools.partial(conditions.looking, kind=kind)
      for kind in _KINDS
    },
  }
  for what, read in grounds.items():
    different = conditions.different(runs, read)
    if different:
      yield 'Not alike:', f'how runs were {what}. {"; ".join(different)}.'
