import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import models, norms
from bn_jax.models import inception, inception_table, parts
from tests.fixtures import (
  models_small,
  reference,
  same_bits,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


# Conv weights, millions of multiply-adds, BN channels, output of the table of
# Figure 5, worked out by hand from its rows (224 x 224 pixels).
MODULES = {
  'conv1': (9_408, 118.0, 64, (112, 112, 64)),
  'conv2': (114_688, 359.7, 256, (56, 56, 192)),
  'mixed_3a': (218_112, 171.0, 480, (28, 28, 256)),
  'mixed_3b': (259_072, 203.1, 544, (28, 28, 320)),
  'mixed_3c': (384_000, 143.9, 544, (14, 14, 576)),
  'mixed_4a': (608_256, 119.2, 864, (14, 14, 576)),
  'mixed_4b': (663_552, 130.1, 896, (14, 14, 576)),
  'mixed_4c': (912_384, 178.8, 1_024, (14, 14, 608)),
  'mixed_4d': (1_140_736, 223.6, 1_088, (14, 14, 608)),
  'mixed_4e': (1_447_936, 164.6, 1_024, (7, 7, 1_056)),
  'mixed_5a': (2_205_696, 108.1, 1_600, (7, 7, 1_024)),
  'mixed_5b': (2_276_352, 111.5, 1_632, (7, 7, 1_024)),
}


def module_of(name):
  """The row of that table a layer belongs to."""
  return 'conv2' if name == 'conv3' else name.split('/')[0]


def summary(name='bn_inception', norm='batch', **keywords):
  module = models.make(name, num_classes=1000, norm=norm, **keywords)
  return models.summarize(module, (224, 224, 3))


def outputs(module, shape):
  """path -> shape of what it makes, of one image."""
  x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  seen = jax.eval_shape(
    lambda x: module.init_with_output(
      jax.random.key(0), x, statistics='running', capture_intermediates=True,
      mutable=True,
    )[1]['intermediates'], x,
  )  # fmt: skip
  return {name: value['__call__'][0].shape[1:] for name, value in seen.items()
          if '__call__' in value}  # fmt: skip


class TableTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(), 11_285_224), (dict(pool_projection=96), 11_194_984),
    (dict(separable=True), 11_278_528),
    (dict(separable=True, pool_projection=96), 11_188_288),
  )  # fmt: skip
  def test_parameters(self, keywords, parameters):
    for name in ('bn_inception', 'inception'):
      rows = summary(name, **keywords)
      self.assertEqual(sum(row.parameters for row in rows), parameters)

  def test_redundant_biases(self):
    """As networks that keep them before a norm have: 10,016 more."""
    rows = summary(norm='none')
    scales_and_biases = 2 * 10_016
    self.assertEqual(
      sum(row.parameters for row in rows),
      11_285_224 - scales_and_biases + 10_016,
    )

  def test_every_module(self):
    rows = summary()
    self.assertLen(rows, 70)
    for module, (weights, millions, channels, shape) in MODULES.items():
      with self.subTest(module):
        own = [row for row in rows if module_of(row.name) == module]
        self.assertEqual(sum(row.weights for row in own), weights)
        adds = sum(row.multiply_adds for row in own)
        self.assertAlmostEqual(adds / 1e6, millions, delta=0.051)
        self.assertEqual(sum(row.shape[-1] for row in own), channels)
        self.assertEqual(own[-1].shape[:2], shape[:2])
        norms = sum(row.parameters - row.weights for row in own)
        self.assertEqual(norms, 2 * channels)

  def test_pools_as_printed(self):
    """Maxima in 3c, 4e (pass through) and 5b, averages elsewhere."""
    maxima = {
      name: row.projection
      for name, row in inception_table.TABLE.items()
      if row.pool == 'max'
    }
    self.assertEqual(maxima, {'mixed_3c': 0, 'mixed_4e': 0, 'mixed_5b': 128})
    others = {row.pool for row in inception_table.TABLE.values()} - {'max'}
    self.assertEqual(others, {'average'})

  def test_outputs(self):
    module = models.make('bn_inception', num_classes=1000, norm='batch')
    made = outputs(module, (224, 224, 3))
    for name, (*_, shape) in MODULES.items():
      if name.startswith('mixed'):
        self.assertEqual(made[name], shape)
    narrow = models.make('bn_inception', num_classes=9, pool_projection=96)
    made = outputs(narrow, (224, 224, 3))
    widths = [made[f'mixed_4{c}'][-1] for c in 'cde']
    self.assertEqual(widths, [576, 576, 1024])  # as printed

  @parameterized.parameters(
    (dict(), 0),
    # A pixel: 49 x 24 and 24 x 64 in place of 49 x 3 x 64.
    (dict(separable=True), 49 * 24 + 24 * 64 - 49 * 3 * 64),
  )
  def test_multiply_adds(self, keywords, more):
    """Without the classifier's million."""
    total = sum(row.multiply_adds for row in summary(**keywords)[:-1])
    want = 2_031.6 + more * 112**2 / 1e6
    self.assertAlmostEqual(total / 1e6, want, delta=0.05)

  @parameterized.parameters(128, 96)
  def test_first_layers_of_stride_2(self, projection):
    strided = [
      'mixed_3c/b3x3_2', 'mixed_3c/bd3x3_3', 'mixed_4e/b3x3_2',
      'mixed_4e/bd3x3_3',
    ]  # fmt: skip
    rows = summary(pool_projection=projection)
    sides = [row.shape[0] for row in rows[3:-1]]
    names = [row.name for row in rows[3:-1]]
    for name in names:
      side = {'3': 28, '4': 14, '5': 7}[name[6]]
      self.assertEqual(
        sides[names.index(name)], side // 2 if name in strided else side
      )


