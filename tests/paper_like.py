"""Runs of the paper's kind with made-up numbers, as the report reads them."""

import copy

import numpy as np

from bn_jax.report.results import curves

_VGG = {
  'data': {'name': 'cifar10', 'flip': False, 'crop_padding': 0},
  'model': {'name': 'vgg16', 'width': 1.0},
  'loss': {'name': 'cross_entropy'},
  'batch_size': 128,
  'steps': 15_000,
}
_LINEAR = {
  'data': {'name': 'linear_task'},
  'model': {'name': 'deep_linear', 'depth': 25},
  'loss': {'name': 'squared_error', 'reduction': 'sum'},
  'batch_size': 1000,
  'steps': 10_000,
}
LAYERS = {
  'vgg': ('conv5', 'conv10'),
  'small': ('conv3', 'conv6'),
  'linear': ('linear9', 'linear17'),
}
_FACTORS = {'vgg': [0.5, 1, 2, 4], 'linear': [0.01, 0.1, 1, 10, 31.6]}


def run(
  name='standard', norm='none', rate=0.1, *, kind='vgg', seeds=1,
  first_loss=1e5, reaches=100, status='done', **changes,
):  # fmt: skip
  """A run; 'small' is a narrow vgg11 of 1,500 steps, `changes` its config's.

  Its batches jump from 10 to 100 % at step `reaches` times 1, 2, ... by seed;
  its loss begins at `first_loss`, times 4 from seed to seed, and falls.
  """
  config = copy.deepcopy(_LINEAR if kind == 'linear' else _VGG)
  if kind == 'small':
    config |= {'model': {'name': 'vgg11', 'width': 0.25}, 'steps': 1500}
  config |= {
    'norm': {'name': norm},
    'optimizer': {'name': 'sgd', 'momentum': 0.0},
    'schedule': {'name': 'constant', 'learning_rate': rate},
    'measures': _measures(kind),
  } | changes
  made = [
    _seed(number, config, kind, first_loss, reaches, status)
    for number in range(seeds)
  ]
  return curves.Run(name, tuple(made))


def _measures(kind):
  common = {'data': 'current_batch', 'every_steps': 100, 'statistics': 'batch'}
  factors = _FACTORS['linear' if kind == 'linear' else 'vgg']
  return {
    'test': {'name': 'evaluation', 'data': 'test', 'every_steps': 100},
    'landscape': {
      **common, 'name': 'along_gradient', 'direction': 'descent',
      'step_sizes': [], 'step_factors': factors,
    },
    'shift': {
      **common, 'name': 'covariate_shift', 'layers': list(LAYERS[kind]),
    },
  }  # fmt: skip


def _seed(number, config, kind, first_loss, reaches, status):
  step_T = np.arange(0, 301)
  train = {'data_loss': first_loss * 4.0**number * 0.99**step_T}
  test = {'loss': 0.99 ** np.arange(0, 301, 100)}
  if kind != 'linear':
    share_T = np.where(step_T >= reaches * (1 + number), 1.0, 0.1)
    train['accuracy'], test['accuracy'] = share_T, np.full(4, 0.75)
  sizes = np.array(_FACTORS['linear' if kind == 'linear' else 'vgg'])
  along = {
    value: np.tile(sizes, (4, 1))
    for value in ('step_size', 'loss', 'gradient_change', 'beta')
  }
  shift = {
    f'{layer}/{value}': np.full(4, 0.5)
    for layer in LAYERS[kind]
    for value in ('l2', 'relative_l2', 'cosine')
  }
  looks = np.arange(0, 301, 100)
  series = {
    'train': curves.Series(step_T, train),
    'test': curves.Series(looks, test),
    'landscape': curves.Series(looks, along),
    'shift': curves.Series(looks, shift),
  }
  manifest = {
    'status': status,
    'step': 300,
    'config': copy.deepcopy(config),
    'precision': {'dtype': 'float32', 'training': 'high', 'measures': 'high'},
  }
  return curves.Seed(number, manifest, series, {}, {})
