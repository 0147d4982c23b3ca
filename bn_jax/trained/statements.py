"""Checks the theory's statements about a network, and writes their table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bn_jax import trees
from bn_jax.analysis.theory import one_layer, sides, statements

# A standard deviation below this share of the largest value is rounding:
# float64 rounds at 1e-16, and sums over a batch lose a few digits.
_CONSTANT = 1e-12

WIDTH = 100  # of a row of the table, as _HEAD has it
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


class Network(NamedTuple):
  """A network at one point and batch, in float64.

  Attributes:
    loss: params -> [], not jitted.
    params: the parameters of the point.
    before: path of each normalization to look at -> path of the layer whose
      output is its input.
  """

  loss: Callable[[Any], jax.Array]
  params: Any
  before: Mapping[str, str]


class Outcome(NamedTuple):
  """A statement about a unit, or all weights, as numbers; vectors as norms."""

  left: jax.Array
  right: jax.Array
  difference: jax.Array
  holds: jax.Array


# Name of a statement -> its outcome for each unit.
Statements = dict[str, list[Outcome]]


def of_units(
  network: Network, *, units: int, key: jax.Array
) -> tuple[Statements, Statements, float]:
  """Checks the statements about some units of each normalization.

  Args:
    units: of each layer at most, evenly spaced among those whose input varies.
    key: of the random vectors v.

  Returns:
    The outcomes with epsilon = 0 in the layer, those with its own epsilon, and
    the epsilon of the last layer.
  """
  at_zero, at_own, epsilon = {}, {}, 0.0
  for path, below in network.before.items():
    varies_C, own_epsilon, *x_and_norm = _survey(network, path, below)
    # A float like 0.0, so that one program serves both.
    epsilon = float(own_epsilon)
    look = _look_at(network, path)
    for index in _spaced(np.flatnonzero(varies_C), units):
      for layer_epsilon, outcomes in ((0.0, at_zero), (epsilon, at_own)):
        of_unit = jax.device_get(look(index, layer_epsilon, key, *x_and_norm))
        for name, outcome in of_unit.items():
          outcomes.setdefault(name, []).append(outcome)
  return at_zero, at_own, epsilon


def of_weights(w_0: Any, w_star: Any) -> Statements:
  """Checks Lemma 4.5 about weights before and after training."""
  ray = statements.lemma_4_5(w_0, w_star)
  positive = sides.AtMost(jnp.zeros(()), ray.factor, jnp.ones(()))
  return {'lemma_4_5': [_outcome(ray.closer)], 'factor': [_outcome(positive)]}


def table(
  at_zero: Statements,
  at_own: Statements,
  epsilon: float,
  weight_outcomes: Statements,
) -> str:
  """Returns the table of a network, from `of_units` and `of_weights`."""
  lines = [
    _HEAD,
    'with epsilon = 0 in the layer looked at\n',
    *_lines(AT_ZERO, at_zero),
    f'with its own epsilon, {epsilon:g}\n',
    *_lines(AT_EPSILON, at_own),
    'of all weights before normalizations\n',
    *_lines(OF_WEIGHTS, weight_outcomes),
    '\n',
  ]
  return ''.join(lines)


def _survey(network: Network, path: str, below: str):
  """Returns whether each unit's input varies, epsilon, X, and |X|_2."""

  @jax.jit
  def survey(params):
    layer = one_layer.of(network.loss, params, path)
    x_MC = layer.input[: layer.group_size]
    x_MC = x_MC.reshape(-1, x_MC.shape[-1])
    varies_C = x_MC.std(axis=0) > _CONSTANT * jnp.abs(x_MC).max(axis=0)
    x_MD = one_layer.inputs(
      network.loss, params, below, examples=layer.group_size
    )
    norm = statements.largest_singular_value(x_MD)
    return varies_C, layer.epsilon, x_MD, norm

  return survey(network.params)


def _look_at(network: Network, path: str):
  """Returns a program that checks any unit of a layer, at any epsilon."""

  @jax.jit
  def look(params, index, epsilon, key, x_MD, norm):
    layer = one_layer.of(network.loss, params, path)
    unit = layer.unit(index)
    # Jitted once more, the network is traced once and not for each derivative
    # of each statement: of VGG-11 in 1 s instead of 12 s.
    unit = unit._replace(loss=jax.jit(unit.loss), epsilon=epsilon)
    v_M = jax.random.normal(key, unit.y.shape, unit.y.dtype)
    at = statements.point(unit)
    of_unit = _statements(at, v_M, x_MD, norm)
    of_unit['algorithm_1'] = statements.algorithm_1(at, layer.output_of(index))
    return {name: _outcome(side) for name, side in of_unit.items()}

  return lambda *rest: look(network.params, *rest)


def _statements(
  at: statements.Point, v_M: jax.Array, x_MD: jax.Array, norm: jax.Array
) -> dict[str, sides.Equality | sides.AtMost]:
  line_2 = statements.theorem_4_2_line_2(at)
  return {
    'fact_c1': statements.fact_c1(at),
    'fact_c2': statements.fact_c2(at, v_M),
    'theorem_4_1': statements.theorem_4_1(at),
    'theorem_4_1_bound': statements.theorem_4_1_bound(at),
    'hessian_identity': statements.hessian_identity(at, v_M),
    'theorem_4_2_line_1': statements.theorem_4_2_line_1(at),
    'theorem_4_2_line_2': line_2.bound,
    'condition': line_2.condition,
    'improvement': line_2.improvement,
    'observation_4_3': statements.observation_4_3(at),
    'theorem_4_4': statements.theorem_4_4(at, x_MD, spectral_norm=norm),
    'theorem_4_4_pointwise': statements.theorem_4_4_pointwise(
      at, x_MD, spectral_norm=norm
    ),
    'scale_invariance': statements.scale_invariance(at, 2.0),
  }


def _outcome(side: sides.Equality | sides.AtMost) -> Outcome:
  left, right = (
    trees.norm(x) if x.ndim else x for x in (side.left, side.right)
  )
  return Outcome(left, right, side.difference(), side.holds())


def _spaced(indices: np.ndarray, count: int) -> np.ndarray:
  """Returns `count` of the indices, evenly spaced, or all if they are fewer."""
  if len(indices) <= count:
    return indices
  return indices[np.linspace(0, len(indices) - 1, count).round().astype(int)]


def _lines(
  rows: Sequence[tuple[str, str, str]], outcomes: Statements
) -> Iterator[str]:
  for name, title, formula in rows:
    yield f'{title:10} {formula:47} {_numbers(outcomes.get(name))}\n'


def _numbers(outcomes: Sequence[Outcome] | None) -> str:
  """Returns the numbers of the worst unit, and for how many units it holds."""
  if not outcomes:
    return 'no unit whose input varies'
  worst = max(outcomes, key=lambda outcome: _badness(float(outcome.difference)))
  count = sum(bool(outcome.holds) for outcome in outcomes)
  holds = f'{count} of {len(outcomes)}'
  return (
    f'{worst.left:10.3e} {worst.right:10.3e} {holds:>8} '
    f'{worst.difference:10.0e}'
  )


def _badness(difference: float) -> float:
  return np.inf if np.isnan(difference) else difference
