import contextlib
import errno
import functools
import gzip
import hashlib
import http.server
import io
import pathlib
import shutil
import struct
import sys
import tarfile
import tempfile
import threading
from unittest import mock

import numpy as np
import tensorflow_datasets as tfds
from absl.testing import absltest, parameterized
from PIL import Image

from bn_jax import errors
from bn_jax.data.disk import (
  archives,
  builders,
  catalogue,
  layouts,
  prepare,
  store,
)
from tests.fixtures import strict  # noqa: F401

_COUNTS = {'train': 10, 'test': 3}
_CIFAR = ('cifar10', 'cifar100')
_ALL = (*_CIFAR, 'mnist', 'fashion_mnist')


def pixels(name, split):
  """Images [N, H, W, C] and labels that a made archive holds."""
  rng = np.random.default_rng(len(split))
  shape = (32, 32, 3) if name in _CIFAR else (28, 28, 1)
  count = _COUNTS[split]
  images = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
  fine = rng.integers(0, 100 if name == 'cifar100' else 10, count)
  labels = {'label': fine.astype(np.uint8)}
  if name == 'cifar100':
    labels['coarse_label'] = rng.integers(0, 20, count).astype(np.uint8)
  return images, labels


def cifar_members(name):
  """member -> bytes of a made archive, as the published one has them."""
  folder = 'cifar-10-batches-bin' if name == 'cifar10' else 'cifar-100-binary'
  order = ['label'] if name == 'cifar10' else ['coarse_label', 'label']
  rows = {}
  for split in _COUNTS:
    images, labels = pixels(name, split)
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    columns = [labels[key][:, None] for key in order]
    rows[split] = np.concatenate([*columns, planes], axis=1)
  if name == 'cifar100':
    files = {f'{split}.bin': rows[split] for split in rows}
    files['coarse_label_names.txt'] = [f'coarse{i}' for i in range(20)]
    files['fine_label_names.txt'] = [f'fine{i}' for i in range(100)]
  else:
    files = {
      f'data_batch_{i + 1}.bin': rows['train'][2 * i : 2 * i + 2]
      for i in (3, 1, 0, 2, 4)  # in no order, like the published one
    }
    files['test_batch.bin'] = rows['test']
    files['batches.meta.txt'] = [f'name{i}' for i in range(10)]
  files['readme.html'] = ['not', 'read']
  return {
    f'{folder}/{file}': '\n'.join([*data, '']).encode()
    if isinstance(data, list)
    else data.tobytes()
    for file, data in files.items()
  }


def tar(members):
  written = io.BytesIO()
  with tarfile.open(fileobj=written, mode='w:gz') as file:
    for name, data in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      file.addfile(info, io.BytesIO(data))
  return written.getvalue()


def idx(array):
  header = struct.pack(f'>HBB{array.ndim}I', 0, 8, array.ndim, *array.shape)
  return gzip.compress(header + array.tobytes())


def made(name):
  """file -> bytes of the archives of a set."""
  if name == 'cifar10':
    return {'cifar-10-binary.tar.gz': tar(cifar_members(name))}
  if name == 'cifar100':
    return {'cifar-100-binary.tar.gz': tar(cifar_members(name))}
  files = {}
  for split, short in (('train', 'train'), ('test', 't10k')):
    images, labels = pixels(name, split)
    files[f'{short}-images-idx3-ubyte.gz'] = idx(images[..., 0])
    files[f'{short}-labels-idx1-ubyte.gz'] = idx(labels['label'])
  return files


def recipe(name, files, url='http://127.0.0.1:9/'):
  """What a set is made from, with the digests of the made files."""
  facts = tuple(
    archives.Archive(
      url + file, len(data), hashlib.sha256(data).hexdigest(), file
    )
    for file, data in files.items()
  )
  return prepare.recipe(name)._replace(archives=facts, counts=_COUNTS)


def decoded(image):
  array = np.asarray(Image.open(io.BytesIO(image)))
  return array.reshape(*array.shape[:2], -1)


