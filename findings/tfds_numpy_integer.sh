#!/usr/bin/env bash
# tensorflow-datasets refuses 300 as uint8, and stores NumPy's 300 as 44.
#
# Versions: tensorflow-datasets 4.9.10, numpy 2.4.6, Python 3.11.
#
# A Scalar or Tensor refuses an array of another dtype than stated, and a Python
# integer that does not fit. A scalar of NumPy is neither: it is cast, modulo
# 256 for uint8, towards 0 from a float to an integer, and written without a
# word.
#
# Expected: np.int64(300) is refused as 300 and np.array(300) are.
# Why it matters: whoever states the dtype relies on that check. Rows of a table
# (pandas, np.load, scipy.io) yield NumPy's scalars: counts, ages in days or
# class numbers beyond 255, and ratings such as 2.7, become others that look as
# plausible, in a prepared set that others then use.
#
# Output seen:
#   uint8   300             refused (OverflowError)
#   uint8   np.array(300)   refused (ValueError)
#   uint8   np.int64(300)   stored as 44
#   int32   np.float64(2.7) stored as 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  tensorflow-datasets==4.9.10 numpy==2.4.6
"$folder/env/bin/python" - <<'END'
import numpy as np
import tensorflow_datasets as tfds

answers = []
for dtype, text, value in (
  ('uint8', '300', 300),
  ('uint8', 'np.array(300)', np.array(300)),
  ('uint8', 'np.int64(300)', np.int64(300)),
  ('int32', 'np.float64(2.7)', np.float64(2.7)),
):
  features = tfds.features.FeaturesDict(
    {'number': tfds.features.Scalar(np.dtype(dtype))}
  )
  try:
    record = features.serialize_example({'number': value})
    number = features.deserialize_example_np(record)['number']
    answer = f'stored as {number}'
  except Exception as error:
    cause = error
    while cause.__cause__ is not None:
      cause = cause.__cause__
    answer = f'refused ({type(cause).__name__})'
  answers.append(answer)
  print(f'{dtype:7} {text:15} {answer}')
if not all(answer.startswith('refused') for answer in answers[:2]):
  raise SystemExit('changed: what was refused is stored')
if answers[2:] != ['stored as 44', 'stored as 2']:
  raise SystemExit("changed: NumPy's scalars")
END
