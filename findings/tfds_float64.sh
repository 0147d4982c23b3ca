#!/usr/bin/env bash
# tensorflow-datasets stores float64 as float32 and hands back float64.
#
# Versions: tensorflow-datasets 4.9.10, numpy 2.4.6, Python 3.11.
#
# A Scalar or Tensor that is stated as float64 goes through the float list of a
# tf.train.Example, which has 32 bits; the reader casts back to the stated
# dtype. The dtype says 16 digits, 7 are there, and nothing is said when the
# set is written or read. encoding='bytes' or 'zlib' of Tensor keeps all bits.
#
# Expected: what was written, or a refusal to write it.
# Why it matters: seconds since 1970 become multiples of 128 s, so that frames
# of a video share one time, and splits or orders by time change; counts beyond
# 16,777,216 and small probabilities change or vanish. A comparison in float64
# with the source then shows differences that look like those of the model.
#
# Output seen:
#   written          as the default   with encoding='bytes'
#   1700000000.25    1700000000.0     1700000000.25
#   1700000060.25    1700000000.0     1700000060.25
#   16777217.0       16777216.0       16777217.0
#   1e-50            0.0              1e-50
#   dtypes: float64 float64
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  tensorflow-datasets==4.9.10 numpy==2.4.6
"$folder/env/bin/python" - <<'END'
import numpy as np
import tensorflow_datasets as tfds

numbers = np.array([1700000000.25, 1700000060.25, 16777217.0, 1e-50])
features = tfds.features.FeaturesDict(
  {
    'default': tfds.features.Tensor(shape=(4,), dtype=np.float64),
    'bytes': tfds.features.Tensor(
      shape=(4,), dtype=np.float64, encoding='bytes'
    ),
  }
)
record = features.serialize_example({'default': numbers, 'bytes': numbers})
read = features.deserialize_example_np(record)

print("written          as the default   with encoding='bytes'")
for row in zip(numbers, read['default'], read['bytes'], strict=True):
  print(*(f'{number!s:16}' for number in row[:2]), row[2])
print('dtypes:', read['default'].dtype, read['bytes'].dtype)
if (
  read['default'].dtype != np.float64
  or not (read['default'] == numbers.astype(np.float32)).all()
  or not (read['bytes'] == numbers).all()
):
  raise SystemExit('changed: float64 is no longer stored as float32')
END
