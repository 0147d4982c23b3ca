"""Counts dead units, and values where DyT or Derf has a tenth of its slope.

python train.py --config=configs/place_of_bn/vgg.py
python examples/saturation.py runs/place_of_bn/vgg/*/seed*
"""

import sys

import numpy as np
from flax import linen as nn

import bn_jax
from bn_jax import models
from bn_jax.config import build

FLAT = {'DynamicTanh': np.arctanh(0.9**0.5), 'DynamicErf': np.log(10) ** 0.5}
print('run,seed,dead,flat')
for path in sys.argv[1:]:
  trained = bn_jax.load(path)
  data = build.source(trained.config).load().test
  outputs, flat = {}, []

  def note(call, arguments, keywords, context, outputs=outputs, flat=flat):
    module, y = context.module, call(*arguments, **keywords)
    outputs['/'.join(module.path)] = y
    if context.method_name == 'squashed':
      shift = module.get_variable('params', 'shift', 0)
      limit = FLAT[type(module).__name__]
      flat.append(np.mean(np.abs(arguments[0] + shift) > limit))
    return y

  with nn.intercept_methods(note):
    images = next(iter(data.batches(256))).images
    trained.network.apply(trained.variables, images, statistics='running')
  dead = []
  for name, tap in models.taps(trained.network):
    z = outputs.get(f'{name}_unit', np.maximum(outputs[tap], 0))
    dead.append(np.mean(np.ptp(z.reshape(-1, z.shape[-1]), axis=0) == 0))
  print(*path.split('/')[-2:], np.mean(dead), np.mean(flat or 0), sep=',')
