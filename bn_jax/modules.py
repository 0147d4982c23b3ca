"""Loads modules of users from their files, and tells which these were.

A module lies beside the config file, in another folder that Python is told of,
or among what is installed. One that is not installed is loaded by its own path,
so that a user's `random.py` hides no module of that name from others. What it
imports from its folder is found behind all that is installed. No bytecode is
written.

Two folders may have modules of one name. Those of a folder are kept together;
they are in `sys.modules` while one of them was the last that was loaded.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import logging
import os
import pathlib
import sys
import sysconfig
import traceback
import types
from collections.abc import Iterator, Mapping

from bn_jax import errors, neighbours
from bn_jax.neighbours import Files

_INSTALLED = {'site-packages', 'dist-packages'}  # folders of libraries
_log = logging.getLogger('bn_jax')


@dataclasses.dataclass(eq=False)
class _Folder:
  """Modules of one folder that were loaded together.

  Attributes:
    root: the folder.
    files: of all that were loaded.
    closures: module that was asked for -> the files of it and its neighbours.
    modules: module that was asked for -> what it is.
    loaded: name in `sys.modules` -> module.
  """

  root: pathlib.Path
  files: dict[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
  closures: dict[str, Files] = dataclasses.field(default_factory=dict)
  modules: dict[str, types.ModuleType] = dataclasses.field(default_factory=dict)
  loaded: dict[str, types.ModuleType] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _State:
  """What this process has loaded.

  Attributes:
    beside: the folder of the config file that was read last.
    bound: the files of each `bound` that is entered, the innermost last.
    folders: all that were loaded, also of files that have changed since.
    active: the folder whose modules are in `sys.modules`.
    path: `sys.path` before that, and with it.
    installed: module -> its file, of those that are installed.
    told: warnings that were given.
  """

  beside: pathlib.Path | None = None
  bound: list[Files] = dataclasses.field(default_factory=list)
  folders: list[_Folder] = dataclasses.field(default_factory=list)
  active: _Folder | None = None
  path: tuple[list[str], list[str]] = ([], [])
  installed: dict[str, Mapping[str, str]] = dataclasses.field(
    default_factory=dict
  )
  told: set[str] = dataclasses.field(default_factory=set)


_state = _State()


def search(folder: str | pathlib.Path) -> None:
  """Makes modules of a folder, that of the config file, found before others."""
  _state.beside = pathlib.Path(os.path.abspath(folder))


@contextlib.contextmanager
def beside(file: pathlib.Path) -> Iterator[None]:
  """Finds the modules beside a file, a config, for what runs in it.

  Raises:
    OSError: the file, or one that it imports, cannot be read.
  """
  file = pathlib.Path(os.path.abspath(file))
  outside = _state.active
  _activate(_Folder(file.parent))  # so that its neighbours are found
  try:
    closure = neighbours.closure(file.stem, file, file.parent)
    folder = _matching(file.parent, closure)
    folder.files.update(closure)
    _activate(folder)
    with _without_bytecode():
      yield
  finally:
    _activate(outside)


@contextlib.contextmanager
def bound(modules: Files) -> Iterator[None]:
  """Loads modules from the files that a manifest or a run's config names.

  What this process has of the same content is taken as it is. Of a file that
  has changed the new content is loaded, and a warning says so.
  """
  _state.bound.append(modules)
  try:
    yield
  finally:
    _state.bound.pop()


def load(name: str) -> tuple[types.ModuleType, Files]:
  """Returns a module, and the files of it and of the neighbours it imports.

  Raises:
    ConfigError: there is none, its file is gone, or it fails.
  """
  pins = _state.bound[-1] if _state.bound else {}
  for folder in _state.folders if name in pins else ():
    closure = folder.closures.get(name)
    if closure and all(pins.get(one) == closure[one] for one in closure):
      _activate(folder)
      return folder.modules[name], closure
  _activate(None)  # modules of another folder would be taken for installed
  file = _find(name, pins)
  if file is None or _is_foreign(name, file):
    module, closure = _installed(name)
  else:
    module, closure = _of_folder(name, file)
  for sentence in changes(pins, closure):
    if sentence not in _state.told:
      _state.told.add(sentence)
      _log.warning('%s; the new one is used', sentence)
  return module, closure


def changes(old: Files, new: Files) -> list[str]:
  """Returns a sentence for each module whose file is another than it was."""
  return [
    f'{shown(new[module]["file"])} has changed: its '
    f'{errors.digests(old[module]["digest"], new[module]["digest"])}'
    for module in sorted(old.keys() & new.keys())
    if old[module]['digest'] != new[module]['digest']
  ]


def described(error: BaseException) -> str:
  """Returns an error in one line, after the `place` that led there."""
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
  places = [
    place for place in _places(error) if place.rpartition(':')[0] in known
  ]
  return shown(places[-1]) if places else None


def shown(path: str | pathlib.Path) -> str:
  """Returns a path as a message shows it, from the current folder if below."""
  path = pathlib.Path(path)
  here = pathlib.Path.cwd()
  return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _places(error: BaseException) -> list[str]:
  """Returns FILE:LINE of each call that led to an error."""
  places = [
    f'{frame.filename}:{frame.lineno}'
    for frame in traceback.extract_tb(error.__traceback__)
    if 'importlib' not in frame.filename and frame.filename != __file__
  ]
  if isinstance(error, SyntaxError):
    places.append(f'{error.filename}:{error.lineno}')
  return places


def _find(name: str, pins: Files) -> pathlib.Path | None:
  """Returns the file of a module that is not installed; None for others.

  One of a manifest that is gone may lie beside the config or in the current
  folder: a working directory is read on another machine, say.
  """
  pinned = pathlib.Path(pins[name]['file']) if name in pins else None
  if pinned is not None and pinned.is_file():
    return pinned
  folders = [_state.beside, pathlib.Path.cwd()] if pinned else [_state.beside]
  # That of the config is among them.
  folders += [pathlib.Path(entry['file']).parent for entry in pins.values()]
  folders += [
    pathlib.Path(entry or '.').absolute()
    for entry in sys.path
    if not _is_library(entry)
  ]
  for folder in dict.fromkeys(folders):
    if file := neighbours.file_in(folder, name):
      return file
  if pinned is None or _is_library(pinned):
    return None
  raise errors.ConfigError(
    f'{pinned}, the module {name} of the run, is gone; put it back, or start '
    'the command in the folder that has it'
  )


def _is_library(path: str | pathlib.Path) -> bool:
  """Returns whether a file or folder is Python's own, or was installed."""
  path = pathlib.Path(path or '.').absolute()
  return not _INSTALLED.isdisjoint(path.parts) or any(
    path.is_relative_to(sysconfig.get_path(name))
    for name in ('stdlib', 'platstdlib')
  )


