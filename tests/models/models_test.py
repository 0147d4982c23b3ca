import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from flax import linen as nn
from flax import traverse_util

from bn_jax import models, norms
from tests.fixtures import (
  jaxprs,
  models_small,
  same_bits,
  slow,
  strict,  # noqa: F401
)


def setUpModule():
  # Numbers hardly matter here, compilation takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


# A dense unit of one example is a single value, which these refuse.
NOT_DENSE = ('instance',)
DENSE = ('deep_linear', 'mlp')
# Other depths of the same code.
DEPTHS = ('resnet34', 'resnet56', 'vgg13', 'vgg16', 'vgg19')
# Traced in half a second each.
LARGE = (
  'bn_inception', 'inception', 'resnet18', 'resnet34', 'resnet50', 'resnet56',
  'vgg13', 'vgg16', 'vgg19',
)  # fmt: skip
OF_KERNELS = ('spectral', 'weight')
EVERY_KIND = ('none', 'noisy', 'layer', 'frn', 'spectral')
# With all norms at every run.
WITH_ALL = ('mlp', 'vgg11')


def called(module, shape):
  """Logits, variables and paths of the modules called, of a batch with mask."""
  paths = []

  def record(call, args, keywords, context):
    y = call(*args, **keywords)
    if context.method_name == '__call__':
      paths.append('/'.join(context.module.path))
    return y

  def init(x, mask):
    with nn.intercept_methods(record):
      return module.init_with_output(
        jax.random.key(0), x, statistics='batch', mask=mask
      )

  x = jax.ShapeDtypeStruct((4, *shape), jnp.float32)
  mask = jax.ShapeDtypeStruct((4,), bool)
  return *jax.eval_shape(init, x, mask), paths


