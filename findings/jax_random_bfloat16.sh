#!/usr/bin/env bash
# JAX draws from probabilities of bfloat16 another distribution than they say.
#
# Versions: jax and jaxlib 0.10.2 on the CPU, numpy 2.4.6, Python 3.11.
#
# jax.random.choice, categorical and bernoulli draw their own uniform or Gumbel
# numbers in the dtype of the probabilities. bfloat16 has 128 of them.
# choice: most of 1,000 equally likely items are never drawn. categorical: the
# largest Gumbel number is shared by many classes, and the first of them wins,
# so that half of the draws are among the first 100 of 1,000 equal classes.
# bernoulli: what is to happen once in 1,000 happens 7 times as often.
#
# Expected: the probabilities themselves are off by 0.4 % in bfloat16, so the
# draws are, too. The documentation gives limits in float32 alone (1e-7).
# Why it matters: softmax in a bfloat16 network gives such arrays. Sampled
# tokens, hard negatives, label noise, dropped paths and importance sampling
# then have another distribution, the same for every seed, and nothing fails.
#
# Output seen (100,000 draws; probabilities 1/1000, and 0.001):
#                                      float32    bfloat16
#   choice: items never drawn                0         872
#   categorical: share of first 100     0.1002      0.5465
#   bernoulli(0.001): share             0.0010      0.0076
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'END'
import jax
import jax.numpy as jnp
import numpy as np

draws = 100_000
shares = {}
for dtype in ('float32', 'bfloat16'):
  keys = jax.random.split(jax.random.key(0), 3)
  even = jnp.full(1000, 0.001, dtype)
  items = jax.random.choice(keys[0], 1000, (draws,), p=even)
  classes = jax.random.categorical(keys[1], jnp.log(even), shape=(draws,))
  coins = jax.random.bernoulli(keys[2], even[0], (draws,))
  shares[dtype] = (
    1000 - len(np.unique(items)),
    np.mean(np.asarray(classes) < 100),
    np.mean(np.asarray(coins)),
  )
print('                                   float32    bfloat16')
for index, (name, style) in enumerate(
  (
    ('choice: items never drawn', 'd'),
    ('categorical: share of first 100', '.4f'),
    ('bernoulli(0.001): share', '.4f'),
  )
):
  values = [shares[dtype][index] for dtype in ('float32', 'bfloat16')]
  print(f'{name:31}', *(f'{value:11{style}}' for value in values))
exact, low = shares['float32'], shares['bfloat16']
if exact[0] or abs(exact[1] - 0.1) > 0.01 or abs(exact[2] - 0.001) > 0.0005:
  raise SystemExit('changed: float32 is no longer right')
if low[0] < 500 or low[1] < 0.3 or low[2] < 0.004:
  raise SystemExit('changed: bfloat16 is no longer so far off')
END
