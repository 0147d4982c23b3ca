import io
import os
import pathlib
import pickle
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image, ImageOps

from bn_jax.data.batches import encoded
from bn_jax.data.disk import folders, levels, pixels
from tests.fixtures import (
  made_sets,
  own_data,
  strict,  # noqa: F401
)

_TURNED = levels.Stated((None, None, 3), turned=True)


class Case(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.root = pathlib.Path(folder) / 'pets'


class StatedTest(Case):
  def stated(self):
    return folders.opened(self.root).stated

  def test_one_size(self):
    own_data.folder(self.root, shape=(5, 7, 3))
    self.assertEqual(self.stated(), levels.Stated((5, 7, 3), turned=True))

  def test_sizes_that_differ(self):
    own_data.folder(self.root)
    own_data.image('dog/04.png')(self.root)
    self.assertEqual(self.stated().shape, (None, None, 3))

  def test_grey_is_one_channel_unless_another_has_colours(self):
    own_data.folder(self.root, shape=(6, 6, 1))
    self.assertEqual(self.stated().shape, (6, 6, 1))
    own_data.image('dog/04.png', (6, 6, 3))(self.root)
    self.assertEqual(self.stated().shape, (6, 6, 3))

  def test_alpha_is_no_channel(self):
    own_data.folder(self.root, shape=(6, 6, 4))
    self.assertEqual(self.stated().shape, (6, 6, 3))

  def test_one_of_16_bits_makes_all_of_them_wide(self):
    own_data.folder(self.root, shape=(6, 6, 1))
    wide = np.arange(36, dtype=np.uint16).reshape(6, 6, 1) * 1800
    (self.root / 'dog/01.png').write_bytes(made_sets.deep_png(wide))
    folder = folders.opened(self.root)
    self.assertEqual(folder.stated.dtype, 'uint16')
    number = folder.listed.files['train'].index('dog/01.png')
    for raw, want in (
      (folder.records('train').read([number])[0][0], wide / 257),
      (folder.records('train').read([0])[0][0], own_data.pixels(0, (6, 6, 1))),
    ):
      image = pixels.array(pixels.opened(raw, folder.stated))
      np.testing.assert_array_equal(image, np.float32(want))

  def test_of_many_some_are_looked_at(self):
    own_data.folder(self.root)
    own_data.image('cat/03.png')(self.root)
    with mock.patch.object(folders, '_LOOKED_AT', 3):
      self.assertEqual(self.stated().shape, (6, 6, 3))


class DigestTest(Case):
  @parameterized.parameters(
    ({'_LOOKED_AT': 30}, 30), ({'_LOOKED_AT': 10}, 10), ({'_READ': 0}, 1),
    ({'_READ': 5}, 5),
  )  # fmt: skip
  def test_it_covers_the_content_of_so_many_files(self, limits, count):
    """Of equal sizes: a BMP of 6 x 6 pixels has 174 bytes."""
    for number in range(30):
      path = self.root / 'ab'[number % 2] / f'{number:02}.bmp'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(own_data.pixels(number)).save(path)
    if '_READ' in limits:
      limits = {'_READ': limits['_READ'] * path.stat().st_size}
    digest = lambda: folders.opened(self.root).digest()
    with mock.patch.multiple(folders, **limits):
      before, noticed = digest(), 0
      for path in self.root.rglob('*.bmp'):
        content = path.read_bytes()
        path.write_bytes(content[:-3] + bytes(3))
        noticed += digest() != before
        path.write_bytes(content)
      self.assertEqual(digest(), before)
    self.assertEqual(noticed, count)


class ExifTest(parameterized.TestCase):
  @parameterized.product(
    orientation=tuple(range(1, 9)), suffix=('JPEG', 'PNG', 'TIFF', 'WEBP')
  )
  def test_as_pillow_turns_it(self, orientation, suffix):
    image = Image.fromarray(own_data.pixels(3, (5, 7, 3)))
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    image.save(file, suffix, exif=exif)
    want = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert('RGB'))
    opened = pixels.opened(file.getvalue(), _TURNED)
    self.assertEqual(opened.size, want.shape[1::-1])
    got = pixels.array(opened)
    # libjpeg-turbo decodes twice: simplejpeg has one of its own.
    np.testing.assert_allclose(got, want, atol=1 if suffix == 'JPEG' else 0)
    if suffix != 'TIFF':  # which Pillow turns
      asis = pixels.array(pixels.opened(file.getvalue(), levels.RGB))
      self.assertEqual(asis.shape, (5, 7, 3))

  @parameterized.product(orientation=tuple(range(1, 9)))
  def test_a_draft_is_turned(self, orientation):
    """A JPEG that is decoded at an eighth, as in a stream."""
    ramp = np.linspace(0, 255, 256, dtype=np.uint8)
    red, green = np.meshgrid(ramp, ramp[::2])
    colours = np.stack([red, green, red // 2], -1)
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    Image.fromarray(colours).save(file, 'JPEG', exif=exif, quality=95)
    opened = pixels.opened(file.getvalue(), _TURNED)
    whole = pixels.loaded(opened)
    draft = pixels.loaded(opened, tuple(side // 4 for side in opened.size))
    self.assertEqual(draft.size, tuple(side // 4 for side in opened.size))
    np.testing.assert_allclose(
      np.asarray(draft), np.asarray(whole.resize(draft.size)), atol=8
    )

  def test_planes_are_turned(self):
    exif = Image.Exif()
    exif[274] = 6
    values = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000
    for suffix in ('TIFF', 'PNG'):
      file = io.BytesIO()
      Image.fromarray(values).save(file, suffix, exif=exif)
      stated = levels.Stated((7, 5, 1), 'uint16', turned=True)
      got = pixels.array(pixels.opened(file.getvalue(), stated))
      np.testing.assert_array_equal(
        got[..., 0], np.float32(np.rot90(values, -1) / 257)
      )

  def test_a_damaged_exif_turns_nothing(self):
    image, file = Image.fromarray(own_data.pixels(3, (5, 7, 3))), io.BytesIO()
    image.save(file, 'JPEG', exif=b'Exif\0\0MM\0*\0\0\xff\xff')
    got = pixels.array(pixels.opened(file.getvalue(), _TURNED))
    self.assertEqual(got.shape, (5, 7, 3))


class FolderTest(Case):
  def setUp(self):
    super().setUp()
    own_data.folder(self.root, count=9)

  def test_examples_are_the_bytes_of_the_files(self):
    folder = folders.opened(self.root)
    examples = folder.records('train').read([4, 0])
    for (content, label), name in zip(examples, ('dog/04.png', 'cat/00.png')):
      self.assertEqual(content, (self.root / name).read_bytes())
      self.assertEqual(folder.class_names[label], name[:3])
    self.assertEqual(folder.place_of('train', 4), 'dog/04.png')

  def test_a_worker_opens_it_again(self):
    folder = folders.opened(self.root)
    records = encoded.Records(folder, 'train')
    again = pickle.loads(pickle.dumps(records))
    view = encoded.TestView(1, 6, folder.stated)
    for a, b in zip(again.example(4, 0, view), records.example(4, 0, view)):
      np.testing.assert_array_equal(a, b)

  def test_the_digest_tells_names_sizes_and_labels(self):
    digests = {folders.opened(self.root).digest()}
    self.assertEqual(digests, {folders.opened(self.root).digest()})
    own_data.text('cat/99.ppm')(self.root)
    (self.root / 'cat/99.ppm').write_bytes(b'P5 1 1 255\n\0')
    digests.add(folders.opened(self.root).digest())
    (self.root / 'cat/99.ppm').write_bytes(b'P5  1 1 255\n\0')
    digests.add(folders.opened(self.root).digest())
    os.rename(self.root / 'cat/99.ppm', self.root / 'cat/98.ppm')
    digests.add(folders.opened(self.root).digest())
    os.rename(self.root / 'cat', self.root / 'dot')
    digests.add(folders.opened(self.root).digest())
    self.assertLen(digests, 5)

  def test_nothing_is_kept_in_the_folder(self):
    folder = folders.opened(self.root)
    with mock.patch.dict(os.environ):
      os.environ.pop('BN_JAX_CACHE_DIR', None)
      self.assertIsNone(folder.cache_file('train', None))
    with mock.patch.dict(os.environ, BN_JAX_CACHE_DIR='/kept'):
      path = folder.cache_file('train', 32)
    self.assertStartsWith(str(path), '/kept/folder-')
    made_of = folder.made_of('train')
    os.utime(self.root / 'cat/00.png', (0, 0))
    self.assertNotEqual(folders.opened(self.root).made_of('train'), made_of)


if __name__ == '__main__':
  absltest.main()