def _is_foreign(name: str, file: pathlib.Path) -> bool:
  """Returns whether a program has imported this file by itself."""
  return _is_library(file) or (
    getattr(sys.modules.get(name), '__file__', None) == str(file)
  )


def _installed(name: str) -> tuple[types.ModuleType, Files]:
  """Imports a module as Python does, and returns it with its own file."""
  try:
    module = importlib.import_module(name)
  except (Exception, SystemExit) as error:
    is_absent = isinstance(error, ModuleNotFoundError) and (
      f'{name}.'.startswith(f'{error.name}.')
    )
    if is_absent:
      raise errors.ConfigError(_absent(name)) from None
    where = ''.join(f'{place}: ' for place in _places(error)[:1])
    raise errors.ConfigError(
      f'module {name} fails: {where}{described(error)}'
    ) from error
  file = getattr(module, '__file__', None)
  if file is None:
    raise errors.ConfigError(f'{name} is no module with a file')
  _state.installed[name] = neighbours.entry(pathlib.Path(file))
  return module, {name: _state.installed[name]}


def _absent(name: str) -> str:
  """Returns the message for a module that is not found."""
  if name.endswith('.py'):
    return f'no module {name!r}; give it without .py'
  if _state.beside is None:
    return f'no module {name!r} is installed'
  near = [file.stem for file in _state.beside.glob('*.py')]
  near += [file.parent.name for file in _state.beside.glob('*/__init__.py')]
  hint = errors.unknown('module', name, near, see='there').partition('; ')[2]
  hint = f'; {hint}' if hint.startswith('did') else ''
  return f'no module {name!r} is in {shown(_state.beside)} or installed{hint}'


