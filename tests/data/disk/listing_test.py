import os
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.data.disk import listing
from tests.fixtures import (
  own_data,
  strict,  # noqa: F401
)


class Case(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.root = pathlib.Path(folder) / 'pets'

  def csv(self, *rows, header='name,label'):
    text = '\n'.join([header, *rows])
    (self.root / 'labels.csv').write_text(text, encoding='utf-8-sig')
    return listing.of(self.root)


class ClassesTest(Case):
  def test_classes_and_images_are_in_the_order_of_names(self):
    own_data.folder(self.root, count=7, classes=('eel', 'cat'))
    listed = listing.of(self.root)
    self.assertEqual(listed.class_names, ('cat', 'eel'))
    want = [f'cat/{i:02}.png' for i in (1, 3, 5)]
    want += [f'eel/{i:02}.png' for i in (0, 2, 4, 6)]
    self.assertSequenceEqual(listed.files['train'], want)
    np.testing.assert_array_equal(
      listed.labels['train'], [0] * 3 + [1] * 4, strict=False
    )
    sizes = [(self.root / path).stat().st_size for path in want]
    np.testing.assert_array_equal(listed.sizes['train'], sizes)

  @parameterized.parameters(
    ('test', 'test'), ('val', 'validation'), ('valid', 'validation'),
    ('validation', 'validation'),
  )  # fmt: skip
  def test_splits_lie_above_the_classes(self, folder, split):
    own_data.folder(self.root, count=6, split=folder)
    listed = listing.of(self.root)
    self.assertEqual(set(listed.files), {'train', split})
    self.assertLen(listed.files[split], 6)
    self.assertEqual(listed.class_names, own_data.CLASSES)
    self.assertStartsWith(listed.files[split][0], f'{folder}/cat')

  def test_a_class_may_be_called_train(self):
    own_data.folder(self.root, classes=('plane', 'train'))
    self.assertEqual(listing.of(self.root).class_names, ('plane', 'train'))

  def test_train_alone_is_a_split(self):
    own_data.folder(self.root / 'train')
    listed = listing.of(self.root)
    self.assertEqual(listed.class_names, own_data.CLASSES)
    self.assertEqual(set(listed.files), {'train'})

  def test_one_split_has_one_folder(self):
    own_data.folder(self.root, split='val')
    os.rename(self.root / 'val', self.root / 'valid')
    own_data.folder(self.root, split='val')
    with self.assertRaisesRegex(errors.DataError, 'val and valid are one spl'):
      listing.of(self.root)

  def test_deeper_folders_and_links_are_read(self):
    own_data.folder(self.root, count=6)
    (self.root / 'cat' / 'b' / 'c').mkdir(parents=True)
    os.rename(self.root / 'cat/00.png', self.root / 'cat/b/c/99.PNG')
    os.rename(self.root / 'eel', self.root.parent / 'eels')
    os.symlink(self.root.parent / 'eels', self.root / 'eel')
    files = listing.of(self.root).files['train']
    self.assertSequenceEqual(files[:2], ['cat/03.png', 'cat/b/c/99.PNG'])
    self.assertEqual(files[-1], 'eel/05.png')

  def test_a_link_to_a_folder_above_is_refused(self):
    own_data.folder(self.root)
    os.symlink(self.root, self.root / 'cat' / 'again')
    with self.assertRaisesRegex(errors.DataError, 'leads back to a folder'):
      listing.of(self.root)

  def test_what_is_left_out(self):
    own_data.folder(self.root, count=6)
    want = listing.of(self.root)
    for name in ('Thumbs.db', 'desktop.ini', '.DS_Store', 'notes.csv'):
      (self.root / 'cat' / name).write_text('')
      (self.root / name).write_text('')
    (self.root / '.git').mkdir()
    (self.root / '__MACOSX').mkdir()
    (self.root / 'README.md').write_text('pets')
    self.assertEqual(listing.of(self.root).files, want.files)


class CsvTest(Case):
  def test_its_order_is_that_of_the_examples(self):
    own_data.folder(self.root, count=6)
    listed = self.csv('dog/01.png,7', 'cat/03.png,2', ' cat/00.png , 7 ')
    self.assertSequenceEqual(
      listed.files['train'], ['dog/01.png', 'cat/03.png', 'cat/00.png']
    )
    # Numbers are ordered as numbers, and numbered from 0 on.
    self.assertEqual(listed.class_names, ('2', '7'))
    self.assertEqual(listed.labels['train'].tolist(), [1, 0, 1])

  def test_numbers_are_no_text(self):
    own_data.folder(self.root, count=6)
    listed = self.csv('dog/01.png,10', 'cat/03.png,9', 'cat/00.png,-1')
    self.assertEqual(listed.class_names, ('-1', '9', '10'))

  @parameterized.parameters(
    (('1_11', '111'), ('111', '1_11')), (('1_1', '2'), ('1_1', '2')),
    (('01', 'a', '1'), ('01', '1', 'a')), (('\u0661', '1'), ('1', '\u0661')),
    (('+2', '-2'), ('-2', '2')), (('1.0', '1'), ('1', '1.0')),
    ((f'1{"0" * 20}', '2'), (f'1{"0" * 20}', '2')),
  )  # fmt: skip
  def test_different_texts_are_different_labels(self, texts, names):
    own_data.folder(self.root, count=6)
    files = ('dog/01.png', 'cat/03.png', 'cat/00.png')
    listed = self.csv(*(f'{f},{text}' for f, text in zip(files, texts)))
    self.assertEqual(listed.class_names, names)
    labels = listed.labels['train'].tolist()
    self.assertLen(set(labels), len(texts))

  def test_blank_lines_are_left_out_and_counted(self):
    own_data.folder(self.root, count=6)
    listed = self.csv('', 'dog/01.png,a', ' ', ',', 'cat/03.png,b', '')
    self.assertEqual(listed.files['train'], ('dog/01.png', 'cat/03.png'))
    with self.assertRaisesRegex(errors.DataError, 'line 4: there is no file'):
      self.csv('', 'dog/01.png,a', 'cat/99.png,b')

  def test_names_and_splits(self):
    own_data.folder(self.root, count=6)
    listed = self.csv(
      'val,wolf,dog/01.png', 'train,cat,cat/03.png', 'train,wolf,dog/04.png',
      header='split,label,name',
    )  # fmt: skip
    self.assertEqual(listed.class_names, ('cat', 'wolf'))
    self.assertEqual(listed.files['validation'], ('dog/01.png',))
    self.assertEqual(listed.labels['validation'].tolist(), [1])

  def test_targets(self):
    own_data.folder(self.root, count=6)
    listed = self.csv(
      'dog/01.png,1e3,0', 'cat/03.png,-0.5,7', header='name,target,target2'
    )
    self.assertEqual(listed.class_names, ())
    np.testing.assert_array_equal(
      listed.labels['train'], np.float32([[1000, 0], [-0.5, 7]]), strict=True
    )

  def test_a_csv_by_its_name(self):
    own_data.folder(self.root, count=6)
    (self.root / 'some.csv').write_text('name,label\ncat/00.png,a\n')
    listed = listing.of(self.root / 'some.csv')
    self.assertEqual(listed.root, self.root)
    self.assertEqual(listed.files['train'], ('cat/00.png',))


if __name__ == '__main__':
  absltest.main()
