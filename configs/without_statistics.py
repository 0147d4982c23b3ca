"""Which norm can take the place of Batch Normalization, without its statistics?

Nine norms and three optimizers, each pair at its own learning rate: accuracy,
steps, and the landscape that is trained in. The runs on the real digits, of a
VGG and of a residual network:

  python train.py --config=configs/without_statistics.py

Others are an argument; those on CIFAR-10 need --data_dir=DIR:

  python train.py --config=configs/without_statistics.py:cifar10 --data_dir=DIR
  python train.py --config=configs/without_statistics.py:vit_digits
  python train.py --config=configs/without_statistics.py:digits_rates

`digits`: VGG-11 at an eighth and ResNet-20 at half of the width, 200 steps of
64 images of 8 x 8 pixels. `cifar10`: VGG-11 at a quarter and ResNet-20 at half
of the width, 400 steps of 64 images, at 16 x 16 pixels. `vit_digits`: where
layer norms are at home, a vision transformer of width 48 in patches of 2 x 2;
`vit_cifar10` is that on CIFAR-10, and was not run.

The rate of each pair is the best of four: a study with `_rates` at its end
trains all of them with one seed, 100, which is not judged; the best has the
lowest loss of the last 20 training batches. What they gave is `RATES`. Neither
augmentation nor, but for AdamW's own, weight decay; constant rates.

The claims are those of configs/place_of_bn, a file a network.
"""

import ml_collections

from bn_jax.config import defaults

_DIGITS = (
  'none', 'batch', 'group', 'layer', 'dyt', 'derf', 'seednorm', 'frn',
  'weight_standardization',
)  # fmt: skip
_VIT = ('none', 'batch', 'layer', 'rms', 'dyt', 'derf', 'seednorm')
# Study -> its networks, norms and optimizers.
STUDIES = {
  'digits': (('vgg', 'resnet'), _DIGITS, ('sgd', 'adamw', 'muon')),
  'cifar10': (
    ('vgg', 'resnet'),
    ('none', 'batch', 'group', 'dyt', 'frn'),
    ('sgd', 'adamw'),
  ),
  'vit_digits': (('vit',), _VIT, ('sgd', 'adamw')),
  'vit_cifar10': (('vit',), _VIT, ('sgd', 'adamw')),
}
# Rates that are tried for each optimizer, in steps of about a factor of three.
TRIED = {
  'sgd': (0.01, 0.03, 0.1, 0.3),
  'adamw': (3e-4, 1e-3, 3e-3, 1e-2),
  'muon': (1e-3, 3e-3, 1e-2, 3e-2),
}
# With layer norms the transformer learnt nothing by SGD at 0.01 and above.
_TRIED_VIT = {**TRIED, 'sgd': (1e-3, 3e-3, 1e-2, 3e-2)}
PILOT = 100  # the seed of the rates
# (study, network, optimizer) -> the best rate of each norm of the study.
RATES = {
  ('digits', 'vgg', 'sgd'): (
    0.03, 0.03, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.03
  ),
  ('digits', 'vgg', 'adamw'): (
    3e-3, 3e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3
  ),
  ('digits', 'vgg', 'muon'): (
    1e-2, 1e-3, 1e-3, 1e-3, 1e-2, 1e-3, 1e-3, 3e-3, 3e-3
  ),
  ('digits', 'resnet', 'sgd'): (
    0.01, 0.03, 0.01, 0.03, 0.1, 0.03, 0.01, 0.1, 0.03
  ),
  ('digits', 'resnet', 'adamw'): (
    1e-3, 1e-3, 3e-3, 1e-3, 3e-3, 3e-3, 1e-3, 1e-2, 1e-3
  ),
  ('digits', 'resnet', 'muon'): (3e-3,) * 9,
  ('cifar10', 'vgg', 'sgd'): (0.03, 0.01, 0.01, 0.01, 0.01),
  ('cifar10', 'vgg', 'adamw'): (1e-3,) * 5,
  ('cifar10', 'resnet', 'sgd'): (0.01, 0.03, 0.03, 0.03, 0.03),
  ('cifar10', 'resnet', 'adamw'): (1e-3, 3e-3, 3e-3, 3e-3, 1e-3),
  ('vit_digits', 'vit', 'sgd'): (1e-3, 1e-2, 3e-3, 1e-3, 1e-2, 1e-2, 1e-2),
  ('vit_digits', 'vit', 'adamw'): (1e-2, 1e-3, 3e-4, 3e-4, 3e-3, 3e-3, 3e-4),
}  # fmt: skip
# Those of this study were not tried yet: it takes another's of the network.
_LIKE = {'vit_cifar10': 'vit_digits'}


