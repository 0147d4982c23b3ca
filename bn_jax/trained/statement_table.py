"""The statements of the theory as a table, and what its signs mean."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bn_jax.trained import statements

Statements = Mapping[str, Sequence[statements.Found]]

WIDTH = 100  # of the table
# A row: the name of a statement, what the papers call it, what it says.
AT_ZERO = (
  ('fact_c1', 'Fact C.1', 'q = k P g'),
  ('fact_c2', 'Fact C.2', '(dyhat/dy) v = P v / s'),
  ('theorem_4_1', 'Thm 4.1', '|q|^2 = k^2 (|g|^2 - <1,g>^2/m - <g,yhat>^2/m)'),
  ('hessian_identity', 'Hessian', 'G v = k^2 P H P v - k/(ms) (...) v'),
  (
    'theorem_4_2_line_1',
    'Thm 4.2',
    "q'G q = k^2 q'H q - k/(ms) <g,yhat> |q|^2",
  ),
  (
    'theorem_4_2_line_2',
    '  line 2',
    "q'G q <= k^2 g'H g - k/(ms) <g,yhat> |q|^2",
  ),
  ('condition', '  needs', "q'H q <= g'H g"),
  ('improvement', '  improves', 'where 0 <= scale <g,yhat>'),
  ('observation_4_3', 'Obs. 4.3', 'z = y  if scale = s, bias = mean(y)'),
  ('theorem_4_4', 'Thm 4.4', "max |X'q|^2 = l^2 times the right of Thm 4.1"),
  ('theorem_4_4_pointwise', '  this X', "|X'q|^2 <= l^2 |q|^2"),
  ('scale_invariance', '2015, 3.3', 'q at 2y = 1/2 q at y'),
)
AT_EPSILON = (
  ('algorithm_1', '2015, 3', 'output of the layer = scale yhat + bias'),
  ('fact_c1', 'Fact C.1', 'q = k P g'),
  ('theorem_4_1', 'Thm 4.1', '|q|^2 = k^2 (|g|^2 - <1,g>^2/m - c<g,yhat>^2/m)'),
  (
    'theorem_4_1_bound',
    '  with <=',
    '|q|^2 <= k^2 (|g|^2 - <1,g>^2/m - <g,yhat>^2/m)',
  ),
  ('hessian_identity', 'Hessian', 'G v = k^2 P H P v - k/(ms) (...) v'),
)
OF_WEIGHTS = (
  (
    'lemma_4_5',
    'Lemma 4.5',
    '|w0-aw*|^2 - |w0-w*|^2 = -<w*,w*-w0>^2/|w*|^2',
  ),
  ('factor', '  needs', '0 < a = <w*,w0>/|w*|^2'),
)
LEGEND = """\
left, right  of the unit where they differ most; of a vector its norm
difference   left - right, relative to the size of the terms; of <= with its
             sign, below 0 where there is room. What holds, holds to 1e-9
y, z, m      the values of a unit over the batch, before and after; their number
s, yhat, k   s^2 = var(y) + epsilon; yhat = (y - mean(y)) / s; k = scale / s
P            I - 1 1'/m - yhat yhat'/m;  v: a random vector
g, H; q, G   gradient and Hessian of the loss by z; by y
(...)        Pg yhat' + yhat (Pg)' + <g,yhat> P;  c = 1 + epsilon / s^2
X, l         y = X w, of spectral norm l; the maximum is over X with that norm
w0, w*       weights before normalizations, at the start and after the last
             step (in the place of an optimum)
Santurkar et al. (2018), arXiv:1805.11604, corrected; line 2 of Thm 4.2 is false
without what it needs. 2015: Ioffe and Szegedy, arXiv:1502.03167.
"""
_HEAD = (
  f'{"statement":58} {"left side":>10} {"right side":>10} {"holds":>8} '
  f'{"difference":>10}\n'
)


def text(
  at_zero: Statements,
  at_own: Statements,
  epsilon: float,
  of_weights: Statements,
) -> str:
  """The table of a network.

  Args:
    at_zero: with epsilon = 0 in the layer looked at.
    at_own: with its own epsilon.
    epsilon: that one.
    of_weights: of all weights together.
  """
  lines = [
    _HEAD,
    'with epsilon = 0 in the layer looked at\n',
    *_lines(AT_ZERO, at_zero),
    f'with its own epsilon, {epsilon:g}\n',
    *_lines(AT_EPSILON, at_own),
    'of all weights before normalizations\n',
    *_lines(OF_WEIGHTS, of_weights),
    '\n',
  ]
  return ''.join(lines)


def _lines(
  rows: Sequence[tuple[str, str, str]], found: Statements
) -> Iterator[str]:
  for name, title, formula in rows:
    yield f'{title:10} {formula:47} {_numbers(found.get(name))}\n'


def _numbers(found: Sequence[statements.Found] | None) -> str:
  """The numbers of the worst unit, and of how many it holds."""
  if not found:
    return 'no unit whose input varies'
  worst = max(found, key=lambda one: _badness(float(one.difference)))
  holds = f'{sum(bool(one.holds) for one in found)} of {len(found)}'
  return (
    f'{worst.left:10.3e} {worst.right:10.3e} {holds:>8} '
    f'{worst.difference:10.0e}'
  )


def _badness(difference: float) -> float:
  return np.inf if np.isnan(difference) else difference
