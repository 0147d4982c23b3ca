"""Names the digits of some images by a trained network.

python train.py --config=examples/my_config.py
python examples/inference.py runs/my_config/batch
"""

import sys

import my_module
import numpy as np

import bn_jax

network = bn_jax.load(sys.argv[1])
images, labels = (my_module.data()[name] for name in ('x_test', 'y_test'))
predicted = network.predict(images)
print(f'{network.config.norm["name"]}, step {network.step}:', predicted[:9])
print('accuracy', np.mean(np.array(predicted) == labels.astype(str)))
