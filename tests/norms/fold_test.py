import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import models, norms
from bn_jax.models import inception, inception_table
from tests.fixtures import (
  models_small,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def randomized(variables, seed=0):
  """Parameters and statistics as after some training."""
  generator = np.random.default_rng(seed)

  def random(path, leaf):
    noise = generator.normal(size=leaf.shape).astype(np.float32)
    name = path[-1].key
    if name in ('var', 'scale_p'):
      return jnp.exp(noise)
    return leaf if leaf.dtype == jnp.int32 else leaf + 0.3 * noise

  return jax.tree_util.tree_map_with_path(random, variables)


def images(size=8, count=4):
  generator = np.random.default_rng(1)
  return jnp.asarray(generator.normal(size=(count, size, size, 3)), jnp.float32)


class Chain(nn.Module):
  """Modules after one another; what stands where a norm does is made by it."""

  norm: norms.Norm
  order: tuple[str, ...]
  padding: str = 'SAME'

  @nn.compact
  def __call__(self, x, *, statistics):
    made, entered = {}, x
    for number, what in enumerate(self.order):
      name = f'{what}{number}'
      if what == 'norm':
        x = self.norm.layer(name)(x, statistics=statistics)
      elif what == 'relu':
        x = nn.relu(x)
      elif what == 'again':
        x = made['conv'](x)
      elif what == 'shortcut':
        x = x + entered
      else:
        entered, made[what] = x, self.linear(what, name)
        x = made[what](x)
    return x

  def linear(self, what, name):
    if what == 'dense':
      return nn.Dense(3, name=name)
    window = {'conv': (3, 3), 'one': (1, 1)}[what]
    return nn.Conv(3, window, padding=self.padding, name=name)


class FoldTest(parameterized.TestCase):
  @parameterized.parameters(
    ('spectral', {}), ('weight_standardization', dict(then='batch')),
  )  # fmt: skip
  def test_vgg_is_the_same_network_without_norms(self, name, keywords):
    self.check_vgg(name, keywords)

  @parameterized.parameters(
    ('batch', {}), ('linf', dict(centred=True)),
    ('iternorm', dict(num_groups=2)), ('noisy', {}), ('batch_renorm', {}),
    ('l1', {}), ('none', {}), ('noise', {}), ('weight', {}),
  )  # fmt: skip
  @pytest.mark.slow
  def test_so_with_the_other_norms(self, name, keywords):
    self.check_vgg(name, keywords)

  def check_vgg(self, name, keywords):
    module = models.make(
      'vgg11', num_classes=10, norm=norms.make(name, **keywords), width=0.0625,
      head=(16,), lowering='library',
    )  # fmt: skip
    x = images()
    shapes = jax.eval_shape(
      lambda x: module.init(jax.random.key(0), x, statistics='running'), x
    )
    generator = np.random.default_rng(2)
    variables = randomized(
      jax.tree.map(
        lambda s: jnp.asarray(
          generator.normal(size=s.shape) / 4, s.dtype
        ), shapes,
      )
    )  # fmt: skip
    folded, new = norms.fold(module, variables, x)
    plain = models.make(
      'vgg11', num_classes=10, norm='none', width=0.0625, head=(16,)
    )
    shapes = jax.eval_shape(
      lambda x: plain.init(jax.random.key(0), x, statistics='running'), x
    )
    self.assertEqual(jax.tree.map(jnp.shape, new), jax.tree.map(
      lambda s: s.shape, shapes
    ))  # fmt: skip
    other = images() * 2 + 1  # not the images that it was compared on
    want, got = (
      jax.jit(m.apply, static_argnames='statistics')(
        v, other, statistics='running'
      )
      for m, v in ((module, variables), (folded, new))
    )
    scale = float(jnp.abs(want).max())
    np.testing.assert_allclose(got, want, atol=2e-5 * scale)

  @parameterized.parameters(
    ('mlp', {}), ('deep_linear', dict(norm_last=True)), ('deep_linear', {}),
    ('deep_linear', dict(norm_last=True, bias=True)), ('resnet20', {}),
    ('resnet20', dict(shortcut='projection')), ('vit_tiny', {}),
  )  # fmt: skip
  def test_every_kind_of_network(self, name, keywords):
    self.assert_same(name, keywords)

  @pytest.mark.slow
  def test_inception(self):
    self.assert_same('bn_inception', dict(separable=True, activation='sigmoid'))

  def assert_same(self, name, keywords):
    """Sums of a ResNet come after its norms, so they are in nobody's way."""
    module, shape = models_small.make(name, 'batch', **keywords)
    variables = models_small.variables(module, shape)
    folded, new = norms.fold(module, variables, models_small.inputs(shape))
    self.assertEqual(list(new), ['params'])
    other = 1 + models_small.inputs(shape, seed=3)
    want, got = (
      jax.jit(lambda v, x, m=m: m.apply(v, x, statistics='running'))(v, other)
      for m, v in ((module, variables), (folded, new))
    )
    scale = float(jnp.abs(want).max())
    np.testing.assert_allclose(got, want, atol=1e-4 * scale)
    of_layers = sum(row.parameters for row in models.summarize(folded, shape))
    sizes = sum(leaf.size for leaf in jax.tree.leaves(new))
    self.assertEqual(of_layers, sizes)

  def test_refuses_statistics_of_each_activation(self):
    row = inception_table.Row(2, 2, 2, 2, 2, 'max', 2)

    class Head(nn.Module):
      norm: norms.Norm

      @nn.compact
      def __call__(self, x, *, statistics):
        style = inception.Style(self.norm, 1.0, 'relu', 1.0, 'library')
        mixed = inception.Mixed(row, style, name='mixed_5b')
        return mixed(x, statistics=statistics, per_activation=True)

    module, x = Head(norms.make('batch')), images(size=3)
    variables = models_small.variables(module, x.shape[1:])
    with self.assertRaisesRegex(
      ValueError, 'mixed_5b/b1x1_norm is no neighbour.*each activation'
    ):
      norms.fold(module, variables, x)

  @parameterized.parameters(
    (('conv', 'norm', 'relu', 'conv', 'norm'), 'SAME'),
    (('dense', 'norm', 'relu', 'dense', 'norm'), 'SAME'),
    (('conv', 'relu', 'norm', 'dense'), 'SAME'),
    (('conv', 'relu', 'norm', 'one'), 'SAME'),
    (('norm', 'conv', 'relu', 'norm', 'conv'), 'VALID'),
    (('norm', 'dense', 'norm'), 'SAME'),
  )
  def test_before_or_after_a_linear_layer(self, order, padding):
    for norm in ('batch', 'iternorm', 'linf'):
      with self.subTest(norm):
        self.check_chain(norm, order, padding)

  def check_chain(self, norm, order, padding):
    module = Chain(norms.make(norm), order, padding)
    x = images()
    variables = randomized(
      module.init(jax.random.key(0), x, statistics='running')
    )
    folded, new = norms.fold(module, variables, x[:1])
    self.assertNotIn('batch_stats', new)
    self.assertFalse([k for k in new['params'] if k.startswith('norm')])
    np.testing.assert_allclose(
      folded.apply(new, x, statistics='running'),
      module.apply(variables, x, statistics='running'),
      rtol=1e-4, atol=1e-4,
    )  # fmt: skip

  @parameterized.parameters(
    (('conv', 'relu', 'norm', 'relu'), 'norm2 is no neighbour'),
    (('norm', 'conv'), 'norm0 stands before conv1, which pads with zeros'),
    (('conv', 'relu', 'norm', 'conv'), 'norm2 stands before conv3, which pads'),
    (('conv', 'norm', 'relu', 'again'), 'norm1 cannot .*conv0 is applied'),
    (('dense', 'norm', 'one', 'shortcut', 'norm'), 'norm4 is no neighbour'),
    (('conv', 'relu', 'dense', 'norm', 'norm'), 'norm4 is no neighbour'),
  )  # fmt: skip
  def test_refuses_what_is_not_exact(self, order, message):
    module, x = Chain(norms.make('batch'), order), images()
    variables = randomized(
      module.init(jax.random.key(0), x, statistics='running')
    )
    with self.assertRaisesRegex(ValueError, message):
      norms.fold(module, variables, x)

  def test_refuses_where_others_use_the_output_too(self):
    class Branch(nn.Module):
      norm: norms.Norm

      @nn.compact
      def __call__(self, x, *, statistics):
        x = nn.Dense(3, name='dense1')(x)
        a = self.norm.layer('norm1')(x, statistics=statistics)
        return a + nn.Dense(3, name='dense2')(x)

    class Sum(nn.Module):
      norm: norms.Norm

      @nn.compact
      def __call__(self, x, *, statistics):
        x = nn.Dense(3, name='dense1')(x)
        return x + self.norm.layer('norm1')(x, statistics=statistics)

    for module, message in (
      (Branch(norms.make('batch')), 'goes to dense2 too'),
      (Sum(norms.make('batch')), 'differs by .* of its largest output'),
    ):
      x = images()
      variables = randomized(
        module.init(jax.random.key(0), x, statistics='running')
      )
      with self.assertRaisesRegex(ValueError, message):
        norms.fold(module, variables, x)

  @parameterized.parameters(
    'layer', 'group', 'instance', 'rms', 'grn', 'frn', 'seednorm', 'dyt', 'derf'
  )
  def test_refuses_norms_of_one_example(self, name):
    module = Chain(norms.make(name), ('conv', 'norm', 'relu'))
    x = images()
    variables = module.init(jax.random.key(0), x, statistics='running')
    is_pointwise = name in ('dyt', 'derf')
    said = 'is not linear' if is_pointwise else 'normalises each example'
    with self.assertRaisesRegex(ValueError, f'norm1 {said}'):
      norms.fold(module, variables, x)

  def test_refuses_a_network_that_names_no_norm(self):
    with self.assertRaisesRegex(ValueError, 'Dense has no attribute norm'):
      norms.fold(nn.Dense(3), {}, images())

  def test_far_from_zero(self):
    """Statistics of N(3000, 1), which float32 arithmetic would lose."""
    module = Chain(norms.make('batch'), ('dense', 'norm'))
    x = images()
    variables = module.init(jax.random.key(0), x, statistics='running')
    variables['params']['dense0']['bias'] = jnp.full(3, 3000.0)
    variables['batch_stats']['norm1']['mean'] = jnp.full(3, 3000.0)
    folded, new = norms.fold(module, variables, x)
    np.testing.assert_allclose(new['params']['dense0']['bias'], 0, atol=1e-3)
    np.testing.assert_allclose(
      folded.apply(new, x, statistics='running'),
      module.apply(variables, x, statistics='running'),
      atol=2e-3,
    )


if __name__ == '__main__':
  absltest.main()
