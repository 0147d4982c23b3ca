"""Reads which files of its folder a module imports, and their digests."""

import ast
import functools
import hashlib
import importlib.util
import pathlib
import sys
from collections.abc import Mapping

# Module -> {'file': its path, 'digest': SHA-256 of what was read}.
Files = Mapping[str, Mapping[str, str]]


def file_in(folder: pathlib.Path | None, name: str) -> pathlib.Path | None:
  """Returns the file of a module below a folder, or None."""
  if folder is None:
    return None
  *above, last = name.split('.')
  stem = folder.joinpath(*above, last)
  for file in (stem / '__init__.py', stem.with_name(f'{last}.py')):
    if file.is_file():
      return file
  return None


def entry(file: pathlib.Path) -> dict[str, str]:
  """Returns what `Files` have of a file."""
  digest = hashlib.sha256(file.read_bytes()).hexdigest()
  return {'file': str(file), 'digest': digest}


def closure(name: str, file: pathlib.Path, root: pathlib.Path) -> Files:
  """Returns the files of a module and of the neighbours that it imports.

  They are read from the `import` statements, those inside functions too.
  """
  files, left = {}, [(name, file)]
  while left:
    module, path = left.pop()
    if module in files:
      continue
    files[module] = entry(path)
    is_package = path.name == '__init__.py'
    package = module if is_package else module.rpartition('.')[0]
    for imported in _imports(path.read_bytes(), package):
      if (other := file_in(root, imported)) and not is_taken(imported, root):
        left.append((imported, other))
  return files


@functools.lru_cache(1000)
def _imports(source: bytes, package: str) -> tuple[str, ...]:
  """Returns the names that may be modules, with the packages above them."""
  try:
    tree = ast.parse(source)
  except (
    SyntaxError,
    ValueError,
    MemoryError,
    RecursionError,
  ):  # which running it will tell
    return ()
  names = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      above = package.split('.')[: len(package.split('.')) - node.level + 1]
      parts = [*(above if node.level else ()), node.module or '']
      base = '.'.join(filter(None, parts))
      names += [base, *(f'{base}.{alias.name}' for alias in node.names)]
  return tuple(
    '.'.join(parts[: k + 1])
    for parts in (name.strip('.').split('.') for name in names)
    if parts[0] not in ('', 'bn_jax')
    for k in range(len(parts))
  )


def is_taken(name: str, root: pathlib.Path) -> bool:
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
