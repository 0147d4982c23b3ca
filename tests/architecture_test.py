"""Who may import whom: one order of packages, read from the source.

A package imports lower floors and itself, nothing else; some see even less.
"""

import ast
import subprocess
import sys

from absl.testing import absltest, parameterized

from tests.fixtures import strict

# The floors, the lowest first. The words, single files, are one package here.
WORDS = (
  'checks', 'distributions', 'errors', 'keys', 'losses', 'modules',
  'neighbours', 'optim', 'placement', 'plugins', 'spectra', 'trees', 'types',
)  # fmt: skip
FLOORS = (
  ('words',),
  ('norms', 'data', 'storage'),
  ('models', 'analysis'),
  ('training', 'host', 'report'),
  ('config',),
  ('experiment',),
  ('trained', 'launch'),
  ('papers',),
  ('commands',),
  ('__main__',),
  ('bn_jax',),  # its __init__.py
)
# Those that see less than all lower floors.
SEES = {
  'analysis': ('words',),
  'models': ('words', 'norms'),
  'training': ('words', 'storage'),
  'host': ('words', 'storage'),
  'report': ('words', 'storage'),
}
SEEN_BY = {'report': ('papers', 'commands', 'bn_jax')}
# The same inside the two largest; what is not named stands above them all.
INSIDE = {
  'report': ('results', 'claims', 'drawing', 'figures'),
  'data': ('disk', 'batches'),
}
_JAX = ('jax', 'flax', 'optax', 'orbax', 'chex')
_DRAWING = ('matplotlib',)
_FILES = ('pathlib', 'os', 'io', 'logging', 'json', 'shutil')
# Packages outside bn_jax that a package, or a word, must not import.
_PURE = ('norms', 'models', 'analysis', 'training')
_NOT_OUTSIDE = {
  **dict.fromkeys((*WORDS, *_PURE), (*_DRAWING, *_FILES)),
  'checks': (*_DRAWING, *_FILES, *_JAX),
  'errors': (*_DRAWING, *_FILES, *_JAX),
  'distributions': (*_DRAWING, *_FILES, *_JAX),
  'spectra': (*_DRAWING, *_FILES, *_JAX),
  # They are there to open files.
  **dict.fromkeys(('modules', 'neighbours'), (*_DRAWING, *_JAX)),
  'plugins': (*_DRAWING, *_FILES, *_JAX),
  'report': _JAX,
}
# Who opens files and watches processes waits for no JAX where it need not.
_WITHOUT_JAX = (
  'storage.records', 'host.watch', 'host.cluster', 'config.flags',
)  # fmt: skip
# They take from a quarter of a second on; a start waits for none of them.
_LATE = ('scipy', 'pandas', 'tensorflow', 'tensorflow_datasets', 'submitit')
_LIST = ('defaults.py', 'get_config')  # all keys, one after the other
_LONGEST = 80  # lines of a function, its docstring among them
# A ConfigDict is known where command lines are, and where an experiment begins.
_KNOW_CONFIGS = ('config', 'commands', 'experiment', 'trained')


def imports(file, anywhere=True):
  """Every module that a file imports, anywhere in it or as it is imported."""
  tree = ast.parse(file.read_text())
  for node in ast.walk(tree) if anywhere else tree.body:
    if isinstance(node, ast.Import):
      yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{file}: a relative import'
      yield node.module
      yield from (f'{node.module}.{name.name}' for name in node.names)


def sources(folder='bn_jax'):
  return sorted((strict.ROOT / folder).glob('**/*.py'))


def parts_of(file):
  """('storage', 'records') of a file; () of the package itself."""
  parts = file.relative_to(strict.ROOT / 'bn_jax').with_suffix('').parts
  return parts[:-1] if parts[-1] == '__init__' else parts


def package_of(parts):
  """The package of the order that a module belongs to."""
  if not parts:
    return 'bn_jax'
  return 'words' if parts[0] in WORDS else parts[0]


def known_modules():
  return {parts_of(file): file for file in sources()}


def arrows():
  """(importing module, imported module) of bn_jax, each as its parts."""
  known = known_modules()
  for parts, file in known.items():
    imported = {tuple(name.split('.')[1:]) for name in imports(file)} - {()}
    modules = imported & set(known)
    # `from bn_jax.data import images` is about the module, not its package.
    packages = {one[:-1] for one in modules}
    yield from ((parts, one) for one in sorted(modules - packages))


