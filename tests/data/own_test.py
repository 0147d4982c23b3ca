"""A user's own data against the same examples as a set of TFDS."""

import collections
import hashlib
import io
import itertools
import os
import pathlib
import tempfile
from unittest import mock

import jax
import numpy as np
import tensorflow_datasets as tfds
from absl.testing import absltest, parameterized
from PIL import Image

from bn_jax import errors, modules, plugins
from bn_jax.data import datasets, origins, reading
from bn_jax.data.disk import (
  arrays,
  facts,
  folders,
  held_out,
  labels,
  own,
  store,
)
from tests.fixtures import (
  made_sets,
  own_data,
  scratch,
  strict,
)
from tests.fixtures.same_bits import assert_same

_NAMES = ('wolf', 'cat', 'dog', 'eel')  # of TFDS' labels 0 to 3
_SHAPE = (12, 12, 3)


def examples(count, first=0):
  """(the file of image i, its label) of each example."""
  return [
    (made_sets.png(own_data.pixels(i, _SHAPE)), i * 7 % 4)
    for i in range(first, first + count)
  ]


class SameAsTfdsTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = scratch.folder(cls)
    cls.splits = {'train': examples(40), 'test': examples(10, 100)}
    made_sets.of(
      cls.root / 'tfds', tfds.features.Image(shape=_SHAPE),
      label=tfds.features.ClassLabel(names=_NAMES), **cls.splits,
    )  # fmt: skip
    rows = ['name,label,split']
    for split, several in cls.splits.items():
      for number, (content, label) in enumerate(several):
        classes = cls.root / 'classes' / split / _NAMES[label]
        classes.mkdir(parents=True, exist_ok=True)
        (classes / f'{number}.png').write_bytes(content)
        name = f'{split}{number}.png'
        (cls.root / 'listed').mkdir(exist_ok=True)
        (cls.root / 'listed' / name).write_bytes(content)
        rows.append(f'{name},{label},{split}')
    (cls.root / 'listed/labels.csv').write_text('\n'.join(rows))

  def sources(self, **keywords):
    return (
      datasets.make('made', data_dir=self.root / 'tfds', **keywords),
      datasets.make(f'folder:{self.root}/listed', **keywords),
    )

  @parameterized.parameters(
    {}, {'resolution': 8}, {'subset': 9, 'label_noise': 0.3},
    {'classes': (3, 1)}, {'binarize': 0.5},
  )  # fmt: skip
  def test_in_memory_the_arrays_are_the_same(self, **keywords):
    want, got = self.sources(**keywords)
    self.assertEqual(got.facts, want.facts)
    for a, b in zip(got.load(), want.load()):
      assert_same(a.split, b.split)

  @parameterized.parameters(0, 2)
  def test_batches_in_memory(self, crop_padding):
    want, got = (
      self.batches(source, crop_padding)
      for source in self.sources(crop_padding=crop_padding)
    )
    assert_same(got, want)

  def batches(self, source, crop_padding):
    sampler, split = source.sampler(16), source.load().train.split
    order = sampler.init(jax.random.key(1))
    key = jax.random.key(2)
    batches = []
    for _ in range(6):  # into the third epoch
      index, order = sampler.draw(order, jax.random.key(1))
      batches.append(sampler.take(split, index, key if crop_padding else None))
    return batches

  def test_batches_of_a_stream(self):
    want, got = (
      self.streamed(source.load()) for source in self.sources(streaming=True)
    )
    assert_same(got, want)

  def streamed(self, dataset):
    feed = dataset.train.feed(16)
    feed.start(seed=3, first_step=1)
    try:
      batches = [feed.take() for _ in range(5)]
    finally:
      feed.close()
    return batches, list(dataset.test.batches(4))

  def test_files_of_every_kind_become_what_tfds_makes_of_them(self):
    kinds = [
      ('RGB', 'JPEG', {}), ('L', 'JPEG', {}), ('CMYK', 'JPEG', {}),
      ('RGB', 'JPEG', {'progressive': True}), ('P', 'PNG', {}),
      ('P', 'PNG', {'transparency': 3}), ('1', 'PNG', {}), ('L', 'PNG', {}),
      ('LA', 'PNG', {}), ('RGBA', 'PNG', {}), ('RGB', 'BMP', {}),
      ('RGB', 'PPM', {}), ('L', 'PPM', {}), ('P', 'GIF', {}),
      ('RGB', 'TIFF', {}), ('CMYK', 'TIFF', {}), ('RGBA', 'WEBP', {}),
    ]  # fmt: skip
    several, rows = [], ['name,label']
    folder = self.root / 'kinds'
    folder.mkdir()
    for number, (mode, kind, keywords) in enumerate(kinds):
      image = Image.fromarray(own_data.pixels(number, (12, 12, 4)), 'RGBA')
      image = image.convert('RGB') if mode in ('CMYK', 'P', '1') else image
      file = io.BytesIO()
      image.convert(mode).save(file, kind, **keywords)
      several.append((file.getvalue(), number % 4))
      (folder / f'{number}.{kind.lower()}').write_bytes(file.getvalue())
      rows.append(f'{number}.{kind.lower()},{number % 4}')
    (folder / 'labels.csv').write_text('\n'.join(rows))
    made_sets.of(
      self.root / 'kinds_tfds', tfds.features.Image(shape=_SHAPE),
      train=several, test=several,
    )  # fmt: skip
    want = datasets.make('made', data_dir=self.root / 'kinds_tfds').load()
    got = datasets.make(f'folder:{folder}', test_share=0.2, seed=1)
    self.assertEqual(got.facts.shape, _SHAPE)
    parts = got.load()
    images = np.concatenate([part.split.images for part in parts])
    digests = [
      sorted(hashlib.sha256(np.asarray(x)).hexdigest() for x in several_images)
      for several_images in (images, want.train.split.images)
    ]
    self.assertEqual(*digests)

  def test_sub_folders_have_the_same_examples(self):
    source = datasets.make(f'folder:{self.root}/classes')
    names = sorted(_NAMES)
    for part, several in zip(source.load(), self.splits.values()):
      got = collections.Counter(
        (hashlib.sha256(np.asarray(x)).hexdigest(), names[y])
        for x, y in zip(part.split.images, part.split.labels)
      )
      want = collections.Counter()
      first = 0 if len(several) == 40 else 100
      for number, (_, label) in enumerate(several, start=first):
        pixels = own_data.pixels(number, _SHAPE)
        want[hashlib.sha256(pixels).hexdigest(), _NAMES[label]] += 1
      self.assertEqual(got, want)

  def test_a_builder_is_read_as_the_set(self):
    builder = tfds.builder_from_directory(str(self.root / 'tfds/made/1.0.0'))
    (self.root / 'builders.py').write_text(
      'import tensorflow_datasets as tfds\n'
      'def make():\n'
      f'  return tfds.builder_from_directory({str(builder.data_path)!r})\n'
    )
    modules.search(self.root)
    got, want = datasets.make('builders:make'), self.sources()[0]
    self.assertEqual(got.facts, want.facts)
    for a, b in zip(got.load(), want.load()):
      assert_same(a.split, b.split)

  def test_the_rules_of_a_builder_without_a_test_split(self):
    folder = made_sets.of(
      self.root / 'alike', tfds.features.Image(shape=_SHAPE), train=examples(20)
    )
    made = store.at('made', folder)
    self.assertEqual(own.rules(made), ())
    self.assertEqual(own.rules(held_out.of(made, None, 0)), held_out.RULES)

  def test_a_set_of_tfds_without_a_test_split_needs_a_share(self):
    made_sets.of(
      self.root / 'other', tfds.features.Image(shape=_SHAPE), train=examples(20)
    )
    keywords = {'data_dir': self.root / 'other'}
    with self.assertRaisesRegex(errors.DataError, 'no split test'):
      datasets.make('made', **keywords)
    train, test = datasets.make('made', test_share=0.25, **keywords).load()
    self.assertEqual((train.num_examples, test.num_examples), (15, 5))


class OwnTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.root = pathlib.Path(folder)

  def npz(self, **arrays):
    np.savez(self.root / 'x.npz', **arrays)
    return datasets.make(str(self.root / 'x.npz'))

  @parameterized.parameters('uint8', 'uint16', 'float32', 'float64', 'int16')
  def test_images_in_arrays_are_those_in_a_folder(self, dtype):
    x = np.stack([own_data.pixels(i, (4, 5, 3)) for i in range(20)])
    x = {'uint16': x * 257.0, 'float32': x / 255, 'float64': x / 255}.get(
      dtype, x
    )
    source = self.npz(x=x.astype(dtype), y=np.arange(20) % 2)
    self.assertEqual(source.facts.shape, (4, 5, 3))
    train = source.load().train
    own_data.folder(self.root / 'pets', count=20, classes=('a', 'b'),
                    shape=(4, 5, 3))  # fmt: skip
    rows = [f'{"ab"[i % 2]}/{i:02}.png,{i % 2}' for i in range(20)]
    (self.root / 'pets/labels.csv').write_text('\n'.join(['name,label', *rows]))
    other = datasets.make(f'folder:{self.root}/pets').load().train
    # The share of 0.1 is drawn alike.
    np.testing.assert_allclose(
      train.split.images, other.split.images, atol=2e-5
    )
    np.testing.assert_array_equal(train.split.labels, other.split.labels)

  def test_vectors_are_normalised_by_feature(self):
    x = np.random.default_rng(0).normal(3, 2, (50, 4))
    x[:, 2] = 7
    source = self.npz(
      x=x, y=np.arange(50) % 5, x_test=x[:9] + 1, y_test=np.arange(9) % 5
    )
    self.assertEqual(source.facts, facts.Facts(
      (4,), 5, 50, 9, dtype='float32'
    ))  # fmt: skip
    std = np.where(x.std(0) == 0, 1, x.std(0))
    test = source.load().test.first(9)
    np.testing.assert_allclose(
      test.images, (x[:9] + 1 - x.mean(0)) / std, rtol=1e-4, atol=1e-5
    )

  @parameterized.parameters(((20, 3),), ((20, 4, 4),))
  def test_targets(self, shape):
    generator = np.random.default_rng(0)
    y = generator.normal(size=(20, 2)).astype(np.float32)
    source = self.npz(
      x=generator.random(shape), y=y, x_test=np.ones(shape), y_test=-y
    )
    self.assertEqual(source.shapes(4).labels.shape, (20, 2))
    self.assertEqual(source.facts.num_classes, 2)
    train, test = source.load()
    np.testing.assert_array_equal(train.split.labels, y)
    np.testing.assert_array_equal(test.split.labels, -y)

  def test_targets_of_a_stream(self):
    own_data.folder(self.root, count=30)
    rows = [
      f'{own_data.CLASSES[i % 3]}/{i:02}.png,{i},{i**2}' for i in range(30)
    ]
    text = '\n'.join(['name,target,target2', *rows])
    (self.root / 'labels.csv').write_text(text)
    source = datasets.make(f'folder:{self.root}', streaming=True)
    dataset = source.load()
    feed = dataset.train.feed(9)
    feed.start(seed=0, first_step=0)
    try:
      batches = [feed.take() for _ in range(3)]
    finally:
      feed.close()
    targets = np.concatenate([batch.labels for batch in batches])
    np.testing.assert_array_equal(targets[:, 1], targets[:, 0] ** 2)
    self.assertLen(np.unique(targets[:, 0]), 27)
    self.assertEqual(targets.dtype, np.float32)

  def test_a_large_folder_is_streamed(self):
    own_data.folder(self.root, count=30)
    name = f'folder:{self.root}'
    self.assertTrue(hasattr(datasets.make(name).load().train, 'split'))
    with mock.patch.object(origins, '_LARGEST', 30 * 6 * 6 * 3 - 1):
      train = datasets.make(name).load().train
      self.assertEqual(type(train).__name__, 'Streamed')
      some = datasets.make(name, subset=9).load().train
      self.assertEqual(type(some).__name__, 'Resident')

  def test_decoded_parts_are_kept_where_that_is_asked_for(self):
    own_data.folder(self.root / 'pets', count=30)
    name, kept = f'folder:{self.root}/pets', self.root / 'kept'
    with (
      mock.patch.dict(os.environ, BN_JAX_CACHE_DIR=str(kept)),
      mock.patch.object(store, '_SMALLEST', 1),
    ):
      want = [datasets.make(name, seed=seed).load() for seed in (0, 1)]
      self.assertLen(list(kept.rglob('*.npz')), 4)
      with mock.patch.object(reading, '_decoded') as decoded:
        got = [datasets.make(name, seed=seed).load() for seed in (0, 1)]
      decoded.assert_not_called()
    for a, b in zip(itertools.chain(*got), itertools.chain(*want)):
      assert_same(a.split, b.split)

  def test_sizes_that_differ(self):
    own_data.folder(self.root, count=30)
    own_data.image('cat/00.png', (9, 5, 3))(self.root)
    source = datasets.make(f'folder:{self.root}', resolution=6, streaming=False)
    self.assertEqual(source.load().train.split.images.shape, (27, 6, 6, 3))

  def test_the_record_tells_what_was_held_out(self):
    own_data.folder(self.root, count=30)
    name = f'folder:{self.root}'
    record = datasets.make(name, test_share=0.2, seed=3).record
    digest = own.opened(name).digest()
    self.assertEqual(record, {
      'name': self.root.name, 'splits': {'train': 24, 'test': 6},
      'classes': ['cat', 'dog', 'eel'], 'digest': digest,
      'held_out': {'share': 0.2, 'seed': 3, 'examples': 6},
    })  # fmt: skip

  @parameterized.parameters(
    ('def make(flip=True): return [1], [1]', "keyword 'flip', which is a key"),
    ('def make(): return 3', 'returned 3; it must return a dict of arrays'),
    ('def make(): return 1, 2, 3', 'must return a dict of arrays'),
    ('def make(): return 1 / 0', 'made.py:1: ZeroDivisionError'),
    ('def make(): return [[1.0], [2.0]], [1]', 'x has 2 examples, y has 1'),
  )
  def test_functions_that_are_refused(self, text, said):
    (self.root / 'made.py').write_text(text)
    modules.search(self.root)
    with self.assertRaisesRegex((errors.Failure, ValueError), said):
      datasets.of_function(plugins.constructor('made:make'))
      datasets.make('made:make')

  def test_keywords_of_a_function(self):
    (self.root / 'made.py').write_text(
      'import numpy as np\n'
      'def make(count, *, seed=1, size=2):\n'
      '  return np.full((count, size), seed + 0.0), np.arange(count) % 2\n'
    )
    modules.search(self.root)
    source = datasets.make('made:make', count=20, size=3, seed=5, subset=10)
    train = source.load().train
    self.assertEqual(train.split.images.shape, (10, 3))
    np.testing.assert_array_equal(train.split.images, 5)


class DocsTest(absltest.TestCase):
  def test_the_docs_have_the_rules(self):
    docs = (strict.ROOT / 'docs' / 'data.md').read_text()
    for module in (folders, arrays, labels, held_out):
      for kind, becomes in module.RULES:
        self.assertIn(f'| {kind} | {becomes} |', docs)


if __name__ == '__main__':
  absltest.main()
