"""Explains every key of an experiment: meaning, unit and default.

A config is a file with a function `get_config()`. It starts from this config,
changes some keys, and says in its docstring what to expect. A section stands
for a constructor: `name` chooses it, and the other keys are its keywords, those
here or others that it has; 'my_module:make' is a function of your own, in a
file beside the config: docs/extending.md. A new name drops the keywords that
the old constructor has and the new one lacks; what is set after it stays.
`config.norm = 'layer'` is short for `config.norm.name = 'layer'`, and
`config.measures.test = None` takes a measure away. All of this can be a flag,
too, in any order: --config.norm=group --config.norm.num_groups=4.
"""

import ml_collections
from ml_collections import config_dict

from bn_jax.config import changeable

SIZES = ('paper', 'small')  # of a reproduction; small: for two CPU cores


def runs(**overrides: dict) -> ml_collections.ConfigDict:
  """Returns runs in the given order, which columns and colours have, too.

  A run has the keys that it changes. A plain dict would be sorted by name.
  """
  return changeable.Config(overrides, kind='runs', sort_keys=False)


def get_config() -> ml_collections.ConfigDict:
  """Returns the defaults, which `train.py --config=default` trains."""
  config = changeable.Config(kind='config')

  # The experiment: every run with every seed.
  config.runs = runs(  # the networks to compare: each has the keys it changes
    standard=dict(norm=dict(name='none')),
    batchnorm=dict(norm=dict(name='batch')),
  )
  config.seeds = (0,)  # of initial weights, order of examples, draws of steps;
  # or range(8), which is '0:8', as on the command line
  config.expected_divergence = ()  # runs whose divergence is no failure
  config.recalibrate = ()  # runs whose statistics for inference are estimated
  # anew after training, as `python -m bn_jax recalibrate` does

  # Data: bn_jax.data.datasets, any set of images in the data_dir, or your own,
  # as folder:PATH, PATH.npz or my_module:make (docs/data.md). Random changes
  # are of training images alone.
  config.data = dict(
    name='digits',
    resolution=config_dict.placeholder(int),  # pixels a side; None: as they are
    binarize=config_dict.placeholder(float),  # brightness; above it 1, else 0
    classes=(),  # numbers of the classes to keep, in a new order; (): all
    subset=config_dict.placeholder(int),  # training examples kept; None: all
    label_noise=0.0,  # share of training labels that become another class
    selection_seed=0,  # of the two draws above, apart from the runs' seeds
    test_share=config_dict.placeholder(float),  # held out where there is no
    # test split; None: a tenth of your own data
    seed=0,  # of that draw, apart from the runs' seeds
    crop_padding=0,  # pixels added on each side before a random crop
    flip=False,  # mirrors half of the images at random
    photometric=0.0,  # strength of random brightness, contrast and colours
    fixed_batches=False,  # True: every epoch has the batches of the first
    streaming=config_dict.placeholder(bool),  # None: if image sizes differ
    crop_area=(0.08, 1.0),  # of streamed images: share of the image
    crop_aspect=(0.75, 4 / 3),  # of streamed images: width / height
    workers=0,  # processes that read a stream; 0: threads
    max_skipped=0,  # damaged records of a stream that may be left out
    mean=(),  # of each channel, in grey levels, and
    std=(),  # its deviation, to normalise by; (): of the training images
  )
  config.data_dir = config_dict.placeholder(str)  # of TFDS; --data_dir
  config.loss = dict(name='cross_entropy')  # bn_jax.losses.LOSSES
  config.batch_size = 128  # examples a step
  config.evaluation_batch_size = 256  # examples; changes no result but that of
  # a measure of a whole split by its batches' statistics

  # Network: bn_jax.models.MODELS and bn_jax.norms.NORMS.
  config.model = dict(
    name='vgg11',
    width=1.0,  # times the paper's channels
    head=(),  # widths of hidden dense layers; (4096, 4096) in the paper
    dropout=0.0,  # share of hidden dense units; 0.5 in the paper
    lowering='auto',  # how convolutions are computed; measures: see below
  )
  config.norm = dict(
    name='batch',
    group_size=config_dict.placeholder(int),  # examples; None: whole batch
    momentum=0.9,  # share of the old running average that a step keeps
    epsilon=1e-5,  # added to the variance
    running_variance='biased',  # or 'unbiased'
    running_average='ema',  # or 'corrected_ema', 'cumulative'
    stop_statistics_gradient=False,  # True: statistics are constants (wrong)
    affine=True,  # False: scale and bias stay 1 and 0
    bias_before=config_dict.placeholder(bool),  # None: where it makes sense
    frozen=False,  # True: statistics, scale and bias stay as they are
  )

  config.init_from = config_dict.placeholder(str)  # WORKDIR/run/seedK: begin
  # with its parameters and statistics; the last layer's if classes agree

  # Training: bn_jax.optim.
  config.steps = 1000  # updates
  # Or passes over the training examples, in place of steps: these are then
  # ceil(epochs * examples / batch_size), and parts of a pass are allowed.
  config.epochs = config_dict.placeholder(float)
  # Or adam, adamw, lion, lamb, muon, rmsprop, sam: docs/optimizers.md.
  config.optimizer = dict(name='sgd', momentum=0.0, nesterov=False)
  # What a schedule has in steps may be in epochs: decay_epochs, warmup_epochs.
  config.schedule = dict(name='constant', learning_rate=0.1)
  config.weight_decay = 0.0  # adds weight_decay / 2 * |W|^2 to the objective
  # 'kernels', 'all' parameters, or globs of their paths: '*/kernel,norm*'. The
  # decoupled decay of an optimizer, optimizer.weight_decay, is on these too.
  config.weight_decay_on = 'kernels'
  config.clip_norm = config_dict.placeholder(float)  # the longest gradient
  # The longest gradient of a unit, in units of the norm of its weights.
  config.adaptive_clip = config_dict.placeholder(float)
  config.rates = dict()  # globs -> factor of the rate: {'*/bias': 2.0}
  config.trainable = 'all'  # or globs: '*norm*' trains norms, and nothing else
  # Share that a mean over the updates keeps, of parameters and statistics,
  # which is evaluated beside them: 0.999. None: there is no mean.
  config.ema = config_dict.placeholder(float)
  config.compute_dtype = 'float32'  # of training's products, or 'bfloat16'
  config.matmul_precision = 'highest'  # of training: 'default', 'high'
  # As model.lowering, in measures: 'library', 'product', 'winograd'. 'auto' is
  # model.lowering; if that is 'auto', which rounds more on a CPU, 'product'
  # there. docs/models.md#lowerings
  config.measure_lowering = 'auto'
  config.on_nonfinite = 'stop'  # or 'skip' updates that are not finite
  # With 'skip', which needs it: updates to skip in all, before the next one
  # stops. None with 'stop'.
  config.max_skips = config_dict.placeholder(int)

  # Devices: docs/devices.md. The numbers are the same on any number of them.
  config.layout = 'jit'  # of the training step, or 'shard_map', 'pmap'
  config.devices = 1  # how many; each holds an equal part of a batch
  config.shard_state = False  # True: devices share large parameters ('jit')
  config.micro_batch_size = config_dict.placeholder(int)  # examples whose
  # gradients are taken at a time, each a statistics group; None: whole batch
  config.remat = False  # recompute activations instead of keeping them
  # Seeds that are trained in one program, as small networks are 'auto'; or a
  # number, 1 for one after the other.
  config.seeds_at_once = config_dict.FieldReference('auto', field_type=object)

  # Measures while training: bn_jax.analysis.MEASURES, each on its data every
  # `every_steps` steps and at the last one. Data are 'current_batch', 'train',
  # 'test', or 'train:256', 'test:256': the first 256 examples as one batch.
  # Other measures, and further keywords: docs/analysis.md.
  config.measures = dict(
    test=dict(
      name='evaluation',
      data='test',  # what it looks at, see above
      every_steps=100,  # updates from one look to the next
    ),
    landscape=dict(
      name='along_gradient',
      data='current_batch',
      every_steps=100,
      step_factors=(0.5, 1.0, 2.0, 4.0),  # times the learning rate
      direction='descent',  # or 'ascent', 'random', 'update'
      statistics='batch',  # or 'running'
      spread='batch',  # over devices, or 'points', one on each
      per_layer=False,  # whether each layer has its curves too
      curvature=False,  # d'Hd / |d|^2 by a Hessian product
    ),
    activations=dict(
      name='activations',
      data='test:256',
      every_steps=100,
      layers=(),  # ('conv2', 'conv9'), say; none: first, middle and last
      statistics='batch',  # or 'running'
      unit=False,  # whether the page shows the percentiles of one unit
    ),
  )

  # Files of a run.
  config.log_every_steps = 20  # steps between fetches of metrics
  config.checkpoint = dict(
    every_steps=500,  # updates from one to the next; and the last one
    keep=2,  # the newest two
  )
  # What gets the records too: 'tensorboard', 'wandb', 'mlflow', 'trackio'; ():
  # nothing. docs/sinks.md
  config.sinks = ('tensorboard',)
  return config


def check_size(size: str) -> None:
  """Raises ValueError unless a size is one of `SIZES`."""
  if size not in SIZES:
    raise ValueError(f'the size is {size!r}; allowed: {", ".join(SIZES)}')


def select(
  config: ml_collections.ConfigDict,
  runs: tuple[str, ...],
  measures: tuple[str, ...],
) -> None:
  """Removes all runs and measures from a protocol but those of one figure.

  A run that stays is unchanged: its weights, batches and numbers are those of
  the protocol.
  """
  for name in set(config.runs) - set(runs):
    del config.runs[name]
  for key in set(config.measures) - set(measures):
    del config.measures[key]
  for key in ('expected_divergence', 'recalibrate'):
    config[key] = tuple(name for name in config[key] if name in runs)
