"""What README and documentation show is run: Python, flags, links."""

import contextlib
import inspect
import io
import pathlib
import re
import shlex
import tempfile

import jax
import pytest
import yaml
from absl.testing import absltest, parameterized

from bn_jax import __main__, analysis
from bn_jax.config import flags, resolve
from docs.hooks import files, sources
from tests.fixtures import commanded, pages, strict


def setUpModule():
  # Numbers hang little on optimization, compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


# Its files and commands are run by extending_test.py.
_APART = strict.ROOT / 'docs' / 'extending.md'
# Each of its sections runs by itself after the set-up before the first.
_BY_SECTION = strict.ROOT / 'docs' / 'curvature.md'
# They train, which takes some twenty seconds each.
_TRAIN = (
  strict.ROOT / 'docs/tutorials/own_network.md',
  strict.ROOT / 'docs/tutorials/study.md',
)
_MAKE = re.compile(r'make( \w+)+')
# Of a study's working directory, in which nothing was judged, launched or sent.
_ELSEWHERE = [
  'verdicts.json', 'papers/', 'launch/', 'RUN/seedK/sinks/NAME.json',
  'RUN/seedK/analysis/NAME/arrays/NAME-STEP.npz',
  'RUN/seedK/analysis/NAME/partial/STEP/',
]  # fmt: skip


def parts(page):
  """A page, or its set-up and then its sections, where each runs by itself."""
  text = page.read_text()
  return re.split('^### ', text, flags=re.M) if page == _BY_SECTION else [text]


class RunTest(parameterized.TestCase):
  """The blocks of a page one after the other, as a reader types them."""

  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder).resolve()

  @parameterized.parameters(
    page
    for page in pages.ALL
    if page not in (_APART, *_TRAIN)
    and any(
      block.language == 'python' for block in pages.blocks(page.read_text())
    )
  )
  def test_a_page(self, page):
    set_up, *sections = parts(page)
    names = pages.run(set_up, self.folder, {})
    for section in sections:
      with self.subTest(section.split('\n')[0]):
        pages.run(section, self.folder, names)

  @parameterized.parameters(*_TRAIN)
  @pytest.mark.slow
  def test_a_tutorial(self, page):
    pages.run(page.read_text(), self.folder, {})
    unseen = self.not_there(self.folder)
    if page.stem == 'study':
      self.assertEqual(unseen, _ELSEWHERE)

  def not_there(self, folder):
    """What the page of all files has and the folder lacks; it has no other."""
    (workdir,) = (path.parent for path in folder.glob('runs/*/experiment.json'))
    everything = [file.path.removeprefix('WORKDIR/') for file in files.listed()]
    listed = [  # without folders of which all files are listed
      path
      for path in everything
      if not any(each != path and each.startswith(path) for each in everything)
    ]
    fits = {
      path: re.compile(
        re.sub('RUN|NAME|STEP|K', r'[\\w.-]+', re.escape(path))
        + ('.*' if path.endswith('/') else '$')
      )
      for path in listed
    }
    seen = set()
    for file in filter(pathlib.Path.is_file, workdir.rglob('*')):
      name = f'{file.relative_to(workdir)}'
      named = {path for path in listed if fits[path].match(name)}
      self.assertNotEmpty(named, f'{name} is on no page')
      seen |= named
    return [path for path in listed if path not in seen]


def anchors(page):
  """The anchors of a page's headings, as GitHub and the site make them."""
  text = re.sub(r'^```.*?^```$', '', page.read_text(), flags=re.M | re.S)
  found = set()
  for heading in re.findall('^#+ (.*)$', text, re.M):
    found.add(
      re.sub(r'[^\w\- ]', '', heading.lower()).strip().replace(' ', '-')
    )
  return found


class ReadmeTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder).resolve()

  def test_every_block_is_run_or_says_why_not(self):
    """What it says is a reason; what others' commands do nobody can tell."""
    for page in pages.ALL:
      for block in pages.blocks(page.read_text()):
        with self.subTest(f'{page.name}: {block.text.splitlines()[0]}'):
          self.assertIn(block.language, ('python', 'sh', 'json', ''))
          if block.mark == 'not run':
            self.assertGreater(len(block.why.split()), 2, 'why is it not run?')
          elif block.language == 'sh':
            for line in pages.lines(block.text):
              known = pages.command(line) is not None
              self.assertTrue(known or self.is_target(line), line)

  def is_target(self, line):
    """Whether a line is a call of make with a target that there is."""
    makefile = (strict.ROOT / 'Makefile').read_text()
    match = _MAKE.match(line)
    return match and all(
      re.search(f'^{target}:', makefile, re.M)
      for target in match[0].split()[1:]
    )

  def test_its_commands_are_understood(self):
    """Each is read as it stands; where it names a config, that too."""
    commands, read = {}, set()
    with contextlib.chdir(strict.ROOT):
      for page, words in pages.shown():
        if page == _APART:
          continue
        words = pages.placed(words, page, self.folder)
        with self.subTest(f'{page.name}: {shlex.join(words)}'):
          if len(words) == 1:  # in a sentence, a command is named alone
            self.assertIn(words[0], __main__.COMMANDS)
            continue
          given = __main__.parser(words).parse_args(words)
          commands[words[0]] = commands.get(words[0], 0) + 1
          if words[0] == 'launch' and '...' not in words:
            flags.train(['train.py', *given.rest])
          elif 'config' in given and given.config != 'FILE':
            key = tuple(word for word in words if '--config' in word)
            if key in read:  # with other flags of the command
              continue
            read.add(key)
            config, overrides = flags.read(given)
            resolve.experiment(config.to_dict(), overrides)
    self.assertContainsSubset(__main__.COMMANDS, commands)
    self.assertGreater(commands['train'], 60)

  def test_its_analyses_are_understood(self):
    """Each `analyze`, up to the run, which is not there."""
    commands = [
      words
      for page, words in pages.shown()
      if 'analyze' in words and page != _APART
    ]
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
    for page in pages.ALL:
      for anchor in re.findall(r'\]\(#(.*?)\)', page.read_text()):
        self.assertIn(anchor, anchors(page), page)
      for link, anchor in sources.links(page.read_text()):
        target = (page.parent / link).resolve()
        self.assertTrue(target.exists(), f'{page}: {link}')
        if anchor and target.suffix == '.md':
          self.assertIn(anchor[1:], anchors(target), f'{page}: {link}')

  def test_the_forms_of_issues_can_be_filled_in(self):
    """What GitHub asks of a form; it leaves one out that lacks it."""
    forms = sorted(strict.ROOT.glob('.github/ISSUE_TEMPLATE/*.yml'))
    self.assertLen(forms, 3)
    for form in forms:
      content = yaml.safe_load(form.read_text())
      self.assertContainsSubset(('name', 'description', 'body'), content)
      ids = [field['id'] for field in content['body']]
      self.assertLen(set(ids), len(ids), form)
      for field in content['body']:
        self.assertIn(field['type'], ('input', 'textarea', 'dropdown'))
        self.assertTrue(field['attributes']['label'], form)
        has_options = bool(field['attributes'].get('options'))
        self.assertEqual(field['type'] == 'dropdown', has_options, form)
      for words in pages.spoken(form.read_text()):
        code, said, _ = commanded.run(*words)
        self.assertEqual(code, 0, words)
        self.assertStartsWith(said, 'bn_jax', words)

  def test_no_path_of_a_machine(self):
    for page in pages.ALL:
      for line in page.read_text().split('\n'):
        self.assertNotRegex(line, r'(^|[\s(`])/(home|root|work|tmp)/')


if __name__ == '__main__':
  absltest.main()
