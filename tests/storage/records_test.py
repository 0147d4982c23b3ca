import json
import pathlib
import resource

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.storage import array_files, records
from bn_jax.storage.records import Record
from tests.fixtures import same_bits


class RecordsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.path = self.folder / 'scalars.jsonl'

  def write(self, *rows):
    lines = records.Lines(self.path)
    for row in rows:
      lines.write(row)
    lines.close()

  def test_line_format(self):
    self.write(Record(np.int32(3), 'train', {'loss': np.float32(0.1)}))
    self.assertEqual(
      self.path.read_text(),
      '{"step": 3, "name": "train", "values": {"loss": 0.1}}\n',
    )

  def test_every_float32_comes_back(self):
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**32, size=500, dtype=np.uint64)
    values = bits.astype(np.uint32).view(np.float32)
    special = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3.4e38])
    values = np.concatenate([values, special])
    self.write(Record(0, 'x', {'v': values, 'n': 7, 'd': np.float64(1 / 3)}))
    (row,) = records.read(self.path)
    got, is_nan = np.float32(row.values['v']), np.isnan(values)
    same_bits.assert_same(got[~is_nan], values[~is_nan])
    same_bits.assert_same(np.isnan(got), is_nan)
    self.assertEqual(row.values['n'], 7)
    self.assertEqual(row.values['d'], 1 / 3)

  def test_rows_are_those_that_lines_hold(self):
    draw = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    rows = [
      Record(t, 'train', {'loss': of, 'data_loss': 10 * of, 'n': t})
      for t, of in enumerate([*draw, np.nan, -np.inf, np.inf])
    ]
    others = [Record(t, 'test', {'v': [t]}, {'n': 1}) for t in range(0, 300, 9)]
    self.write(*sorted([*rows, *others], key=lambda row: row.step))
    alike, rest = records.read_apart(self.path, 'train')
    self.assertEqual(list(rest), others)
    np.testing.assert_array_equal(alike.step, range(303))
    self.assertEqual(list(alike.values), ['loss', 'data_loss', 'n'])
    for name, values in alike.values.items():
      wanted = [
        one.values[name]
        for one in records.read(self.path)
        if one.name == 'train'
      ]
      same_bits.assert_same(values, np.array(wanted, float))

  @parameterized.parameters(
    {'values': {'loss': 1.0, 'more': 1}},
    {'values': {'more': 1.0}},
    {'values': {'loss': [1.0, 2.0]}},
    {'values': {'loss': 1.0}, 'conditions': {'data': 'test'}},
  )
  def test_rows_are_none_of_records_that_are_not_alike(self, **of_one):
    like = [Record(t, 'train', {'loss': float(t)}) for t in (0, 1)]
    for rows in ([*like, Record(2, 'train', **of_one)],
                 [Record(2, 'train', **of_one), *like]):  # fmt: skip
      self.path.unlink(missing_ok=True)
      self.write(*rows)
      alike, rest = records.read_apart(self.path, 'train')
      self.assertIsNone(alike)
      self.assertEqual(list(rest), list(records.read(self.path)))

  def test_rows_are_none_where_all_have_conditions(self):
    """A row has no place for them."""
    of = {'data': 'test'}
    self.write(*(Record(t, 'train', {'loss': 1.0}, of) for t in range(3)))
    alike, rest = records.read_apart(self.path, 'train')
    self.assertIsNone(alike)
    self.assertEqual([row.conditions for row in rest], [of] * 3)

  def test_rows_are_none_where_a_number_is_none(self):
    for wrong in ('1-2', '.', '', '1"2"', 'nan'):
      line = '{"step": %s, "name": "train", "values": {"loss": %s}}\n'
      self.path.write_text(line % (0, 1.5) + line % (1, wrong))
      alike, rest = records.read_apart(self.path, 'train')
      self.assertIsNone(alike)
      with self.assertRaises(errors.StorageError):
        list(rest)

  def test_is_strict_json(self):
    self.write(Record(0, 'x', {'v': [np.nan, np.inf, -np.inf]}))

    def refuse(word):
      raise ValueError(word)

    json.loads(self.path.read_text(), parse_constant=refuse)

  @parameterized.parameters(0, 1, 2, 5)
  def test_cut_leaves_the_steps_before(self, step):
    rows = [Record(t, 'train', {'loss': t}) for t in range(3)]
    self.write(*rows)
    records.cut(self.path, step)
    self.assertEqual(
      [r.step for r in records.read(self.path)], [0, 1, 2][:step]
    )

  def test_torn_last_line_is_left_out_and_repaired(self):
    self.write(Record(0, 'train', {'loss': 1}), Record(1, 'train', {'loss': 2}))
    whole = self.path.read_text()
    self.path.write_text(whole[:-9])
    self.assertEqual([r.step for r in records.read(self.path)], [0])
    records.cut(self.path, 5)
    self.assertEqual(self.path.read_text(), whole.split('\n')[0] + '\n')

  def test_torn_last_line_may_be_no_text(self):
    self.write(Record(0, 'train', {'loss': 1}))
    whole = self.path.read_bytes()
    self.path.write_bytes(whole + b'{"step": 1\xff\xfe\x00')
    self.assertEqual([r.step for r in records.read(self.path)], [0])
    records.cut(self.path, 5)
    self.assertEqual(self.path.read_bytes(), whole)

  def test_absent_file(self):
    self.assertEqual(list(records.read(self.path)), [])
    records.cut(self.path, 3)
    self.assertFalse(self.path.exists())

  def test_arrays(self):
    arrays = array_files.Arrays(self.folder / 'arrays')
    for step in (10, 0, 5):
      values = {'a/b': np.arange(step), 'c': np.float32(step)}
      arrays.write(Record(step, 'look', values))
    arrays.write(Record(5, 'look-at', {'c': np.zeros(2)}))
    found = array_files.read(self.folder / 'arrays', 'look')
    self.assertEqual([record.step for record in found], [0, 5, 10])
    np.testing.assert_array_equal(found[1].values['a/b'], np.arange(5))
    array_files.cut(self.folder / 'arrays', 5)
    names = {path.name for path in (self.folder / 'arrays').iterdir()}
    self.assertEqual(names, {'look-0.npz'})

  def test_the_same_arrays_are_the_same_bytes(self):
    arrays = array_files.Arrays(self.folder)
    contents = []
    for _ in range(2):
      arrays.write(Record(1, 'look', {'a': np.arange(100.0)}))
      contents.append((self.folder / 'look-1.npz').read_bytes())
    self.assertEqual(*contents)

  def test_what_was_damaged_is_refused(self):
    self.path.write_text('{"step": 1}\n')
    with self.assertRaisesRegex(errors.StorageError, 'is no record'):
      list(records.read(self.path))
    self.path.write_bytes(b'\xff\xfe\n')
    with self.assertRaisesRegex(errors.StorageError, 'is no record') as caught:
      records.cut(self.path, 3)
    self.assertNotIn('\n', str(caught.exception))
    self.assertEqual(self.path.read_bytes(), b'\xff\xfe\n')
    self.path.write_text('[1]\n')
    with self.assertRaisesRegex(errors.StorageError, 'is no record'):
      records.cut(self.path, 3)
    (self.folder / 'look-1.npz').write_bytes(b'PK not really')
    with self.assertRaisesRegex(errors.StorageError, 'is damaged'):
      array_files.read(self.folder, 'look')

  def test_no_arrays(self):
    self.assertEqual(array_files.read(self.folder / 'none', 'look'), [])
    array_files.cut(self.folder / 'none', 0)

  def test_a_full_file_is_told_and_closes(self):
    """A line that went in by half is no line; nothing is tried again."""
    lines = records.Lines(self.path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    lines.write(Record(0, 'x', {'v': 1}))
    for _ in range(2):
      with self.assertRaisesRegex(errors.StorageError, 'make room'):
        lines.write(Record(1, 'x', {'v': [1.25] * 20}))
    lines.close()
    self.assertLen(list(records.read(self.path)), 1)


if __name__ == '__main__':
  absltest.main()