class VariantsTest(parameterized.TestCase):
  def test_small_images(self):
    module = models.make('bn_inception', num_classes=10, stem='cifar')
    made = outputs(module, (32, 32, 3))
    sides = {name: shape[0] for name, shape in made.items() if len(shape) == 3}
    self.assertEqual(sides['conv1'], 32)
    self.assertEqual(sides['conv3'], 32)
    self.assertEqual(sides['mixed_3b'], 32)
    self.assertEqual(sides['mixed_3c'], 16)
    self.assertEqual(sides['mixed_5b'], 8)
    rows = models.summarize(module, (32, 32, 3))
    self.assertEqual(rows[0].kernel, (3, 3, 3, 64))

  def test_fewer_modules(self):
    chosen = ('mixed_3a', 'mixed_3c', 'mixed_5b')
    module = models.make(
      'bn_inception', num_classes=10, stem='cifar', modules=chosen
    )
    made = outputs(module, (16, 16, 3))
    self.assertEqual(made['mixed_3c'][0], 8)
    self.assertEqual(made['mixed_5b'][0], 8)
    self.assertEqual(module.smallest_image(), 2)
    modules = [name for name in made if name in inception_table.TABLE]
    self.assertEqual(tuple(modules), chosen)
    rows = models.summarize(module, (16, 16, 3))
    inside = {row.name.split('/')[0] for row in rows if '/' in row.name}
    self.assertEqual(inside, set(chosen))

  @parameterized.parameters(
    (('mixed_4a', 'mixed_3a'), 'in the order of mixed_3a, '),
    (('mixed_3a', 'mixed_3a'), 'each once'),
    (('mixed_6a',), "modules is 'mixed_6a'; allowed: mixed_3a"),
  )
  def test_refuses_modules(self, modules, message):
    with self.assertRaisesRegex(ValueError, message):
      models.make('inception', num_classes=10, modules=modules)

  def test_norms_of_a_module_that_is_not_there(self):
    with self.assertRaisesRegex(ValueError, 'allowed: mixed_3a'):
      models.make(
        'inception',
        num_classes=10,
        modules=('mixed_3a',),
        per_activation=('mixed_5b',),
      )

  @parameterized.parameters(
    ('imagenet', (7, 7, 1, 24), (112, 112, 24)),
    ('cifar', (3, 3, 1, 24), None),
  )
  def test_separable_first_layer(self, stem, kernel, made):
    module = models.make(
      'bn_inception', num_classes=10, norm='batch', separable=True, stem=stem
    )
    if made:
      self.assertEqual(outputs(module, (224, 224, 3))['conv1_depthwise'], made)
      row = models.summarize(module, (64, 64, 3))[0]
      self.assertEqual(row.weights, kernel[0] * kernel[1] * 24 + 24 * 64)
    params = jax.eval_shape(
      functools.partial(module.init, statistics='running'), jax.random.key(0),
      jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),
    )['params']  # fmt: skip
    self.assertEqual(params['conv1_depthwise']['kernel'].shape, kernel)
    self.assertEqual(params['conv1']['kernel'].shape, (1, 1, 24, 64))
    self.assertNotIn('conv1_depthwise_norm', params)
    self.assertNotIn('bias', params['conv1_depthwise'])
    layers = models.layers(module, {'params': params})
    paths = ('conv1_depthwise', 'conv1', 'conv1_norm')
    self.assertEqual(layers[0], ('conv1', paths))

  def test_defaults_of_the_two_entries(self):
    bn, plain = (
      models.make(name, num_classes=10)
      for name in ('bn_inception', 'inception')
    )
    self.assertEqual((bn.lrn, bn.dropout), (False, 0.0))
    self.assertEqual((plain.lrn, plain.dropout), (True, 0.4))
    made = models.make('inception', num_classes=10, lrn=False, dropout=0.0)
    self.assertEqual(made.clone(norm=bn.norm), bn)

  def test_per_activation(self):
    chosen = ('mixed_5a', 'mixed_5b')
    module, shape = models_small.make(
      'bn_inception', 'batch', per_activation=chosen
    )
    params = models_small.variables(module, shape)['params']
    for name in inception_table.TABLE:
      own = params[name]
      features = own['b3x3_2']['kernel'].shape[-1]
      positions = 2 * 2 if name in chosen else 1
      self.assertEqual(
        own['b3x3_2_norm']['scale'].shape, (positions * features,)
      )

  def test_kernel_scale(self):
    layers = ('conv1_depthwise', 'conv1', 'conv3', 'logits')

    def drawn(scale):
      module, shape = models_small.make(
        'bn_inception', 'none', kernel_scale=scale, separable=True
      )

      def init(x):  # only what is returned is compiled
        params = module.init(jax.random.key(0), x, statistics='running')[
          'params'
        ]
        deep = params['mixed_5b']['bd3x3_3']['kernel']
        return *(params[name]['kernel'] for name in layers), deep

      return jax.jit(init)(jnp.zeros((1, *shape)))

    once, scaled = drawn(1.0), drawn(3.0)
    for factor, a, b in zip((3, 3, 3, 1, 3), once, scaled):
      np.testing.assert_allclose(b, factor * a, rtol=1e-6)


