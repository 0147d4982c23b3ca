"""Which norm can take the place of Batch Normalization, without its statistics?

Nine norms and three optimizers, each pair at its own learning rate: accuracy,
steps, and the landscape that is trained in. The runs of the real digits, of a
VGG and a residual network:

  python train.py --config=configs/without_statistics.py

Others are an argument; those of CIFAR-10 need --data_dir=DIR:

  python train.py --config=configs/without_statistics.py:cifar10 --data_dir=DIR
  python train.py --config=configs/without_statistics.py:vit
  python train.py --config=configs/without_statistics.py:digits_rates

`digits`: VGG-11 at an eighth and ResNet-20 at half of the width, 200 steps of
64 images of 8 x 8 pixels. `cifar10`: VGG-11 at a quarter and ResNet-20 at half
of the width, 400 steps of 64 images, at 16 x 16 pixels. `vit`: where layer norms
are at home, a vision transformer of width 48 on the digits, in patches of 2 x 2.

The rate of each pair is the best of four: `digits_rates`, `cifar10_rates`,
`vit_rates` train all of them with one seed, 100, which is not judged; the best
has the lowest loss of the last 20 training batches. What they gave is `RATES`.
Neither augmentation nor, but for AdamW's own, weight decay; constant rates.

The claims are those of configs/place_of_bn, one file a network.
"""

import ml_collections

from configs import default

# Runs differ in these; `weight_standardization` scales kernels (scaled=True).
NORMS = {
  'digits': (
    'none', 'batch', 'group', 'layer', 'dyt', 'derf', 'seednorm', 'frn',
    'weight_standardization',
  ),
  'cifar10': ('none', 'batch', 'group', 'dyt', 'frn'),
  'vit': ('none', 'batch', 'layer', 'rms', 'dyt', 'derf', 'seednorm'),
}  # fmt: skip
NETWORKS = {
  'digits': ('vgg', 'resnet'), 'cifar10': ('vgg', 'resnet'), 'vit': ('vit',)
}  # fmt: skip
OPTIMIZERS = {
  'digits': ('sgd', 'adamw', 'muon'),
  'cifar10': ('sgd', 'adamw'),
  'vit': ('sgd', 'adamw'),
}
STUDIES = tuple(NORMS)
# Tried for each optimizer: steps of about a factor of three.
TRIED = {
  'sgd': (0.01, 0.03, 0.1, 0.3),
  'adamw': (3e-4, 1e-3, 3e-3, 1e-2),
  'muon': (1e-3, 3e-3, 1e-2, 3e-2),
}
PILOT = 100  # the seed of the rates
# (study, network, optimizer) -> the best rate of each of NORMS[study].
RATES: dict[tuple[str, str, str], tuple[float, ...]] = {}


def get_config(study: str = 'digits') -> ml_collections.ConfigDict:
  """Returns the runs of a study, or, with '_rates' at its end, of its rates."""
  study, _, end = study.partition('_')
  if study not in STUDIES or end not in ('', 'rates'):
    allowed = [f'{name}{end}' for name in STUDIES for end in ('', '_rates')]
    raise ValueError(
      f'the study is {study!r}{end and f" with {end!r}"}; allowed: '
      f'{", ".join(allowed)}'
    )
  is_pilot = end == 'rates'
  config = _protocol(study)
  runs = {}
  for network in NETWORKS[study]:
    for optimizer in OPTIMIZERS[study]:
      rates = RATES.get((study, network, optimizer))
      for index, norm in enumerate(NORMS[study]):
        name = f'{network}_{norm}_{optimizer}'
        tried = TRIED[optimizer] if is_pilot else (rates[index],)
        for rate in tried:
          end = f'_{rate:.0e}'.replace('-0', '_') if is_pilot else ''
          runs[f'{name}{end}'] = _run(study, network, norm, optimizer, rate)
  config.runs = default.runs(**runs)
  config.expected_divergence = tuple(runs)
  if is_pilot:
    config.seeds = (PILOT,)
    config.measures = {'test': config.measures.test}
  return config


def _run(study: str, network: str, norm: str, optimizer: str, rate: float):
  """Returns the keys of one run."""
  return dict(
    model=_model(study, network),
    norm=_norm(study, norm),
    optimizer=_optimizer(optimizer),
    schedule=dict(learning_rate=rate),
  )


def _model(study: str, network: str) -> dict:
  if network == 'vit':
    return dict(name='vit_tiny', patch=2, width=48)
  if network == 'resnet':
    return dict(name='resnet20', width=0.5)
  return dict(name='vgg11', width=0.125 if study == 'digits' else 0.25)


def _norm(study: str, norm: str) -> dict:
  # A transformer normalises each patch by itself.
  own = ('layer', 'rms', 'seednorm') if study == 'vit' else ()
  return dict(name=norm) | (dict(per='position') if norm in own else {})


def _optimizer(name: str) -> dict:
  return dict(name=name) | (dict(momentum=0.9) if name == 'sgd' else {})


def _protocol(study: str) -> ml_collections.ConfigDict:
  """Returns what the runs of a study share."""
  config = default.get_config()
  config.seeds = (0, 1, 2, 3, 4)
  config.batch_size = 64
  config.evaluation_batch_size = 500
  config.steps = 200
  config.log_every_steps = 50
  if study == 'cifar10':
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
      name='activations',
      data='test:256',
      every_steps=5 * tenth,
    ),
  )
  return config