class FolderTest(parameterized.TestCase):
  """A test with a folder of archives and one for the data."""

  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.manual, self.data = folder / 'manual', folder / 'data'
    self.manual.mkdir()

  def put(self, files):
    for file, data in files.items():
      (self.manual / file).write_bytes(data)

  def prepare(self, name, files=None, **keywords):
    files = made(name) if files is None else files
    self.put(files)
    keywords = {'manual_dir': self.manual, **keywords}
    return prepare.prepare(
      name, data_dir=self.data, made_from=recipe(name, files), **keywords
    )

  def assert_nothing_prepared(self, name):
    self.assertIsNone(store.folder(name, self.data))
    self.assertEqual([p for p in self.data.rglob('*') if p.is_file()], [])


class PreparedTest(FolderTest):
  @parameterized.parameters(*_ALL)
  def test_is_read_back_as_the_set_of_tfds(self, name):
    place = self.prepare(name)
    want = tfds.builder_cls(name)
    self.assertEqual(place, self.data / name / str(want.VERSION))
    # TFDS itself opens it by its name, and decodes it.
    builder = tfds.builder(
      name, data_dir=str(self.data), file_format='array_record'
    )
    self.assertIs(type(builder), want)
    self.assertEqual(
      (place / 'features.json').read_text(), self.features_of_tfds(name)
    )
    prepared = store.opened(name, self.data)
    self.assertEqual(prepared.splits, _COUNTS)
    for split in _COUNTS:
      images, labels = pixels(name, split)
      records = list(builder.as_data_source(split=split))
      encoded = list(store.source(prepared, split))
      for record, other in zip(records, encoded):
        np.testing.assert_array_equal(
          decoded(other['image']), record['image'].reshape(images[0].shape)
        )
      # Each of the archive's examples once, with its labels.
      rows = {image.tobytes(): i for i, image in enumerate(images)}
      found = [rows.pop(record['image'].tobytes()) for record in records]
      self.assertEqual(rows, {})
      for key, values in labels.items():
        got = [record[key] for record in records]
        np.testing.assert_array_equal(got, values[found])
      if name in _CIFAR:
        ids = [record['id'] for record in records]
        self.assertEqual(ids, [f'{split}_{i:05d}'.encode() for i in found])

  def features_of_tfds(self, name):
    """features.json as the builder of TFDS writes it."""
    folder = self.data / 'features'
    folder.mkdir()
    with mock.patch.object(tfds.core.DatasetInfo, 'read_from_directory'):
      tfds.builder(name, data_dir=str(folder)).info.features.save_config(folder)
    return (folder / 'features.json').read_text()

  def test_the_order_is_that_of_tfds(self):
    images, labels = pixels('cifar10', 'train')

    class Cifar10(tfds.image_classification.Cifar10, skip_registration=True):
      # Its own examples, and keys, of images that need no TensorFlow.
      def _split_generators(self, dl_manager):
        return {'train': self._generate_examples('train_', ['a file'])}

    def load(path, number):
      for image, label in zip(images, labels['label']):
        yield [int(label)], Image.fromarray(image)

    module = sys.modules[tfds.image_classification.Cifar10.__module__]
    keywords = {'data_dir': str(self.manual), 'file_format': 'array_record'}
    with mock.patch.object(module, '_load_data', load):
      prepare.write(Cifar10(**keywords), self.manual)
    self.prepare('cifar10')
    want, got = (
      [record['id'] for record in store.source(prepared, 'train')]
      for prepared in (
        store.opened('cifar10', self.manual),
        store.opened('cifar10', self.data),
      )
    )
    self.assertLen(set(want), 10)
    self.assertEqual(got, want)

  def test_class_names_are_those_of_the_archive(self):
    for name in _CIFAR:
      self.prepare(name)
    ten = store.opened('cifar10', self.data).class_names
    self.assertEqual(ten, tuple(f'name{i}' for i in range(10)))
    hundred = store.opened('cifar100', self.data)
    self.assertEqual(hundred.class_names[99], 'fine99')
    coarse = (hundred.folder / 'coarse_label.labels.txt').read_text()
    self.assertEqual(coarse.split(), [f'coarse{i}' for i in range(20)])

  def test_what_is_there_already_is_not_touched(self):
    said = []
    place = self.prepare('mnist')
    before = {
      p: (p.stat().st_mtime_ns, p.read_bytes()) for p in place.iterdir()
    }
    # Not even the archives are asked for.
    again = self.prepare(
      'mnist', {}, manual_dir=self.data / 'no', say=said.append
    )
    self.assertEqual(again, place)
    self.assertEqual(said, [f'mnist is there already: {place}'])
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in place.iterdir()}
    self.assertEqual(after, before)

  def test_interrupted_it_leaves_nothing(self):
    def png(image):
      png.calls += 1
      if png.calls == 12:  # within the second split
        raise KeyboardInterrupt
      return real(image)

    png.calls, real = 0, builders._png
    with (
      mock.patch.object(builders, '_png', png),
      self.assertRaises(KeyboardInterrupt),
    ):
      self.prepare('mnist')
    self.assertEqual(png.calls, 12)
    self.assert_nothing_prepared('mnist')
    self.prepare('mnist')
    self.assertEqual(store.opened('mnist', self.data).splits, _COUNTS)

  def test_digits(self):
    place = prepare.prepare('digits', data_dir=self.data)
    self.assertEqual(list(self.data.iterdir()), [place.parent])
    splits = store.opened('digits', self.data).splits
    self.assertEqual(splits, {'train': 1_442, 'test': 355})

  def test_a_data_dir_that_cannot_be_written(self):
    self.data.write_text('a file')
    with self.assertRaisesRegex(errors.StorageError, f'write {self.data}'):
      self.prepare('mnist')
    with self.assertRaisesRegex(errors.StorageError, f'write {self.data}'):
      prepare.prepare('digits', data_dir=self.data)

  def test_written_by_another_process_in_the_meantime(self):
    def png(image):
      if not place.exists():  # the other one is faster
        shutil.copytree(other, place)
      return real(image)

    other, real = self.prepare('mnist'), builders._png
    self.data = self.data.with_name('again')
    place = self.data / 'mnist' / '3.0.1'
    with mock.patch.object(builders, '_png', png):
      self.assertEqual(self.prepare('mnist'), place)
    self.assertEqual(list(place.parent.iterdir()), [place])
    self.assertEqual(store.opened('mnist', self.data).splits, _COUNTS)

  def test_a_full_disk(self):
    full = OSError(errno.ENOSPC, 'No space left on device')
    with (
      mock.patch.object(builders, '_png', side_effect=full),
      self.assertRaisesRegex(errors.StorageError, 'No space left'),
    ):
      self.prepare('mnist')
    self.assert_nothing_prepared('mnist')


