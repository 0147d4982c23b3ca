"""Who may import whom: the table of layers, read from the source.

Data flow one way: words -> parts -> problem -> rim -> time -> root; the report
stands at the side and sees records alone.
"""

import ast
import subprocess
import sys
from typing import NamedTuple

import strict
from absl.testing import absltest, parameterized

WORDS = ('types', 'trees', 'errors', 'distributions', 'spread', 'keys')
RIM = (
  'checkpoint', 'compilation', 'digests', 'divergence', 'journal', 'lock',
  'peers', 'processes', 'progress', 'records', 'runtime', 'space', 'stop',
  'tasks', 'tensorboard', 'tree_files',
)  # fmt: skip
PARTS = ('norms', 'models', 'optim', 'losses', 'data', 'analysis')
ROOT = (
  'assemble', 'commands', 'experiment', 'inherit', 'manifest', 'measures',
  'memory', 'outputs', 'resolve', 'sections', 'trained', 'trainer', '__main__',
)  # fmt: skip
_MIDDLE = (
  'problem', 'inside', 'update', 'parallel', 'flops', 'plan', 'loop'
)  # fmt: skip
_JAX = ('jax', 'flax', 'optax', 'orbax', 'chex')
_DRAWING = ('matplotlib',)


class Layer(NamedTuple):
  """What the modules of a layer may import of bn_jax, and not of others."""

  may: tuple[str, ...]
  not_outside: tuple[str, ...] = _DRAWING


_NO_FILES = (*_DRAWING, 'pathlib', 'os', 'io', 'logging', 'json', 'shutil')
_TABLE = {
  'types': Layer((), _NO_FILES),
  'trees': Layer((), _NO_FILES),
  'spread': Layer((), _NO_FILES),
  'keys': Layer(('types',), _NO_FILES),
  'errors': Layer((), (*_NO_FILES, *_JAX)),
  'distributions': Layer((), (*_NO_FILES, *_JAX)),
  **{part: Layer(WORDS, _NO_FILES) for part in PARTS},
  'analysis': Layer((*WORDS, 'losses'), _NO_FILES),
  'models': Layer((*WORDS, 'norms'), _NO_FILES),
  'data': Layer(WORDS),
  'parallel': Layer(WORDS, _NO_FILES),
  'flops': Layer((), _NO_FILES),
  'plan': Layer(('flops',), _NO_FILES),
  'update': Layer(WORDS, _NO_FILES),
  'inside': Layer(WORDS, _NO_FILES),
  'problem': Layer((*WORDS, 'inside', 'losses', 'update'), _NO_FILES),
  **{rim: Layer((*WORDS, 'records')) for rim in RIM},
  'checkpoint': Layer((*WORDS, 'digests', 'space', 'tree_files')),
  'processes': Layer((*WORDS, 'peers', 'runtime', 'tasks')),
  'runtime': Layer(('errors', 'tasks')),
  'peers': Layer(('errors',), (*_DRAWING, *_JAX)),
  'tasks': Layer(('errors',), (*_DRAWING, *_JAX)),
  'records': Layer(('errors',), (*_DRAWING, *_JAX)),
  'loop': Layer((*WORDS, *RIM), _NO_FILES),
  'report': Layer(('errors', 'records', 'distributions'), _JAX),
  **{
    root: Layer((*_ALL, 'report') if root == 'commands' else _ALL)
    for _ALL in ((*WORDS, *RIM, *PARTS, *ROOT, *_MIDDLE),)
    for root in ROOT
  },
}


def imports(file):
  """Every module that a file imports, anywhere in it."""
  for node in ast.walk(ast.parse(file.read_text())):
    if isinstance(node, ast.Import):
      yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{file}: a relative import'
      yield node.module
      yield from (f'{node.module}.{name.name}' for name in node.names)


def sources(folder='bn_jax'):
  return sorted((strict.ROOT / folder).glob('**/*.py'))


def module_of(file):
  """The word of the table that a file falls under."""
  parts = file.relative_to(strict.ROOT / 'bn_jax').parts
  return parts[0].removesuffix('.py')


class ImportsTest(parameterized.TestCase):
  def test_every_module_has_a_place_in_the_table(self):
    modules = {module_of(file) for file in sources()} - {'__init__'}
    self.assertEqual(modules, set(_TABLE))

  @parameterized.named_parameters((name, name) for name in sorted(_TABLE))
  def test_imports_only_what_its_layer_may(self, name):
    layer = _TABLE[name]
    files = [file for file in sources() if module_of(file) == name]
    self.assertNotEmpty(files)
    for file in files:
      for imported in imports(file):
        first, *rest = imported.split('.')
        self.assertNotIn(first, layer.not_outside, f'in {file}')
        if first == 'bn_jax' and rest:
          self.assertIn(rest[0], (*layer.may, name), f'in {file}')

  def test_configs_are_known_to_the_root_alone(self):
    allowed = {'experiment', 'commands'}
    for file in sources():
      if 'ml_collections' in {i.split('.')[0] for i in imports(file)}:
        self.assertIn(module_of(file), allowed, file)

  def test_nothing_falls_back_silently_in_a_config(self):
    for file in sources():
      for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and len(node.args) == 2:
          called = ast.unparse(node.func)
          if called.endswith('.get') and '{' not in called:
            self.assertIn(called, _MAY_FALL_BACK, file)

  def test_the_package_itself_imports_nothing(self):
    self.assertEqual((strict.ROOT / 'bn_jax' / '__init__.py').read_text(), '')

  def test_train_py_holds_no_logic(self):
    tree = ast.parse((strict.ROOT / 'train.py').read_text())
    kinds = {type(node) for node in tree.body[1:]}
    self.assertEqual(kinds, {ast.Import, ast.ImportFrom, ast.If})


# What may be absent, and then has a value that is no choice of a config.
_MAY_FALL_BACK = (
  'own.get', 'section.get',  # a keyword that this kind of measure lacks
  'tree.get',  # nothing lies at a path
  'new.get',  # a network without statistics
  'total.get', 'seed.arrays.get', 'seed.seconds.get',  # nothing recorded
)  # fmt: skip


_HIDE = """
import sys
class Hidden:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in {!r}:
      raise ModuleNotFoundError(name + ' is hidden')
sys.meta_path.insert(0, Hidden())
"""


class WithoutTest(absltest.TestCase):
  """Imported in a process of its own, with modules hidden from it."""

  def runs(self, code, hidden):
    return subprocess.run(
      [sys.executable, '-c', _HIDE.format(hidden) + code],
      cwd=strict.ROOT, capture_output=True, text=True,
    )  # fmt: skip

  def test_the_report_and_a_wrong_command_line_need_no_jax(self):
    code = (
      'from bn_jax.report import page\n'
      'from bn_jax.commands import train\n'
      'from bn_jax import __main__\n'
      "assert train.main(['train.py', '--config=none.py']) == 2"
    )
    done = self.runs(code, ('jax', 'jaxlib', 'flax', 'optax', 'tensorflow'))
    self.assertEqual(done.returncode, 0, done.stderr)

  def test_what_is_hidden_is_hidden(self):
    done = self.runs('import bn_jax.norms', ('jax',))
    self.assertIn('ModuleNotFoundError', done.stderr)

  def test_nothing_needs_tensorflow_or_torch(self):
    code = (
      'from bn_jax import experiment\n'
      'from bn_jax.data import digits, reading, streamed\n'
    )
    done = self.runs(code, ('tensorflow', 'torch'))
    self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == '__main__':
  absltest.main()
