import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from bn_jax import analysis, types
from bn_jax.data.batches import in_memory
from bn_jax.training import step as step_lib
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


class StepTest(parameterized.TestCase):
  @parameterized.parameters(('none', 0.1), ('batch', 0.0))
  def test_equals_gradient_descent_by_hand(self, norm, weight_decay):
    made = toys.classifier(norm, weight_decay=weight_decay)
    split, state = toys.split(), made.init(0)
    step = toys.step(made)
    for _ in range(3):
      batch = made.batch(state, split)
      loss = made.loss(state, batch, 'batch')
      value, gradient = jax.jit(jax.value_and_grad(loss))(state.params)
      want = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, gradient)
      row, before = int(state.step), state
      state = step(state, split)
      chex.assert_trees_all_close(state.params, want, rtol=1e-5, atol=1e-6)
      ring = {name: float(v[row]) for name, v in state.ring.items()}
      self.assertAlmostEqual(ring['objective'], float(value), places=5)
      self.assertAlmostEqual(
        ring['objective'], ring['data_loss'] + ring['penalty'], places=5
      )
      self.assertAlmostEqual(
        ring['gradient_norm'], float(optax.tree.norm(gradient)), places=5
      )
      self.assertAlmostEqual(ring['learning_rate'], 0.1, places=6)
      kernels = [before.params[n]['kernel'] for n in ('conv1', 'logits')]
      squares = sum(float((k**2).sum()) for k in kernels)
      self.assertAlmostEqual(
        ring['penalty'], weight_decay / 2 * squares, places=4
      )

  def test_accuracy_and_data_loss_by_hand(self):
    made = toys.classifier('none')
    split, state = toys.split(), made.init(0)
    batch = made.batch(state, split)
    objective, aux = made.objective(
      state.params, state.batch_stats, batch, jax.random.key(0)
    )
    module = toys.Net(toys.norms.make('none'))
    logits = module.apply(
      {'params': state.params}, batch.images, statistics='batch'
    )
    logp = np.log(np.exp(np.float64(logits)))
    logp -= np.log(np.exp(logp).sum(-1, keepdims=True))
    want = -logp[np.arange(8), batch.labels].mean()
    self.assertAlmostEqual(float(aux['data_loss']), want, places=5)
    self.assertAlmostEqual(float(objective), want, places=5)
    hits = (np.asarray(logits).argmax(-1) == np.asarray(batch.labels)).mean()
    self.assertAlmostEqual(float(aux['accuracy']), hits, places=6)

  def test_running_averages_move_with_the_step_alone(self):
    made = toys.classifier('batch')
    split, state = toys.split(), made.init(0)
    batch = made.batch(state, split)
    analysis.along_gradient(
      made.loss(state, batch, 'batch'), state.params, [0.1]
    )
    np.testing.assert_array_equal(state.batch_stats['norm1']['mean'], 0)
    moved = toys.step(made)(state, split)
    self.assertTrue((moved.batch_stats['norm1']['mean'] != 0).all())

  def test_statistics_choose_the_function(self):
    made = toys.classifier('batch')
    split, state = toys.split(), made.init(0)
    batch = made.batch(state, split)
    losses = [
      float(made.loss(state, batch, name)(state.params))
      for name in ('batch', 'running')
    ]
    self.assertNotAlmostEqual(*losses, places=3)

  def test_it_learns(self):
    made = toys.classifier('batch', count=60)
    split, state = toys.split(60), made.init(0)
    step = toys.step(made)
    for _ in range(60):
      state = step(state, split)
    self.assertGreater(float(state.ring['accuracy'].mean()), 0.9)


class PaddingTest(parameterized.TestCase):
  @parameterized.parameters('none', 'batch', 'layer')
  def test_may_hold_anything(self, norm):
    """Images and labels; the network's first layer is not ours."""
    made = toys.classifier(norm)
    state, mask = made.init(0), np.arange(8) % 4 != 1

    @jax.jit
    def all_of(batch):
      found = {}
      for statistics in ('batch', 'running'):
        activations = made.activations(state, batch, statistics, ('conv1',))
        perturbed = functools.partial(
          made.perturbed(state, batch, statistics), state.params
        )
        found[statistics] = (
          jax.value_and_grad(made.loss(state, batch, statistics))(state.params),
          made.outputs(state, batch, statistics=statistics)[mask],
          jax.tree.map(lambda values: values[mask], activations),
          jax.grad(perturbed, has_aux=True)(
            jax.tree.map(jnp.zeros_like, activations)
          )[0],
        )
      return made.evaluate(state, batch), found

    batch = in_memory.first(toys.split(), 8)

    def of(held, label):
      images, labels = np.array(batch.images), np.array(batch.labels)
      images[~mask], labels[~mask] = held, label
      return all_of(types.Batch(images, labels, mask))

    want = of(0, 0)
    for leaf in jax.tree.leaves(want):
      self.assertTrue(np.isfinite(leaf).all())
    for held in (np.inf, np.nan, 1e30):
      same_bits.assert_same(of(held, 99), want)


