"""A network with nn.BatchNorm inside, from its training to its last number.

It is given as a user types it: a config file and a module beside it.
"""

import contextlib
import html
import json
import pathlib
import re
import shutil
import tempfile

import jax
import numpy as np
import pytest
from absl.testing import absltest

import bn_jax
from bn_jax.config import build
from bn_jax.storage import records
from tests.fixtures import commanded, same_bits, strict
from tests.fixtures.usual import my_module

_FILES = strict.FIXTURES / 'usual'


@pytest.mark.slow
class OwnNetworkTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    place = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.folder = pathlib.Path(place)
    for name in ('my_config.py', 'my_module.py'):
      shutil.copy(_FILES / name, cls.folder)
    cls.enterClassContext(contextlib.chdir(cls.folder))
    cls.run_command('train', '--config=my_config.py', '--workdir=work')

  @classmethod
  def run_command(cls, *words):
    code, said, wrong = commanded.run(*words)
    assert code == 0, f'{words}: {wrong}'
    return said

  def mine(self, name):
    return self.folder / 'work' / 'mine' / 'seed0' / name

  def test_layers_are_named_in_forward_order(self):
    manifest = json.loads(self.mine('manifest.json').read_text())
    self.assertEqual(manifest['layers'], ['Conv_0', 'Conv_1', 'Dense_0'])
    names = {one.name for one in records.read(self.mine('scalars.jsonl'))}
    self.assertEqual(names, {'train', 'landscape'})

  def test_the_page_does_not_name_the_norm_that_it_ignores(self):
    page = pathlib.Path('work/report.html').read_text()
    (row,) = re.findall('<tr><th scope="row">Normalization</th>(.*)</tr>', page)
    self.assertEqual(
      html.unescape(re.sub('<[^>]*>', ' ', row)).split('  '),
      [" the network's own", 'group '],
    )

  def test_the_state_is_flaxs_own(self):
    """Its variables, given to the class itself, make the same outputs."""
    trained = bn_jax.load('work/mine')
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    plain = my_module.Net(10)
    x = trained.normalised(images)
    want = jax.jit(plain.apply)(trained.variables, x)
    np.testing.assert_allclose(
      trained.outputs(images), want, rtol=1e-5, atol=1e-6
    )
    fresh = jax.eval_shape(plain.init, jax.random.key(0), x)
    self.assertEqual(
      jax.tree.structure(fresh), jax.tree.structure(trained.variables)
    )

  def test_evaluated_analysed_and_recalibrated(self):
    self.run_command('evaluate', 'work/mine')
    self.run_command('evaluate', 'work/mine', '--statistics=batch')
    for words in (
      ('--measure=covariate_shift',),
      ('--measure=activations', '--data=test:64', '--statistics=batch'),
      ('--measure=jacobian', '--data=test:8'),
    ):
      said = self.run_command('analyze', 'work/mine', *words)
      self.assertIn('mine/seed0 step 3', said)
    said = self.run_command('recalibrate', 'work/mine', '--batches=3')
    self.assertIn('with statistics of 3 batches (96 examples)', said)
    self.run_command('evaluate', 'work/mine', '--statistics=population')
    before, after = (
      bn_jax.load('work/mine', statistics=statistics).variables
      for statistics in ('running', 'population')
    )
    same_bits.assert_same(after['params'], before['params'])
    stats = after['batch_stats']['BatchNorm_0']['var']
    moved = before['batch_stats']['BatchNorm_0']['var']
    # Three updates by a hundredth each have left the start, which is 1.
    self.assertLess(np.abs(moved - 1).max(), 0.1)
    self.assertGreater(np.abs(stats - moved).max(), 0.1)

  def test_other_norms_come_from_the_config(self):
    trained = bn_jax.load('work/grouped')
    self.assertEqual(trained.variables['batch_stats'], {})
    self.assertIn('BatchNorm_1', trained.variables['params'])
    problem = build.problem(trained.config)
    self.assertEqual(problem.group_size, 1)


if __name__ == '__main__':
  absltest.main()
