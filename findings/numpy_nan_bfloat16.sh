#!/usr/bin/env bash
# NumPy's functions that leave nan out do not, of bfloat16: nanargmax finds nan.
#
# Versions: numpy 2.4.6, ml_dtypes 0.6.0, Python 3.11.
#
# np.asarray of a bfloat16 array of JAX has ml_dtypes' dtype, which NumPy does
# not count among its inexact ones. nanargmax, nanmean, nansum, nanstd and
# nan_to_num look for nan only in those, and take every other dtype as free of
# it. nanmax, nanmin and nanmedian ask otherwise and are right, and so is
# np.isnan, so that a look at one function does not tell of the other. The same
# holds of float8.
#
# Expected: the answers for float32, or a TypeError.
# Why it matters: nanargmax over the accuracies of a sweep is written because
# some runs diverge; here it picks a run that did. nan_to_num guards a sum and
# guards nothing.
#
# Output seen (of 0.5, 0.75, nan, 0.25):
#                 float32                  bfloat16
#   nanargmax     1                        2
#   nanmax        0.75                     0.75
#   nanmean       0.5                      nan
#   nansum        1.5                      nan
#   nan_to_num    [0.5, 0.75, 0.0, 0.25]   [0.5, 0.75, nan, 0.25]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  numpy==2.4.6 ml_dtypes==0.6.0
"$folder/env/bin/python" - <<'END'
import ml_dtypes
import numpy as np

exact = np.array([0.5, 0.75, np.nan, 0.25], np.float32)
low = exact.astype(ml_dtypes.bfloat16)
print('              float32                  bfloat16')
answers = {}
for name in ('nanargmax', 'nanmax', 'nanmean', 'nansum', 'nan_to_num'):
  pair = [
    np.asarray(getattr(np, name)(array), np.float64).tolist()
    for array in (exact, low)
  ]
  pair = [int(answer) if name == 'nanargmax' else answer for answer in pair]
  answers[name] = [str(answer) for answer in pair]
  print(f'{name:13} {answers[name][0]:24} {answers[name][1]}')
if answers['nanargmax'] != ['1', '2']:
  raise SystemExit('changed: nanargmax leaves nan out')
if any(answers[name][1] != 'nan' for name in ('nanmean', 'nansum')):
  raise SystemExit('changed: nanmean or nansum leaves nan out')
if 'nan' not in answers['nan_to_num'][1]:
  raise SystemExit('changed: nan_to_num replaces nan')
END