def defined_in(file):
  """The names that a file defines or imports, at its top."""
  for node in ast.parse(file.read_text()).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      yield node.name
    for inner in ast.walk(node):
      if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
        yield inner.id
      elif isinstance(inner, ast.alias):
        yield (inner.asname or inner.name).partition('.')[0]


def names_of_words(tree):
  """(word, name) of each `word.name` of a file that imports the word."""
  words = {
    alias.name
    for node in ast.walk(tree)
    if isinstance(node, ast.ImportFrom) and node.module == 'bn_jax'
    for alias in node.names
    if alias.name in WORDS and not alias.asname
  }
  for node in ast.walk(tree):
    value = getattr(node, 'value', None)
    is_attribute = isinstance(node, ast.Attribute)
    if is_attribute and isinstance(value, ast.Name) and value.id in words:
      yield value.id, node.attr


def why_not(package, other, floors=FLOORS):
  """Why a package may not import another one; None where it may."""
  if package == other:
    return None
  floor = {name: k for k, names in enumerate(floors) for name in names}
  if floor[other] >= floor[package]:
    return f'{other} is no lower floor than {package}'
  if other not in SEES.get(package, (other,)):
    return f'{package} sees {SEES[package]} alone'
  if package not in SEEN_BY.get(other, (package,)):
    return f'{other} is seen by {SEEN_BY[other]} alone'
  return None


class ImportsTest(parameterized.TestCase):
  def test_every_module_has_a_floor(self):
    packages = {package_of(parts) for parts in known_modules()}
    self.assertEqual(packages, {name for names in FLOORS for name in names})

  def test_a_package_imports_lower_floors_and_itself(self):
    for importing, imported in arrows():
      reason = why_not(package_of(importing), package_of(imported))
      self.assertIsNone(reason, f'{importing} imports {imported}')

  def test_the_words_have_the_names_that_are_used(self):
    has = {
      word: set(defined_in(strict.ROOT / 'bn_jax' / f'{word}.py'))
      for word in WORDS
      if word != 'optim'  # a package
    }
    for file in (*sources(), *sources('tests'), *sources('examples')):
      for word, name in names_of_words(ast.parse(file.read_text())):
        self.assertIn(name, has.get(word, (name,)), f'{file}: {word}.{name}')

  def test_an_upward_arrow_is_seen(self):
    for package, other in (
      ('storage', 'norms'), ('training', 'config'), ('config', 'experiment'),
      ('models', 'data'), ('experiment', 'report'), ('host', 'training'),
    ):  # fmt: skip
      self.assertIsNotNone(why_not(package, other), (package, other))

  @parameterized.parameters(*INSIDE)
  def test_the_rooms_of_a_package_have_an_order_too(self, package):
    rooms = INSIDE[package]
    floors = (*((room,) for room in rooms), ('above',))

    def room(parts):
      return parts[1] if parts[1] in rooms else 'above'

    seen = 0
    for importing, imported in arrows():
      if all(parts[:1] == (package,) and parts[1:] for parts in (
        importing, imported,
      )):  # fmt: skip
        seen += 1
        reason = why_not(room(importing), room(imported), floors)
        self.assertIsNone(reason, f'{importing} imports {imported}')
    self.assertGreater(seen, 10)

  def test_no_module_imports_itself_over_others(self):
    above = {}
    for importing, imported in arrows():
      above.setdefault(importing, set()).add(imported)
    done, path = set(), []

    def follow(module):
      self.assertNotIn(module, path, 'a circle')
      if module in done:
        return
      path.append(module)
      for other in above.get(module, ()):
        follow(other)
      done.add(path.pop())

    for module in known_modules():
      follow(module)

  def test_imports_nothing_from_outside_that_it_must_not(self):
    for parts, file in known_modules().items():
      forbidden = _NOT_OUTSIDE.get(parts[0] if parts else '', ())
      if '.'.join(parts) in _WITHOUT_JAX:
        forbidden = (*forbidden, *_JAX)
      if package_of(parts) != 'report':
        forbidden = (*forbidden, *_DRAWING)
      for imported in imports(file):
        self.assertNotIn(imported.split('.')[0], forbidden, file)
    names = {'.'.join(parts) for parts in known_modules()}
    self.assertContainsSubset({*_NOT_OUTSIDE, *_WITHOUT_JAX}, names)

  def test_what_imports_slowly_is_imported_late(self):
    """In a function; `builders` is a file that is itself imported in one."""
    for parts, file in known_modules().items():
      if parts != ('data', 'disk', 'builders'):
        for imported in imports(file, anywhere=False):
          self.assertNotIn(imported.split('.')[0], _LATE, file)

  def test_configs_are_known_to_few(self):
    for parts, file in known_modules().items():
      if 'ml_collections' in {i.split('.')[0] for i in imports(file)}:
        self.assertIn(package_of(parts), _KNOW_CONFIGS, file)

  def test_nothing_falls_back_silently_in_a_config(self):
    for file in sources():
      for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and len(node.args) == 2:
          called = ast.unparse(node.func)
          if called.endswith('.get') and '{' not in called:
            self.assertIn(called, _MAY_FALL_BACK, file)

  def test_the_package_itself_imports_nothing(self):
    """But what `load`, `frame` and `plot` need, once they are called."""
    file = strict.ROOT / 'bn_jax' / '__init__.py'
    own = {name for name in imports(file) if name.startswith('bn_jax')}
    late = (
      'bn_jax.trained.load', 'bn_jax.report.results.flat', 'bn_jax.report.plot'
    )  # fmt: skip
    self.assertEqual(own, {*late, *(name.rpartition('.')[0] for name in late)})
    for node in ast.parse(file.read_text()).body:
      self.assertNotIn('bn_jax', getattr(node, 'module', None) or '')
    done = self.imported('bn_jax')
    self.assertEqual(done, {'bn_jax'})

  def imported(self, module):
    """Modules of bn_jax, JAX among them, that an import takes."""
    code = (
      f'import {module}, sys\n'
      'print(*{name for name in sys.modules if name.partition(".")[0] in '
      f'{("bn_jax", *_JAX)}}})'
    )
    done = subprocess.run(
      [sys.executable, '-c', code],
      cwd=strict.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())

  def test_no_function_is_longer_than_two_screens(self):
    for file in sources():
      for node in ast.walk(ast.parse(file.read_text())):
        is_list = (file.name, getattr(node, 'name', '')) == _LIST
        if isinstance(node, ast.FunctionDef) and not is_list:
          lines = node.end_lineno - node.lineno + 1
          self.assertLessEqual(lines, _LONGEST, f'{file}: {node.name}')

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
  'cells.get',  # a column that a row of a table lacks
)  # fmt: skip


