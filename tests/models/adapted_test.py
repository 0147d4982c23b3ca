"""A network that is called as flax's examples call theirs, and ours of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import (
  analysis,
  models,
  norms,
  optim,
  placement,
  plugins,
  types,
)
from bn_jax.data.batches import order
from bn_jax.models import parts
from bn_jax.models.lowering import conv
from bn_jax.training import problem
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)

SHAPE = (8, 8, 1)
IMAGES = jax.random.normal(jax.random.key(0), (6, *SHAPE))
KEY = jax.random.key(1)


class Theirs(nn.Module):
  """As flax's examples are written."""

  widths: tuple = (4, 6)
  dropout: float = 0.0
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x, train):
    for k, width in enumerate(self.widths, start=1):
      x = nn.Conv(width, (3, 3), use_bias=False, name=f'conv{k}')(x)
      x = nn.BatchNorm(
        use_running_average=not train,
        momentum=0.8,
        epsilon=1e-4,
        use_fast_variance=False,
        axis_name=self.axis_name,
        name=f'conv{k}_norm',
      )(x)
      x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
    x = x.reshape(len(x), -1)
    x = nn.Dropout(self.dropout, deterministic=not train, name='dropout1')(x)
    return nn.Dense(3, name='logits')(x)


class Ours(nn.Module):
  """The same network, written for this package."""

  widths: tuple = (4, 6)
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, *, statistics, mask=None, first=0):
    norm = norms.make('batch', momentum=0.8, epsilon=1e-4)
    for k, width in enumerate(self.widths, start=1):
      layer = conv.Conv(
        width, use_bias=False, lowering='library', name=f'conv{k}'
      )
      x = parts.normalised(
        norm, layer, x, statistics=statistics, mask=mask, first=first
      )
      x = conv.max_pool(nn.relu(x), lowering='library')
    x = x.reshape(len(x), -1)
    x = parts.Dropout(self.dropout, name='dropout1')(x, first=first)
    return parts.dense('logits', 3, x.dtype, use_bias=True)(x)

  def layer_paths(self):
    hidden = [f'conv{k + 1}' for k in range(len(self.widths))]
    return (*((n, parts.paths(n)) for n in hidden), ('logits', ('logits',)))

  def tap_paths(self):
    return tuple(parts.tap(name) for name, _ in self.layer_paths()[:-1])


# Those whose two sides are compared in float32, beside `along_gradient`.
MEASURES = {
  'activations': {},
  'batch_sharpness': {'batch_size': 4},
  'cka': {},
  'covariate_shift': {},
  'evaluation': {},
  'gradient_confusion': {'batch_size': 4},
  'gradient_noise': {'batch_size': 4},
  'jacobian': {},
  'one_step_loss': {},
  'path': {'points': 3, 'over': ('batch', 'interpolated')},
  'representations': {},
  'sharpness': {'radii': (0.1,)},
  'signal': {},
  # Their kernels have other names, so that random directions are others.
  'surface': {'points': 3, 'dimensions': 1, 'extent': 1e-6},
  'weights': {},
}

# Their random vectors lie in the order of names, so they are others: what they
# give all the same, if anything.
OF_RANDOM = {
  'spectral_density': ({'order': 30, 'samples': 2}, ('largest',)),
  'top_eigenvalues': ({'tolerance': 1e-4}, ('sharpness',)),
  'trace': ({'samples': 4}, ()),
}


def adapted(**keywords):
  return models.adapt(Theirs(**keywords), shape=SHAPE)


@functools.cache
def problem_of(module, dtype='float32'):
  """The training of a network on 20 images of 8 x 8."""
  return problem.make(
    module,
    optim.sgd(optim.constant(learning_rate=0.1), momentum=0.9),
    sampler=order.sampler(num_examples=20, batch_size=8),
    penalty=optim.weight_decay(weight_decay=1e-3),
    image_shape=SHAPE,
    layers=models.layers,
    taps=models.taps(module),
    compute_dtype=jnp.dtype(dtype),
    group_size=models.traits(module, SHAPE).group_size,
  )


def split():
  small = toys.split()
  images = jnp.repeat(jnp.repeat(small.images, 2, axis=1), 2, axis=2)
  return small._replace(images=images)


def same_start(*modules):
  """States of the networks, with the weights of the first."""
  states = [problem_of(module).init(0) for module in modules]
  return [state._replace(params=states[0].params) for state in states]