@slow.where(*DEPTHS)
class ContractTest(parameterized.TestCase):
  def test_every_model_is_tested(self):
    self.assertEqual(sorted(models_small.SMALL), sorted(models.MODELS))

  @parameterized.parameters(*models.MODELS)
  def test_with_every_kind_of_norm(self, name):
    self.check(name, norms.NORMS if name in WITH_ALL else EVERY_KIND)

  @parameterized.parameters(*sorted(set(models.MODELS) - {*WITH_ALL}))
  @pytest.mark.slow  # half a second a network
  def test_with_every_norm(self, name):
    self.check(name, norms.NORMS)

  def check(self, name, chosen):
    for norm in chosen:
      if name in DENSE and norm in NOT_DENSE:
        continue
      with self.subTest(norm):
        module, shape = models_small.make(name, norm)
        logits, variables, paths = called(module, shape)
        self.assertEqual(logits.shape, (4, 7))
        self.check_layers(module, variables)
        self.check_taps(module, paths)

  def check_layers(self, module, variables):
    """They hold every parameter, each of them in one layer."""
    layers = models.layers(module, variables)
    names = [name for name, _ in layers]
    self.assertLen(set(names), len(names))
    owners = [tuple(path.split('/')) for _, paths in layers for path in paths]
    for key in traverse_util.flatten_dict(variables['params']):
      owning = [path for path in owners if key[: len(path)] == path]
      self.assertLen(owning, 1, key)
    for name, paths in layers:
      self.assertIn(name, paths)
      named = {name, *(f'{name}_{part}' for part in ('norm', 'weight', 'unit'))}
      self.assertLessEqual(set(paths), named)

  def check_taps(self, module, paths):
    """They are modules of the network, called in this order."""
    taps = models.taps(module)
    names = [name for name, _ in module.layer_paths()]
    first = [paths.index(path) for _, path in taps]
    self.assertEqual(first, sorted(first))
    places = [names.index(name) for name, _ in taps]
    self.assertEqual(places, sorted(places))
    self.assertLen(set(taps), len(taps))

  @parameterized.parameters(
    ('mlp', 'dense2', ''), ('vgg11', 'conv8', ''),
    ('deep_linear', '', 'linear3'), ('bn_inception', 'mixed_4a/bpool', ''),
    ('resnet20', 'stage1_block1/conv1', 'stage1_block1/conv2'),
    ('resnet20', 'stage1_block1/conv2', '', dict(skip=False)),
  )  # fmt: skip
  def test_a_norm_with_a_nonlinearity_of_its_own(
    self, name, layer, linear, keywords=None
  ):
    """It stands for the network's; where none stands, `linear` does."""
    norm = norms.make('rms')._replace(
      unit=lambda name: norms.norm.Unit(name=name),
      linear=norms.make('none').layer,
    )
    module, shape = models_small.make(name, norm, **(keywords or {}))
    paths = {kind: [] for kind in ('PerExample', 'Identity', 'Unit')}

    def record(call, args, keywords, context):
      kind = type(context.module).__name__
      if kind in paths:
        paths[kind].append('/'.join(context.module.path).rpartition('_')[0])
      return call(*args, **keywords)

    with nn.intercept_methods(record):
      called(module, shape)
    self.assertEqual(paths['Unit'], list(dict.fromkeys(paths['PerExample'])))
    for path, kind in ((layer, 'Unit'), (linear, 'Identity')):
      self.assertEqual(path in paths[kind], bool(path))
      self.assertEqual(bool(paths[kind]), bool(path))

  @parameterized.parameters(*DENSE)
  def test_a_unit_of_one_value_is_refused(self, name):
    module, shape = models_small.make(name, 'instance')
    with self.assertRaisesRegex(ValueError, 'has groups of one value'):
      called(module, shape)

  @parameterized.parameters(*models.MODELS)
  def test_mode_is_taken_for_statistics_with_a_warning(self, name):
    module, shape = models_small.make(name, 'batch')
    x = jax.ShapeDtypeStruct((4, *shape), jnp.float32)
    init = functools.partial(module.init, mode='running')
    with self.assertWarnsRegex(FutureWarning, "is called statistics='running'"):
      variables = jax.eval_shape(init, jax.random.key(0), x)
    self.assertEqual(
      jax.tree.structure(variables),
      jax.tree.structure(models_small.variables(module, shape)),
    )

  @parameterized.product(
    name=tuple(models.MODELS), dtype=('uint8', 'int32', 'bool', 'complex64')
  )
  def test_refuses_what_is_not_floating_point(self, name, dtype):
    """Whatever its norm; bytes of an image would be products of bytes."""
    module, shape = models_small.make(name, 'none')
    x = np.ones((4, *shape), dtype)
    for statistics in norms.STATISTICS:
      with self.assertRaisesRegex(ValueError, f'x is {dtype}; allowed: an arr'):
        module.init(jax.random.key(0), x, statistics=statistics)

  @parameterized.parameters(*sorted(set(models.MODELS) - {*DENSE, *LARGE}))
  def test_refuses_a_mask_of_positions(self, name):
    """Of whole examples alone, and before any layer is called."""
    module, shape = models_small.make(name, 'none')
    x = jax.ShapeDtypeStruct((4, *shape), jnp.float32)
    mask = np.ones(x.shape[:-1], bool)
    with self.assertRaisesRegex(ValueError, r'allowed: \(4,\)$'):
      jax.eval_shape(
        lambda x: module.init(
          jax.random.key(0), x, statistics='running', mask=mask
        ),
        x,
      )

  @parameterized.parameters(*models.MODELS)
  def test_what_a_mask_leaves_out_does_not_come_in(self, name):
    """So 0 times inf reaches no kernel's gradient."""
    module, shape = models_small.make(name, 'none')
    x = models_small.inputs(shape)
    variables = models_small.variables(module, shape)
    mask = np.array([True, False, True, False])
    seen = []

    class Seen(Exception):
      pass

    def first(call, args, keywords, context):
      if context.module.path == ():
        return call(*args, **keywords)
      seen.append(args[0])
      raise Seen

    for held in (np.inf, np.nan):
      padded = np.array(x)
      padded[~mask] = held
      with nn.intercept_methods(first), self.assertRaises(Seen):
        module.apply(variables, padded, mask=mask, statistics='running')
      # Patches of an image have its values in another order.
      entered, own = (
        np.sort(np.asarray(array).reshape(len(x), -1))
        for array in (seen.pop(), x)
      )
      np.testing.assert_array_equal(entered[mask], own[mask])
      np.testing.assert_array_equal(entered[~mask], 0)
    with self.assertRaisesRegex(ValueError, 'mask is int64; allowed: an array'):
      module.init(
        jax.random.key(0), x, statistics='running', mask=mask.astype(int)
      )

  @parameterized.parameters(*models.MODELS)
  def test_layers_are_called_in_forward_order(self, name):
    module, shape = models_small.make(name, 'batch')
    _, variables, paths = called(module, shape)
    places = [paths.index(name) for name, _ in models.layers(module, variables)]
    self.assertEqual(places, sorted(places))

  @parameterized.parameters(*models_small.SMALL)
  def test_collections_keep_their_structure(self, name):
    for norm in ('batch',) if name in LARGE else ('batch', *OF_KERNELS):
      with self.subTest(norm):
        self.check_collections(name, norm)

  @parameterized.product(name=LARGE, norm=OF_KERNELS)
  @pytest.mark.slow  # half a second a network
  def test_collections_of_large_networks_too(self, name, norm):
    self.check_collections(name, norm)

  def check_collections(self, name, norm):
    module, shape = models_small.make(name, norm)
    x = jax.ShapeDtypeStruct((4, *shape), jnp.float32)
    variables = models_small.variables(module, shape)
    _, new = jax.eval_shape(
      lambda v, x: module.apply(
        v, x, statistics='batch', mutable=['batch_stats']
      ),
      variables,
      x,
    )
    self.assertEqual(
      jax.tree.structure(new.get('batch_stats', {})),
      jax.tree.structure(variables.get('batch_stats', {})),
    )

  @parameterized.parameters(*models.MODELS)
  def test_products_are_taken_in_the_dtype_of_the_input(self, name):
    module, shape = models_small.make(name, 'batch')
    x = jnp.zeros((4, *shape), jnp.bfloat16)
    traced = jax.make_jaxpr(
      lambda v: module.apply(v, x, statistics='batch', mutable=['batch_stats'])[
        0
      ]
    )(models_small.variables(module, shape))
    products = [
      equation
      for equation in jaxprs.equations(traced.jaxpr)
      if equation.primitive.name in ('dot_general', 'conv_general_dilated')
    ]
    self.assertGreaterEqual(len(products), len(module.layer_paths()))
    for equation in products:
      for factor in equation.invars:
        self.assertEqual(factor.aval.dtype, jnp.bfloat16)

  @parameterized.parameters('mlp', 'deep_linear', 'resnet20', 'vgg11')
  def test_bfloat16_gives_finite_logits(self, name):
    module, shape = models_small.make(name, 'batch')
    variables = models_small.variables(module, shape)
    x = models_small.inputs(shape).astype(jnp.bfloat16)
    logits = jax.jit(lambda v, x: module.apply(v, x, statistics='running'))(
      variables, x
    )
    self.assertEqual(logits.dtype, jnp.bfloat16)
    self.assertTrue(jnp.isfinite(logits).all())

  @parameterized.parameters(
    ('bn_inception', 'mixed_5b/bd3x3_3'), ('mlp', 'dense2'),
    ('resnet20', 'stage3_block3/conv2'), ('deep_linear', 'linear3'),
    ('vgg11', 'conv8'),
  )  # fmt: skip
  def test_initial_weights_do_not_depend_on_the_norm(self, name, layer):
    drawn = {}
    of_kernels = OF_KERNELS
    if name == 'vgg11':  # one network is enough
      of_kernels += ('weight_standardization',)
    for norm in ('none', 'batch', *of_kernels):
      module, shape = models_small.make(name, norm)

      def kernel(x, module=module):  # only what is returned is compiled
        params = module.init(jax.random.key(3), x, statistics='running')[
          'params'
        ]
        for key in layer.split('/'):
          params = params[key]
        return params['kernel']

      drawn[norm] = jax.jit(kernel)(jnp.zeros((1, *shape)))
    same_bits.assert_same(drawn, dict.fromkeys(drawn, drawn['none']))

  @parameterized.parameters('resnet20', 'mlp', 'deep_linear')
  def test_padding_does_not_change_the_real_examples(self, name):
    self.check_padding(name)

  @pytest.mark.slow  # five seconds
  def test_nor_those_of_an_inception(self):
    self.check_padding('bn_inception')

  def check_padding(self, name):
    """Real examples twice have the statistics of real ones and padding."""
    module, shape = models_small.make(name, 'batch')
    variables = models_small.variables(module, shape)
    apply = jax.jit(
      lambda v, x, mask: module.apply(
        v, x, statistics='batch', mask=mask, mutable=['batch_stats']
      )
    )
    real, noise = models_small.inputs(shape, 6, seed=1).reshape(2, 3, *shape)
    twice = jnp.concatenate([real, real])
    padded = jnp.concatenate([real, 100 * noise])
    want, new_want = apply(variables, twice, jnp.ones(6, bool))
    got, new = apply(variables, padded, jnp.arange(6) < 3)
    np.testing.assert_allclose(got[:3], want[:3], rtol=1e-3, atol=1e-3)
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(new_want)):
      np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    mixed, _ = apply(variables, padded, jnp.ones(6, bool))
    self.assertGreater(float(jnp.abs(mixed[:3] - want[:3]).max()), 0.01)

  @parameterized.parameters('resnet20', 'mlp', 'deep_linear')
  def test_noise_goes_by_the_index_of_an_example(self, name):
    module, shape = models_small.make(name, 'noise')
    variables = models_small.variables(module, shape)
    apply = jax.jit(
      lambda v, x, first: module.apply(
        v,
        x,
        statistics='running',
        first=first,
        rngs={'noise': jax.random.key(4)},
      )
    )
    x = models_small.inputs(shape, 4)
    rolled = apply(variables, jnp.roll(x, -1, axis=0), 1)
    whole = apply(variables, x, 0)
    np.testing.assert_allclose(rolled[:3], whole[1:], rtol=1e-4, atol=1e-5)
    moved = apply(variables, x, 1)
    self.assertGreater(float(jnp.abs(moved - whole).max()), 1e-3)


