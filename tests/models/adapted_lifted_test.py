"""Networks that use flax's transforms, or layers that measures cannot read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import models, norms
from tests.fixtures import strict  # noqa: F401
from tests.models import adapted_test

SHAPE, KEY, IMAGES = adapted_test.SHAPE, adapted_test.KEY, adapted_test.IMAGES


class Cell(nn.Module):
  """A step of a scan over layers."""

  train: bool

  @nn.compact
  def __call__(self, x, _):
    x = nn.Dense(4, name='inner')(x)
    return nn.relu(nn.BatchNorm(not self.train, name='bn')(x)), None


class Net(nn.Module):
  """A layer, something else, and a layer."""

  kind: str

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Dense(4, name='first')(x[..., 0]))
    x = getattr(self, f'_{self.kind}')(x, train)
    return nn.Dense(3, name='last')(nn.relu(nn.Dense(4, name='mid')(x)).mean(1))

  def _scan(self, x, train):
    cells = nn.scan(
      Cell, variable_axes={'params': 0, 'batch_stats': 0},
      split_rngs={'params': True}, length=2,
    )  # fmt: skip
    return cells(train, name='cells')(x, None)[0]

  def _rnn(self, x, train):
    return nn.RNN(nn.SimpleCell(4, name='cell'))(x)

  def _remat(self, x, train):
    return nn.remat(nn.Dense)(4, name='again')(x)

  def _jit(self, x, train):
    return nn.jit(nn.Dense)(4, name='again')(x)

  def _weight(self, x, train):
    return nn.WeightNorm(nn.Dense(4, name='weighted'))(x)

  def _spectral(self, x, train):
    layer = nn.SpectralNorm(nn.Dense(4, name='weighted'))
    return layer(x, update_stats=train)

  def _attention(self, x, train):
    bias = nn.initializers.normal()
    return nn.MultiHeadDotProductAttention(2, bias_init=bias, name='a')(x)


class NoLayers(nn.Module):
  """A network without a parameter 'kernel'."""

  @nn.compact
  def __call__(self, x, train=False):
    return nn.LayerNorm()(x.reshape(len(x), -1)[:, :3])


@functools.cache
def made(kind):
  """(problem, state, batch) of a network: shapes alone."""
  network = Net(kind) if kind else NoLayers()
  problem = adapted_test.problem_of(models.adapt(network, shape=SHAPE))
  state = jax.eval_shape(problem.init, 0)
  split = jax.eval_shape(adapted_test.split)
  return problem, state, jax.eval_shape(problem.batch, state, split)


# Kind -> layers between first and mid that can be read; and replaced.
KINDS = {
  'scan': ((), True),
  'rnn': ((), True),
  'weight': ((), True),
  'spectral': (('weighted',), True),
  'remat': (('again',), False),
  'jit': (('again',), False),
  'attention': (('a/query', 'a/key', 'a/value', 'a/out'), True),
}


class LiftedTest(parameterized.TestCase):
  @parameterized.parameters(*KINDS)
  def test_trains_and_hands_out_what_can_be_read(self, kind):
    problem, state, batch = made(kind)
    inside, _ = KINDS[kind]
    self.assertEqual(problem.taps, ('first', *inside, 'mid'))
    shapes = jax.eval_shape(
      lambda s, b: problem.activations(s, b, 'batch', problem.taps),
      state,
      batch,
    )
    self.assertEqual(set(shapes), set(problem.taps))
    jax.eval_shape(problem.step, state, jax.eval_shape(adapted_test.split))

  @parameterized.parameters(*KINDS)
  def test_replaces_or_refuses_by_name(self, kind):
    problem, state, batch = made(kind)
    _, is_open = KINDS[kind]
    zeros = dict.fromkeys(problem.taps, jnp.zeros(()))

    def perturbed(s, b):
      return problem.perturbed(s, b, 'batch')(s.params, zeros)

    def between(s, b):
      return [
        problem.between(
          s, b, None, statistics='running', source=source, target=target
        )
        for source, target in zip(problem.taps, problem.taps[1:])
      ]

    for call in (perturbed, between):
      if is_open:
        jax.eval_shape(call, state, batch)
        continue
      with self.assertRaisesRegex(ValueError, 'again lie inside nn.remat'):
        jax.eval_shape(call, state, batch)

  def test_layers_inside_are_layers(self):
    layers = dict(made('scan')[0].layers(made('scan')[1]))
    self.assertEqual(layers['cells/inner'], ('cells/inner', 'cells/bn'))
    self.assertIsNone(made('scan')[0].group_size)

  def test_between_takes_off_the_bias_of_each_head(self):
    module = models.adapt(Net('attention'), shape=SHAPE)
    problem = adapted_test.problem_of(module)
    state = problem.init(0)
    batch = problem.batch(state, adapted_test.split())
    outputs = problem.activations(state, batch, 'running', problem.taps)
    _, key = problem.between(
      state, batch, None, statistics='running', source='a/query', target='a/key'
    )
    bias = state.params['a']['key']['bias']
    self.assertEqual(bias.shape, (2, 2))
    np.testing.assert_allclose(
      key, outputs['a/key'] - bias[None, None], atol=1e-6
    )
    self.assertGreater(jnp.abs(key - outputs['a/key']).max(), 1e-4)

  def test_population_statistics_inside_a_scan_are_refused_by_name(self):
    module = models.adapt(Net('scan'), shape=SHAPE)
    variables = module.init(KEY, IMAGES, statistics='running')
    with self.assertRaisesRegex(ValueError, 'cells/bn keeps statistics, but'):
      norms.population_statistics(module, variables, [IMAGES])

  def test_a_layer_that_returns_no_array_is_not_counted(self):
    network = nn.RNN(nn.OptimizedLSTMCell(3))
    module = models.adapt(network, None, shape=(5, 2))
    self.assertEqual(models.taps(module), ())
    self.assertIn('cell/ii', dict(module.layer_paths()))
    with self.assertRaisesRegex(
      ValueError, 'cell/ii returns a tuple; allowed: an'
    ):
      models.summarize(module, (5, 2))

  @parameterized.parameters('activations', 'signal', 'covariate_shift')
  def test_a_network_without_layers(self, name):
    problem, state, batch = made(None)
    self.assertEqual((problem.taps, problem.layers(state)), ((), ()))
    with self.assertRaisesRegex(ValueError, 'no layers'):
      jax.eval_shape(
        lambda s, b: adapted_test.analysis.make(name)(problem, s, [b]),
        state,
        batch,
      )


if __name__ == '__main__':
  absltest.main()
