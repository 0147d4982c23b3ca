"""Modules of users: found beside the config, kept apart, named in one line."""

import contextlib
import importlib
import os
import pathlib
import random
import sys
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from bn_jax import errors, modules, plugins
from tests.fixtures import strict  # noqa: F401


class ReferenceTest(parameterized.TestCase):
  @parameterized.parameters('my_module:make', 'a.b_2.c:Make', '_x:_y')
  def test_a_reference(self, name):
    self.assertTrue(plugins.is_reference(name))

  @parameterized.parameters(
    'batch', 'folder:images', 'folder:my_module', 'cifar10:3.0.2', 'a/b:make',
    'my_module:', ':make', 'my module:make', 'a..b:make', 'C:\\data', 'a:b:c',
    3, None, '',
  )  # fmt: skip
  def test_none(self, name):
    self.assertFalse(plugins.is_reference(name))


class Case(parameterized.TestCase):
  """A folder of a user, in which a config would lie."""

  def setUp(self):
    super().setUp()
    self.folder = self.new_folder()
    modules.search(self.folder)

  def new_folder(self):
    place = self.enterContext(tempfile.TemporaryDirectory())
    return pathlib.Path(place).resolve()

  def write(self, name, text, folder=None):
    file = (folder or self.folder) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file

  def refusal(self, reference):
    with self.assertRaises(errors.ConfigError) as raised:
      plugins.load(reference)
    text = str(raised.exception)
    self.assertNotIn('\n', text)
    return text