class SameNumbersTest(parameterized.TestCase):
  """The bars of the adapter: float64 1e-9, float32 1e-4."""

  def test_training_and_its_landscape(self):
    with jax.enable_x64(True):
      self.check('float64', 1e-9)

  @pytest.mark.slow  # float64 says more
  def test_so_in_float32(self):
    self.check('float32', 1e-4)

  def check(self, dtype, tolerance):
    modules = (adapted(), Ours())
    made = [problem_of(module, dtype) for module in modules]
    states = [
      jax.tree.map(
        lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x, state
      )
      for state in same_start(*modules)
    ]
    images = jnp.asarray(np.asarray(split().images), dtype)
    batch = types.Batch(images[:8] / 100 - 1, split().labels[:8])
    got, want = (
      self.numbers(*pair, batch) for pair in zip(made, states, strict=True)
    )
    self.assertEqual(
      {x.dtype for x in jax.tree.leaves(want)}, {jnp.dtype(dtype)}
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
        a, b, rtol=tolerance, atol=tolerance
      ),
      got,
      want,
    )

  def numbers(self, made, state, batch):
    """Outputs, gradients, statistics after five steps, losses on a line."""
    gradient = jax.jit(jax.value_and_grad(made.objective, has_aux=True))
    for _ in range(5):
      (_, aux), g = gradient(
        state.params, state.batch_stats, batch, jax.random.key(3)
      )
      params = jax.tree.map(lambda p, d: p - 0.1 * d, state.params, g)
      state = state._replace(params=params, batch_stats=aux['batch_stats'])
    result = {'gradient': g, 'batch_stats': state.batch_stats}
    for statistics in ('batch', 'running'):
      landscape = analysis.along_gradient(
        made.loss(state, batch, statistics), state.params, (0.1, 0.4)
      )
      result[statistics] = {
        'outputs': made.outputs(state, batch, statistics=statistics),
        'taps': made.activations(state, batch, statistics, made.taps),
        **{
          k: landscape[k] for k in ('loss', 'gradient_norm', 'gradient_change')
        },
      }
    return result

  def test_dropout_goes_by_the_examples_alike(self):
    theirs, ours = adapted(dropout=0.5), Ours(dropout=0.5)
    states = same_start(theirs, ours)
    batch = types.Batch(IMAGES, jnp.zeros(6, int))
    losses = [
      jax.jit(problem_of(module).loss(state, batch, 'batch'))(state.params)
      for module, state in zip((theirs, ours), states)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    without = jax.jit(problem_of(adapted()).loss(states[0], batch, 'batch'))
    self.assertGreater(abs(losses[0] - without(states[0].params)), 1e-3)


class MeasuresTest(parameterized.TestCase):
  def test_every_measure_is_looked_at(self):
    looked_at = {'along_gradient', *MEASURES, *OF_RANDOM}
    self.assertEqual(looked_at, set(analysis.MEASURES))

  @parameterized.parameters(*MEASURES, *OF_RANDOM)
  @pytest.mark.slow
  def test_sees_the_same_network_and_leaves_it(self, name):
    keywords, same = OF_RANDOM.get(name, (MEASURES.get(name), None))
    modules = (adapted(), Ours())
    results = []
    for module, state in zip(modules, same_start(*modules)):
      made = problem_of(module)
      batches = [made.batch(state, split())]
      before = jax.tree.map(np.asarray, state)
      look = analysis.make(name, **keywords)
      more = {}
      if plugins.takes(look, 'states'):
        doubled = jax.tree.map(lambda x: 2 * x, state.params)
        more['states'] = toys.States({'0': state._replace(params=doubled)})
      results.append(look(made, state, batches, **more))
      same_bits.assert_same(jax.tree.map(np.asarray, state), before)
    got, want = results
    self.assertEqual(got.keys(), want.keys())
    for key in want if same is None else same:
      if got[key] is not None:
        np.testing.assert_allclose(
          got[key], want[key], rtol=1e-3, atol=1e-4, err_msg=key
        )


class AdaptedTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.module = adapted(dropout=0.5)
    self.variables = self.module.init(KEY, IMAGES, statistics='running')

  def test_parameters_stay_where_they_are(self):
    own = Theirs(dropout=0.5).init(KEY, IMAGES, train=False)
    same_bits.assert_same(self.variables, own)

  @parameterized.parameters(True, False)
  def test_outputs_are_the_networks_own(self, train):
    plain = Theirs()
    want, _ = plain.apply(
      self.variables, IMAGES, train=train, mutable=['batch_stats']
    )
    got = adapted().apply(
      self.variables, IMAGES, statistics='batch' if train else 'running'
    )
    same_bits.assert_same(got, want)

  def test_a_name_of_devices_is_for_where_they_are_mapped(self):
    module = adapted(axis_name='devices')
    call = functools.partial(module.apply, self.variables, statistics='batch')
    whole = adapted().apply(self.variables, IMAGES, statistics='batch')
    same_bits.assert_same(call(IMAGES), whole)
    parts = jax.vmap(call, axis_name='devices')(IMAGES.reshape(2, 3, *SHAPE))
    np.testing.assert_allclose(
      parts.reshape(6, -1), whole, rtol=1e-5, atol=1e-6
    )

  def test_statistics_move_where_they_may(self):
    call = functools.partial(
      self.module.apply, self.variables, IMAGES, statistics='batch'
    )
    _, new = call(mutable=['batch_stats'])
    old = self.variables['batch_stats']['conv1_norm']['mean']
    self.assertGreater(
      jnp.abs(new['batch_stats']['conv1_norm']['mean'] - old).max(), 1e-4
    )
    _, others = call(mutable=['moments'])
    self.assertEqual(set(others), {'moments'})

  @parameterized.parameters('batch', 'running')
  def test_padding_changes_nothing(self, statistics):
    mask = jnp.arange(6) < 4
    padded = self.module.apply(
      self.variables, IMAGES, statistics=statistics, mask=mask
    )
    alone = self.module.apply(self.variables, IMAGES[:4], statistics=statistics)
    np.testing.assert_allclose(padded[:4], alone, rtol=1e-5, atol=1e-6)

  def test_population_statistics_are_those_of_ours(self):
    batches = [IMAGES[:3], IMAGES[3:]]
    for layerwise in (False, True):
      got, want = (
        norms.population_statistics(
          module, self.variables, batches, layerwise=layerwise
        ).batch_stats
        for module in (self.module, Ours())
      )
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        got,
        want,
      )

  def test_lists_among_attributes(self):
    module = models.adapt(Theirs(widths=[4, 6]), shape=SHAPE)
    self.assertEqual(
      hash(module), hash(models.adapt(Theirs(widths=[4, 6]), shape=SHAPE))
    )
    population = norms.population_statistics(module, self.variables, [IMAGES])
    self.assertEqual(population.examples, 6)


