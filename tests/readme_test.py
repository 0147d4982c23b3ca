"""What the README shows is run: its Python, its flags, its links."""

import contextlib
import inspect
import io
import pathlib
import re
import tempfile

import jax
from absl.testing import absltest

from bn_jax import __main__, analysis
from bn_jax.config import flags, resolve
from tests.fixtures import strict


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


_PAGES = [strict.ROOT / 'README.md', *sorted(strict.ROOT.glob('docs/**/*.md'))]


def blocks(text, language):
  return re.findall(rf'^```{language}\n(.*?)^```$', text, re.M | re.S)


def commands_of(program):
  """The words after `python` of each command of a program, comments aside."""
  found = []
  for page in _PAGES:
    for block in blocks(page.read_text(), 'sh'):
      joined = re.sub(r'\\\n\s*', '', block)
      found += re.findall(rf'^python ({program} [^#\n]*)', joined, re.M)
  return found


class ReadmeTest(absltest.TestCase):
  def test_its_python_runs(self):
    """The blocks of a page one after the other, as a reader types them."""
    shown = 0
    for page in _PAGES:
      names = {'__name__': 'readme'}
      for code in blocks(page.read_text(), 'python'):
        shown += 1
        with self.subTest(f'{page.name}: {code.splitlines()[0]}'):
          exec(compile(code, page.name, 'exec'), names)
          if 'get_config' in names:
            resolve.experiment(names.pop('get_config')().to_dict(), {})
    self.assertGreater(shown, 5)

  def test_its_commands_are_understood(self):
    """Every `python train.py` is parsed as it stands, comments aside."""
    commands = commands_of(r'train\.py')
    self.assertNotEmpty(commands)
    with contextlib.chdir(strict.ROOT):
      for command in commands:
        with self.subTest(command):
          given = flags.train(command.split())
          resolve.experiment(given.config.to_dict(), given.overrides)

  def test_its_analyses_are_understood(self):
    """Each `python -m bn_jax analyze`, up to the run, which is not there."""
    commands = commands_of('-m bn_jax analyze')
    self.assertNotEmpty(commands)
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
      for command in commands:
        said = io.StringIO()
        with self.subTest(command), contextlib.redirect_stderr(said):
          words = command.split()[1:]  # without -m
          self.assertEqual(__main__.main(words), 2)
        self.assertIn('holds no run', said.getvalue(), command)

  def test_keys_of_measures_are_explained(self):
    """docs/analysis.md has a table for each, with all keys and defaults."""
    text = (strict.ROOT / 'docs' / 'analysis.md').read_text()
    for name, factory in analysis.MEASURES.items():
      with self.subTest(name):
        (part,) = re.findall(
          rf'^`{name}`: .*?(?=^`|^## |\Z)', text, re.M | re.S
        )
        keys = {
          key: default
          for words, default in re.findall(
            r'^\| (`.*?`) \| (.*?) ?\|', part, re.M
          )
          for key in re.findall(r'\w+', words)
        }
        known = inspect.signature(factory).parameters
        self.assertEqual(set(keys), set(known))
        for key, default in keys.items():
          if default.startswith('`'):
            self.assertEqual(default, f'`{known[key].default!r}`', key)

  def test_its_links_lead_somewhere(self):
    for page in _PAGES:
      links = re.findall(r'\]\(([^)#]+)[^)]*\)', page.read_text())
      for link in links:
        if not link.startswith('https://'):
          self.assertTrue((page.parent / link).exists(), f'{page}: {link}')

  def test_no_path_of_a_machine(self):
    for page in _PAGES:
      for line in pathlib.Path(page).read_text().split('\n'):
        self.assertNotRegex(line, r'(^|[\s(`])/(home|root|work|tmp)/')


if __name__ == '__main__':
  absltest.main()