def _of_folder(name: str, file: pathlib.Path) -> tuple[types.ModuleType, Files]:
  """Returns a module of a folder; it is run if it is new, or has changed."""
  root = file.parents[name.count('.') + (file.name == '__init__.py')]
  _activate(_Folder(root))  # so that its neighbours are found
  closure = neighbours.closure(name, file, root)
  _activate(_matching(root, closure))
  folder = _state.active
  if name not in folder.modules:
    before = set(sys.modules)
    folder.files.update(closure)
    folder.modules[name] = _executed(name, file, folder)
    folder.closures[name] = closure
    # What was there before belongs to the program.
    folder.loaded.update(
      (one, sys.modules[one])
      for one in set(sys.modules) - before
      if _is_of(sys.modules[one], folder)
    )
  return folder.modules[name], closure


def _is_of(module: types.ModuleType, folder: _Folder) -> bool:
  """Returns whether a module was loaded from a file of a folder."""
  own_files = {entry['file'] for entry in folder.files.values()}
  return getattr(module, '__file__', None) in own_files


def _matching(root: pathlib.Path, closure: Files) -> _Folder:
  """Returns the folder that has these files, or none of them yet."""
  for folder in reversed(_state.folders):
    if folder.root == root and all(
      closure[module] == folder.files[module]
      for module in closure.keys() & folder.files.keys()
    ):
      return folder
  _state.folders.append(_Folder(root))
  return _state.folders[-1]


def _activate(folder: _Folder | None) -> None:
  """Puts the modules of a folder into `sys.modules`, those of others out.

  Its root is looked through behind what is installed and before other folders,
  of which the current one is the first that Python looks through.
  """
  old, (before, during) = _state.active, _state.path
  if old is folder:
    return
  if old is not None:
    for name, module in list(sys.modules.items()):
      if name in old.files and _is_of(module, old):
        old.loaded.setdefault(name, module)
    for name in old.loaded:
      sys.modules.pop(name, None)
    if sys.path == during:
      sys.path[:] = before
  _state.active = folder
  if folder is not None:
    sys.modules.update(folder.loaded)
    before, root = list(sys.path), str(folder.root)
    others = [p for p in before if not _is_library(p) and p != root]
    sys.path[:] = [*filter(_is_library, before), root, *others]
    _state.path = (before, list(sys.path))
  importlib.invalidate_caches()


def _executed(
  name: str, file: pathlib.Path, folder: _Folder
) -> types.ModuleType:
  """Runs a module of a folder; it is in `sys.modules` afterwards.

  Raises:
    ConfigError: it fails.
  """
  is_taken = neighbours.is_taken(name, folder.root)
  alias = f'bn_jax_user_{name}' if is_taken else name
  neighbour = sys.modules.get(alias)
  if neighbour is not None and _is_of(neighbour, folder):
    return neighbour  # another one has imported it
  try:
    with _without_bytecode():
      module = _run(name, alias, file)
  except (Exception, SystemExit) as error:
    text = described(error)
    _activate(None)
    sys.modules.pop(alias, None)
    _state.folders.remove(folder)  # the next try begins anew
    raise errors.ConfigError(f'module {name} fails: {text}') from error
  folder.loaded[alias] = module
  return module


def _run(name: str, alias: str, file: pathlib.Path) -> types.ModuleType:
  if '.' in name:  # its packages come first
    module = importlib.import_module(name)
    if module.__file__ != str(file):
      raise ImportError(
        f'{module.__file__} has that name too; rename the package'
      )
    return module
  spec = importlib.util.spec_from_file_location(alias, file)
  module = sys.modules[alias] = importlib.util.module_from_spec(spec)
  # Bytecode that lies there may be of another text of the same second.
  code = compile(file.read_bytes(), str(file), 'exec', dont_inherit=True)
  exec(code, module.__dict__)
  return module


@contextlib.contextmanager
def _without_bytecode() -> Iterator[None]:
  writes_nothing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
  try:
    yield
  finally:
    sys.dont_write_bytecode = writes_nothing