class ArchiveTest(FolderTest):
  def test_the_published_facts(self):
    (cifar,) = archives.known('cifar10')
    self.assertEqual(cifar.name, layouts.CIFAR10.archive)
    # https://www.cs.toronto.edu/~kriz/cifar.html: 162 MB (of 2**20 bytes)
    self.assertEqual(cifar.size // 2**20, 162)
    for name in _ALL:
      facts, counts, layout = prepare.recipe(name)
      if name in _CIFAR:
        files = [layout.archive]
        self.assertEqual(counts, {'train': 50_000, 'test': 10_000})
      else:
        files = [file for pair in layout.files.values() for file in pair]
        self.assertEqual(counts, {'train': 60_000, 'test': 10_000})
      self.assertCountEqual([a.name for a in facts], files)

  def test_missing(self):
    files = made('mnist')
    gone = 't10k-labels-idx1-ubyte.gz'
    self.put({name: data for name, data in files.items() if name != gone})
    message = (
      f'missing in {self.manual}: {gone} (http://127.0.0.1:9/{gone}, '
      f'{len(files[gone])} bytes); download'
    )
    with self.assertRaises(errors.DataError) as caught:
      prepare.prepare(
        'mnist', data_dir=self.data, manual_dir=self.manual,
        made_from=recipe('mnist', files),
      )  # fmt: skip
    self.assertStartsWith(str(caught.exception), message)
    self.assert_nothing_prepared('mnist')

  @parameterized.parameters('cut', 'changed')
  def test_not_the_published_one(self, how):
    files = made('cifar10')
    ((file, data),) = files.items()
    other = data[:-9] if how == 'cut' else data[:-1] + bytes([data[-1] ^ 1])
    (self.manual / file).write_bytes(other)
    with self.assertRaises(errors.DataError) as caught:
      prepare.prepare(
        'cifar10', data_dir=self.data, manual_dir=self.manual,
        made_from=recipe('cifar10', files),
      )  # fmt: skip
    for part in (other, data):
      self.assertIn(hashlib.sha256(part).hexdigest(), str(caught.exception))
      self.assertIn(f'{len(part):,} bytes', str(caught.exception))
    self.assert_nothing_prepared('cifar10')

  def fails(self, name, files, message):
    with self.assertRaisesRegex(errors.DataError, message):
      self.prepare(name, files)
    self.assert_nothing_prepared(name)

  @parameterized.parameters(
    ('test_batch.bin', None, 'holds no cifar-10-batches-bin/test_batch.bin'),
    ('batches.meta.txt', None, 'holds no cifar-10-batches-bin/batches.meta'),
    ('data_batch_3.bin', bytes(3073), r'data_batch_3.bin has 3,073 bytes; exp'),
    ('batches.meta.txt', b'a\nb\n', 'has 2 names; expected: 10'),
    ('batches.meta.txt', b'\xff' * 9, 'batches.meta.txt is no text'),
    (
      'batches.meta.txt',
      bytes(2**17),
      'batches.meta.txt has 131,072 bytes; expected: a sh',
    ),
    ('test_batch.bin', b'\x0a' * 3 * 3073, 'test label: a label is 10; allow'),
  )
  def test_a_member_of_cifar(self, member, data, message):
    members = cifar_members('cifar10')
    members[f'cifar-10-batches-bin/{member}'] = data
    members = {k: v for k, v in members.items() if v is not None}
    files = {'cifar-10-binary.tar.gz': tar(members)}
    self.fails('cifar10', files, f'cifar-10-binary.tar.gz.*{message}')

  def test_a_tar_that_unpacks_to_far_more(self):
    files = {
      'cifar-10-binary.tar.gz': tar(
        {'zeros': bytes(2000), **cifar_members('cifar10')}
      )
    }
    with mock.patch.object(archives, '_SKIPPED_BYTES', 1999):
      self.fails('cifar10', files, 'more than 1,999 bytes are not of the data')
    self.prepare('cifar10', files)

  def test_a_link_in_place_of_a_member(self):
    members = cifar_members('cifar10')
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode='w:gz') as file:
      for name, data in members.items():
        info = tarfile.TarInfo(name)
        info.size = len(data)
        if 'meta' in name:
          info.size, info.type = 0, tarfile.SYMTYPE
          info.linkname = '/etc/passwd'
        file.addfile(info, io.BytesIO(data))
    files = {'cifar-10-binary.tar.gz': written.getvalue()}
    self.fails('cifar10', files, 'holds no cifar-10-batches-bin/batches.meta')

  @parameterized.parameters(
    (lambda data: data[:2000],),
    (lambda data: b'no archive at all',),
    (lambda data: data[:20] + bytes(200) + data[220:],),
  )
  def test_a_damaged_tar(self, damage):
    files = {name: damage(data) for name, data in made('cifar10').items()}
    self.fails('cifar10', files, 'cannot read .*cifar-10-binary.tar.gz: .*')

  @parameterized.parameters(
    (idx(np.zeros((9, 28, 28), np.uint8)), 'no IDX file of 10 x 28 x 28'),
    (gzip.compress(b'plain text'), 'no IDX file'),
    (b'plain text', 'cannot read .*train-images'),
    (made('mnist')['train-images-idx3-ubyte.gz'][:-50], 'cannot read .*train-'),
    (
      gzip.compress(struct.pack('>HBB3I', 0, 8, 3, 10, 28, 28) + bytes(7839)),
      'train-images.* holds 7,839 bytes; expected: 7,840',
    ),
    (
      gzip.compress(struct.pack('>HBB3I', 0, 8, 3, 10, 28, 28) + bytes(7841)),
      'train-images.* holds more bytes; expected: 7,840',
    ),
  )
  def test_a_file_of_mnist(self, data, message):
    files = {**made('mnist'), 'train-images-idx3-ubyte.gz': data}
    self.fails('mnist', files, message)

  def test_a_label_of_mnist(self):
    labels = idx(np.full(3, 17, np.uint8))
    files = {**made('mnist'), 't10k-labels-idx1-ubyte.gz': labels}
    self.fails('mnist', files, 't10k-labels.*: a label is 17; allowed: 0 to 9')