class LoadTest(Case):
  def test_a_module_beside_the_config(self):
    file = self.write('my_module.py', 'VALUE = 3\n')
    self.assertEqual(plugins.load('my_module:VALUE'), 3)
    (entry,) = plugins.files(['my_module:VALUE', 'batch', None]).values()
    self.assertEqual(entry['file'], str(file))
    self.assertLen(entry['digest'], 64)

  def test_it_is_loaded_once(self):
    self.write('my_module.py', 'VALUE = object()\n')
    self.assertIs(
      plugins.load('my_module:VALUE'), plugins.load('my_module:VALUE')
    )

  def test_nothing_is_written_beside_it(self):
    self.write('my_module.py', 'import neighbour\nVALUE = 3\n')
    self.write('neighbour.py', '')
    plugins.load('my_module:VALUE')
    names = sorted(os.listdir(self.folder))
    self.assertEqual(names, ['my_module.py', 'neighbour.py'])

  def test_a_change_is_loaded_and_seen(self):
    self.write('my_module.py', 'VALUE = 3\n')
    self.assertEqual(plugins.load('my_module:VALUE'), 3)
    old = plugins.files(['my_module:VALUE'])
    self.write('my_module.py', 'VALUE = 4\n')
    self.assertEqual(plugins.load('my_module:VALUE'), 4)
    (line,) = modules.changes(old, plugins.files(['my_module:VALUE']))
    self.assertRegex(line, 'my_module.py has changed: .*was [0-9a-f]{12}')

  def test_a_change_of_a_neighbour_is_loaded_and_seen(self):
    self.write('my_module.py', 'from neighbour import VALUE\n')
    self.write('neighbour.py', 'from pack.deep import VALUE\n')
    self.write('pack/__init__.py', '')
    self.write('pack/deep.py', 'VALUE = 3\n')
    self.assertEqual(plugins.load('my_module:VALUE'), 3)
    old = plugins.files(['my_module:VALUE'])
    self.assertEqual(list(old), ['my_module', 'neighbour', 'pack', 'pack.deep'])
    self.write('pack/deep.py', 'VALUE = 4\n')
    self.assertEqual(plugins.load('my_module:VALUE'), 4)
    (line,) = modules.changes(old, plugins.files(['my_module:VALUE']))
    self.assertIn('deep.py has changed', line)

  def test_two_modules_share_their_neighbour(self):
    for name in ('one', 'other'):
      self.write(f'{name}.py', 'from neighbour import VALUE\n')
    self.write('neighbour.py', 'VALUE = object()\n')
    self.assertIs(plugins.load('one:VALUE'), plugins.load('other:VALUE'))

  def test_two_folders_have_modules_of_one_name(self):
    other = self.new_folder()
    for folder, value in ((self.folder, 3), (other, 4)):
      self.write('my_module.py', 'from neighbour import VALUE\n', folder)
      self.write('neighbour.py', f'VALUE = {value}\n', folder)
    for folder, value in ((self.folder, 3), (other, 4), (self.folder, 3)):
      modules.search(folder)
      self.assertEqual(plugins.load('my_module:VALUE'), value)
      self.assertEqual(importlib.import_module('neighbour').VALUE, value)

  @parameterized.parameters('', None)
  def test_one_imports_no_neighbour_of_the_current_folder(self, entry):
    """Where Python looks first: a program that runs there, PYTHONPATH."""
    other = self.new_folder()
    for folder, value in ((self.folder, 3), (other, 4)):
      self.write('my_module.py', 'from neighbour import VALUE\n', folder)
      self.write('neighbour.py', f'VALUE = {value}\n', folder)
    before = [str(other) if entry is None else entry, *sys.path]
    self.enterContext(mock.patch.object(sys, 'path', list(before)))
    self.enterContext(contextlib.chdir(other))
    self.assertEqual(plugins.load('my_module:VALUE'), 3)
    self.assertEqual(
      list(plugins.files(['my_module:VALUE'])), ['my_module', 'neighbour']
    )
    (self.folder / 'my_module.py').unlink()
    self.assertEqual(plugins.load('my_module:VALUE'), 4)
    modules._activate(None)
    self.assertEqual(sys.path, before)

  def test_a_neighbour_is_one_module(self):
    self.write('my_module.py', 'import neighbour\nMADE = neighbour.Made\n')
    self.write('neighbour.py', 'class Made: pass\n')
    made = plugins.load('my_module:MADE')
    self.assertIs(plugins.load('neighbour:Made'), made)

  @parameterized.parameters('random', 'optax')
  def test_a_name_that_is_taken_hides_nothing(self, name):
    before = importlib.import_module(name)
    self.write(f'{name}.py', 'VALUE = 3\n')
    self.assertEqual(plugins.load(f'{name}:VALUE'), 3)
    self.assertIs(importlib.import_module(name), before)
    self.assertIs(sys.modules['random'], random)

  def test_a_neighbour_hides_nothing_that_is_installed(self):
    self.write('my_module.py', 'import fractions\nVALUE = fractions.Fraction')
    self.write('fractions.py', '')
    plugins.load('my_module:VALUE')
    self.assertEqual(list(plugins.files(['my_module:VALUE'])), ['my_module'])

  def test_a_module_in_a_package(self):
    self.write('my_package/__init__.py', '')
    self.write('my_package/part.py', 'from . import other\nVALUE = other.VALUE')
    self.write('my_package/other.py', 'VALUE = 3\n')
    self.assertEqual(plugins.load('my_package.part:VALUE'), 3)
    self.assertEqual(
      list(plugins.files(['my_package.part:VALUE'])),
      ['my_package', 'my_package.other', 'my_package.part'],
    )

  def test_an_installed_module(self):
    self.assertIs(plugins.load('random:Random'), random.Random)
    files = plugins.files(['random:Random'])
    self.assertEqual(files['random']['file'], random.__file__)
    with modules.bound(files):
      self.assertIs(plugins.load('random:Random'), random.Random)

  def test_dataclasses_find_their_module(self):
    text = (
      'from __future__ import annotations\nimport dataclasses\n'
      '@dataclasses.dataclass\nclass Made:\n  x: int\n'
    )
    self.write('my_module.py', text)
    self.assertEqual(plugins.load('my_module:Made')(x=1).x, 1)


