import contextlib
import io
import json
import pathlib
import shutil
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from bn_jax import errors
from bn_jax.commands import data
from bn_jax.data.disk import levels, prepare, show, store
from bn_jax.data.disk.pixels import RULES
from tests.fixtures import commanded, scratch, strict  # noqa: F401

_PNG = show._SIGNATURE
_RULES = 'rules    of all images, in memory and in a stream'


def run(*words):
  """(exit code, stdout, stderr) of python -m bn_jax data WORDS."""
  return commanded.run('data', *words)


class DigitsTest(absltest.TestCase):
  """Commands on the digits, in a folder of the test."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.prepared = scratch.folder(cls)
    prepare.prepare('digits', data_dir=cls.prepared)

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)
    self.enterContext(contextlib.chdir(folder))

  def copied(self, name='digits'):
    """A folder of the set that may be changed."""
    place = pathlib.Path('data') / name / '1.0.0'
    shutil.copytree(self.prepared / 'digits' / '1.0.0', place)
    return place

  def test_prepare_says_whether_it_was_there(self):
    place = self.prepared / 'digits' / '1.0.0'
    self.assertEqual(
      run('prepare', 'digits', f'--data_dir={self.prepared}'),
      (0, f'digits is there already: {place}\n', ''),
    )
    self.assertEqual(
      run('prepare', 'digits', '--data_dir=new'),
      (0, 'digits is prepared: new/digits/1.0.0\n', ''),
    )

  def test_info(self):
    code, said, failed = run('info', 'digits', f'--data_dir={self.prepared}')
    self.assertEqual((code, failed), (0, ''))
    lines = said.splitlines()
    self.assertEqual(lines[0], 'digits 1.0.0')
    self.assertEqual(lines[1], f'folder   {self.prepared}/digits/1.0.0')
    self.assertStartsWith(lines[2], 'images   8 x 8 x 1 ')
    self.assertEqual(lines[3], 'pixels   uint8, 0 is black and 255 white')
    self.assertStartsWith(lines[4], 'split    train        1,442 examples')
    self.assertStartsWith(lines[5], 'split    test           355 examples')
    self.assertStartsWith(
      lines[6], 'classes  10 (examples in train): 0 (143), '
    )
    self.assertEqual(lines[-1], 'wrote digits.png')
    # 178 zeros, 182 ones, ... (UCI), without every fifth of each.
    totals = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    numbers = [f'{i} ({n})' for i, n in enumerate(totals - totals // 5)]
    rules = lines.index(_RULES)
    classes = ' '.join(line.strip() for line in lines[6:rules])
    self.assertEqual(classes.split('train): ')[1], ', '.join(numbers))
    said = ' '.join(' '.join(lines[rules + 1 : -1]).split())
    self.assertEqual(said, ' '.join(' '.join(rule) for rule in RULES))
    sheet = Image.open('digits.png')
    self.assertEqual((sheet.format, sheet.mode), ('PNG', 'RGB'))
    # Ten rows of images of 96 pixels, twelve times 8.
    pixels = np.asarray(sheet)
    for number in range(10):
      self.assert_holds(pixels, self.first_of(number))

  def first_of(self, label):
    """The first training image of a class, 8 x 8."""
    source = store.source(store.opened('digits', self.prepared), 'train')
    record = next(r for r in source if r['label'] == label)
    return np.asarray(Image.open(io.BytesIO(record['image'])))

  def assert_holds(self, pixels, image):
    """The sheet shows an image, each of its pixels as a square of 12 x 12."""
    large = np.kron(image, np.ones((12, 12), image.dtype))
    # It stands in the first column of images.
    grey = pixels[:, :300, 0]
    windows = np.lib.stride_tricks.sliding_window_view(grey, large.shape)
    alike = windows[:, :, 30, 30] == large[30, 30]
    self.assertTrue(
      any(np.array_equal(windows[y, x], large) for y, x in np.argwhere(alike))
    )

  def test_out(self):
    words = ('info', 'digits', f'--data_dir={self.prepared}')
    other = self.folder / 'a.png'
    other.write_bytes(_PNG + b'an older one')
    self.assertEqual(run(*words, '--out=a.png')[0], 0)
    self.assertEqual(Image.open(other).format, 'PNG')
    self.assertFalse((self.folder / 'digits.png').exists())
    other.write_text('a text of mine')
    code, said, failed = run(*words, '--out=a.png')
    self.assertEqual((code, said), (2, ''))
    self.assertIn('a.png is there and is no PNG', failed)
    self.assertEqual(other.read_text(), 'a text of mine')
    code, _, failed = run(*words, '--out=none/a.png')
    self.assertEqual(code, 6)
    self.assertIn('cannot write none/a.png', failed)
    self.assertEqual([p.name for p in self.folder.iterdir()], ['a.png'])

  def test_a_build_as_tfrecord(self):
    path = self.copied() / 'dataset_info.json'
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, 'fileFormat': 'tfrecord'}))
    for action in ('info', 'prepare'):
      code, said, failed = run(action, 'digits', '--data_dir=data')
      self.assertEqual((code, said), (3, ''))
      self.assertIn('--out_file_format=array_record', failed)

  def test_a_split_that_is_missing(self):
    for path in self.copied().glob('*-train*'):
      path.unlink()
    code, said, failed = run('info', 'digits', '--data_dir=data')
    self.assertEqual((code, said, failed.count('\n')), (3, '', 1))
    self.assertIn('digits train', failed)

  def test_a_broken_image(self):
    prepared = store.opened('digits', self.prepared)
    with self.assertRaisesRegex(
      errors.DataError, 'record 0 of digits-train.*no image'
    ):
      show._decoded(prepared, 'train', (b'no image', 0), 0)

  def test_a_large_split_is_sampled(self):
    prepared = store.opened('digits', self.prepared)
    whole = show.glance(prepared, classes=10, each=8)
    self.assertEqual(whole.looked_at, 1_442)
    self.assertEqual(whole.counts.sum(), 1_442)
    with mock.patch.object(show, '_COUNTED', 1_441):
      some = show.glance(prepared, classes=3, each=8)
      self.assertIsNone(some.counts)
      self.assertEqual([len(x) for x in some.images.values()], [8] * 3)
      self.assertLess(some.looked_at, 600)  # it stops when it has them
      with mock.patch.object(show, '_SAMPLED_BYTES', 1):
        few = show.glance(prepared, classes=10, each=8)
      self.assertEqual(few.looked_at, 64)
      self.assertLess(sum(map(len, few.images.values())), 64)


class DescribedTest(absltest.TestCase):
  """What is said of a set that is not read."""

  def lines(self, classes, counts):
    names = tuple(f'class {i}' for i in range(classes))
    folder = pathlib.Path('a') / '1.0.0'
    stated = levels.Stated((None, 40, 3), 'uint16')
    prepared = store.Prepared(
      'a', folder, 'image', 'label', stated, names, {'train': 1_281_167}
    )
    images = {0: [Image.new('L', (9, 9))] * 8, 1: [Image.new('L', (9, 9))]}
    seen = show.Glance('train', images, counts, 4_096)
    title, rows, note = data._sheet(prepared, seen)
    self.assertEqual(title, 'a 1.0.0, train')
    notes = [row.note for row in rows]
    said = data._described(prepared, seen, {'train': 25_500_000_000})
    self.assertLess(max(map(len, said.splitlines())), 81)
    lines = said.splitlines()
    return lines[: lines.index(_RULES)], notes, note

  def test_a_large_set(self):
    lines, notes, note = self.lines(1000, None)
    self.assertStartsWith(lines[2], 'images   any x 40 x 3 ')
    self.assertEqual(
      lines[3],
      'pixels   uint16, 0 is black and 65,535 white, x read as x / 257',
    )
    self.assertEndsWith(lines[4], '1,281,167 examples  25,500.0 MB')
    self.assertStartsWith(lines[5], 'classes  1,000: class 0, class 1, ')
    self.assertEndsWith(' '.join(lines), ' class 19,          and 980 more')
    self.assertEqual(notes, ['', ''])
    self.assertEqual(
      note, 'the first 2 of 1,000 classes; found among 4,096 examples'
    )

  def test_a_small_set(self):
    counts = np.arange(100) + 1
    lines, notes, note = self.lines(100, counts)
    self.assertEndsWith(lines[-1], ' class 99 (100)')
    self.assertStartsWith(lines[6], '         class ')  # no name is broken
    self.assertEqual(notes, ['1 example', '2 examples'])
    self.assertEqual(note, 'the first 2 of 100 classes')


class ContactSheetTest(parameterized.TestCase):
  @parameterized.parameters(
    ((8, 8), (96, 96)),  # (width, height), 12 times
    ((28, 28), (112, 112)),  # 4 times: 3 would be less than 96
    ((32, 32), (96, 96)),
    ((96, 96), (96, 96)),
    ((224, 224), (96, 96)),
    ((500, 375), (128, 96)),
    ((375, 500), (72, 96)),
    ((4000, 100), (192, 5)),
    ((100, 5), (100, 5)),  # twice would be wider than 192
    ((1, 3000), (1, 96)),
  )
  def test_sizes(self, given, want):
    image = Image.new('L', given)
    self.assertEqual(show._scaled(image).size, want)

  @parameterized.parameters(
    ('0', '123,456 examples'),  # the note is the wider one
    ('a name that goes on and on and on ' * 3, ''),
  )
  def test_images_names_and_notes_do_not_overlap(self, name, note):
    red = (255, 0, 0)
    image = Image.new('RGB', (96, 96), red)
    rows = [
      show.Row(name, note, [image] * 3),
      show.Row('', '', [image]),
    ]
    sheet = np.asarray(show.draw('title', rows, 'of the set'))
    is_red = (sheet == red).all(-1)
    self.assertEqual(is_red.sum(), 4 * 96 * 96)
    left = np.flatnonzero(is_red.any(0))[0]
    # Between the title and the last line, all ink is left of the images.
    ink = (sheet < 200).all(-1)[44:-60].any(0)
    self.assertTrue(ink.any())
    self.assertLess(np.flatnonzero(ink).max(), left - 4)
    self.assertLess(left, 300)
    bare = [show.Row('', '', row.images) for row in rows]
    narrow = np.asarray(show.draw('', bare))
    self.assertLess(narrow.shape[1], sheet.shape[1])
    self.assertFalse((narrow < 200).all(-1).any())

  def test_no_images_at_all(self):
    rows = [show.Row('empty', '0 examples', [])]
    sheet = show.draw('a title that is longer than the rest', rows)
    self.assertGreater(sheet.width, 200)


if __name__ == '__main__':
  absltest.main()
