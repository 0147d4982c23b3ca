"""Working directories as training leaves them, with made-up numbers."""

import numpy as np

from bn_jax import distributions
from bn_jax.storage import records

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

# What more can be measured, for CONFIG['measures'].
MORE = {
  'shift': {
    'name': 'covariate_shift',
    'data': 'current_batch',
    'every_steps': 50,
    'layers': [],
    'statistics': 'batch',
    'norm_parameters': True,
  },
  'signal': {
    'name': 'signal',
    'data': 'current_batch',
    'every_steps': 150,
    'layers': [],
    'statistics': 'batch',
  },
  'weights': {
    'name': 'weights',
    'data': 'current_batch',
    'every_steps': 50,
    'layers': [],
    'statistics': 'batch',
  },
  'one_step': {
    'name': 'one_step_loss',
    'data': 'current_batch',
    'every_steps': 150,
    'learning_rates': [0.01, 0.1, 1.0],
    'statistics': 'batch',
  },
}
LAYERS = ('conv1', 'conv2', 'conv10')


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
  curvature=None,
  conditions=True,
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
  a penalty of 5. The test set's `top5` is recorded where it is given, and so is
  the `curvature` along the gradient, of which beta_0 is the double. What MORE
  has is recorded where `measures` names it, see `look`. Without `conditions`
  records do not say how they were taken, as old ones do not.
  """
  directory.mkdir(parents=True)
  norm = norm if isinstance(norm, dict) else {'name': norm}
  config = {**CONFIG, 'norm': norm, **changes}
  if measures is not True:
    config['measures'] = measures or {}
  said = {
    name: _conditions(section, config) if conditions else None
    for name, section in config['measures'].items()
  }
  scalars = records.Lines(directory / 'scalars.jsonl')
  for step in range(steps + 1):
    if measures and step % 10 == 0:
      test = {'loss': 0.5, 'accuracy': 0.75, 'count': 355}
      if not accuracy:
        test = {'loss': 10 * 0.9 ** (10 * step / reaches), 'count': 355}
      if top5 is not None:
        test['top5'] = top5
      scalars.write(records.Record(step, 'test', test, said.get('test')))
      along = landscape(scale, curvature)
      scalars.write(
        records.Record(step, 'landscape', along, said.get('landscape'))
      )
      for name, section in config['measures'].items():
        if section['name'] in _LOOKS and step % section['every_steps'] == 0:
          seen = look(section['name'], step, scale, norm['name'])
          scalars.write(records.Record(step, name, seen, said[name]))
    if step < steps:
      share = 1.0 if step >= reaches + seed else 0.1
      row = {'accuracy': share, 'data_loss': 1.0, 'objective': 1.0}
      if not accuracy:
        fallen = 1000 * 0.9 ** (10 * step / reaches)
        row = {'data_loss': fallen, 'objective': fallen + 5}
      scalars.write(records.Record(step, 'train', row))
  scalars.close()
  if measures:
    arrays = records.Arrays(directory / 'arrays')
    for place, step in enumerate(range(0, steps + 1, 50)):
      seen = activations(place, drift)
      arrays.write(
        records.Record(step, 'activations', seen, said.get('activations'))
      )
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


def analysis(directory, name, section, looks, statistics='batch'):
  """What `python -m bn_jax analyze` leaves beside a run.

  Args:
    directory: of a seed.
    name: of the analysis.
    section: the measure's, with its name, its data and its keywords.
    looks: step -> what was measured, which is none yet if it is empty.
    statistics: which they are called.
  """
  folder = directory / 'analysis' / name
  folder.mkdir(parents=True)
  settings = {
    'measure': section, 'statistics': statistics, 'precision': 'highest',
  }  # fmt: skip
  records.write_json(folder / 'settings.json', settings)
  said = _conditions(section, CONFIG) | {'statistics': statistics}
  made = [
    records.Record(step, name, values, said) for step, values in looks.items()
  ]
  if section['name'] == 'activations':
    for record in made:
      records.Arrays(folder / 'arrays').write(record)
  elif made:
    records.write_all(folder / 'scalars.jsonl', made)


def landscape(scale=1.0, curvature=None, sizes=(0.05, 0.1)):
  """A look along the gradient; see `run`."""
  sizes = np.array(sizes)
  share = sizes / max(sizes)
  found = {
    'step_size': sizes,
    'loss': 1.0 + scale * (sizes - min(sizes)) / np.ptp(sizes),
    'gradient_change': 2 * scale * share,
    'beta': np.where(share < 1, np.nan, 3 * scale),
    'loss_0': 1.0,
  }
  if curvature is not None:
    found |= {'curvature': curvature, 'beta_0': 2 * curvature}
  return found


def look(kind, step, scale, norm):
  """A look of a measure of MORE.

  Relative covariate shift is `scale`, the cosine 1 - scale / 4; activations
  grow by 1 + scale a layer, and so do gradients towards the first; a quarter of
  the units of a network with a norm meets the condition, three quarters do
  not. Weights grow with the root of the step; the loss after a step is 1 / 2 at
  a rate of 0.01, 2 at 0.1 and infinite at 1, and 1 before it.
  """
  return _LOOKS[kind](step, scale, norm)


def _shift(step, scale, norm):
  return {
    f'{layer}/{name}': value
    for layer in LAYERS
    for name, value in (
      ('l2', 10 * scale), ('relative_l2', scale), ('cosine', 1 - scale / 4),
    )
  }  # fmt: skip


def _signal(step, scale, norm):
  nan = np.nan if norm == 'none' else 1.0
  found = {}
  for depth, layer in enumerate(LAYERS):
    found |= {
      f'{layer}/activation_rms': (1 + scale) ** depth,
      f'{layer}/activation_gradient_norm': (1 + scale) ** -depth,
      f'{layer}/positive': 0.25 * nan,
      f'{layer}/negative': 0.75 * nan,
    }
  return found


def _weights(step, scale, norm):
  square = 1 + scale * step
  found = {}
  for layer in LAYERS:
    found |= {
      f'{layer}/weight_norm': square**0.5,
      f'{layer}/gradient_norm': 1.0,
      f'{layer}/radial': -(square**0.5) / 10,
      f'{layer}/radial_cosine': -0.1,
      f'{layer}/effective_learning_rate': 0.1 / square,
      f'{layer}/angular_update': 0.1 / square,
    }
  return found


def _one_step(step, scale, norm):
  return {
    'learning_rate': [0.01, 0.1, 1.0],
    'loss': [0.5, 2.0, np.inf],
    'loss_0': 1.0,
  }


_LOOKS = {
  'covariate_shift': _shift,
  'signal': _signal,
  'weights': _weights,
  'one_step_loss': _one_step,
}


def _conditions(section, config):
  examples = section['data'].partition(':')[2]
  return {
    'statistics': section.get('statistics', 'running'),
    'data': section['data'],
    'examples': int(examples or config['batch_size']),
    'precision': 'highest',
  }


def activations(place, drift, channels=3):
  """Look number `place` at conv1 and conv2; the last unit is dead.

  Unit c of conv2 moves by `drift` * (c + 1) from look to look.
  """
  values = np.random.default_rng(0).normal(size=(400, channels))
  found = distributions.of(values + place * drift)
  kept = {'levels': np.array([0.15, 0.5, 0.85]), 'edges': distributions.EDGES}
  positive = (values > 0).mean(axis=0)
  positive[-1] = 0
  median = place * drift * (1 + np.arange(channels))
  for layer in ('conv1', 'conv2'):
    kept |= {
      f'{layer}/mean': found.mean,
      f'{layer}/var': found.var + place * drift / 10,
      f'{layer}/positive': positive,
      f'{layer}/quantiles': median + np.array([[-1.0], [0.0], [1.0]]),
      f'{layer}/histogram': found.histogram.sum(axis=0),
    }
  return kept