class LatchTest(parameterized.TestCase):
  def poisoned(self, made, state):
    """The state whose next loss is nan, through one parameter."""
    params = jax.tree.map(lambda x: x, state.params)
    params['logits']['bias'] = params['logits']['bias'].at[0].set(jnp.nan)
    return state._replace(params=params)

  @parameterized.parameters('none', 'batch')
  def test_nothing_but_the_row_enters(self, norm):
    made = toys.classifier(norm, momentum=0.9)
    split, step = toys.split(), toys.step(made)
    state = self.poisoned(made, step(made.init(0), split))
    frozen = step(state, split)
    self.assertFalse(bool(frozen.finite))
    self.assertTrue(np.isnan(frozen.ring['objective'][1]))
    keep = ('params', 'batch_stats', 'opt_state', 'order', 'step')
    for name in keep:
      same_bits.assert_same(getattr(frozen, name), getattr(state, name))
    same_bits.assert_same(step(frozen, split), frozen)

  def test_an_infinite_gradient_sets_it_too(self):
    """The loss is finite, its gradient is not."""
    made = toys.classifier('none')
    split, state = toys.split(), made.init(0)

    def objective(params, *unused):
      x = params['logits']['bias'][0]
      return jnp.sqrt(jnp.abs(x)), {
        'data_loss': x, 'penalty': x, 'accuracy': x, 'batch_stats': {},
      }  # fmt: skip

    optimizer = toys.optim.sgd(toys.optim.constant(learning_rate=0.1))
    sampler = toys.order.sampler(num_examples=20, batch_size=8)
    new = step_lib.make(objective, optimizer, sampler)(state, split)
    self.assertFalse(bool(new.finite))
    same_bits.assert_same(new.params, state.params)

  def test_finite_steps_leave_it(self):
    made = toys.classifier('batch')
    self.assertTrue(bool(toys.step(made)(made.init(0), toys.split()).finite))


class InitTest(parameterized.TestCase):
  def test_a_seed_is_its_weights(self):
    made = toys.classifier('batch')
    same_bits.assert_same(made.init(0), made.init(0))
    a, b = made.init(0), made.init(1)
    kernels = (s.params['conv1']['kernel'] for s in (a, b))
    self.assertFalse(np.array_equal(*kernels))

  def test_networks_of_one_seed_share_weights_and_batches(self):
    plain, normed = toys.classifier('none'), toys.classifier('batch')
    split, a, b = toys.split(), plain.init(3), normed.init(3)
    same_bits.assert_same(
      a.params['conv1']['kernel'], b.params['conv1']['kernel']
    )
    same_bits.assert_same(plain.batch(a, split), normed.batch(b, split))

  def test_only_arrays(self):
    state = toys.classifier('batch').init(0)
    for leaf in jax.tree.leaves(state):
      self.assertIsInstance(leaf, jax.Array)

  def test_layers(self):
    made = toys.classifier('batch')
    names = [name for name, _ in made.layers(made.init(0))]
    self.assertEqual(names, ['conv1', 'logits'])


class EvaluateTest(parameterized.TestCase):
  def test_sums_over_the_real_examples_alone(self):
    made = toys.classifier('batch')
    state, split = made.init(0), toys.split()
    whole = types.Batch(
      (split.images - 100.0) / 60.0, split.labels, jnp.ones(20, bool)
    )
    padded = types.Batch(
      jnp.concatenate([whole.images, 1e3 * jnp.ones((4, 4, 4, 1))]),
      jnp.concatenate([whole.labels, jnp.zeros(4, jnp.int32)]),
      jnp.arange(24) < 20,
    )
    want, got = made.evaluate(state, whole), made.evaluate(state, padded)
    self.assertEqual(float(got['count']), 20)
    for name in want:
      np.testing.assert_allclose(got[name], want[name], rtol=1e-5)

  @parameterized.parameters(1, 7, 20, 32)
  def test_measure_does_not_depend_on_the_batch_size(self, batch_size):
    made = toys.classifier('batch')
    state, split = made.init(0), toys.split()
    measure = analysis.make('evaluation')
    batches = lambda size: in_memory.padded_batches(split, batch_size=size)
    want = measure(made, state, batches(20))
    got = measure(made, state, batches(batch_size))
    self.assertEqual(got['count'], 20)
    np.testing.assert_allclose(got['loss'], want['loss'], rtol=1e-5)
    np.testing.assert_allclose(got['accuracy'], want['accuracy'], rtol=1e-6)


class MeasureTest(absltest.TestCase):
  def test_one_compilation_over_five_batches(self):
    # Nobody else has compiled this one.
    made = toys.classifier('batch', learning_rate=0.2, momentum=0.5)
    split, state = toys.split(), made.init(0)
    measure = analysis.make('along_gradient')
    step = toys.step(made)
    seen = []
    for _ in range(5):
      before = _compilations()
      got = measure(made, state, (made.batch(state, split),))
      seen.append(_compilations() - before)
      np.testing.assert_allclose(got['step_size'], [0.1, 0.2, 0.4, 0.8])
      state = step(state, split)
    self.assertGreater(seen[0], 0)
    self.assertEqual(seen[1:], [0, 0, 0, 0])


_COUNT = [0]


def _compilations():
  return _COUNT[0]


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)

  def listen(event, *unused, **also_unused):
    if event == '/jax/core/compile/backend_compile_duration':
      _COUNT[0] += 1

  jax.monitoring.register_event_duration_secs_listener(listen)


if __name__ == '__main__':
  absltest.main()
