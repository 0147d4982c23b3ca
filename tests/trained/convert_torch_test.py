"""Weights of torchvision, timm and Keras, beside those libraries themselves."""

import os
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from flax import traverse_util

import bn_jax
from bn_jax.models import foreign
from bn_jax.trained import convert
from tests.fixtures import strict
from tests.models import foreign_test

os.environ.setdefault('KERAS_BACKEND', 'jax')
torch = pytest.importorskip('torch', reason='needs torch')
safetensors = pytest.importorskip('safetensors.torch')
try:
  from torchvision.models import resnet, vgg
except Exception as error:  # it fails in several ways beside another torch
  pytest.skip(f'needs torchvision: {error}', allow_module_level=True)

pytestmark = pytest.mark.slow
_CHANNELS = [8, 'M', 16, 'M', 32, 32, 'M', 64, 64, 'M', 64, 64, 'M']


def narrow_vgg(has_norm=True):
  """torchvision's own class, with fewer channels."""
  net = vgg.VGG(vgg.make_layers(_CHANNELS, has_norm), num_classes=10)
  net.classifier[0] = torch.nn.Linear(49 * _CHANNELS[-2], 32)
  net.classifier[3] = torch.nn.Linear(32, 24)
  net.classifier[6] = torch.nn.Linear(24, 10)
  return net


def narrow_timm(has_norm=True):
  """timm's own class; its dense layers cannot be narrow."""
  timm = pytest.importorskip('timm', reason='needs timm')
  norm = torch.nn.BatchNorm2d if has_norm else None
  return timm.models.vgg.VGG(_CHANNELS, num_classes=10, norm_layer=norm)


def timm_resnet():
  timm = pytest.importorskip('timm', reason='needs timm')
  return timm.create_model('resnet18', num_classes=10)


NETS = {
  'torchvision:vgg11_bn': narrow_vgg,
  'torchvision:vgg11': lambda: narrow_vgg(has_norm=False),
  'torchvision:resnet18': lambda: resnet.resnet18(num_classes=10),
  'torchvision:resnet50': lambda: resnet.resnet50(num_classes=10),
  'timm:vgg11_bn': narrow_timm,
  'timm:resnet18': timm_resnet,
}
PIXELS, BATCH, RATE = 64, 8, 0.01