class _Quiet(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *args):
    pass


class DownloadTest(FolderTest):
  """From a server of this process."""

  def setUp(self):
    super().setUp()
    handler = functools.partial(_Quiet, directory=str(self.manual))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    self.enterContext(contextlib.closing(server.socket))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    self.addCleanup(thread.join)
    self.addCleanup(server.shutdown)
    self.url = f'http://127.0.0.1:{server.server_port}/'
    # A proxy of the environment must not answer for this server.
    self.enterContext(mock.patch.dict('os.environ', {'no_proxy': '127.0.0.1'}))

  def download(self, name, published, **keywords):
    made_from = recipe(name, published, self.url)
    return prepare.prepare(
      name, data_dir=self.data, made_from=made_from, **keywords
    )

  def test_downloaded_and_kept_under_their_names(self):
    said, files = [], made('mnist')
    self.put(files)
    self.download('mnist', files, say=said.append)
    self.assertEqual(store.opened('mnist', self.data).splits, _COUNTS)
    kept = self.data / 'downloads' / 'mnist'
    self.assertEqual(
      {path.name: path.read_bytes() for path in kept.iterdir()}, files
    )
    first = next(iter(files))
    self.assertIn(f'downloading {first} ({self.url}{first}', said[0])
    self.assertEqual(said[1], f'{first}: 100 %')
    # The second time nothing is asked of the server.
    (self.data / 'mnist').rename(self.data / 'away')
    for file in files:
      (self.manual / file).unlink()
    self.download('mnist', files)
    self.assertEqual(store.opened('mnist', self.data).splits, _COUNTS)

  @parameterized.parameters(
    (lambda data: data[:-5],),
    (lambda data: data[:-5] + b'other',),
    (lambda data: data + bytes(9),),
  )
  def test_another_file_is_not_kept(self, change):
    files = made('cifar10')
    ((file, data),) = files.items()
    self.put({file: change(data)})
    with self.assertRaises(errors.DataError) as caught:
      self.download('cifar10', files)
    for part in (change(data), data):
      self.assertIn(hashlib.sha256(part).hexdigest(), str(caught.exception))
    self.assert_nothing_prepared('cifar10')

  def test_a_stream_without_end_is_cut_off(self):
    archive = archives.Archive(f'{self.url}long', 10, '0', 'long')
    self.put({'long': bytes(5 * 2**20)})
    self.data.mkdir()
    got = sum(map(len, archives._blocks(archive)))
    self.assertEqual(got, 2**20)  # the first block is over the limit

  def test_not_found(self):
    with self.assertRaisesRegex(
      errors.DataError, f'cannot download {self.url}cifar-10.*--manual_dir=DIR'
    ):
      self.download('cifar10', made('cifar10'))
    self.assert_nothing_prepared('cifar10')

  def test_no_server(self):
    self.url = 'http://127.0.0.1:9/'
    with self.assertRaisesRegex(
      errors.DataError, f'download {self.url}cifar-10.*by hand.*--manual_dir'
    ):
      self.download('cifar10', made('cifar10'))
    self.assert_nothing_prepared('cifar10')