def entering(module, variables, x, paths, **keywords):
  """What enters the modules at some paths; nothing beyond them is compiled."""
  seen = {}

  def record(call, args, keywords, context):
    path = '/'.join(context.module.path)
    if context.method_name == '__call__' and path in paths:
      seen[path] = args[0]
    return call(*args, **keywords)

  def run(variables, x):
    with nn.intercept_methods(record):
      module.apply(variables, x, statistics='running', **keywords)
    return dict(seen)

  return jax.jit(run)(variables, x)


def relu(x):
  return np.maximum(x, 0)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def pooled(x, stride, reduce):
  """3 x 3 over the pixels of each window, in NumPy."""
  x = np.float64(x)
  pads = 1 if stride == 1 else 0  # SAME, of an even side
  starts = range(-pads, x.shape[1] - pads, stride)
  return np.stack(
    [
      np.stack(
        [
          reduce(x[:, max(i, 0) : i + 3, max(j, 0) : j + 3], axis=(1, 2))
          for j in starts
        ],
        axis=1,
      )
      for i in starts
    ],
    axis=1,
  )


class FunctionTest(parameterized.TestCase):
  """What it computes, against NumPy."""

  @parameterized.parameters(
    ('mixed_3a', 'relu', relu), ('mixed_4e', 'sigmoid', sigmoid),
    ('mixed_5b', 'relu', relu),
  )  # fmt: skip
  def test_a_module(self, name, activation, function):
    row = inception_table.TABLE[name]
    style = inception.Style(
      norms.make('none'), 1 / 32, activation, 1.0, 'library'
    )
    module = inception.Mixed(row, style)
    x = models_small.inputs((4, 4, 6), 2)
    shapes = jax.eval_shape(
      lambda x: module.init(jax.random.key(0), x, statistics='running'), x
    )
    generator = np.random.default_rng(0)
    variables = jax.tree.map(
      lambda s: jnp.asarray(generator.normal(size=s.shape), s.dtype), shapes
    )
    params = variables['params']

    def convolved(x, layer, stride=1):
      own = params[layer]
      y = reference.convolution(x, own['kernel'], (stride, stride), 'SAME')
      return function(y + np.float64(own['bias']))

    branches = [convolved(x, 'b1x1')] if row.b1x1 else []
    branches.append(convolved(convolved(x, 'b3x3_1'), 'b3x3_2', row.stride))
    y = convolved(convolved(x, 'bd3x3_1'), 'bd3x3_2')
    branches.append(convolved(y, 'bd3x3_3', row.stride))
    y = pooled(x, row.stride, np.max if row.pool == 'max' else np.mean)
    branches.append(convolved(y, 'bpool') if row.projection else y)
    got = jax.jit(lambda v, x: module.apply(v, x, statistics='running'))(
      variables, x
    )
    want = np.concatenate(branches, axis=-1)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)

  @parameterized.parameters(False, True)
  def test_the_stem(self, lrn):
    module, _ = models_small.make('inception', 'none', stem='imagenet', lrn=lrn)
    size = (32, 32, 3)
    variables = models_small.variables(module, size)
    # Large enough for local response normalization to be seen.
    x = 1e3 * models_small.inputs(size, 1)
    paths = ('conv1_norm', 'conv2', 'conv3_norm', 'mixed_3a')
    seen = entering(module, variables, x, paths)

    def response_of(x):
      return parts.local_response_norm(jnp.asarray(x)) if lrn else x

    want = response_of(pooled(relu(seen['conv1_norm']), 2, np.max))
    np.testing.assert_allclose(seen['conv2'], want, rtol=1e-3, atol=1e-2)
    want = pooled(response_of(relu(seen['conv3_norm'])), 2, np.max)
    np.testing.assert_allclose(seen['mixed_3a'], want, rtol=1e-3, atol=1e-2)

  def test_head(self):
    module, size = models_small.make('inception', 'none', dropout=0.5)
    variables = models_small.variables(module, size)
    x = models_small.inputs(size, 4)

    def heads(x, first=0):
      return entering(
        module, variables, x, ('dropout', 'logits'), first=first,
        rngs={'dropout': jax.random.key(1)},
      )  # fmt: skip

    seen = heads(x)
    self.assertEqual(seen['dropout'].shape, (4, 64))
    kept = np.asarray(seen['logits'] != 0)
    self.assertTrue(0.3 < kept.mean() < 0.7)
    np.testing.assert_allclose(
      seen['logits'], np.where(kept, 2 * seen['dropout'], 0), rtol=1e-5
    )
    last = heads(jnp.roll(x, -1, axis=0), first=1)['logits'][:3] != 0
    same_bits.assert_same(last, kept[1:])

  def test_statistics_of_each_activation(self):
    """In a module so chosen, means are over the batch alone."""
    row = inception_table.Row(2, 2, 2, 2, 2, 'max', 2)
    style = inception.Style(norms.make('batch'), 1.0, 'relu', 1.0, 'library')
    module = inception.Mixed(row, style)
    x = models_small.inputs((3, 3, 4), 8)
    _, seen = jax.jit(
      lambda x: module.init_with_output(
        jax.random.key(0), x, statistics='batch', per_activation=True,
        capture_intermediates=True, mutable=True,
      )
    )(x)  # fmt: skip
    normed = seen['intermediates']['b3x3_2_norm']['__call__'][0]
    self.assertEqual(normed.shape, (8, 3 * 3 * 2))
    np.testing.assert_allclose(normed.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(normed.var(axis=0), 1, atol=1e-3)


class ResponseTest(absltest.TestCase):
  def test_equals_the_formula(self):
    x = 30 * np.random.default_rng(0).normal(size=(2, 3, 7))
    want = np.empty_like(x)
    for c in range(7):
      near = x[..., max(c - 2, 0) : c + 3]
      size = 1 + 1e-4 / 5 * (near**2).sum(-1)
      want[..., c] = x[..., c] / size**0.75
    got = parts.local_response_norm(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, want, rtol=1e-5)

  def test_keeps_the_dtype(self):
    x = jnp.ones((1, 2, 3), jnp.bfloat16)
    self.assertEqual(parts.local_response_norm(x).dtype, jnp.bfloat16)


if __name__ == '__main__':
  absltest.main()
