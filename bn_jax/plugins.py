"""Loads what users write: a reference, 'my_module:make', names its attribute.

The module lies beside the config file, or is installed. From beside the config
it is loaded by its own path: a user's `random.py` hides no module of that name
from others. What it imports from its folder is found behind all that is
installed. No bytecode is written.

Two folders may have a module of one name. Modules of a folder are kept together
and are in `sys.modules` while theirs was the last that was loaded.
"""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import logging
import os
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bn_jax import checks, errors

_REFERENCE = re.compile(
  r'(?!folder:)([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)'
)
_SHORT = 12  # characters of a digest in a message
_log = logging.getLogger('bn_jax')

# Module -> {'file': its path, 'digest': SHA-256 of what was read}.
Files = Mapping[str, Mapping[str, str]]


class _Folder(NamedTuple):
  """Modules of one folder that were loaded together.

  Attributes:
    root: the folder.
    files: module -> file and digest, of all that were loaded.
    closures: module of a reference -> it and the neighbours that it imports.
    loaded: name in `sys.modules` -> module.
  """

  root: pathlib.Path
  files: dict[str, Mapping[str, str]]
  closures: dict[str, Files]
  loaded: dict[str, types.ModuleType]


@dataclasses.dataclass
class _State:
  """What this process has loaded.

  Attributes:
    beside: the folder of the config file that was read last.
    bound: of each `bound` that is entered, its files; the innermost last.
    folders: all that were loaded, also of files that have changed since.
    active: the folder whose modules are in `sys.modules`.
    in_path: whether its root was put into `sys.path` for that.
    installed: module -> file and digest, of those that are installed.
    told: warnings that were given.
  """

  beside: pathlib.Path | None = None
  bound: list[Files] = dataclasses.field(default_factory=list)
  folders: list[_Folder] = dataclasses.field(default_factory=list)
  active: _Folder | None = None
  in_path: bool = False
  installed: dict[str, Mapping[str, str]] = dataclasses.field(
    default_factory=dict
  )
  told: set[str] = dataclasses.field(default_factory=set)


_state = _State()


def is_reference(name: Any) -> bool:
  """Returns whether a name is of the form 'my_package.my_module:make'."""
  return isinstance(name, str) and _REFERENCE.fullmatch(name) is not None


def search(folder: str | pathlib.Path) -> None:
  """Makes modules of a folder, that of the config file, found before others."""
  _state.beside = pathlib.Path(os.path.abspath(folder))


@contextlib.contextmanager
def bound(modules: Files) -> Iterator[None]:
  """Loads modules from the files that a manifest or a run's config names.

  A file that has changed since is loaded, and a warning says so.

  Args:
    modules: what `files` returned then.
  """
  _state.bound.append(modules)
  try:
    yield
  finally:
    _state.bound.pop()


def load(reference: str) -> Any:
  """Returns what a reference names.

  Raises:
    ConfigError: there is no such module or attribute, or the module fails.
  """
  module_name, name = _REFERENCE.fullmatch(reference).groups()
  module, _ = _loaded(module_name)
  try:
    return getattr(module, name)
  except AttributeError:
    names = [other for other in vars(module) if not other.startswith('_')]
    message = errors.unknown('name', name, names, see='the file')
    raise errors.ConfigError(
      f'{_shown(module.__file__)} has it not: {message}'
    ) from None


def files(names: Iterable[Any]) -> dict[str, dict[str, str]]:
  """Returns the modules of references, with the neighbours that they import.

  Args:
    names: those that are no references are left out.

  Returns:
    module -> {'file': path, 'digest': SHA-256 of its bytes}, for `bound`.
  """
  modules = {}
  for name in filter(is_reference, names):
    modules |= _loaded(name.partition(':')[0])[1]
  return {module: dict(entry) for module, entry in sorted(modules.items())}


def changes(old: Files, new: Files) -> list[str]:
  """Returns a sentence for each module whose file is another than it was."""
  return [
    f'{_shown(new[module]["file"])} has changed: its SHA-256 was '
    f'{old[module]["digest"][:_SHORT]}..., is '
    f'{new[module]["digest"][:_SHORT]}...'
    for module in sorted(old.keys() & new.keys())
    if old[module]['digest'] != new[module]['digest']
  ]