class CatalogueTest(FolderTest):
  def message(self, name, **keywords):
    with self.assertRaises(errors.DataError) as caught:
      prepare.prepare(name, data_dir=self.data, **keywords)
    return str(caught.exception)

  def with_tensorflow(self, there):
    spec = mock.patch.object(
      catalogue.importlib.util, 'find_spec', return_value=there or None
    )
    self.enterContext(spec)

  def test_nearest_names(self):
    said = self.message('cifar11')
    self.assertStartsWith(said, "unknown dataset 'cifar11'; nearest: cifar10")
    self.assertIn(' cifar10,', said)
    self.assertLessEqual(said.count(','), 4)
    self.assertIn('nearest: digits', self.message('digit'))
    self.assertIn('catalog', self.message('../..'))
    said = self.message('imagenette/full-size-v3')
    self.assertIn(
      "config of imagenette 'full-size-v3'; nearest: full-size-v2", said
    )
    self.assertIn('it has none', self.message('svhn_cropped/small'))

  def test_what_is_missing(self):
    self.with_tensorflow(False)
    self.assertEqual(
      self.message('svhn_cropped'),
      'svhn_cropped cannot be prepared yet: TensorFlow is missing, which only '
      'preparing needs: pip install tensorflow',
    )
    said = self.message('imagenet2012')
    self.assertIn('pip install tensorflow; ILSVRC2012_img_train.tar and', said)
    self.assertIn('ILSVRC2012_img_val.tar must lie in --manual_dir=DIR', said)
    self.put({'ILSVRC2012_img_val.tar': b''})
    said = self.message('imagenet2012', manual_dir=self.manual)
    self.assertNotIn('ILSVRC2012_img_val', said)
    self.assertIn(f'_train.tar must lie in --manual_dir={self.manual}', said)

  def test_instructions_of_other_sets(self):
    self.with_tensorflow(True)
    said = self.message('resisc45')
    self.assertIn('--manual_dir=DIR: ', said)
    self.assertNotIn('\n', said)

  @parameterized.parameters(
    (ImportError('no', name='cv2.x'), 3, 'package cv2 .* pip install cv2'),
    (OSError(errno.ENOSPC, 'full'), 6, 'cannot write .*full'),
    (
      ConnectionError('a\nb'),
      3,
      'not prepare svhn_cropped: ConnectionError: a',
    ),
    (AssertionError(), 3, 'AssertionError'),
  )
  def test_what_a_builder_raises(self, error, code, message):
    self.with_tensorflow(True)
    with (
      mock.patch.object(tfds, 'builder', side_effect=error),
      self.assertRaisesRegex(errors.Failure, message) as caught,
    ):
      prepare.prepare('svhn_cropped', data_dir=self.data)
    self.assertEqual(caught.exception.exit_code, code)
    self.assertNotIn('\n', str(caught.exception))

  def test_tfds_is_told_format_and_folders(self):
    self.with_tensorflow(True)
    self.put(dict.fromkeys(catalogue._MANUAL['imagenet2012'][0], b''))

    class Builder:
      def download_and_prepare(builder, *, file_format, download_config):
        self.assertEqual(file_format, 'array_record')
        self.assertEqual(download_config.manual_dir, str(self.manual))
        prepare.prepare('digits', data_dir=self.data)
        (self.data / 'digits').rename(self.data / 'imagenet2012')

    with mock.patch.object(tfds, 'builder', return_value=Builder()) as asked:
      place = prepare.prepare(
        'imagenet2012', data_dir=self.data, manual_dir=self.manual
      )
    asked.assert_called_once_with(
      'imagenet2012', data_dir=str(self.data), file_format='array_record'
    )
    self.assertEqual(place, self.data / 'imagenet2012' / '1.0.0')


if __name__ == '__main__':
  absltest.main()