_HIDE = """
import sys
class Hidden:
  hidden = {!r}
  def find_spec(self, name, path=None, target=None):
    if any(name == one or name.startswith(one + '.') for one in self.hidden):
      raise ModuleNotFoundError(name + ' is hidden')
sys.meta_path.insert(0, Hidden())
"""


class WithoutTest(parameterized.TestCase):
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
      'from bn_jax.experiment import experiment\n'
      'from bn_jax.data import reading\n'
      'from bn_jax.data.batches import streamed\n'
      'from bn_jax.data.disk import builders\n'
    )
    done = self.runs(code, ('tensorflow', 'torch'))
    self.assertEqual(done.returncode, 0, done.stderr)

  @parameterized.parameters(True, False)
  def test_each_module_can_be_imported_alone(self, with_jax):
    """Each of a package, what its package must not see hidden."""
    rooms = [name for names in FLOORS[:-1] for name in names]
    kinds = []
    for package in rooms:
      modules = [
        '.'.join(('bn_jax', *parts))
        for parts in sorted(known_modules())
        if package_of(parts) == package
      ]
      self.assertNotEmpty(modules)
      unseen = [name for name in rooms if why_not(package, name) is not None]
      if (package == 'report') != with_jax:
        kinds.append(([f'bn_jax.{name}' for name in unseen], modules))
    without = () if with_jax else (*_JAX, 'jaxlib')
    done = self.runs(_ALONE.format(kinds), without)
    self.assertEqual(done.returncode, 0, done.stderr)


# Between two packages everything of bn_jax is forgotten. Within one, what lies
# below stays: imports are explicit and in no circle, which tests above hold.
_ALONE = """
import importlib
always = Hidden.hidden
for unseen, modules in {!r}:
  Hidden.hidden = (*always, *unseen)
  for loaded in [m for m in sys.modules if m.split('.')[0] == 'bn_jax']:
    del sys.modules[loaded]
  for name in modules:
    importlib.import_module(name)
"""


if __name__ == '__main__':
  absltest.main()
