"""What the README shows is run: its Python, its flags, its links."""

import contextlib
import inspect
import io
import pathlib
import re
import shlex
import tempfile

import jax
from absl.testing import absltest

from bn_jax import __main__, analysis
from bn_jax.config import build, files, flags, resolve
from tests.fixtures import strict


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


# Its files and commands are run by extending_test.py.
_APART = strict.ROOT / 'docs' / 'extending.md'
# Each of its sections runs by itself after the set-up before the first.
_BY_SECTION = strict.ROOT / 'docs' / 'curvature.md'
_PAGES = [strict.ROOT / 'README.md', *sorted(strict.ROOT.glob('docs/**/*.md'))]


def blocks(text, language):
  return re.findall(rf'^```{language}\n(.*?)^```$', text, re.M | re.S)


def parts(page):
  """A page, or its set-up and then its sections, where each runs by itself."""
  text = page.read_text()
  return re.split('^### ', text, flags=re.M) if page == _BY_SECTION else [text]


def shown_commands():
  """(page, words) of each command line of the pages and of the configs.

  They stand in blocks, in the text, and in the docstrings of configs.
  """
  for page in (*_PAGES, *sorted(strict.ROOT.glob('configs/**/*.py'))):
    if page == _APART:
      continue
    text = re.sub(r'\\+\n\s*', '', page.read_text())
    lines = [line for block in blocks(text, 'sh') for line in block.split('\n')]
    text = re.sub(r'^```.*?^```$', '', text, flags=re.M | re.S)
    if page.suffix == '.py':
      lines += text.split('\n')
    else:
      lines += [
        ' '.join(span.split()) for span in re.findall('`([^`]*)`', text)
      ]
    for line in lines:
      match = re.search(
        r'(?:python (train\.py|-m bn_jax)|^(bn_jax)(?= [a-z]))(?: ([^#|`]*))?',
        line,
      )
      if match:
        words = shlex.split(match[3] or '')
        yield page, ['train', *words] if match[1] == 'train.py' else words


def is_the_readers(config, page):
  """Whether a config is none of ours: FILE, or one that a page shows."""
  return config == 'FILE' or f'\n# {config}\n' in page.read_text()


def check_file(name, code):
  """A config that a reader saves under this name resolves, and has a step."""
  with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    pathlib.Path(name).write_text(code)
    config = files.load(name).to_dict()
    for run in resolve.experiment(config, {}).runs.values():
      problem = build.problem(run)
      state = jax.eval_shape(problem.init, 0)
      split = build.source(run).shapes(run.batch_size)
      assert jax.eval_shape(problem.step, state, split) == state


class ReadmeTest(absltest.TestCase):
  def test_its_python_runs(self):
    """The blocks of a part one after the other, as a reader types them."""
    shown = 0
    for page in set(_PAGES) - {_APART}:
      set_up = {'__name__': 'readme'}
      for i, part in enumerate(parts(page)):
        names = set_up if i == 0 else dict(set_up)
        for code in blocks(part, 'python'):
          shown += 1
          with self.subTest(f'{page.name}: {code.splitlines()[0]}'):
            if file := re.match(r'# (\w+\.py)\n', code):
              check_file(file[1], code)
              continue
            exec(compile(code, page.name, 'exec'), names)
            if 'get_config' in names:
              resolve.experiment(names.pop('get_config')().to_dict(), {})
    self.assertGreater(shown, 5)

  def test_its_commands_are_understood(self):
    """Each is read as it stands; where it names a config, that too."""
    commands = {}
    with contextlib.chdir(strict.ROOT):
      for page, words in shown_commands():
        with self.subTest(f'{page.name}: {shlex.join(words)}'):
          if len(words) == 1:  # in a sentence, a command is named alone
            self.assertIn(words[0], __main__.COMMANDS)
            continue
          given = __main__.parser(words).parse_args(words)
          commands[words[0]] = commands.get(words[0], 0) + 1
          if words[0] == 'launch' and '...' not in words:
            flags.train(['train.py', *given.rest])
          elif 'config' in given and not is_the_readers(given.config, page):
            config, overrides = flags.read(given)
            resolve.experiment(config.to_dict(), overrides)
    self.assertContainsSubset(__main__.COMMANDS, commands)
    self.assertGreater(commands['train'], 60)

  def test_its_analyses_are_understood(self):
    """Each `analyze`, up to the run, which is not there."""
    commands = [words for _, words in shown_commands() if 'analyze' in words]
    self.assertGreater(len(commands), 3)
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
      for words in commands:
        wrong = io.StringIO()
        if len(words) > 1:
          with self.subTest(words), contextlib.redirect_stderr(wrong):
            self.assertEqual(__main__.main(['bn_jax', *words]), 2)
          self.assertIn('holds no run', wrong.getvalue(), words)

  def test_keys_of_measures_are_explained(self):
    """One of two pages has a table for each, with all keys and defaults."""
    text = ''.join(
      (strict.ROOT / 'docs' / page).read_text()
      for page in ('analysis.md', 'curvature.md')
    )
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
