#!/usr/bin/env bash
# safetensors writes a transposed NumPy array in the order of its memory.
#
# Versions: safetensors 0.8.0, numpy 2.4.6, Python 3.11. 0.7.0 was right; the
# project has an open report of it.
#
# save_file and save of safetensors.numpy hand over the address of an array and
# its shape. They do not look at its strides: kernel.T is written with the shape
# of the transpose and the order of the original. All numbers are there, in
# other places. The documentation asks for contiguous and dense arrays, which
# kernel.T is by NumPy's flags (F_CONTIGUOUS); safetensors.torch refuses or
# copies such tensors, and safetensors.flax is not concerned.
#
# Expected: what is loaded equals what was saved, or an error, as in PyTorch.
# Why it matters: PyTorch keeps a dense layer as [out, in], flax as [in, out];
# weights are converted by .T, and convolutions by .transpose(2, 3, 1, 0).
# Mean, norm and histogram of each layer stay the same; only the accuracy is
# that of chance.
#
# Output seen:
#   saved   [[0, 3], [1, 4], [2, 5]]
#   loaded  [[0, 1], [2, 3], [4, 5]]
#   3 x 3 convolution, HWIO from OIHW: 0.0 % of the numbers in their place
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  safetensors==0.8.0 numpy==2.4.6
"$folder/env/bin/python" - "$folder/weights.safetensors" <<'END'
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

dense = np.arange(6).reshape(2, 3)
conv = np.arange(64 * 32 * 9).reshape(64, 32, 3, 3)
weights = {'dense': dense.T, 'conv': conv.transpose(2, 3, 1, 0)}
save_file(weights, sys.argv[1])
loaded = load_file(sys.argv[1])

print('saved  ', weights['dense'].tolist())
print('loaded ', loaded['dense'].tolist())
share = np.mean(weights['conv'] == loaded['conv'])
print(
  '3 x 3 convolution, HWIO from OIHW: '
  f'{100 * share:.1f} % of the numbers in their place'
)
if not (loaded['dense'].ravel() == np.arange(6)).all() or share > 0.1:
  raise SystemExit('changed: a transpose is kept')
END
