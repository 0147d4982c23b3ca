"""Working directories as training leaves them, with made-up numbers."""

import numpy as np

from bn_jax import distributions, records

CONFIG = {
  'data': {'name': 'digits', 'resolution': None},
  'model': {'name': 'vgg11', 'width': 0.25},
  'schedule': {'name': 'constant', 'learning_rate': 0.1},
  'batch_size': 64,
  'measures': {
    'test': {'name': 'evaluation', 'data': 'test', 'every_steps': 10},
    'landscape': {
      'name': 'along_gradient',
      'data': 'current_batch',
      'every_steps': 10,
      'step_factors': [0.5, 1.0],
      'statistics': 'batch',
    },
    'activations': {
      'name': 'activations',
      'data': 'test:256',
      'every_steps': 50,
      'statistics': 'batch',
    },
  },
}


def workdir(path, seeds=(0,), **runs):
  """A finished experiment; each run is keywords of `run`, by its name."""
  path.mkdir(parents=True)
  records.write_json(
    path / 'experiment.json',
    {'runs': {name: {} for name in runs}, 'seeds': seeds},
  )
  for name, keywords in runs.items():
    for seed in seeds:
      run(path / name / f'seed{seed}', seed=seed, **keywords)
  return path


def run(
  directory,
  *,
  seed=0,
  norm='none',
  reaches=100,
  scale=1.0,
  drift=0.1,
  steps=150,
  status='done',
  measures=True,
  manifest=None,
  accuracy=True,
  top5=None,
  **changes,
):
  """One run: its batches jump from 10 to 100 % at step `reaches` + seed.

  Before, they stand at 10 %. Its loss band is as wide as `scale`, its gradient
  change goes up to 2 * scale, its effective beta up to 3 * scale. Its
  activations' means move by `drift` from look to look, their variances by a
  tenth of that. `measures` is False for none, or what the config says of them,
  `manifest` what it says otherwise, `changes` what the config does. Without
  `accuracy` it is a regression whose loss falls by a tenth in a tenth of the
  steps to `reaches`, from 1000 a batch and 10 an example of the test set, with
  a penalty of 5. The test set's `top5` is recorded where it is given.
  """
  directory.mkdir(parents=True)
  norm = norm if isinstance(norm, dict) else {'name': norm}
  config = {**CONFIG, 'norm': norm, **changes}
  if measures is not True:
    config['measures'] = measures or {}
  scalars = records.Lines(directory / 'scalars.jsonl')
  for step in range(steps + 1):
    if measures and step % 10 == 0:
      test = {'loss': 0.5, 'accuracy': 0.75, 'count': 355}
      if not accuracy:
        test = {'loss': 10 * 0.9 ** (10 * step / reaches), 'count': 355}
      if top5 is not None:
        test['top5'] = top5
      scalars.write(records.Record(step, 'test', test))
      look = {
        'step_size': [0.05, 0.1],
        'loss': [1.0, 1.0 + scale],
        'gradient_change': [scale, 2 * scale],
        'beta': [np.nan, 3 * scale],
      }
      scalars.write(records.Record(step, 'landscape', look))
    if step < steps:
      share = 1.0 if step >= reaches + seed else 0.1
      row = {'accuracy': share, 'data_loss': 1.0, 'objective': 1.0}
      if not accuracy:
        fallen = 1000 * 0.9 ** (10 * step / reaches)
        row = {'data_loss': fallen, 'objective': fallen + 5}
      scalars.write(records.Record(step, 'train', row))
  scalars.close()
  if measures:
    _activations(directory / 'arrays', range(0, steps + 1, 50), drift)
  timing = records.Lines(directory / 'timing.jsonl')
  timing.write(records.Record(0, 'train', {'seconds': 1.5}))
  timing.write(records.Record(50, 'train', {'seconds': 2.5}))
  timing.write(records.Record(50, 'landscape', {'seconds': 3.0}))
  timing.close()
  records.write_json(
    directory / 'manifest.json',
    {
      'status': status,
      'step': steps,
      'run': directory.parent.name,
      'seed': seed,
      'config': config,
      'parameters': 1234567,
      'layout': 'jit',
      'device': {'platform': 'cpu', 'kind': 'cpu', 'count': 1},
      'precision': {
        'dtype': 'float32', 'training': 'highest', 'measures': 'highest',
      },
      'versions': {'jax': '0.10.2'},
      'git_commit': None,
      'written': f'2026-01-0{seed + 1}T00:00:00+00:00',
      **(manifest or {}),
    },
  )  # fmt: skip


def _activations(folder, steps, drift):
  arrays = records.Arrays(folder)
  values = np.random.default_rng(0).normal(size=(400, 3))
  for look, step in enumerate(steps):
    found = distributions.of(values + look * drift)
    kept = {'levels': np.array([0.5]), 'edges': distributions.EDGES}
    for layer in ('conv1', 'conv2'):
      kept |= {
        f'{layer}/mean': found.mean,
        f'{layer}/var': found.var + look * drift / 10,
        f'{layer}/histogram': found.histogram.sum(axis=0),
      }
    arrays.write(records.Record(step, 'activations', kept))
