"""Every key of an experiment, with its meaning, unit and default.

A config is a file with a function `get_config()`; it starts from this one,
changes what it is about, and says in its docstring what to expect. A section
is one constructor: its `name` chooses the code, the other keys are the keywords
of that code, and a change of `name` drops the keywords the new one lacks (of a
measure: give all of them anew).
"""

import ml_collections
from ml_collections import config_dict


def runs(**overrides: dict) -> ml_collections.ConfigDict:
  """Runs in the order given, which is that of columns and colours.

  A run is what it changes; a plain dict would be sorted by name.
  """
  return ml_collections.ConfigDict(overrides, sort_keys=False)


def get_config() -> ml_collections.ConfigDict:
  """The defaults; `python train.py --config=configs/default.py` runs them."""
  config = ml_collections.ConfigDict()

  # The experiment: every run with every seed. A run is what it changes.
  config.runs = runs(
    standard=dict(norm=dict(name='none')),
    batchnorm=dict(norm=dict(name='batch')),
  )
  config.seeds = (0,)  # initial weights, order of examples
  config.expected_divergence = ()  # runs for which that is no failure

  # Data: bn_jax.data.datasets, or any set of images in the data_dir. The
  # random ones change training images alone.
  config.data = dict(
    name='digits',
    resolution=config_dict.placeholder(int),  # pixels a side; None: as it is
    binarize=config_dict.placeholder(float),  # brightness from which it is 1
    classes=(),  # numbers of those kept, in a new order; none: all
    subset=config_dict.placeholder(int),  # training examples kept; None: all
    label_noise=0.0,  # share of training labels that become another class
    selection_seed=0,  # of the two draws above; no run's seed changes them
    crop_padding=0,  # random crops: pixels around an image before
    flip=False,  # mirrors half of the images at random
    photometric=0.0,  # random brightness, contrast and colours: strength
    fixed_batches=False,  # True: the same examples always meet in a batch
    streaming=config_dict.placeholder(bool),  # None: where sizes differ
    crop_area=(0.08, 1.0),  # of streamed images: share of the image
    crop_aspect=(0.75, 4 / 3),  # of streamed images: width / height
    workers=0,  # processes that read a stream; 0: threads
    max_skipped=0,  # damaged records of a stream that may be left out
  )
  config.data_dir = config_dict.placeholder(str)  # of TFDS; --data_dir
  config.loss = dict(name='cross_entropy')  # bn_jax.losses.LOSSES
  config.batch_size = 128  # examples a step
  config.evaluation_batch_size = 256  # examples at a time; no result changes

  # Network: bn_jax.models.MODELS and bn_jax.norms.NORMS.
  config.model = dict(
    name='vgg11',
    width=1.0,  # times the paper's channels
    head=(),  # widths of hidden dense layers; (4096, 4096) is the original
    dropout=0.0,  # of hidden dense units; 0.5 is the original
    lowering='auto',  # 'library' or 'product' by platform; also 'winograd'
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

  config.init_from = config_dict.placeholder(str)  # WORKDIR/run/seedK whose
  # parameters and statistics are taken; the last layer where classes agree

  # Training: bn_jax.optim.
  config.steps = 1000  # updates
  config.optimizer = dict(name='sgd', momentum=0.0, nesterov=False)
  config.schedule = dict(name='constant', learning_rate=0.1)
  config.weight_decay = 0.0  # adds weight_decay / 2 * |W|^2 to the objective
  config.weight_decay_on = 'kernels'  # or 'all' parameters
  config.compute_dtype = 'float32'  # of training's products, or 'bfloat16'
  config.matmul_precision = 'highest'  # of training: 'default', 'high'
  config.on_nonfinite = 'stop'  # at an update that is not; 'skip' leaves it out
  config.max_skips = config_dict.placeholder(int)  # with 'skip': so many in
  # all, the next one stops

  # Devices: docs/devices.md. The numbers are the same on any number of them.
  config.layout = 'jit'  # of the training step, or 'shard_map', 'pmap'
  config.devices = 1  # how many; each holds an equal part of a batch
  config.shard_state = False  # large parameters in shares (layout 'jit')
  config.micro_batch_size = config_dict.placeholder(int)  # examples whose
  # gradients are taken at a time, each a statistics group; None: whole batch
  config.remat = False  # recompute activations instead of keeping them

  # Measures while training: bn_jax.analysis.MEASURES, each on its data
  # every so many steps and at the last: 'current_batch', 'train', 'test', or
  # 'train:256', 'test:256', the first so many examples as one batch. Others
  # than these, and further keywords: docs/analysis.md.
  config.measures = dict(
    test=dict(name='evaluation', data='test', every_steps=100),
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
    ),
  )

  # What is kept of a run.
  config.log_every_steps = 20  # metrics are fetched from the device
  config.checkpoint = dict(every_steps=500, keep=2)  # the newest so many
  return config
