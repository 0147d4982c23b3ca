import contextlib

from absl.testing import absltest, parameterized

from bn_jax.config import flags
from bn_jax.launch import sweep
from tests.fixtures import strict


class DefaultTest(parameterized.TestCase):
  @parameterized.parameters(
    ('configs/quickstart.py', 'runs/quickstart'),
    ('configs/mine.py:small', 'runs/mine-small'),
    (
      'configs/santurkar2018/figure10.py:small',
      'runs/santurkar2018/figure10-small',
    ),
    ('./configs/ioffe2015/figure1.py', 'runs/ioffe2015/figure1'),
    ('/home/me/bn/configs/ioffe2015/figure1.py', 'runs/ioffe2015/figure1'),
    ('configs/santurkar2018/../quickstart.py', 'runs/quickstart'),
    ('tests/fixtures/tiny_config.py', 'runs/tiny_config'),
    ('/elsewhere/mine.py:a,b/../c d', 'runs/mine-a-b-..-c-d'),
    ('configs.py', 'runs/configs'),
    ('configs/quickstart.py:', 'runs/quickstart'),
  )
  def test_of_a_config(self, config, expected):
    self.assertEqual(flags.default_workdir(config), expected)

  def test_train_and_launch_agree(self):
    config = '--config=configs/santurkar2018/figure10.py:small'
    with contextlib.chdir(strict.ROOT):
      given = flags.train(['train.py', config])
      found = sweep.expand([config], [], workdir=None, only=None)
    self.assertEqual(given.workdir, 'runs/santurkar2018/figure10-small')
    self.assertEqual(found.workdir, given.workdir)
    folders = {str(cell.workdir) for cell in found.cells}
    self.assertEqual(folders, {found.workdir})


if __name__ == '__main__':
  absltest.main()
