"""What a mask leaves out reaches no value and no derivative, and gets none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import norms
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


KEYWORDS = {
  **{name: (name, {}) for name in norms.NORMS},
  'lp': ('lp', dict(p=3.0)),
  'lp_between': ('lp', dict(p=1.5, centred=True)),
  'renorm_of_groups': (
    'batch_renorm',
    dict(r_steps=(0, 0), d_steps=(0, 0), group_size=2, epsilon=0.0),
  ),
  'batch_of_half_precision': ('batch', {}),
  'batch_frozen': ('batch', dict(frozen=True)),
  'batch_of_groups': ('batch', dict(group_size=2, epsilon=0.0)),
  'batch_stopped': ('batch', dict(stop_statistics_gradient=True)),
  'iternorm_exact': ('iternorm', dict(group_size=2, epsilon=0.0, num_groups=2)),
  # Its count is 0 or 1, where it is half tapered.
  'taper_between': ('taper', dict(taper_steps=(0, 2), epsilon=0.0)),
  'taper_at_positions': ('taper', dict(per='position', epsilon=0.0)),
  'l2_of_groups': ('l2', dict(group_size=2, epsilon=0.0)),
  'linf_of_groups': ('linf', dict(group_size=2, epsilon=0.0)),
  'layer_exact': ('layer', dict(epsilon=0.0)),
  'layer_at_positions': ('layer', dict(per='position', epsilon=0.0)),
  'evonorm_b0_exact': ('evonorm_b0', dict(group_size=2, epsilon=0.0)),
  'evonorm_s0_exact': ('evonorm_s0', dict(epsilon=0.0, axis=1)),
  'grn_exact': ('grn', dict(epsilon=0.0)),
  'group_exact': ('group', dict(epsilon=0.0)),
  'instance_exact': ('instance', dict(epsilon=0.0)),
  'rms_exact': ('rms', dict(epsilon=0.0)),
  'batch_first': ('batch', dict(axis=1)),
  'frn_exact': ('frn', dict(epsilon=0.0, axis=1)),
  'seednorm_exact': ('seednorm', dict(epsilon=0.0, heads=2)),
  'seednorm_at_positions': (
    'seednorm',
    dict(per='position', epsilon=0.0, axis=1),
  ),
}
SHAPE = (6, 3, 2, 4)
_POSITIONS = np.random.default_rng(1).random(SHAPE[:-1]) < 0.6
# The last two examples, a group of 2, are wholly padding.
MASKS = {
  'examples': np.arange(6) % 3 < 1 + (np.arange(6) < 3),
  'positions': _POSITIONS & (np.arange(6) < 4)[:, None, None],
}
MASKS['examples'][4:] = False
HELD = (np.inf, -np.inf, np.nan, 1e30, 3e38)


class Layer(nn.Module):
  """A norm, and its own nonlinearity if it has one."""

  norm: norms.Norm

  @nn.compact
  def __call__(self, x, **keywords):
    x = self.norm.layer('norm1')(x, **keywords)
    return self.norm.unit('unit1')(x, **keywords) if self.norm.unit else x


def filled(leaf, generator):
  """Random numbers like a variable, all above 0; nothing is compiled."""
  return jnp.asarray(generator.uniform(0.5, 2, leaf.shape), leaf.dtype)


def program(name, mask):
  """(held -> everything that is computed of x, with both statistics, real).

  held is what x holds in the places where real is False; arrays have their
  channels last.
  """
  norm, keywords = KEYWORDS[name]
  layer = Layer(norms.make(norm, **keywords))
  axis = keywords.get('axis', -1)
  real = mask.reshape(*mask.shape, *(1,) * (4 - mask.ndim))
  generator = np.random.default_rng(2)
  dtype = jnp.bfloat16 if 'half' in name else jnp.float32
  x, dx, ways = generator.normal(1, 2, (3, *SHAPE)).astype(dtype)
  shapes = jax.eval_shape(
    lambda x: layer.init(jax.random.key(0), x, statistics='running'),
    np.moveaxis(x, -1, axis),
  )
  variables = jax.tree.map(lambda a: filled(a, generator), dict(shapes))
  params = variables.pop('params', {})
  along = (jax.tree.map(lambda a: filled(a, generator), params), dx)

  def outputs(statistics, params, x):
    y, new = layer.apply(
      {'params': params, **variables}, jnp.moveaxis(x, -1, axis), mask=mask,
      statistics=statistics, mutable=['batch_stats', 'moments'],
      rngs={'noise': jax.random.key(3)},
    )  # fmt: skip
    return jnp.moveaxis(y, axis, -1), new

  def loss(statistics, params, x):
    y, new = outputs(statistics, params, x)
    value = jnp.where(real, jnp.sin(y) * ways, 0).sum()
    return value, (jnp.where(real, y, 0), new)

  @jax.jit
  def everything(x):
    found = {}
    for statistics in norms.STATISTICS:
      of_loss = functools.partial(loss, statistics)
      # Forward mode, of the outputs and of the gradient: the second order.
      found[statistics] = jax.jvp(
        jax.grad(of_loss, (0, 1), has_aux=True), (params, x), along
      )
    return found

  return lambda held: everything(np.where(real, x, dtype(held))), real


# Each norm as it comes, and each other one of its ways, under one mask; where
# there is no other way, under both.
_VARIED = {norm for name, (norm, _) in KEYWORDS.items() if name != norm}
_FAST = tuple(
  (name, mask)
  for name, (norm, _) in KEYWORDS.items()
  for mask in MASKS
  if norm not in _VARIED or (mask == 'examples') == (name == norm)
)
_SLOW = tuple(
  (name, mask)
  for name in KEYWORDS
  for mask in MASKS
  if (name, mask) not in _FAST
)


class PaddingTest(parameterized.TestCase):
  @parameterized.parameters(*_FAST)
  def test_holds_what_it_likes(self, name, mask):
    """The same bits as with zeros there; its own gradients are 0."""
    self.check(name, mask)

  @parameterized.parameters(*_SLOW)
  @pytest.mark.slow
  def test_so_under_the_other_mask(self, name, mask):
    self.check(name, mask)

  def check(self, name, mask):
    of, real = program(name, MASKS[mask])
    want = of(0)
    for held in HELD:
      same_bits.assert_same(of(held), want)
    for (gradient, _), (hessian, _) in want.values():
      for leaf in jax.tree.leaves((gradient, hessian)):
        self.assertTrue(np.isfinite(leaf).all())
      for of_x in (gradient[1], hessian[1]):
        self.assertFalse(np.where(real, 0, of_x).any())
        self.assertTrue(of_x.any())

  @parameterized.parameters(*MASKS)
  def test_so_with_functions(self, name):
    mask = MASKS[name]
    real = mask.reshape(*mask.shape, *(1,) * (4 - mask.ndim))
    keywords = dict(mask=mask, group_size=2)
    functions = (
      functools.partial(norms.batch_norm, **keywords),
      functools.partial(norms.lp_norm, p=3, **keywords),
      lambda x, *_: (0, norms.moments(x, **keywords)),
    )

    def loss(x, scale, bias):
      total = 0
      for function in functions:
        y, moments = function(x, scale, bias)
        total += jnp.where(real, y**3, 0).sum()
        total += sum((part**2).sum() for part in moments)
      return total

    x = np.random.default_rng(3).normal(1, 2, SHAPE).astype(np.float32)
    gradient = jax.jit(jax.grad(loss, (0, 1, 2)))

    def of(held):
      return gradient(np.where(real, x, np.float32(held)), *np.ones((2, 4)))

    want = of(0)
    for held in HELD:
      same_bits.assert_same(of(held), want)
    self.assertFalse(np.where(real, 0, want[0]).any())
    self.assertTrue(all(leaf.any() for leaf in want))


if __name__ == '__main__':
  absltest.main()
