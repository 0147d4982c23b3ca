#!/usr/bin/env bash
# On JAX, Keras' SpectralNormalization normalizes in fit and not afterwards.
#
# Versions: keras 3.15.1, jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6,
# Python 3.11. Other backends were not tried.
#
# With training=True the layer assigns the kernel over its largest singular
# value to the kernel, and computes with it; else it takes the kernel as it is.
# On JAX the training step hands back the variables that are not trainable
# alone, so this assignment is dropped at its end: the kernel that fit updates,
# saves and leaves for evaluate and predict was never divided. A call by hand,
# model(x, training=True), does keep it.
#
# Expected: a singular value of 1 in evaluate and predict, as in fit.
# Why it matters: the layer is there for a bound of the Lipschitz constant,
# which a critic, a certificate or an estimate of uncertainty needs in use. Its
# factor is absent there, once a layer, so that ten layers are off by its tenth
# power. And training and test loss are those of two networks, one with the
# bound and one without: 3.68 and 1.42 on the same batch below.
#
# Output seen (8 to 8 units, one batch of 256, 2,000 steps):
#   largest singular value of the kernel after fit       2.52
#   loss at the end of fit                              3.6830
#   loss by evaluate on the same batch                  1.4157
#   loss with the kernel divided by hand                3.7552
#   after a call by hand: largest singular value         1.01
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  keras==3.15.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu KERAS_BACKEND=jax KERAS_HOME="$folder" \
  "$folder/env/bin/python" - <<'END'
import keras
import numpy as np

random = np.random.default_rng(0)
x = random.normal(size=(256, 8)).astype(np.float32)
target = x @ random.normal(size=(8, 8)).astype(np.float32)

keras.utils.set_random_seed(0)
dense = keras.layers.Dense(8, use_bias=False)
model = keras.Sequential(
  [
    keras.Input((8,)),
    keras.layers.SpectralNormalization(dense, power_iterations=10),
  ]
)
model.compile(keras.optimizers.SGD(0.1), 'mse')
history = model.fit(x, target, batch_size=256, epochs=2000, verbose=0)
kernel = np.asarray(dense.kernel)
sigma = np.linalg.norm(kernel, 2)
in_fit = history.history['loss'][-1]
in_test = model.evaluate(x, target, batch_size=256, verbose=0)
divided = np.mean((x @ (kernel / sigma) - target) ** 2)
model(x, training=True)
by_hand = np.linalg.norm(np.asarray(dense.kernel), 2)

print(f'largest singular value of the kernel after fit    {sigma:7.2f}')
print(f'loss at the end of fit                            {in_fit:8.4f}')
print(f'loss by evaluate on the same batch                {in_test:8.4f}')
print(f'loss with the kernel divided by hand              {divided:8.4f}')
print(f'after a call by hand: largest singular value      {by_hand:7.2f}')
if abs(sigma - 1) < 0.1:
  raise SystemExit('changed: the kernel is divided after fit')
if in_test > 0.9 * in_fit:
  raise SystemExit('changed: evaluate normalizes, too')
if abs(in_fit / divided - 1) > 0.1 or abs(by_hand - 1) > 0.1:
  raise SystemExit('changed: training no longer normalizes')
END
