"""A user's own data, as they are typed: trained, then evaluated elsewhere."""

import contextlib
import io
import json
import logging
import os
import pathlib
import shutil
import tempfile

import numpy as np
import pytest
from absl.testing import absltest, parameterized
from PIL import Image

from bn_jax import __main__
from bn_jax.config import build
from bn_jax.data.disk import identity, store
from tests.fixtures import commanded, made_sets, own_data, strict, trained


def run(*words):
  """Returns (exit code, what python -m bn_jax WORDS said and warned)."""
  said = io.StringIO()
  try:
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
      code = __main__.main(['bn_jax', *words])
  finally:
    logging.getLogger('bn_jax').handlers.clear()
  return code, said.getvalue()


class OwnDataTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(os.path.realpath(folder))
    (self.folder / 'elsewhere').mkdir()
    self.enterContext(contextlib.chdir(self.folder))
    self.enterContext(commanded.without_page())
    build._source.cache_clear()

  def write(self):
    own_data.folder(self.folder / 'pets', count=60)
    x = np.stack([own_data.pixels(i) for i in range(60)])
    y = np.arange(60) % 3 + 1
    np.savez('x.npz', x=x, y=y)
    np.save('x.npy', x.reshape(60, -1))
    np.save('y.npy', y)
    pathlib.Path('my_data.py').write_text(
      'import numpy as np\n'
      'def make(classes_from=0):\n'
      f"  with np.load('{self.folder}/x.npz') as file:\n"
      "    return file['x'], file['y'] + classes_from\n"
    )

  def train(self, name, *words):
    shutil.copy(strict.ROOT / 'tests/fixtures/small_config.py', 'config.py')
    return run(
      'train', '--config=config.py', '--workdir=work', '--config.seeds=0,',
      '--config.steps=2', f'--config.data.name={name}', *words,
    )  # fmt: skip

  def manifest(self):
    text = (self.folder / 'work/batchnorm/seed0/manifest.json').read_text()
    return json.loads(text)

  @parameterized.parameters(
    'folder:pets', 'x.npz', 'x.npy,y.npy', 'my_data:make'
  )
  def test_trained_here_and_evaluated_elsewhere(self, name):
    self.write()
    code, said = self.train(name)
    self.assertEqual(code, 0, said)
    content = self.manifest()
    self.assertEqual(content['data']['held_out'],
                     {'share': 0.1, 'seed': 0, 'examples': 6})  # fmt: skip
    self.assertLen(content['data']['digest'], 64)
    os.chdir('elsewhere')
    build._source.cache_clear()
    code, said = run('evaluate', '../work/batchnorm/seed0', '--out=out.json')
    self.assertEqual(code, 0, said)
    self.assertIn('6 examples', said)
    self.assertNotIn('changed', said)

  def test_the_user_s_folder_is_left_as_it_was(self):
    self.write()
    before = {p: p.stat().st_mtime_ns for p in pathlib.Path('pets').rglob('*')}
    code, said = self.train('folder:pets')
    self.assertEqual(code, 0, said)
    run('data', 'info', 'folder:pets', '--out=elsewhere/pets.png')
    after = {p: p.stat().st_mtime_ns for p in pathlib.Path('pets').rglob('*')}
    self.assertEqual(before, after)

  def test_changed_data_are_said(self):
    self.write()
    code, said = self.train('folder:pets')
    self.assertEqual(code, 0, said)
    shutil.copy('pets/cat/03.png', 'pets/cat/00.png')
    os.rename('pets/cat/00.png', 'pets/cat/0.png')
    build._source.cache_clear()
    code, said = self.train('folder:pets', '--config.steps=4')
    self.assertEqual(code, 0, said)
    self.assertIn('batchnorm/seed0 goes on, though the data pets have changed '
                  '(SHA-256 was ', said)  # fmt: skip
    for number in range(30, 60, 3):
      pathlib.Path(f'pets/cat/{number}.png').unlink()
    build._source.cache_clear()
    for code, said in (
      self.train('folder:pets', '--config.steps=6'),
      run('evaluate', 'work/batchnorm/seed0'),
    ):
      self.assertEqual(code, 3, said)
      self.assertIn('train had 54 examples, has 45', said)
      self.assertIn('put them back, or give another --workdir', said)

  @pytest.mark.slow
  def test_a_builder_whose_set_has_changed_is_said(self):
    pathlib.Path('my_data.py').write_text(
      'import tensorflow_datasets as tfds\n'
      'def make():\n'
      f"  return tfds.builder_from_directory('{self.folder}/made/1.0.0')\n"
    )
    made_sets.write(self.folder, train=40, test=20)
    code, said = self.train('my_data:make')
    self.assertEqual(code, 0, said)
    for sizes, code, told in (
      ((40, 16), 0, 'test had 20 examples, has 16'),
      ((30, 20), 3, 'train had 40 examples, has 30'),
    ):
      shutil.rmtree('made')
      made_sets.write(self.folder, train=sizes[0], test=sizes[1])
      build._source.cache_clear()
      got, said = run('evaluate', 'work/batchnorm/seed0')
      self.assertEqual(got, code, said)
      self.assertIn(f'the data made have changed; {told} (SHA-256 was ', said)

  def test_a_set_of_other_records_or_sizes_is_another_one(self):
    folder = made_sets.write(self.folder, train=40, test=20)
    made = store.at('made', folder)
    old = identity.record(made, None, 0)
    self.assertIsNone(identity.change(old, identity.record(made, None, 0)))
    path, _ = store.shards(made, 'train')[0]
    with path.open('ab') as file:
      file.write(b' ')
    new = identity.record(made, None, 0)
    self.assertIn('have changed (SHA-256 was ', identity.change(old, new))
    del old['digest']  # as before it was written
    self.assertIsNone(identity.change(old, new))
    new['splits']['train'] = 41
    self.assertEqual(
      identity.change(old, new),
      'the data made have changed; train had 40 examples, has 41',
    )

  def test_pixels_that_changed_in_a_file_of_that_size_are_said(self):
    for number in range(60):
      path = self.folder / 'pets' / 'ab'[number % 2] / f'{number:02}.bmp'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(own_data.pixels(number)).save(path)
    code, said = self.train('folder:pets')
    self.assertEqual(code, 0, said)
    size = path.stat().st_size
    Image.fromarray(255 - own_data.pixels(number)).save(path)
    self.assertEqual(path.stat().st_size, size)
    build._source.cache_clear()
    code, said = run('evaluate', 'work/batchnorm/seed0')
    self.assertEqual(code, 0, said)
    self.assertIn('the data pets have changed (SHA-256 was ', said)

  @pytest.mark.slow
  def test_functions_of_one_name_are_not_one_set_of_data(self):
    self.write()
    text = pathlib.Path('my_data.py').read_text()
    for name in ('one', 'same', 'other'):
      os.makedirs(name)
      x = "255 - file['x']," if name == 'other' else "file['x'],"
      mine = pathlib.Path(name, 'my_data.py')
      mine.write_text(text.replace("file['x'],", x))
      with contextlib.chdir(name):
        code, said = self.train('my_data:make')
      self.assertEqual(code, 0, said)
    one, same, other = (
      f'{name}/work/batchnorm/seed0' for name in ('one', 'same', 'other')
    )
    code, said = run('evaluate', one, same)
    self.assertEqual(code, 0, said)
    code, said = run('evaluate', one, other)
    self.assertEqual(code, 2, said)
    line = said.splitlines()[-1]
    self.assertIn('differ in the digest of their data', line)
    self.assertIn(f'{one} and {other}', line)
    self.assertLess(len(line), 400)

  def train_regression(self, *words):
    self.write()
    x = np.load('x.npz')['x']
    np.savez('means.npz', x=x, y=x.mean((1, 2)) / 255)
    code, said = self.train(
      'means.npz', '--config.loss.name=squared_error',
      '--config.loss.factor=0.5', '--config.model.name=mlp', *words,
    )  # fmt: skip
    self.assertEqual(code, 0, said)

  def test_regression_on_images(self):
    self.train_regression()
    text = (self.folder / 'work/batchnorm/seed0/scalars.jsonl').read_text()
    rows = [json.loads(line)['values'] for line in text.splitlines()]
    self.assertNotIn('accuracy', rows[-1])

  @pytest.mark.slow
  def test_a_regression_is_evaluated_by_its_loss(self):
    self.train_regression('--config.seeds=0,1')
    outputs, labels = [], None
    for seed in (0, 1):
      _, config, problem, state = trained.newest(
        self.folder / f'work/batchnorm/seed{seed}'
      )
      test = build.source(config).load().test
      batch = test.first(test.num_examples)
      outputs.append(problem.outputs(state, batch, statistics='running'))
      labels = np.float64(batch.labels)
    outputs = np.float64(outputs)  # [2, N, 3]
    loss = lambda y: 0.5 * ((y - labels) ** 2).sum(-1).mean()
    want = [loss(outputs[0]), loss(outputs[1]), loss(outputs.mean(0))]
    for crops in ('1', '144'):
      # Images of 6 pixels: a mirror is another image, so the mean is another.
      code, said = run(
        'evaluate', 'work', '--out=out.json', f'--crops={crops}',
        '--batch_size=288',
      )  # fmt: skip
      self.assertEqual(code, 0, said)
      self.assertNotIn('top-1', said)
      facts = json.loads(pathlib.Path('out.json').read_text())
      rows = [*facts['networks'].values(), facts['together']]
      for row in rows:
        self.assertEqual(row.keys() - {'step'}, {'loss', 'count'})
        self.assertEqual(row['count'], 6)
      losses = [row['loss'] for row in rows]
      if crops == '1':
        np.testing.assert_allclose(losses, want, rtol=1e-5)
        for name, x in zip((*facts['networks'], 'together'), want):
          self.assertRegex(said, rf'(?m)^{name} +{x:.3g}')
      else:
        self.assertTrue(np.isfinite(losses).all())
        self.assertGreater(min(abs(np.array(losses) - want)), 1e-4)

  def test_regressions_by_several_losses_are_refused(self):
    self.train_regression()
    shutil.copytree('work', 'other')
    shutil.rmtree('work')
    self.train_regression('--config.loss.factor=2.0')
    code, said = run(
      'evaluate', 'other/batchnorm/seed0', 'work/batchnorm/seed0'
    )
    self.assertEqual(code, 2, said)
    self.assertIn('differ in config.loss.factor: 0.5 and 2.0; give runs with '
                  'the same loss', said)  # fmt: skip

  @parameterized.parameters(
    ('folder:pets', ('images   6 x 6 x 3', 'cat (18), dog (18), eel (18)',
                     'labels.csv', 'Exif', 'no test split')),
    ('x.npz', ('images   6 x 6 x 3', '1 (18), 2 (18), 3 (18)', 'test_share')),
    ('x.npy,y.npy', ('vectors  108 numbers', '1 (18), 2 (18)', 'deviation')),
    ('my_data:make', ('my_data:make', 'uint8', '1 (18), 2 (18), 3 (18)')),
  )  # fmt: skip
  def test_info(self, name, fragments):
    self.write()
    code, said = run('data', 'info', name)
    self.assertEqual(code, 0, said)
    said = ' '.join(said.split())
    for fragment in fragments:
      self.assertIn(' '.join(fragment.split()), said)

  def test_info_of_what_training_refuses(self):
    own_data.folder(self.folder / 'pets', classes=('cat',))
    code, said = run('data', 'info', 'folder:pets')
    self.assertEqual(code, 0, said)
    said = ' '.join(said.split())
    self.assertIn('refused to train on: pets in', said)
    self.assertIn("has one class, 'cat'; allowed: two or more", said)

  def test_info_of_a_function_with_keywords(self):
    pathlib.Path('their_data.py').write_text(
      'import numpy as np\n'
      'def make(count, data_dir, seed, *, name="a", **more):\n'
      '  assert (data_dir, seed, name, more) == ("here", 0, "b", {"k": (1,)})\n'
      '  return np.zeros((count, 4)), np.arange(count) % 2\n'
    )
    code, said = run(
      'data', 'info', 'their_data:make', 'count=20', 'name=b', 'k=(1,)',
      '--data_dir=here',
    )  # fmt: skip
    self.assertEqual(code, 0, said)
    self.assertIn('0 (9), 1 (9)', said)

  def test_info_of_targets(self):
    np.savez('t.npz', x=np.zeros((20, 4, 4)), y=np.zeros((20, 2)))
    code, said = run('data', 'info', 't.npz')
    self.assertEqual(code, 0, said)
    self.assertIn('targets  2 numbers each', said)
    self.assertIn('wrote t.png', said)


if __name__ == '__main__':
  absltest.main()