@slow.where(*DEPTHS)
class ShownTest(parameterized.TestCase):
  @parameterized.parameters(*models.MODELS)
  def test_summary_holds_every_parameter(self, name):
    module, shape = models_small.make(name, 'batch')
    rows = models.summarize(module, shape)
    params = models_small.variables(module, shape)['params']
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    self.assertEqual(sum(row.parameters for row in rows), sum(sizes))
    names = [name for name, _ in module.layer_paths()]
    self.assertEqual([row.name for row in rows], names)
    self.assertEqual(rows[-1].shape, (7,))

  @parameterized.parameters('weight', 'spectral', 'weight_standardization')
  def test_summary_counts_a_layer_once(self, norm):
    """Norms of kernels call it twice when it is initialized."""
    cost = {}
    for chosen in ('none', norm):
      module, shape = models_small.make('bn_inception', chosen)
      cost[chosen] = [
        row.multiply_adds for row in models.summarize(module, shape)
      ]
    self.assertEqual(cost['none'], cost[norm])

  @parameterized.parameters(*models_small.IMAGES)
  def test_smallest_image(self, name):
    module, _ = models_small.make(name, 'none')
    smallest = module.smallest_image()
    rows = models.summarize(module, (smallest, smallest + 1, 3))
    self.assertTrue(all(min(row.shape) > 0 for row in rows))
    for size in ((smallest - 1, 300, 3), (300, smallest - 1, 3)):
      with self.assertRaisesRegex(
        ValueError, f'image of {size[0]} x {size[1]} pixels is too small.*'
        f'allowed: {smallest} x {smallest}'
      ):  # fmt: skip
        models.summarize(module, size)
    with self.assertRaisesRegex(ValueError, r'\[1, 64\]; allowed for .*images'):
      models.summarize(module, (64,))


