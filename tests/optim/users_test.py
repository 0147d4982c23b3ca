"""Transformations that are named by a reference."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import optax
from absl.testing import absltest, parameterized

from bn_jax import errors, modules, optim
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)

RATE = optim.constant(learning_rate=0.05)
_TEXT = """
import jax
import optax
from bn_jax import optim

def sam_of_adam(schedule, *, rho=0.1):
  return optim.sharpness_aware(optim.adam(schedule), rho=rho)

def by_value(schedule):
  def update(updates, state, params=None, *, value, grad, value_fn, **extra):
    same = 1.0 * (abs(value_fn(params) - value) < 1e-5)
    return jax.tree.map(lambda g: -same * value * g, grad), state
  return optax.GradientTransformationExtraArgs(lambda params: (), update)

def decayed(schedule, weight_decay_on):
  assert weight_decay_on == '*bias'
  return optax.sgd(schedule)
"""


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class UsersTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / 'own_optimizers.py').write_text(_TEXT)
    modules.search(folder)
    self.addCleanup(sys.modules.pop, 'own_optimizers', None)

  @parameterized.parameters(
    ('optax:adabelief', dict(b1=0.8), lambda: optax.adabelief(RATE, b1=0.8)),
    ('optax:lbfgs', {}, lambda: optax.lbfgs(RATE)),
    ('optax.contrib:prodigy', {}, lambda: optax.contrib.prodigy(RATE)),
  )
  def test_bit_for_bit_as_optax_alone(self, name, keywords, alone):
    """With what they want of the objective: lbfgs looks for its step."""
    ours, theirs = optim.make(name, RATE, **keywords), alone()
    params = {'w': jnp.array([1.0, -2.0, 0.5])}

    def loss(params):
      return jnp.sum(jnp.array([1.0, 3.0, 9.0]) * params['w'] ** 2)

    def run(update, params, opt_state):
      value, gradient = jax.value_and_grad(loss)(params)
      updates, opt_state = update(
        gradient, opt_state, params, value=value, grad=gradient, value_fn=loss
      )
      return optax.apply_updates(params, updates), opt_state

    other, states = params, (ours.init(params), theirs.init(params))
    for _ in range(3):
      params, ours_state = jax.jit(run, static_argnums=0)(
        ours.update, params, states[0]
      )
      other, theirs_state = jax.jit(run, static_argnums=0)(
        optax.with_extra_args_support(theirs).update, other, states[1]
      )
      states = ours_state, theirs_state
      same_bits.assert_same(params, other)
    self.assertLess(float(loss(params)), 15.25)

  def test_what_an_update_gets_of_the_objective(self):
    """In a step the update is -value * gradient, at micro-batches too."""
    split = toys.split()
    for micro_batches in (1, 2):
      made = toys.classifier(
        'none', optimizer=optim.make('own_optimizers:by_value', RATE),
        micro_batches=micro_batches,
      )  # fmt: skip
      state = made.init(0)
      loss = made.loss(state, made.batch(state, split), 'batch')
      both = jax.jit(jax.value_and_grad(loss))
      value, gradient = both(state.params)
      after = toys.step(made)(state, split)
      for p, g, new in zip(
        *map(jax.tree.leaves, (state.params, gradient, after.params))
      ):
        self.assertAlmostEqual(
          float(jnp.abs(new - (p - value * g)).max()), 0, places=5
        )
      got = made.updates(state, gradient, both)
      for u, g in zip(jax.tree.leaves(got), jax.tree.leaves(gradient)):
        self.assertAlmostEqual(float(jnp.abs(u + value * g).max()), 0, places=5)

  @parameterized.parameters('optax:adabelief', 'optax:sgd')
  def test_an_update_that_uses_no_more_than_a_gradient(self, name):
    """Optax chains all that it has, so that all take the objective too."""
    made = toys.classifier('none', optimizer=optim.make(name, RATE))
    state = made.init(0)
    gradient = jax.tree.map(jnp.ones_like, state.params)
    alone = getattr(optax, name.removeprefix('optax:'))(RATE)
    want, _ = jax.jit(alone.update)(
      gradient, alone.init(state.params), state.params
    )
    same_bits.assert_same(made.updates(state, gradient), want)
    same_bits.assert_same(made.updates(state, gradient, self.fail), want)

  def test_an_update_that_uses_more(self):
    made = toys.classifier(
      'none', optimizer=optim.make('own_optimizers:by_value', RATE)
    )
    state = made.init(0)
    with self.assertRaisesRegex(ValueError, 'wants more of the objective'):
      made.updates(state, state.params)

  def test_an_optimizer_of_ours(self):
    optimizer = optim.make('own_optimizers:sam_of_adam', RATE, rho=0.5)
    params = {'w': jnp.ones(1)}
    point = optimizer.ascent(params, {'w': jnp.full(1, 2.0)})
    self.assertAlmostEqual(float(point['w'][0]), 1.5, places=6)

  def test_gets_weight_decay_on_where_it_takes_it(self):
    optim.make('own_optimizers:decayed', RATE, weight_decay_on='*bias')

  @parameterized.parameters(
    ('optax:polyak_sgd', {}, "takes no 'schedule'.*'learning_rate'"),
    ('optax.contrib:schedule_free_adamw', {}, 'ScheduleFreeState.*config.ema'),
    ('optax:scale_by_adam', {}, "takes no 'schedule'"),
  )
  def test_refuses(self, name, keywords, message):
    with self.assertRaisesRegex((ValueError, errors.ConfigError), message):
      optim.make(name, RATE, **keywords).init({'w': jnp.ones(2)})


if __name__ == '__main__':
  absltest.main()
