"""Configs that come with bn_jax, by name and from any folder."""

import contextlib
import pathlib
import shutil
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.config import files, flags, shipped
from bn_jax.host import code
from tests.fixtures import commanded, strict

_CONFIGS = strict.ROOT / 'configs'


class ShippedTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    place = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(place).resolve()
    self.enterContext(contextlib.chdir(self.folder))

  @parameterized.parameters(
    'quickstart', 'default', 'santurkar2018/figure4:small', 'place_of_bn/vit'
  )
  def test_a_name_is_the_file(self, name):
    path, colon, argument = name.partition(':')
    file = f'{_CONFIGS / path}.py{colon}{argument}'
    self.assertEqual(files.load(name).to_dict(), files.load(file).to_dict())

  def test_names_are_those_of_the_files(self):
    expected = {
      str(file.relative_to(_CONFIGS).with_suffix(''))
      for file in _CONFIGS.rglob('*.py')
      if 'get_config' in file.read_text()
    }
    self.assertEqual(set(shipped.names()), expected)

  @parameterized.parameters('santurkar2018/figure4', 'quickstart_search')
  def test_a_copy_beside_a_config_of_ones_own_is_the_same(self, name):
    """24.18: one file works in a checkout, installed, and here."""
    shutil.copy(_CONFIGS / f'{name}.py', self.folder / 'copied.py')
    copied = files.load('copied.py').to_dict()
    self.assertEqual(copied, files.load(name).to_dict())

  def test_a_file_of_ones_own_comes_first(self):
    (self.folder / 'quickstart').write_text('a file')
    self.assertEqual(files.find('quickstart'), pathlib.Path('quickstart'))
    (self.folder / 'quickstart').unlink()
    (self.folder / 'quickstart').mkdir()
    self.assertEqual(files.find('quickstart'), _CONFIGS / 'quickstart.py')

  @parameterized.parameters(
    ('quickstart', 'runs/quickstart'),
    ('santurkar2018/vgg:small', 'runs/santurkar2018/vgg-small'),
  )
  def test_its_working_directory(self, name, expected):
    self.assertEqual(flags.default_workdir(name), expected)

  def test_a_file_that_is_not_there_may_be_meant_as_a_name(self):
    for wrong, hint in (
      ('configs/quickstart.py', 'did you mean quickstart?'),
      ('quikstart', 'did you mean quickstart or quickstart_search?'),
      ('vgg', 'did you mean place_of_bn/vgg or santurkar2018/vgg?'),
      ('xyz', 'see bn_jax configs'),
    ):
      with self.assertRaises(errors.ConfigError) as caught:
        files.load(wrong)
      self.assertEndsWith(str(caught.exception), f'does not exist; {hint}')

  def test_where_it_is_installed(self):
    """The wheel has configs/ inside the package, and no checkout around it."""
    installed = self.folder / 'bn_jax' / 'configs'
    with (
      mock.patch.object(code, 'checkout', lambda: None),
      mock.patch.object(shipped, '_INSTALLED', installed),
    ):
      self.assertEqual(shipped.names(), [])
      with self.assertRaisesRegex(errors.ConfigError, 'has no configs; instal'):
        shipped.folder()
      shutil.copytree(_CONFIGS, installed)
      self.assertEqual(files.find('quickstart'), installed / 'quickstart.py')
      workdir = flags.default_workdir('ioffe2015/figure1')
      self.assertEqual(workdir, 'runs/ioffe2015/figure1')


class CommandTest(absltest.TestCase):
  def test_one(self):
    exit_code, out, _ = commanded.run('configs', 'quickstart')
    name, title, line, *_ = out.splitlines()
    self.assertEqual((exit_code, name), (0, 'quickstart'))
    self.assertStartsWith(title, '  Trains VGG-11 without and with')
    # Digits are there, so that the time is a number.
    self.assertRegex(line, r'^ +3 runs x 1 seed x 250 steps +\d+ (s|min|h)$')

  def test_a_folder(self):
    exit_code, out, _ = commanded.run('configs', 'curvature/')
    names = [line for line in out.split('\n\n')[0].splitlines() if '/' in line]
    self.assertEqual(exit_code, 0)
    expected = [n for n in shipped.names() if n.startswith('curvature/')]
    self.assertEqual([n for n in names if n[0] != ' '], expected)

  def test_a_wrong_name(self):
    exit_code, out, said = commanded.run('configs', 'curvatur')
    self.assertEqual((exit_code, out), (2, ''))
    self.assertIn("unknown config 'curvatur'; did you mean 'curvature'", said)


if __name__ == '__main__':
  absltest.main()