def get_config(study: str = 'digits') -> ml_collections.ConfigDict:
  """Returns the runs of a study, or, with '_rates' at its end, of its rates."""
  name = study.removesuffix('_rates')
  if name not in STUDIES:
    raise ValueError(
      f'the study is {study!r}; allowed: {", ".join(STUDIES)}, each also with '
      '_rates'
    )
  is_pilot = study != name
  runs = {}
  for network in STUDIES[name][0]:
    runs |= _runs(name, network, is_pilot, f'{network}_')
  return _experiment(name, runs, is_pilot)


def of_network(study: str, network: str) -> ml_collections.ConfigDict:
  """Returns the runs of one network of a study, called NORM_OPTIMIZER."""
  return _experiment(study, _runs(study, network))


def _experiment(
  study: str, runs: dict[str, dict], is_pilot: bool = False
) -> ml_collections.ConfigDict:
  config = _protocol(study)
  config.runs = defaults.runs(**runs)
  # Most of the time of so short a run is compiling.
  config.seeds_at_once = 4 if is_pilot else 5
  config.expected_divergence = tuple(runs)  # that a norm diverges is a result
  if is_pilot:
    config.seeds = (PILOT,)
    config.measures = {'test': config.measures.test}
  return config


def _runs(
  study: str, network: str, is_pilot: bool = False, prefix: str = ''
) -> dict[str, dict]:
  _, norms, optimizers = STUDIES[study]
  runs = {}
  for optimizer in optimizers:
    for norm in norms:
      rates = (_TRIED_VIT if network == 'vit' else TRIED)[optimizer]
      if not is_pilot:
        rates = (_rate(study, network, norm, optimizer),)
      for rate in rates:
        end = f'_{rate:.0e}'.replace('-0', '_') if is_pilot else ''
        runs[f'{prefix}{norm}_{optimizer}{end}'] = dict(
          model=_model(study, network),
          norm=_norm(network, norm),
          optimizer=_optimizer(optimizer),
          schedule=dict(learning_rate=rate),
        )
  return runs


def _rate(study: str, network: str, norm: str, optimizer: str) -> float:
  if (study, network, optimizer) not in RATES:
    study = _LIKE[study]
  return RATES[study, network, optimizer][STUDIES[study][1].index(norm)]


def _model(study: str, network: str) -> dict:
  if network == 'vit':
    return dict(name='vit_tiny', patch=2, width=48)
  if network == 'resnet':
    return dict(name='resnet20', width=0.5, lowering='winograd')
  width = 0.125 if study == 'digits' else 0.25
  return dict(name='vgg11', width=width, lowering='winograd')


def _norm(network: str, norm: str) -> dict:
  # A transformer normalises each patch by itself.
  has_per = network == 'vit' and norm in ('layer', 'rms', 'seednorm')
  return dict(name=norm) | (dict(per='position') if has_per else {})


def _optimizer(name: str) -> dict:
  return dict(name=name) | (dict(momentum=0.9) if name == 'sgd' else {})


def _protocol(study: str) -> ml_collections.ConfigDict:
  """Returns what the runs of a study share."""
  config = defaults.get_config()
  config.seeds = (0, 1, 2, 3, 4)
  config.batch_size = 64
  config.evaluation_batch_size = 500
  config.steps = 200
  config.log_every_steps = 50
  if study.endswith('cifar10'):
    config.data.name = 'cifar10'
    config.data.resolution = 16
    config.steps = 400
  config.checkpoint = dict(every_steps=config.steps, keep=1)
  tenth = config.steps // 10
  config.measures = dict(
    test=dict(name='evaluation', data='test', every_steps=tenth),
    landscape=dict(
      name='along_gradient',
      data='current_batch',
      every_steps=tenth,
      step_factors=(0.5, 1.0, 2.0, 4.0),
    ),
    sharpness=dict(
      name='top_eigenvalues',
      data='train:128',
      every_steps=5 * tenth,
      tolerance=0.05,  # far below what norms differ by
    ),
    activations=dict(
      name='activations', data='test:256', every_steps=5 * tenth
    ),
  )
  return config
