"""Weights of other frameworks become runs, and runs their files."""

import json
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from flax import traverse_util
from safetensors import numpy as safetensors

import bn_jax
from bn_jax import errors
from bn_jax.experiment import init_from
from bn_jax.trained import convert
from tests.fixtures import (
  strict,  # noqa: F401
  torch_like,
  trained,
)

MADE = {
  'torchvision:vgg11_bn': torch_like.vgg11_bn,
  'torchvision:resnet18': torch_like.resnet18,
}
PIXELS = 32


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def images(count=6, seed=0):
  """[N, C, H, W] as PyTorch has them."""
  draw = np.random.default_rng(seed)
  return draw.normal(size=(count, 3, PIXELS, PIXELS))


def logits(arrays, name, x, training):
  """(outputs, the running statistics after it) by the oracle."""
  forward = torch_like.Forward(arrays, training)
  return getattr(forward, name.partition(':')[2])(x), forward.moved


def close(got, want, tolerance=1e-5):
  """Relative to the largest of the values that are wanted."""
  np.testing.assert_allclose(got, want, atol=tolerance * np.abs(want).max())


class FromTorchTest(parameterized.TestCase):
  """Narrow networks, written as safetensors and converted once."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    place = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.place = pathlib.Path(place)
    cls.arrays, cls.loaded = {}, {}
    for name, make in MADE.items():
      cls.arrays[name] = make()
      word = name.partition(':')[2]
      file = cls.place / f'{word}.safetensors'
      safetensors.save_file(cls.arrays[name], file)
      wishes = convert.Wishes(resolution=PIXELS)
      convert.read(file, name, cls.place / word, wishes)
      cls.loaded[name] = bn_jax.load(cls.place / word)

  def applied(self, name, params, x, statistics):
    network = self.loaded[name]
    stats = network.variables['batch_stats']
    return network.network.clone(lowering='library').apply(
      {'params': params, 'batch_stats': stats},
      jnp.asarray(x.transpose(0, 2, 3, 1), jnp.float32),
      statistics=statistics,
      mutable=['batch_stats'],
    )

  @parameterized.parameters(*MADE)
  def test_outputs_and_a_step(self, name):
    """Outputs in both statistics, the averages moved, one step of SGD."""
    x, params = images(), self.loaded[name].variables['params']
    labels = jnp.arange(len(x)) % 5

    @jax.jit
    def both(params):
      running, _ = self.applied(name, params, x, 'running')

      def loss(params):
        y, moved = self.applied(name, params, x, 'batch')
        rows = jnp.arange(len(x))
        return -jax.nn.log_softmax(y)[rows, labels].mean(), (y, moved)

      (_, (batch, moved)), gradient = jax.value_and_grad(loss, has_aux=True)(
        params
      )
      return running, batch, moved['batch_stats'], gradient

    running, batch, moved, gradient = both(params)
    arrays = self.arrays[name]
    close(running, logits(arrays, name, x, training=False)[0])
    want, want_moved = logits(arrays, name, x, training=True)
    close(batch, want, 3e-5)
    self.check_moved(name, moved, want_moved)
    self.check_gradient(name, gradient, labels)

  def check_moved(self, name, moved, want_moved):
    flat = traverse_util.flatten_dict({'batch_stats': moved}, sep='/')
    rows = {row.theirs: row for row in self.rows(name)}
    self.assertLen(flat, len(want_moved))
    for theirs, want in want_moved.items():
      close(flat[rows[theirs].path], want)

  def check_gradient(self, name, gradient, labels):
    """Along a direction, against differences of the oracle's loss."""
    draw, x = np.random.default_rng(1), images()
    flat = traverse_util.flatten_dict({'params': gradient}, sep='/')
    rows = [row for row in self.rows(name) if row.path in flat]
    self.assertLen(rows, len(flat))
    directions, slope = {}, 0.0
    for row in rows:
      direction = draw.normal(size=row.their_shape)
      directions[row.theirs] = direction
      theirs = convert.foreign_lib.to_theirs(row, np.asarray(flat[row.path]))
      slope += np.sum(theirs * direction)

    def loss(distance):
      arrays = {
        key: value + distance * directions[key] if key in directions else value
        for key, value in self.arrays[name].items()
      }
      y, _ = logits(arrays, name, x, training=True)
      log = y - np.log(np.exp(y).sum(1, keepdims=True))
      return -log[np.arange(len(x)), labels].mean()

    h = 1e-6
    np.testing.assert_allclose(slope, (loss(h) - loss(-h)) / 2 / h, rtol=1e-3)

  def rows(self, name):
    flat = traverse_util.flatten_dict(self.loaded[name].variables, sep='/')
    shapes = {path: x.shape for path, x in flat.items()}
    network = convert.foreign_lib.network(name)
    return list(convert.foreign_lib.tensors(network, shapes))

  @parameterized.parameters(*MADE)
  def test_there_and_back(self, name):
    word = name.partition(':')[2]
    file = self.place / f'back_{word}.safetensors'
    convert.write(self.place / word, file, name)
    got = safetensors.load_file(file)
    self.assertCountEqual(got, self.arrays[name])
    for key, value in self.arrays[name].items():
      if not key.endswith('num_batches_tracked'):
        np.testing.assert_array_equal(got[key], value, key)
        self.assertEqual(got[key].dtype, np.float32)
      else:
        self.assertEqual((got[key].dtype, got[key].shape), (np.int64, ()))

  def test_there_and_back_in_our_names(self):
    name = 'torchvision:vgg11_bn'
    file, run = self.place / 'own.safetensors', self.place / 'own'
    convert.write(self.place / 'vgg11_bn', file, 'bn_jax')
    # Of this file ImageNet need not be there, nor the set of its run.
    convert.read(file, 'bn_jax', run)
    own, first = bn_jax.load(run), self.loaded[name]
    jax.tree.map(np.testing.assert_array_equal, own.variables, first.variables)
    self.assertEqual(own.config, first.config)
    np.testing.assert_array_equal(own.mean, first.mean)
    np.testing.assert_array_equal(own.std, first.std)

  def test_what_the_run_records(self):
    network = self.loaded['torchvision:vgg11_bn']
    self.assertEqual(network.shape, (PIXELS, PIXELS, 3))
    self.assertEqual(network.classes, tuple(range(5)))
    np.testing.assert_allclose(network.mean, (123.675, 116.28, 103.53))
    self.assertEqual(network.config.norm['running_variance'], 'unbiased')
    self.assertEqual(network.config.norm['momentum'], 0.9)
    self.assertTrue(network.config.norm['bias_before'])
    self.assertEqual(network.config.model['flatten'], 'channels_first')
    grey = np.full((2, PIXELS, PIXELS, 3), 100, np.uint8)
    self.assertLen(network.predict(grey), 2)
    with self.assertRaisesRegex(errors.DataError, "'absent'.*--data=NAME"):
      convert.build.source(network.config).load()
    manifest = json.loads(
      (self.place / 'vgg11_bn' / 'seed0' / 'manifest.json').read_text()
    )
    self.assertEqual(manifest['converted']['from'], 'torchvision:vgg11_bn')

  @pytest.mark.slow  # more than a second
  def test_another_run_begins_with_it(self):
    folder, config, problem, state = trained.newest(self.place / 'vgg11_bn')
    del folder
    new = config.replace(init_from=str(self.place / 'vgg11_bn'))
    with self.assertNoLogs('bn_jax'):
      init_from.check(new, problem)
    other = {**new.model, 'flatten': 'channels_last'}
    with self.assertLogs('bn_jax') as logs:
      init_from.check(new.replace(model=other), problem)
    self.assertIn("model.flatten='channels_first'", logs.output[0])
    begin = init_from.beginning(new, problem, lambda seed: state)
    jax.tree.map(np.testing.assert_array_equal, begin(0).params, state.params)

  @pytest.mark.slow  # more than a second
  def test_half_precision_and_the_mean_of_all_batches(self):
    arrays = {
      key: value.astype(ml_dtypes.bfloat16) if value.dtype == np.float32
      else value
      for key, value in self.arrays['torchvision:vgg11_bn'].items()
    }  # fmt: skip
    file = self.place / 'half.safetensors'
    safetensors.save_file(arrays, file)
    wishes = convert.Wishes(resolution=PIXELS, momentum=None)
    convert.read(file, 'torchvision:vgg11_bn', self.place / 'half', wishes)
    network = bn_jax.load(self.place / 'half')
    kernel = network.variables['params']['conv1']['kernel']
    self.assertEqual(kernel.dtype, np.float32)
    np.testing.assert_array_equal(
      kernel, arrays['features.0.weight'].astype('f4').transpose(2, 3, 1, 0)
    )
    norm = network.variables['batch_stats']['conv1_norm']
    self.assertEqual(norm['count'], 10)

  @pytest.mark.slow  # more than a second
  def test_images_of_ones_own(self):
    """digits are grey; their mean and deviation are those of the weights."""
    arrays = torch_like.vgg11_bn(classes=10)
    first = 'features.0.weight'
    arrays[first] = arrays[first].sum(1, keepdims=True)
    file = self.place / 'grey.safetensors'
    safetensors.save_file(arrays, file)
    wishes = convert.Wishes('digits', PIXELS, (100.0,), (50.0,))
    convert.read(file, 'torchvision:vgg11_bn', self.place / 'grey', wishes)
    _, config, _, _ = trained.newest(self.place / 'grey')
    test = convert.build.source(config).load().test
    np.testing.assert_array_equal(test.split.mean, [100])
    batch = test.first(1)
    pixels = np.float32(test.split.images[0])
    np.testing.assert_allclose(batch.images[0], (pixels - 100) / 50, rtol=1e-6)

  def refused(self, arrays, said, name='torchvision:resnet18', **wishes):
    file = self.place / 'refused.safetensors'
    safetensors.save_file(arrays, file)
    target = self.place / 'refused'
    with self.assertRaisesRegex((errors.Failure), said):
      wishes = convert.Wishes(**{'resolution': PIXELS, **wishes})
      convert.read(file, name, target, wishes)
    self.assertFalse(list(self.place.glob('refused*/*')))
    self.assertFalse(target.exists())

  def test_weights_of_another_network(self):
    arrays = dict(self.arrays['torchvision:resnet18'])
    self.refused(
      arrays,
      'is not torchvision:vgg11_bn: features.0.weight is missing; .* and '
      r'\d+ more; nothing was written',
      'torchvision:vgg11_bn',
    )
    arrays['bn1.bias'] = np.zeros(3, np.float32)
    arrays['fc.scale'] = arrays.pop('layer1.0.bn1.weight')
    self.refused(
      arrays,
      r'layer1.0.bn1.weight is missing; fc.scale is not expected; bn1.bias is '
      r'\[3\], expected \[4\]; nothing',
    )

  def test_values_that_nothing_can_be_done_with(self):
    arrays = dict(self.arrays['torchvision:resnet18'])
    self.refused(
      {**arrays, 'fc.bias': np.full(5, np.nan, np.float32)},
      'fc.bias has values that are not finite',
    )
    self.refused(
      {**arrays, 'fc.bias': np.zeros(5, np.uint8)}, 'fc.bias is U8; allowed'
    )
    self.refused(arrays, 'cifar10 has 10 classes, and .* 5', data='cifar10')
    self.refused(arrays, 'no file that convert --as=bn_jax wrote', 'bn_jax')

  def test_another_function_has_no_names_there(self):
    target = self.place / 'none.safetensors'
    for name, said in (
      ('torchvision:resnet34', "model.name is 'resnet18', there 'resnet34'"),
      ('keras:resnet50', 'allowed: those of PyTorch'),
    ):
      with self.assertRaisesRegex(errors.ConfigError, said):
        convert.write(self.place / 'resnet18', target, name)
    self.assertFalse(target.exists())


if __name__ == '__main__':
  absltest.main()