class ByKeyword(nn.Module):
  """Gives the arguments of its layers by keyword, or by position."""

  by_keyword: bool

  @nn.compact
  def __call__(self, x, train):
    def call(module, name, x, **keywords):
      return module(**{name: x}) if self.by_keyword else module(x)

    x = call(nn.Conv(4, (3, 3)), 'inputs', x)
    x = nn.relu(call(nn.BatchNorm(not train), 'x', x))
    x = call(nn.LayerNorm(), 'x', x.mean((1, 2)))
    x = call(nn.Dropout(0.5, deterministic=not train), 'inputs', x)
    return call(nn.Dense(3), 'inputs', x)


class CallFormTest(parameterized.TestCase):
  def test_arguments_by_keyword_are_those_by_position(self):
    """Layers, taps, padding, dropout, moments and other norms."""
    results = []
    for by_keyword in (True, False):
      module = models.adapt(ByKeyword(by_keyword), shape=SHAPE)
      swapped = models.replace_norms(module, 'group', where='BatchNorm_0')
      shapes = jax.eval_shape(
        lambda swapped=swapped: swapped.init(KEY, IMAGES, statistics='running')
      )
      variables = module.init(KEY, IMAGES, statistics='running')
      y, moments = module.apply(
        variables, IMAGES, statistics='batch', mask=jnp.arange(6) < 4, first=3,
        rngs={'dropout': KEY}, mutable=['moments'],
      )  # fmt: skip
      described = (
        module.layer_paths(), module.tap_paths(), models.traits(module, SHAPE),
        jax.tree.structure(shapes),
      )  # fmt: skip
      results.append((described, (y[:4], moments)))
    (got, got_arrays), (want, want_arrays) = results
    self.assertEqual(got, want)
    self.assertLen(got[0], 2)
    self.assertIsNone(got[2].group_size)
    same_bits.assert_same(got_arrays, want_arrays)