class RegistryTest(parameterized.TestCase):
  def test_a_config_can_change_every_default(self):
    """Keywords that a registry entry binds cannot be changed by a config."""
    for name, factory in models.MODELS.items():
      bound = set(getattr(factory, 'keywords', {}))
      self.assertLessEqual(bound, {'depth'}, name)
      given = set(inspect.signature(factory).parameters) - bound
      self.assertLessEqual({'num_classes', 'norm'}, given)

  @parameterized.parameters(
    (dict(name='vgg12'), "unknown model 'vgg12'"),
    (dict(name='vgg11', norm='bach'), "unknown norm 'bach'"),
    (dict(name='vgg11', width=0.0), 'width'),
    (dict(name='vgg11', head=(0,)), 'head'),
    (dict(name='vgg11', lowering='fast'), 'lowering'),
    (dict(name='vgg11', num_classes=0), 'num_classes'),
    (dict(name='mlp', hidden=(100, 0)), 'hidden is .100, 0.; allowed'),
    (dict(name='mlp', activation='gelu'), "'gelu'; allowed: sigmoid, relu"),
    (dict(name='mlp', initial_std=0.0), 'initial_std is 0.0; allowed'),
    (dict(name='deep_linear', depth=0), 'depth is 0; allowed: 1, 2'),
    (dict(name='deep_linear', features=2.5), 'features is 2.5; allowed'),
    (dict(name='deep_linear', bias=1), 'bias is 1; allowed: True, False'),
    (dict(name='resnet20', shortcut='A'), "'A'; allowed: zeros, projection"),
    (dict(name='resnet50', init='xavier'), "'xavier'; allowed: he, glorot"),
    (dict(name='resnet50', width=-1), 'width is -1'),
    (dict(name='inception', stem='mnist'), "'mnist'; allowed: imagenet, cifar"),
    (dict(name='inception', pool_projection=64), '64; allowed: 128, 96'),
    (dict(name='inception', activation='tanh'), 'allowed: relu, sigmoid'),
    (dict(name='inception', dropout=1.0), 'dropout is 1.0'),
    (dict(name='inception', lrn='no'), 'lrn is .no.; allowed: True, False'),
    (dict(name='inception', per_activation=('5b',)), "'5b'; .* mixed_5b"),
    (dict(name='inception', kernel_scale=0), 'kernel_scale is 0'),
  )
  def test_refuses(self, keywords, message):
    with self.assertRaisesRegex(ValueError, message):
      models.make(**{'num_classes': 10, **keywords})

  def test_lowerings(self):
    self.assertEqual(
      models.LOWERINGS, ('library', 'product', 'auto', 'winograd')
    )


class LoweringsTest(parameterized.TestCase):
  @parameterized.parameters('vgg11', 'bn_inception', 'resnet20')
  @pytest.mark.slow  # two compilations of a whole network with its gradient
  def test_agree(self, name):
    def gradient(lowering):
      keywords = {'separable': True} if name == 'bn_inception' else {}
      module, shape = models_small.make(
        name, 'batch', lowering=lowering, **keywords
      )
      variables = models_small.variables(module, shape)
      x = models_small.inputs(shape)

      def loss(params):
        logits, _ = module.apply(
          {**variables, 'params': params}, x, statistics='batch',
          mutable=['batch_stats'],
        )  # fmt: skip
        return jax.nn.log_softmax(logits)[:, 0].sum()

      return jax.jit(jax.value_and_grad(loss))(variables['params'])

    library, product = gradient('library'), gradient('product')
    for a, b in zip(jax.tree.leaves(library), jax.tree.leaves(product)):
      np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


if __name__ == '__main__':
  absltest.main()