class BoundTest(Case):
  """The file that a manifest names, in whatever folder one is."""

  def setUp(self):
    super().setUp()
    self.file = self.write('my_module.py', 'VALUE = 3\n')
    self.files = plugins.files(['my_module:VALUE'])
    self.other = self.new_folder()
    self.write('my_module.py', 'VALUE = 4\n', self.other)
    modules.search(self.other)

  def test_is_loaded(self):
    self.assertEqual(plugins.load('my_module:VALUE'), 4)
    with modules.bound(self.files):
      self.assertEqual(plugins.load('my_module:VALUE'), 3)
      self.assertEqual(plugins.files(['my_module:VALUE']), self.files)
    self.assertEqual(plugins.load('my_module:VALUE'), 4)

  def test_what_was_loaded_stays_while_its_file_is_edited(self):
    self.file.write_text('VALUE = 5\n')
    with modules.bound(self.files), self.assertNoLogs('bn_jax'):
      self.assertEqual(plugins.load('my_module:VALUE'), 3)

  def test_a_changed_file_is_said_once(self):
    files = {'my_module': {'file': str(self.file), 'digest': 'a' * 64}}
    with modules.bound(files), self.assertLogs('bn_jax') as log:
      for _ in range(2):
        self.assertEqual(plugins.load('my_module:VALUE'), 3)
    (line,) = log.output
    self.assertIn(
      f'{self.file} has changed: its SHA-256 was aaaaaaaaaaaa', line
    )

  def test_a_file_that_is_gone_is_looked_for(self):
    files = {'my_module': {**self.files['my_module'], 'file': '/gone.py'}}
    with modules.bound(files):
      with self.assertLogs('bn_jax'):
        self.assertEqual(plugins.load('my_module:VALUE'), 4)
      (self.other / 'my_module.py').unlink()
      self.assertIn(
        '/gone.py, the module my_module of the run, is gone',
        self.refusal('my_module:VALUE'),
      )


class RefusalTest(Case):
  def test_no_module(self):
    self.write('my_module.py', '')
    text = self.refusal('my_modul:make')
    self.assertIn(
      f"no module 'my_modul' is in {self.folder} or installed", text
    )
    self.assertIn("did you mean 'my_module'?", text)
    self.assertIn('without .py', self.refusal('my_module.py:make'))

  def test_no_attribute(self):
    self.write('my_module.py', 'def make(): pass\n')
    text = self.refusal('my_module:mak')
    self.assertIn("unknown name 'mak'; did you mean 'make'?", text)
    self.assertIn('my_module.py', text)

  @parameterized.named_parameters(
    ('an error', 'x = 1\nx.y\n', "my_module.py:2: AttributeError: 'int' obj"),
    ('syntax', 'x = 1\ny = (\n', 'my_module.py:2: SyntaxError'),
    (
      'an import',
      '\nimport no_such_module\n',
      'my_module.py:2: ModuleNotFound',
    ),
    ('an exit', 'raise SystemExit(3)\n', 'my_module.py:1: SystemExit: 3'),
    ('a neighbour', 'import neighbour\n', 'neighbour.py:1: KeyError'),
  )
  def test_a_module_that_fails(self, text, said):
    file = self.write('my_module.py', text)
    self.write('neighbour.py', '{}[0]\n')
    for _ in range(2):
      self.assertIn(said, self.refusal('my_module:make'))
    self.assertNoCommonElements(('my_module', 'neighbour'), sys.modules)
    file.write_text('make = 3\n')
    self.assertEqual(plugins.load('my_module:make'), 3)

  def test_an_installed_module_that_fails(self):
    installed = self.new_folder()
    file = self.write('site-packages/its_own.py', '\n{}[0]\n', installed)
    sys.path.append(str(file.parent))
    self.addCleanup(sys.path.remove, str(file.parent))
    self.assertIn(f'{file}:2: KeyError', self.refusal('its_own:make'))

  def test_a_call_that_fails(self):
    self.write('my_module.py', 'def make(x):\n  return {}[x]\n')
    make = plugins.load('my_module:make')
    with self.assertRaises(ValueError) as raised:
      plugins.call('my_module:make', make, 0)
    self.assertRegex(
      str(raised.exception), r'my_module:make: \S*my_module.py:2: KeyError: 0'
    )


if __name__ == '__main__':
  absltest.main()