class Rows(nn.Module):
  """Has several rows of an example along the first axis, as patches."""

  rows: int = 8
  broadcast_dims: tuple = ()

  @nn.compact
  def __call__(self, x, train=False):
    x = x.reshape(-1, 64 // self.rows, 1)
    drop = nn.Dropout(0.5, self.broadcast_dims, deterministic=not train)
    return drop(x).reshape(-1, 64)


class DropoutTest(parameterized.TestCase):
  @parameterized.parameters(
    (8, ()), (2, (1,)), (4, (-1,)), (1, (1, 2)), (4, (0, 2))
  )
  def test_drops_by_the_example_whatever_its_rows(self, rows, broadcast_dims):
    module = models.adapt(Rows(rows, broadcast_dims), shape=SHAPE)
    ones = jnp.ones((6, *SHAPE))

    def call(x, first=0):
      return module.apply(
        {}, x, statistics='batch', first=first, rngs={'dropout': KEY}
      )

    whole = call(ones)
    parts = jnp.concatenate([call(ones[:3]), call(ones[3:], first=3)])
    if 0 not in broadcast_dims:
      same_bits.assert_same(parts, whole)
      self.assertGreater(jnp.abs(whole[:3] - whole[3:]).max(), 1)
    self.assertEqual(set(np.unique(whole)), {0, 2})
    if broadcast_dims:
      rows_x = whole.reshape(-1, 64 // rows, 1)
      self.assertEqual(jnp.ptp(rows_x, axis=broadcast_dims).max(), 0)


class Noisy(nn.Module):
  """Adds noise to several rows of an example."""

  @nn.compact
  def __call__(self, x, train=False):
    noise = norms.make('noise').layer('noise')
    return noise(x.reshape(-1, 8), statistics='running').reshape(-1, 64)


class NoiseTest(absltest.TestCase):
  def test_goes_by_the_example_whatever_its_rows(self):
    module = models.adapt(Noisy(), shape=SHAPE)
    call = lambda x, first: module.apply(
      {}, x, statistics='batch', first=first, rngs={'noise': KEY}
    )
    parts = [call(IMAGES[:3], 0), call(IMAGES[3:], 3)]
    same_bits.assert_same(jnp.concatenate(parts), call(IMAGES, 0))


class Block(nn.Module):
  """A block with the norm before its layer, and a shortcut by a layer."""

  @nn.compact
  def __call__(self, x, is_training=False):
    y = nn.BatchNorm(not is_training, name='before')(x)
    y = nn.Conv(4, (3, 3), name='inner')(nn.relu(y))
    shortcut = nn.Conv(4, (1, 1), name='shortcut')(x)
    # Called after both layers; each takes the output of one.
    y = nn.BatchNorm(not is_training, name='inner_norm')(y)
    shortcut = nn.LayerNorm(
      name='shortcut_norm', use_scale=False, use_bias=False
    )(shortcut)
    return y + shortcut


class OwnNorm(nn.Module):
  """A norm of somebody's own."""

  @nn.compact
  def __call__(self, x, training):
    mean = self.variable('batch_stats', 'centre', jnp.zeros, x.shape[-1:])
    if training:
      if not self.is_initializing():
        mean.value = x.mean((0, 1, 2))
      return x - x.mean((0, 1, 2), keepdims=True)
    return x - mean.value.reshape(1, 1, 1, -1)


class Deep(nn.Module):
  """More than ten layers, whose names would sort otherwise."""

  norm: str = 'own'

  @nn.compact
  def __call__(self, x, training):
    x = OwnNorm(name='input')(x, training)
    for _ in range(11):
      x = nn.Conv(2, (1, 1))(x)
    x = nn.relu(x)
    if self.norm == 'own':
      x = OwnNorm()(x, training)
    x = Block(name='network')(x, training)
    return nn.Dense(3)(x.mean((1, 2)))


class FoundTest(parameterized.TestCase):
  def test_layers_in_forward_order_with_their_norms(self):
    module = models.adapt(Deep(), 'training', shape=SHAPE)
    variables = module.init(KEY, IMAGES, statistics='running')
    layers = models.layers(module, variables)
    self.assertEqual(
      layers,
      (
        *((f'Conv_{k}', (f'Conv_{k}',)) for k in range(10)),
        # The norm of a block stands behind a nonlinearity: the last layer's.
        ('Conv_10', ('Conv_10', 'network/before')),
        ('network/inner', ('network/inner', 'network/inner_norm')),
        ('network/shortcut', ('network/shortcut',)),
        ('Dense_0', ('Dense_0',)),
      ),
    )
    taps = dict(models.taps(module))
    self.assertEqual(taps['Conv_0'], 'Conv_0')
    self.assertEqual(taps['network/inner'], 'network/inner_norm')
    self.assertEqual(taps['network/shortcut'], 'network/shortcut_norm')
    self.assertNotIn('Dense_0', taps)

  def test_a_unit_belongs_to_its_layer_and_is_no_tap(self):
    class Thresholded(nn.Module):
      @nn.compact
      def __call__(self, x):
        norm = norms.make('frn')
        x = norm.layer('norm')(nn.Conv(4, (3, 3), name='conv')(x))
        x = norm.unit('unit')(x)
        return nn.Dense(3, name='dense')(x.mean((1, 2)))

    module = models.adapt(Thresholded(), None, shape=SHAPE)
    variables = jax.eval_shape(
      lambda: module.init(KEY, IMAGES, statistics='running')
    )
    self.assertEqual(
      models.layers(module, variables),
      (('conv', ('conv', 'norm', 'unit')), ('dense', ('dense',))),
    )
    self.assertEqual(models.taps(module), (('conv', 'norm'),))
    traits = models.traits(module, SHAPE)
    norm = norms.make('frn')
    self.assertIs(models.with_norm(traits, norm, placement.ALONE), traits)

  def test_padding_that_a_norm_would_see_is_refused(self):
    module = models.adapt(Deep(), 'training', shape=SHAPE)
    variables = module.init(KEY, IMAGES, statistics='running')
    mask = jnp.arange(6) < 4
    with self.assertRaisesRegex(ValueError, 'OwnNorm cannot leave padding out'):
      module.apply(variables, IMAGES, statistics='batch', mask=mask)
    module.apply(variables, IMAGES, statistics='running', mask=mask)

  def test_who_sees_whom(self):
    def size(network, norm, **keywords):
      module = models.adapt(network, shape=SHAPE, **keywords)
      if norm:
        module = models.replace_norms(module, norm)
      return models.traits(module, SHAPE).group_size

    grouped = norms.make('batch', group_size=2)
    self.assertIsNone(size(Theirs(), None))
    self.assertEqual(size(Theirs(), 'layer'), 1)
    self.assertEqual(size(Theirs(), grouped), 2)
    self.assertEqual(size(Theirs(), norms.make('batch', frozen=True)), 1)
    self.assertEqual(size(Theirs(), None, group_size=1), 1)
    self.assertIsNone(size(Deep(), None, train_keyword='training'))


class Plain(nn.Module):
  """A network with a keyword of any name, or with none."""

  call: str

  @nn.compact
  def __call__(self, x, **keywords):
    is_training = {
      'deterministic': lambda: not keywords['deterministic'],
      'phase': lambda: keywords['phase'],
      'none': lambda: False,
    }[self.call]()
    return nn.Dense(3)(x.reshape(len(x), -1)) + 100.0 * is_training


class KeywordTest(parameterized.TestCase):
  @parameterized.parameters(
    ('deterministic', 'deterministic', None),
    ('phase', 'phase', None),
    ('none', None, None),
  )
  def test_is_training_with_statistics_of_the_batch(self, call, keyword, value):
    module = models.adapt(Plain(call), keyword, train_value=value)
    variables = module.init(KEY, IMAGES, statistics='running')
    batch, fixed = (
      module.apply(variables, IMAGES, statistics=statistics)
      for statistics in ('batch', 'running')
    )
    self.assertEqual(
      jnp.mean(batch - fixed).round(), 0 if call == 'none' else 100
    )

  def test_the_value_in_training_may_be_given(self):
    module = models.adapt(Plain('phase'), 'phase', train_value=False)
    variables = module.init(KEY, IMAGES, statistics='batch')
    outputs = module.apply(variables, IMAGES, statistics='running')
    self.assertGreater(jnp.mean(outputs), 50)

  def test_ours_stay_as_they_are(self):
    module = models.make('mlp', num_classes=3)
    self.assertIs(models.adapt(module), module)


if __name__ == '__main__':
  absltest.main()
