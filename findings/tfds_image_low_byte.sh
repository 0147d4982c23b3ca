#!/usr/bin/env bash
# A 16-bit picture, read as 8 bits by tensorflow-datasets, keeps the wrong byte.
#
# Versions: tensorflow-datasets 4.9.10, Pillow 13.0.0, numpy 2.4.6, Python 3.11;
# the same with opencv-python-headless 5.0.0.93, which it prefers to Pillow.
#
# features.Image takes an image file in any form and, unless told otherwise,
# hands back uint8. Given a grey PNG of 16 bits it stores the file as it is,
# and the reader that needs no TensorFlow casts the decoded numbers: of each
# pixel the low 8 bits are left. A smooth ramp from black to white becomes
# bands that wrap; where the high byte carries the picture, only noise is left.
#
# Expected: the high byte, as TensorFlow's reader gives for the same record
# (tensorflow 2.21.0), or a refusal, as for an array of uint16.
# Why it matters: X-rays, depth maps and microscope pictures come so. Shape,
# dtype and range look right, the network trains, and only its accuracy, lower
# than that of a colleague who reads the same files by tf.data, tells.
#
# Output seen:
#   true            0    96   192   288   384   480   576   672
#   high byte       0     0     0     1     1     1     2     2
#   read            0    96   192    32   128   224    64   160
#   correlation of what is read with the picture: 0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  tensorflow-datasets==4.9.10 Pillow==13.0.0 numpy==2.4.6
"$folder/env/bin/python" - <<'END'
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

ramp = (96 * np.arange(26 * 26)).reshape(26, 26).astype(np.uint16)
file = io.BytesIO()
Image.fromarray(ramp).save(file, 'PNG')
file.seek(0)

features = tfds.features.FeaturesDict(
  {'image': tfds.features.Image(shape=(26, 26, 1))}
)
record = features.serialize_example({'image': file})
image = features.deserialize_example_np(record)['image'][..., 0]

for name, numbers in (
  ('true', ramp),
  ('high byte', ramp >> 8),
  ('read', image),
):
  print(f'{name:10}', *(f'{number:5}' for number in numbers[0, :8]))
correlation = np.corrcoef(ramp.ravel(), image.ravel())[0, 1]
print(f'correlation of what is read with the picture: {correlation:.2f}')
if image.dtype != np.uint8 or not (image == (ramp & 255)).all():
  raise SystemExit('changed: the low byte is no longer what is read')
END