def takes(function: Callable[..., Any], keyword: str) -> bool:
  """Returns whether a function has a keyword, or takes any."""
  parameters = inspect.signature(function).parameters
  return keyword in parameters or any(
    parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
  )


def made(
  reference: str,
  keywords: Mapping[str, Any],
  is_right: Callable[[Any], bool],
  returns: str,
  *,
  optional: Iterable[str] = (),
) -> Any:
  """Returns what the function of a reference makes, if it is of the right kind.

  Args:
    keywords: of the function.
    is_right: whether a result is of that kind.
    returns: what is, in words.
    optional: keywords that are left out for a function that lacks them.

  Raises:
    ConfigError: there is no such function.
    ValueError: it fails, or returns another kind.
  """
  function = constructor(reference)
  absent = {name for name in optional if not takes(function, name)}
  result = call(
    reference,
    function,
    **{name: x for name, x in keywords.items() if name not in absent},
  )
  if not is_right(result):
    raise ValueError(
      f'{reference} returned {checks.shown(result)}; it must return {returns}'
    )
  return result


def constructor(reference: str) -> Callable[..., Any]:
  """Returns the function, or class, that a reference names.

  Raises:
    ConfigError: see `load`; or it is no function.
  """
  function = load(reference)
  if not callable(function):
    raise errors.ConfigError(
      f'{reference} is {checks.shown(function)}; give the name of a function'
    )
  return function


def call(
  reference: str, function: Any, *arguments: Any, **keywords: Any
) -> Any:
  """Returns what a user's function returns.

  Raises:
    ValueError: it fails; the line names its file and line.
    Failure, Refused: as the function raises them.
  """
  try:
    return function(*arguments, **keywords)
  except (errors.Failure, checks.Refused):
    raise
  except Exception as error:
    raise ValueError(f'{reference}: {described(error)}') from error


def described(error: BaseException) -> str:
  """Returns an error in one line, after the last line of users that led there.

  See `place`.
  """
  where = place(error)
  text = f'{type(error).__name__}: {errors.first_line(error)}'
  return f'{where}: {text}' if where else text


def place(error: BaseException) -> str | None:
  """Returns FILE:LINE, the last place in a user's file; None if there is none.

  The files are those that were loaded.
  """
  known = {entry['file'] for entry in _state.installed.values()}
  for folder in _state.folders:
    known |= {entry['file'] for entry in folder.files.values()}
  if isinstance(error, SyntaxError) and error.filename in known:
    return f'{_shown(error.filename)}:{error.lineno}'
  lines = [
    f'{_shown(frame.filename)}:{frame.lineno}'
    for frame in traceback.extract_tb(error.__traceback__)
    if frame.filename in known
  ]
  return lines[-1] if lines else None


def _loaded(name: str) -> tuple[types.ModuleType, Files]:
  """Returns a module, and the files of it and its neighbours."""
  pins = _state.bound[-1] if _state.bound else {}
  if name in pins:
    if pins[name] == _state.installed.get(name):
      return _import_installed(name)
    for folder in _state.folders:
      closure = folder.closures.get(name)
      if closure and all(pins.get(one) == closure[one] for one in closure):
        _activate(folder)
        return folder.loaded[_alias(name, folder.root)], closure
  file = _pinned_file(name, pins)
  for folder in (_state.beside, *_folders(pins)):
    file = file or _file_in(folder, name)
  if file is None or 'site-packages' in file.parts:
    return _import_installed(name)
  root = file.parents[name.count('.') + (file.name == '__init__.py')]
  if _state.active is None or _state.active.root != root:
    _activate(None)  # modules of another folder would be taken for installed
  closure = _closure(name, file, root)
  folder = _folder(root, closure)
  _activate(folder)
  if name not in folder.closures:
    folder.files.update(closure)
    _execute(name, file, folder)
    folder.closures[name] = closure
    folder.loaded.update(_present(folder))
  for sentence in changes(pins, closure):
    if sentence not in _state.told:
      _state.told.add(sentence)
      _log.warning('%s; the new one is used', sentence)
  return folder.loaded[_alias(name, root)], closure


