"""Losses in chunks: equal to the whole, or refused with the way out."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import analysis, losses, norms, types
from bn_jax.analysis import chunks, gradients
from bn_jax.data.batches import in_memory
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)
from tests.fixtures.regression import LAYERS, Line, made_of, regression

IN_CHUNKS = [
  name
  for name, kind in analysis.MEASURES.items()
  if 'chunk_size' in inspect.signature(kind).parameters
]


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def assert_same(got, want, rtol):
  assert got.keys() == want.keys()
  for name in want:
    np.testing.assert_allclose(
      got[name], want[name], rtol=rtol, atol=1e-3 * rtol, err_msg=name
    )


class ChunkedTest(parameterized.TestCase):
  @parameterized.parameters((1, 0), (4, 0), (5, 0), (4, 3))
  def test_equals_the_whole(self, chunk_size, devices):
    """Value, gradient, curvature, layers; the last chunk has what is left."""
    with jax.enable_x64(True):
      loss, batch, params = regression()
      look = functools.partial(
        analysis.along_gradient,
        params=params,
        step_sizes=(0.1, 0.5, 1.0, 2.0),  # two rounds of three devices
        layers=LAYERS,
        curvature=True,
        devices=jax.devices()[:devices],
      )
      parts = analysis.chunked(loss, batch, chunk_size=chunk_size, group_size=1)
      self.assertIsInstance(parts, chunks.Chunks)
      self.assertLen(parts.parts, -(-10 // chunk_size))
      got = look(parts)
      want = look(jax.tree_util.Partial(loss, batch))
      assert_same(got, want, 1e-11)
      # It is a loss as any other, too.
      assert_same(
        analysis.along_gradient(lambda p: parts(p), params, [0.1]),
        analysis.along_gradient(parts, params, [0.1]),
        1e-12,
      )

  def test_equals_the_whole_in_the_other_analyses(self):
    with jax.enable_x64(True):
      loss, batch, params = regression()
      new = jax.tree.map(lambda w: w + 0.1 * jnp.cos(w), params)
      parts = analysis.chunked(loss, batch, chunk_size=4, group_size=1)
      whole = jax.tree_util.Partial(loss, batch)
      for look in (
        lambda f: analysis.covariate_shift(f, params, new, LAYERS),
        lambda f: analysis.one_step_loss(f, params, (0.1, 1.0)),
        lambda f: analysis.one_step_loss(f, params, (0.1, 1.0), new),
        lambda f: analysis.weights(f, params, new, LAYERS, 0.1),
      ):
        assert_same(look(parts), look(whole), 1e-10)

  @parameterized.parameters(10, 11, 1000)
  def test_a_chunk_that_holds_all_is_the_loss_itself(self, chunk_size):
    loss, batch, params = regression()
    for group_size in (1, None):
      found = analysis.chunked(
        loss, batch, chunk_size=chunk_size, group_size=group_size
      )
      self.assertIsInstance(found, jax.tree_util.Partial)
      same_bits.assert_same(found(params), loss(batch, params))

  def test_half_precision_is_summed_in_float32(self):
    """512 chunks of bfloat16 gradients: their mean, to bfloat16's digits."""
    x = jnp.asarray(np.random.default_rng(0).normal(1, 1, (512, 4)))
    loss = lambda x, params: jnp.mean(x.astype(params.dtype) @ params)
    params = jnp.ones(4, jnp.bfloat16)
    parts = analysis.chunked(loss, x, chunk_size=1, group_size=1)
    _, got = analysis.value_and_gradient(parts, params)
    self.assertEqual(got.dtype, jnp.bfloat16)
    want = np.asarray(x.astype(jnp.bfloat16), np.float64).mean(0)
    np.testing.assert_allclose(np.float64(got), want, rtol=2**-8)

  def test_groups(self):
    """Examples that see each other in pairs: chunks of whole pairs."""

    def loss(x, params):
      pairs = x.reshape(-1, 2)
      return jnp.mean((pairs[:, 0] * pairs[:, 1] * params) ** 2)

    x = jnp.arange(1.0, 13.0)
    got = analysis.chunked(loss, x, chunk_size=4, group_size=2)
    np.testing.assert_allclose(got(2.0), loss(x, 2.0), rtol=1e-6)

  @parameterized.named_parameters(
    (
      'zero',
      dict(chunk_size=0, group_size=1),
      r'chunk_size is 0; allowed: 1, 2, 3, \.\.\.',
    ),
    (
      'negative',
      dict(chunk_size=-4, group_size=1),
      'chunk_size is -4; allowed',
    ),
    ('word', dict(chunk_size='x', group_size=1), "chunk_size is 'x'; allowed"),
    ('half', dict(chunk_size=0.5, group_size=1), 'chunk_size is 0.5; allowed'),
    (
      'all_see_each_other',
      dict(chunk_size=4, group_size=None),
      'chunk_size is 4: batch statistics are over all 10.*group_size=4.*'
      "statistics='running'",
    ),
    (
      'parts_of_groups',
      dict(chunk_size=4, group_size=3),
      'chunk_size is 4 of 10.*over groups of 3; allowed: whole groups',
    ),
    (
      'a_torn_group_at_the_end',
      dict(chunk_size=4, group_size=4),
      'chunk_size is 4 of 10.*over groups of 4; allowed: whole groups',
    ),
    ('no_group', dict(chunk_size=4, group_size=0), 'group_size is 0; allowed'),
    ('group', dict(chunk_size=4, group_size='x'), "group_size is 'x'; allowed"),
  )
  def test_refuses(self, keywords, said):
    loss, batch, _ = regression()
    with self.assertRaisesRegex(ValueError, said) as caught:
      analysis.chunked(loss, batch, **keywords)
    self.assertNotIn('\n', str(caught.exception))

  def test_as_many_as_fit(self):
    loss, batch, params = regression()
    one = analysis.memory(jax.tree_util.Partial(loss, batch), params)
    fits = functools.partial(analysis.fitting_chunk_size, loss, params)
    self.assertEqual(fits(batch, memory=2 * one), 10)
    self.assertEqual(fits(batch, memory=one / 2), 5)
    self.assertEqual(fits(batch, memory=one / 2, group_size=2), 4)
    self.assertEqual(fits(batch, memory=0, group_size=2), 2)
    shapes = jax.eval_shape(lambda: batch)
    self.assertEqual(fits(shapes, memory=one / 2), 5)

  @parameterized.named_parameters(
    ('ragged', {'x': jnp.ones((10, 3)), 'y': jnp.ones(9)}, r'\[9, 10\]'),
    ('number', {'x': jnp.ones((10, 3)), 'y': 1.0}, r"\['no axis', 10\]"),
    ('numbers', 1.0, r"\['no axis'\]"),
    ('no_examples', jnp.ones((0, 3)), r'\[0\]'),
    ('nothing', {}, r'\[\]'),
  )
  def test_refuses_a_batch(self, batch, begins):
    with self.assertRaisesRegex(ValueError, f'begin with {begins}; allowed'):
      analysis.chunked(
        lambda batch, params: 0.0, batch, chunk_size=4, group_size=1
      )


class CompilationTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    chex.clear_trace_counter()

  @parameterized.parameters((8, 1), (10, 2))
  def test_one_for_all_batches_and_chunks(self, count, compilations):
    """And one more for the chunk that has what is left."""
    plain, _, params = regression()
    loss = chex.assert_max_traces(plain, n=compilations)
    seen = set()
    for seed in range(5):
      _, batch, _ = regression(count, seed)
      parts = analysis.chunked(loss, batch, chunk_size=4, group_size=1)
      got = analysis.along_gradient(parts, params, (0.1, 0.2), layers=LAYERS)
      seen.add(float(got['loss_0']))
    self.assertLen(seen, 5)

  def test_what_is_bound_to_the_loss_is_no_new_function(self):
    plain, batch, params = regression(8)
    loss = chex.assert_max_traces(
      lambda scale, batch, params, *, power: (
        scale * plain(batch, params) ** power
      ),
      n=1,
    )
    for scale in (1.0, 2.0):
      bound = jax.tree_util.Partial(loss, scale, power=2.0)
      parts = analysis.chunked(bound, batch, chunk_size=4, group_size=1)
      got = analysis.one_step_loss(parts, params, [0.1], params | {})
      halves = [
        plain(jax.tree.map(lambda x: x[part], batch), params)  # noqa: B023
        for part in (slice(4), slice(4, 8))
      ]
      want = scale * 0.5 * sum(float(half) ** 2 for half in halves)
      np.testing.assert_allclose(got['loss_0'], want, rtol=1e-5)


def network(norm, **keywords):
  made = norms.make(norm, **keywords)
  seen = {'none': 1}.get(norm, keywords.get('group_size'))
  return made_of(toys.Net(made), group_size=seen)


LOOK = dict(step_factors=(0.5, 2.0), per_layer=True)


