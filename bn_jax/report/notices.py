"""What a reader must know before reading numbers: one sentence each."""

from collections.abc import Sequence

from bn_jax.report import curves


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
    f'{seed.manifest["step"]}'
    for run in runs
    for seed in run.seeds
    if seed.manifest['status'] != 'done'
  ]
  if said:
    yield 'Not finished:', '; '.join(said) + '.'


def _different(runs):
  """Figures whose curves rest on different statistics, data or precision."""
  for kind in ('along_gradient', 'activations', 'evaluation'):
    grounds = {
      run.name: _ground(run, names[0])
      for run in runs
      if (names := curves.measure_named(run, kind))
    }
    if len(set(grounds.values())) > 1:
      listed = '; '.join(
        f'{name}: {ground}' for name, ground in grounds.items()
      )
      yield 'Not alike:', f'what {kind} was measured with differs. {listed}.'


def _ground(run: curves.Run, name: str) -> str:
  section = run.config['measures'][name]
  statistics = section.get('statistics', 'running')
  precision = run.seeds[0].manifest['precision']
  size = ''
  if section['data'] == 'current_batch':
    size = f' of {run.config["batch_size"]}'
  return (
    f'{statistics} statistics, {section["data"]}{size}, trained in '
    f'{precision["dtype"]}, looked at with products in {precision["measures"]} '
    'precision'
  )