def images(seed, count=BATCH):
  """(bytes [N, H, W, C], labels [N])."""
  draw = np.random.default_rng(seed)
  # Smooth ones: of independent pixels every deep map would look alike.
  coarse = draw.uniform(0, 255, size=(count, 8, 8, 3))
  pixels = coarse.repeat(PIXELS // 8, 1).repeat(PIXELS // 8, 2)
  return pixels.astype(np.uint8), draw.integers(10, size=count)


def normalised(pixels, network):
  x = (pixels - np.float32(network.mean)) / np.float32(network.std)
  return torch.tensor(x, dtype=torch.float32).permute(0, 3, 1, 2)


def step(net, x, labels):
  """One of plain SGD."""
  net.train()
  y = net(x)
  loss = torch.nn.functional.cross_entropy(y, torch.tensor(labels))
  net.zero_grad()
  loss.backward()
  with torch.no_grad():
    for p in net.parameters():
      p -= RATE * p.grad


def close(got, want, tolerance=1e-5):
  got, want = np.asarray(got), np.asarray(want)
  np.testing.assert_allclose(got, want, atol=tolerance * np.abs(want).max())


def _step_of_ours(loaded, x, labels):
  """(statistics -> outputs, path -> array after one step), in float64."""
  x = jnp.asarray(x.numpy().transpose(0, 2, 3, 1))
  variables = jax.tree.map(lambda v: np.float64(v), loaded.variables)

  @jax.jit
  def stepped(variables):
    running = loaded.network.apply(variables, x, statistics='running')

    def loss(params):
      y, moved = loaded.network.apply(
        {**variables, 'params': params},
        x,
        statistics='batch',
        mutable=['batch_stats'],
      )
      log = jax.nn.log_softmax(y)[jnp.arange(len(x)), jnp.asarray(labels)]
      return -log.mean(), (y, moved)

    params = variables['params']
    gradient, (batch, moved) = jax.grad(loss, has_aux=True)(params)
    params = jax.tree.map(lambda p, g: p - RATE * g, params, gradient)
    return running, batch, {'params': params, **moved}

  running, batch, new = jax.device_get(stepped(variables))
  flat = traverse_util.flatten_dict(new, sep='/')
  return {'running': running, 'batch': batch}, flat


class TorchTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    place = tempfile.TemporaryDirectory(dir=strict.ROOT.parent)
    self.place = pathlib.Path(self.enterContext(place))

  def moved(self, name):
    """A net whose statistics ten steps have moved, without dropout."""
    torch.manual_seed(0)
    net, network = NETS[name](), foreign.network(name)
    for module in net.modules():
      if isinstance(module, torch.nn.Dropout):
        module.p = 0.0
    for seed in range(10):
      pixels, labels = images(seed)
      step(net, normalised(pixels, network), labels)
    return net, network

  def converted(self, net, name):
    file, run = self.place / 'net.safetensors', self.place / 'net'
    tensors = {k: x.contiguous() for k, x in net.state_dict().items()}
    safetensors.save_file(tensors, file)
    convert.read(file, name, run, convert.Wishes(resolution=PIXELS))
    return run

  @parameterized.parameters(*NETS)
  def test_outputs_and_a_step(self, name):
    """In float64, where no ReLU is switched by the last digit of a value."""
    net, network = self.moved(name)
    loaded = bn_jax.load(self.converted(net, name))
    net = net.double()
    pixels, labels = images(100)
    x = normalised(pixels, network).double()
    old = {k: v.clone() for k, v in net.state_dict().items()}
    want = {}
    for training, statistics in ((False, 'running'), (True, 'batch')):
      net.train(training)
      with torch.no_grad():
        want[statistics] = net(x).numpy()
    net.load_state_dict(old)  # the call has moved the statistics
    step(net, x, labels)
    new = {k: v.numpy() for k, v in net.state_dict().items()}
    with jax.enable_x64(True):
      outputs, flat = _step_of_ours(loaded, x, labels)
    for statistics, y in outputs.items():
      with self.subTest(statistics):
        close(y, want[statistics])
    shapes = {path: leaf.shape for path, leaf in flat.items()}
    for row in foreign.tensors(network, shapes):
      got = foreign.to_theirs(row, np.asarray(flat[row.path]))
      with self.subTest(row.theirs):
        close(got, new[row.theirs])
        before = old[row.theirs].numpy()
        change = new[row.theirs] - before
        # A bias before a norm moves by rounding alone.
        if np.abs(change).max() > 1e-12:
          close(got - before, change, 1e-5)

  @parameterized.parameters('torchvision:resnet18', 'torchvision:vgg11_bn')
  def test_what_is_written_loads_there(self, name):
    net, _ = self.moved(name)
    run = self.converted(net, name)
    file = self.place / 'back.safetensors'
    convert.write(run, file, name)
    other = NETS[name]()
    other.load_state_dict(safetensors.load_file(file), strict=True)
    for key, value in net.state_dict().items():
      if not key.endswith('num_batches_tracked'):
        np.testing.assert_array_equal(other.state_dict()[key], value)

  @parameterized.parameters(
    *(name for name in foreign_test.LISTED if not name.startswith('keras'))
  )
  def test_names_and_shapes(self, name):
    library, _, word = name.partition(':')
    with torch.device('meta'):
      if library == 'timm':
        timm = pytest.importorskip('timm', reason='needs timm')
        net = timm.create_model(word)
      else:
        make = getattr(vgg if 'vgg' in word else resnet, word)
        net = make(**({'init_weights': False} if 'vgg' in word else {}))
    arrays = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    network = foreign.network(name)
    rows = foreign.tensors(network, foreign_test.shapes(network))
    own = {row.theirs: row.their_shape for row in rows}
    own |= {count: () for count in foreign.uncounted(network)}
    self.assertEqual(own, arrays)


class KerasTest(parameterized.TestCase):
  @parameterized.parameters('resnet50', 'vgg16')
  def test_outputs(self, word):
    keras = pytest.importorskip('keras', reason='needs keras')
    keras.utils.set_random_seed(0)
    make = {'resnet50': 'ResNet50', 'vgg16': 'VGG16'}[word]
    net = getattr(keras.applications, make)(
      weights=None, classes=10, classifier_activation=None,
      input_shape=(PIXELS, PIXELS, 3),
    )  # fmt: skip
    draw = np.random.default_rng(0)
    for w in net.weights:
      if len(w.shape) == 1 and 'variance' not in w.path:
        w.assign(w + 0.1 * draw.normal(size=w.shape))
      elif 'variance' in w.path:
        w.assign(draw.uniform(0.5, 1.5, size=w.shape))
    place = tempfile.TemporaryDirectory(dir=strict.ROOT.parent)
    place = pathlib.Path(self.enterContext(place))
    names = {}
    page = (strict.ROOT / 'docs' / 'models.md').read_text()
    (code,) = (
      part.partition('```')[0]
      for part in page.split('```python\n')
      if part.startswith('def to_safetensors')
    )
    self.assertLessEqual(len(code.split('\n\n')), 2)
    exec(code, {'np': np}, names)
    names['to_safetensors'](net, place / 'net.safetensors')
    convert.read(
      place / 'net.safetensors', f'keras:{word}', place / 'net',
      convert.Wishes(resolution=PIXELS),
    )  # fmt: skip
    loaded = bn_jax.load(place / 'net')
    pixels, _ = images(100, 16)
    # Keras' own preparation: blue, green and red, without their means.
    x = pixels[..., ::-1] - np.float32([103.939, 116.779, 123.68])
    for training, statistics in ((False, 'running'), (True, 'batch')):
      if training and word == 'vgg16':
        continue
      got, moved = loaded.network.apply(
        loaded.variables,
        loaded.normalised(pixels),
        statistics=statistics,
        mutable=['batch_stats'],
      )
      with self.subTest(statistics), jax.numpy_rank_promotion('allow'):
        # float32: 53 norms by their batches multiply what is rounded.
        close(got, net(x, training=training), 1e-4 if training else 1e-5)
    if word == 'resnet50':
      averages = moved['batch_stats']['stage1_block1']['projection_norm']
      norm = net.get_layer('conv2_block1_0_bn')
      close(averages['mean'], norm.moving_mean)
      close(averages['var'], norm.moving_variance)


if __name__ == '__main__':
  absltest.main()