class MeasureTest(parameterized.TestCase):
  def looked(self, made, count=20, name='along_gradient', **keywords):
    state = made.init(0)
    batch = in_memory.first(toys.split(), count)
    return analysis.make(name, **keywords)(made, state, [batch])

  def test_running_statistics(self):
    """With a penalty that counts once, and a last chunk of four."""
    made = network('batch')
    look = functools.partial(self.looked, made, statistics='running', **LOOK)
    assert_same(look(chunk_size=8), look(chunk_size=None), 1e-3)

  @pytest.mark.slow  # compiles two networks with their Hessian products
  def test_groups_are_those_of_the_network_that_has_them(self):
    """Batch statistics in chunks: norms.make('batch', group_size=4), whole."""
    want = self.looked(network('batch', group_size=4), chunk_size=None, **LOOK)
    in_groups = self.looked(network('batch'), group_size=4, **LOOK)
    assert_same(in_groups, want, 1e-3)
    # And not those of the network over the whole batch.
    made = network('batch')
    state, batch = made.init(0), in_memory.first(toys.split(), 20)
    whole = float(made.loss(state, batch, 'batch')(state.params))
    self.assertGreater(abs(whole - want['loss_0']), 1e-3)

  def test_noise_of_a_chunk_is_that_of_its_examples(self):
    made = network('noisy', group_size=4)
    state, batch = made.init(0), in_memory.first(toys.split(), 20)
    loss_of = functools.partial(chunks.of_problem, made, state, batch, 'batch')
    want, got, without = (
      float(gradients.value(loss, state.params))
      for loss in (
        loss_of(),
        loss_of(chunk_size=8),
        network('batch', group_size=4).loss(state, batch, 'batch'),
      )
    )
    np.testing.assert_allclose(got, want, rtol=1e-5)
    self.assertGreater(abs(want - without), 1e-3)

  @parameterized.parameters(
    (None, 8, None, 'all 20 examples.*group_size=8.*running'),
    (None, 8, 8, 'all 20 examples.*group_size=8'),  # 20 are no 8 and 8
    (3, 8, None, 'groups of 3; allowed: whole groups'),
  )
  def test_refuses_what_would_be_another_function(
    self, own, chunk_size, group_size, said
  ):
    made = network('batch')._replace(group_size=own)
    batch = in_memory.first(toys.split(), 20)
    for name in IN_CHUNKS:
      look = analysis.make(name, chunk_size=chunk_size, group_size=group_size)
      with self.assertRaisesRegex(ValueError, said):
        look(made, made.init(0), [batch])

  @parameterized.parameters(
    (dict(chunk_size=0), "chunk_size is 0; allowed: 1, 2, 3, ..., 'auto'"),
    (dict(chunk_size='some'), "chunk_size is 'some'; allowed"),
    (dict(chunk_size=4, group_size=8), 'group_size is 8; allowed: the same'),
    (dict(group_size=0), 'group_size is 0; allowed'),
  )
  def test_measures_refuse(self, keywords, said):
    for name in IN_CHUNKS:
      with self.assertRaisesRegex(ValueError, said):
        analysis.make(name, **keywords)

  def test_refuses_chunks_of_padding(self):
    """Their shares would not be those of the real examples."""
    made = toys.classifier('none')
    state, batch = made.init(0), in_memory.first(toys.split(), 8)
    of = functools.partial(chunks.of_problem, made, state)
    padded = batch._replace(mask=np.arange(8) < 5)
    with self.assertRaisesRegex(ValueError, '3 of the 8 examples .* padding'):
      of(padded, 'running', chunk_size=4)
    real = batch._replace(mask=np.ones(8, bool))
    value = of(real, 'running', chunk_size=4)(state.params)
    want = of(batch, 'running', chunk_size=4)(state.params)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    of(padded, 'running')(state.params)

  @parameterized.parameters('sum', 'mean')
  def test_sums_and_means_of_a_linear_regression(self, reduction):
    """Closed form: the objective, its gradient and its curvature."""
    with jax.enable_x64(True):
      generator = np.random.default_rng(0)
      x, y = generator.normal(size=(10, 3)), generator.normal(size=(10, 2))
      loss = losses.squared_error(factor=0.5, reduction=reduction)
      made = made_of(Line(), loss=loss, group_size=1, image_shape=(3,))
      w = generator.normal(size=(3, 2))
      state = made.init(0)._replace(params={'line': {'kernel': jnp.asarray(w)}})
      batch = types.Batch(jnp.float32(x), jnp.asarray(y))
      look = analysis.make(
        'along_gradient', chunk_size=4, step_sizes=[0.01], curvature=True
      )
      got = look(made, state, [batch])
    x = np.float64(np.float32(x))
    share = 1.0 if reduction == 'sum' else 0.1
    hessian = share * x.T @ x + 0.1 * np.eye(3)
    value = lambda w: (
      0.5 * share * np.sum((x @ w - y) ** 2) + 0.05 * np.sum(w**2)
    )
    gradient = share * x.T @ (x @ w - y) + 0.1 * w
    np.testing.assert_allclose(got['loss_0'], value(w), rtol=1e-5)
    np.testing.assert_allclose(
      got['loss'], value(w - 0.01 * gradient), rtol=1e-5
    )
    np.testing.assert_allclose(
      got['gradient_norm_0'], np.linalg.norm(gradient), rtol=1e-5
    )
    np.testing.assert_allclose(
      got['curvature'],
      np.vdot(gradient, hessian @ gradient) / np.vdot(gradient, gradient),
      rtol=1e-5,
    )

  def test_the_penalty_counts_once(self):
    """Chunks of the objective, and of the data loss alone."""
    made = network('batch')
    state, batch = made.init(0), in_memory.first(toys.split(), 20)
    with_it, without = (
      gradients.value(
        chunks.of_problem(
          made, state, batch, 'running', penalised=penalised, chunk_size=10
        ),
        state.params,
      )
      for penalised in (True, False)
    )
    kernels = [state.params[n]['kernel'] for n in ('conv1', 'logits')]
    penalty = 0.05 * sum(float((k**2).sum()) for k in kernels)
    self.assertGreater(penalty, 0.1)
    np.testing.assert_allclose(with_it - without, penalty, rtol=1e-4)


if __name__ == '__main__':
  absltest.main()