def _folders(pins: Files) -> list[pathlib.Path]:
  """Returns the folders of modules: that of the config is among them."""
  folders = [pathlib.Path(entry['file']).parent for entry in pins.values()]
  return list(dict.fromkeys(folders))


def _pinned_file(name: str, pins: Files) -> pathlib.Path | None:
  """Returns the file that a manifest names; None where it names none.

  One that is gone may lie beside the config or in the current folder: a working
  directory is read on another machine, say.
  """
  if name not in pins:
    return None
  file = pathlib.Path(pins[name]['file'])
  candidates = (_state.beside, pathlib.Path.cwd())
  others = [other for folder in candidates if (other := _file_in(folder, name))]
  if file.is_file():
    return file
  if others:
    return others[0]
  raise errors.ConfigError(
    f'{file}, the module {name} of the run, is gone; put it back, or start the '
    'command in the folder that has it'
  )


def _file_in(folder: pathlib.Path | None, name: str) -> pathlib.Path | None:
  """Returns the file of a module below a folder, or None."""
  if folder is None:
    return None
  *above, last = name.split('.')
  stem = folder.joinpath(*above, last)
  for file in (stem / '__init__.py', stem.with_name(f'{last}.py')):
    if file.is_file():
      return file
  return None


def _import_installed(name: str) -> tuple[types.ModuleType, Files]:
  try:
    module = importlib.import_module(name)
  except (Exception, SystemExit) as error:
    is_absent = isinstance(error, ModuleNotFoundError) and (
      f'{name}.'.startswith(f'{error.name}.')
    )
    if is_absent:
      raise errors.ConfigError(_absent(name)) from None
    raise errors.ConfigError(
      f'module {name} fails: {_first_place(error)}: {type(error).__name__}: '
      f'{errors.first_line(error)}'
    ) from error
  if name not in _state.installed:
    file = getattr(module, '__file__', None)
    if file is None:
      raise errors.ConfigError(f'{name} is no module with a file')
    _state.installed[name] = _entry(pathlib.Path(file))
  return module, {name: _state.installed[name]}


def _first_place(error: BaseException) -> str:
  """Returns FILE:LINE of the installed module whose import failed."""
  if isinstance(error, SyntaxError):
    return f'{error.filename}:{error.lineno}'
  places = [
    f'{frame.filename}:{frame.lineno}'
    for frame in traceback.extract_tb(error.__traceback__)
    if 'importlib' not in frame.filename and frame.filename != __file__
  ]
  return places[0] if places else 'its import'


def _absent(name: str) -> str:
  """Returns the message for a module that is not found."""
  where, near = 'installed', []
  if _state.beside is not None:
    where = f'in {_shown(_state.beside)} or installed'
    near = [file.stem for file in _state.beside.glob('*.py')]
    near += [file.parent.name for file in _state.beside.glob('*/__init__.py')]
  if name.endswith('.py'):
    return f'no module {name!r}; give it without .py'
  message = errors.unknown('module', name, near, see='there')
  hint = message.partition('; ')[2] if near else ''
  hint = f'; {hint}' if hint.startswith('did') else ''
  return f'no module {name!r} is {where}{hint}'


def _entry(file: pathlib.Path) -> dict[str, str]:
  digest = hashlib.sha256(file.read_bytes()).hexdigest()
  return {'file': str(file), 'digest': digest}


def _closure(name: str, file: pathlib.Path, root: pathlib.Path) -> Files:
  """Returns the files of a module and of the neighbours that it imports.

  They are read from the `import` statements, those inside functions too.
  """
  closure, left = {}, [(name, file)]
  while left:
    module, path = left.pop()
    if module in closure:
      continue
    closure[module] = _entry(path)
    package = (
      module if path.name == '__init__.py' else module.rpartition('.')[0]
    )
    for imported in _imports(path.read_bytes(), package):
      if (other := _file_in(root, imported)) and not _is_taken(imported, root):
        left.append((imported, other))
  return closure


