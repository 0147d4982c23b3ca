"""docs/extending.md as a user follows it: its files are written, all is run."""

import contextlib
import pathlib
import re
import shlex
import tempfile

import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import modules, plugins, trees
from bn_jax.storage import records, run_folder
from tests.fixtures import commanded, strict, trained

_PAGE = strict.ROOT / 'docs' / 'extending.md'
_FILE = r'`(my_\w+\.py)`(?:(?!```|`my_\w+\.py`).)*```python\n(.*?)^```'
_LINES = 30  # of one file


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def files():
  """Returns name -> text of the files that the page shows."""
  return dict(re.findall(_FILE, _PAGE.read_text(), re.M | re.S))


def command_lines():
  """Returns the words of each command that the page shows, in order."""
  text = re.sub(r'\\\n\s*', '', _PAGE.read_text())
  (block,) = re.findall(r'^```sh\n(.*?)^```$', text, re.M | re.S)
  lines = [shlex.split(line) for line in block.splitlines()]
  return [
    ['train', *words[2:]] if words[1] == 'train.py' else words[3:]
    for words in lines
  ]


class PageTest(absltest.TestCase):
  def test_a_new_thing_is_one_short_file(self):
    parts = ('norm', 'network', 'data', 'optimizer', 'measure', 'config')
    self.assertEqual(list(files()), [f'my_{part}.py' for part in parts])
    for name, text in files().items():
      self.assertLessEqual(len(text.splitlines()), _LINES, name)
      self.assertLessEqual(max(map(len, text.splitlines())), 80, name)

  def test_it_shows_each_command_that_reads_what_was_trained(self):
    self.assertEqual(
      [words[0] for words in command_lines()],
      ['train', 'analyze', 'recalibrate', 'evaluate', 'report'],
    )


class Case(parameterized.TestCase):
  """The files of the page in a folder, and its commands run there."""

  only = ()  # of its commands; (): all
  more = ()  # words of train

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.folder = pathlib.Path(folder).resolve()
    for name, text in files().items():
      (cls.folder / name).write_text(text)
    cls.said = {}
    with contextlib.chdir(cls.folder):
      for words in command_lines():
        if cls.only and words[0] not in cls.only:
          continue
        more = cls.more if words[0] == 'train' else ()
        code, said, wrong = commanded.run(*words, *more)
        assert code == 0, f'{shlex.join(words)}: {wrong}'
        cls.said[words[0]] = said

  def own(self):
    return self.folder / 'runs' / 'my_config' / 'own'

  def load(self, reference):
    modules.search(self.folder)
    return plugins.load(reference)


class ExtendingTest(Case):
  only = ('train', 'analyze')
  more = ('--config.steps=2', '--only=own')

  def test_all_files_are_in_the_manifest(self):
    manifest = run_folder.find(self.own())[0].manifest
    self.assertEqual(
      [entry['file'] for entry in manifest['modules'].values()],
      sorted(
        str(self.folder / name) for name in files() if name != 'my_config.py'
      ),
    )
    self.assertEqual(manifest['config']['norm']['epsilon'], 1e-5)
    self.assertEqual(manifest['config']['data']['arms'], 2)

  def test_the_norm_is_its_formula(self):
    x = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    layer = self.load('my_norm:make')(epsilon=0.5).layer('norm')
    y, _ = layer.init_with_output(jax.random.key(0), x, statistics='batch')
    length = np.sqrt((x.astype(float) ** 2).sum(-1, keepdims=True) + 0.5)
    np.testing.assert_allclose(y, 4 * x / length, rtol=1e-6)

  def test_the_network_has_the_norm_of_its_run(self):
    *_, state = trained.newest(self.own())
    norms = {k: v for k, v in state.params.items() if 'Norm' in k}
    self.assertLen(norms, 2)
    for norm in norms.values():
      self.assertEqual(jax.tree.map(np.shape, norm), {'scale': ()})
    self.assertEmpty(jax.tree.leaves(state.batch_stats))

  def test_the_data_are_a_spiral(self):
    made = self.load('my_data:make')(train=90, test=30, arms=3, noise=0.0)
    x, y = made['x'], made['y']
    self.assertEqual((x.shape, made['x_test'].shape), ((90, 2), (30, 2)))
    turns = np.arctan2(x[:, 1], x[:, 0]) / (2 * np.pi)
    away = turns - y / 3 - np.hypot(*x.T)
    np.testing.assert_allclose(away, away.round(), atol=1e-6)

  def test_the_optimizer_steps_by_the_rate(self):
    *_, problem, state = trained.newest(self.own())
    start = problem.init(0)
    sizes = [
      np.abs(np.subtract(new, old)).max()
      for new, old in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(start.params)
      )
    ]
    # Two steps along signs: at most twice the rate, of one parameter at least.
    np.testing.assert_allclose(max(sizes), 2 * 0.003, rtol=1e-4)

  def test_the_measure_adds_up_to_the_gradient(self):
    folder, _, problem, state = trained.newest(self.own())
    (look,) = records.read(folder.analysis('my_measure-make').scalars)
    layers = dict(problem.layers(state))
    total = sum(
      np.square(
        look.values[f'{name}/ratio']
        * trees.norm(trees.leaves_under(state.params, paths))
      )
      for name, paths in layers.items()
    )
    data = self.load('my_data:make')(arms=2, noise=0.03)
    x = (data['x_test'][:64] - data['x'].mean(0)) / data['x'].std(0)
    batch = problem_batch(x, data['y_test'][:64])
    gradient = jax.grad(problem.loss(state, batch, 'running'))(state.params)
    np.testing.assert_allclose(np.sqrt(total), trees.norm(gradient), rtol=1e-3)

  def test_the_commands_tell_of_them(self):
    self.assertIn('own/seed0 step 2: Dense_0/ratio', self.said['analyze'])
    page = (self.own().parent / 'report.html').read_text()
    self.assertIn('<h2>My measure</h2>', page)


class WholeTest(Case):
  @pytest.mark.slow
  def test_as_the_page_has_it(self):
    self.assertIn('my_data:make test, 300 examples', self.said['evaluate'])
    self.assertRegex(self.said['evaluate'], r'own/seed0 +(9[5-9]|100)\.')
    self.assertIn('with statistics of 20 batches', self.said['recalibrate'])


def problem_batch(x, y):
  """Returns a batch of vectors with labels."""
  from bn_jax import types

  return types.Batch(x.astype(np.float32), y.astype(np.int32))


if __name__ == '__main__':
  absltest.main()