@functools.lru_cache(1000)
def _imports(source: bytes, package: str) -> tuple[str, ...]:
  """Returns the names that may be modules, with the packages above them."""
  try:
    tree = ast.parse(source)
  except (SyntaxError, ValueError):  # which running it will tell
    return ()
  names = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      above = package.split('.')[: len(package.split('.')) - node.level + 1]
      parts = [*(above if node.level else ()), *(node.module or '').split('.')]
      base = '.'.join(filter(None, parts))
      names += [base, *(f'{base}.{alias.name}' for alias in node.names)]
  return tuple(
    '.'.join(parts[: k + 1])
    for name in names
    if name and name.partition('.')[0] != 'bn_jax'
    for parts in [name.strip('.').split('.')]
    for k in range(len(parts))
  )


def _is_taken(name: str, root: pathlib.Path) -> bool:
  """Returns whether the first part of a name is a module of another place."""
  top = name.partition('.')[0]
  if top in sys.stdlib_module_names:
    return True
  try:
    spec = importlib.util.find_spec(top)
  except (ImportError, ValueError):
    return False
  if spec is None:
    return False
  places = spec.submodule_search_locations or [spec.origin or '']
  return not any(pathlib.Path(one).is_relative_to(root) for one in places)


def _alias(name: str, root: pathlib.Path) -> str:
  """Returns the name of a reference's module in `sys.modules`."""
  return f'bn_jax_user_{name}' if _is_taken(name, root) else name


def _folder(root: pathlib.Path, closure: Files) -> _Folder:
  """Returns the folder that has these files, or none of them yet."""
  for folder in reversed(_state.folders):
    if folder.root == root and all(
      closure[module] == folder.files[module]
      for module in closure.keys() & folder.files.keys()
    ):
      return folder
  _state.folders.append(_Folder(root, {}, {}, {}))
  return _state.folders[-1]


def _activate(folder: _Folder | None) -> None:
  """Puts the modules of a folder into `sys.modules`, those of others out."""
  old = _state.active
  if old is folder:
    return
  if old is not None:
    old.loaded.update(_present(old))
    for name in old.loaded:
      sys.modules.pop(name, None)
    if _state.in_path and str(old.root) in sys.path:
      sys.path.remove(str(old.root))
  if folder is not None:
    sys.modules.update(folder.loaded)
    _state.in_path = str(folder.root) not in sys.path
    if _state.in_path:
      sys.path.append(str(folder.root))
  importlib.invalidate_caches()
  _state.active = folder


def _present(folder: _Folder) -> dict[str, types.ModuleType]:
  """Returns what `sys.modules` has of a folder, its own files alone."""
  return {
    name: sys.modules[name]
    for name, entry in folder.files.items()
    if getattr(sys.modules.get(name), '__file__', None) == entry['file']
  }


def _execute(name: str, file: pathlib.Path, folder: _Folder) -> None:
  """Runs a module of a folder; it is in `sys.modules` afterwards.

  Raises:
    ConfigError: it fails.
  """
  alias = _alias(name, folder.root)
  writes_nothing = sys.dont_write_bytecode
  sys.dont_write_bytecode = True
  try:
    if '.' in name:  # its packages come first
      module = importlib.import_module(name)
      if module.__file__ != str(file):
        raise ImportError(
          f'{module.__file__} has that name too; rename the package'
        )
    else:
      spec = importlib.util.spec_from_file_location(alias, file)
      module = sys.modules[alias] = importlib.util.module_from_spec(spec)
      # Bytecode that lies there may be of another text of the same second.
      code = compile(file.read_bytes(), str(file), 'exec', dont_inherit=True)
      exec(code, module.__dict__)
    folder.loaded[alias] = module
  except (Exception, SystemExit) as error:
    text = described(error)
    _activate(None)
    sys.modules.pop(alias, None)
    _state.folders.remove(folder)  # the next try begins anew
    raise errors.ConfigError(f'module {name} fails: {text}') from error
  finally:
    sys.dont_write_bytecode = writes_nothing


def _shown(path: Any) -> str:
  """Returns a path as a message shows it, from the current folder if below."""
  path = pathlib.Path(path)
  here = pathlib.Path.cwd()
  return str(path.relative_to(here) if path.is_relative_to(here) else path)
